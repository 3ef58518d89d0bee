package job

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/watershed-db/watershed/keyspace"
	"go.yaml.in/yaml/v3"
)

// Defaults, in milliseconds.
const (
	defaultRetention = int64(7 * 24 * 3600 * 1000)
	defaultMaxFuture = int64(3600 * 1000)
	defaultIdleAfter = int64(30 * 1000)
)

var (
	jobName    = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	topicName  = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	memberName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,62}$`)
)

// Parse reads and checks a job file. filename stands in front of every message and means nothing else. The error is an
// ErrorList: everything that is wrong, each with its line and column. src is kept.
func Parse(filename string, src []byte) (*Job, error) {
	p := &parser{reader: reader{file: filename}, job: &Job{File: src}}
	if len(src) > MaxFileBytes {
		p.failAt(1, 1, fmt.Sprintf("at most %d bytes", MaxFileBytes), "the file has %d bytes", len(src))
		return nil, p.errs
	}
	if root := p.document(bytes.TrimPrefix(src, []byte("\ufeff"))); root != nil {
		p.root(root)
	}
	if len(p.errs) > 0 {
		return nil, p.errs.sorted()
	}
	p.job.makeLabels()
	return p.job, nil
}

// parser fills a Job from the nodes of a file.
type parser struct {
	reader
	job   *Job
	start pair
	names map[string]taken // of key members, aggregates and derived values
}

// taken says what already bears a name.
type taken struct {
	what string
	line int
}

func (p *parser) root(root *yaml.Node) {
	m := p.fields(root, "the job", "name", "sources", "window", "allowed_lateness", "retention", "max_session", "start",
		"derive", "having", "emit", "side_outputs")
	if root.Kind != yaml.MappingNode {
		return
	}
	p.names = make(map[string]taken)
	const nameExpected = "a name of lower-case letters, digits and dashes, at most 63"
	if n, ok := p.need(root, m, "the job", "name", nameExpected); ok {
		if s, ok := p.text(n, "name", nameExpected); ok {
			if p.job.Name = s; !jobName.MatchString(s) {
				p.fail(n, nameExpected, "name is %q", shorten(s))
			}
		}
	}
	p.start = m["start"]
	p.checkStart(p.start)
	windowOK := false
	if n, ok := p.need(root, m, "the job", "window", windowExpected); ok {
		windowOK = p.window(n)
	}
	p.horizons(m, windowOK)
	if n, ok := p.need(root, m, "the job", "sources", "a list of sources"); ok {
		p.sources(n)
	}
	p.derive(m)
	if e := m["emit"]; e.given() {
		p.emit(e.value)
	}
	if s := m["side_outputs"]; s.given() {
		p.sideOutputs(s.value)
	}
}

// checkStart checks where a source begins: what is kept of its log, as far as it is done yet.
func (p *parser) checkStart(s pair) {
	const expected = "earliest"
	if !s.given() {
		return
	}
	if v, ok := p.text(s.value, "start", expected); ok && v != "earliest" {
		p.later(s.value, fmt.Sprintf("start: %s", shorten(v)), expected)
	}
}

const windowExpected = "one of {tumbling: 30s}, {hopping: 1m, every: 10s}, {session: 5m}, {global: true}"

func (p *parser) window(n *yaml.Node) bool {
	before := len(p.errs)
	m := p.fields(n, "window", "tumbling", "hopping", "every", "session", "global")
	if n.Kind != yaml.MappingNode {
		return false
	}
	w := &p.job.Window
	var kinds []string
	for _, k := range []string{"tumbling", "hopping", "session", "global"} {
		if m[k].given() {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) != 1 {
		if len(p.errs) == before {
			p.fail(n, windowExpected, "window has %d kinds%s", len(kinds), listed(kinds))
		}
		return false
	}
	kind := m[kinds[0]].value
	if every := m["every"]; every.given() && kinds[0] != "hopping" {
		p.fail(every.key, "every with hopping only", "a %s window has no \"every\"", kinds[0])
	}
	switch kinds[0] {
	case "tumbling":
		w.Kind = keyspace.Tumbling
		w.Size, _ = p.duration(kind, "window.tumbling", 1)
	case "session":
		w.Kind = keyspace.Session
		w.Size, _ = p.duration(kind, "window.session", 1)
	case "global":
		w.Kind = keyspace.Global
		if kind.Kind != yaml.ScalarNode || kind.ShortTag() != "!!bool" || !isTrue(kind) {
			p.fail(kind, "true", "window.global is %s", kindOf(kind))
		}
	case "hopping":
		p.hopping(n, kind, m["every"])
	}
	return len(p.errs) == before
}

func isTrue(n *yaml.Node) bool {
	var b bool
	return n.Decode(&b) == nil && b
}

func listed(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

func (p *parser) hopping(n, size *yaml.Node, every pair) {
	w := &p.job.Window
	w.Kind = keyspace.Hopping
	var ok, ok2 bool
	w.Size, ok = p.duration(size, "window.hopping", 1)
	if !every.given() {
		p.fail(n, "such as {hopping: 1m, every: 10s}", "a hopping window lacks \"every\"")
		return
	}
	w.Every, ok2 = p.duration(every.value, "window.every", 1)
	switch {
	case !ok || !ok2:
	case w.Size%w.Every != 0:
		p.fail(every.value, "a divisor of "+formatDuration(w.Size), "window.hopping %s is no multiple of every %s",
			formatDuration(w.Size), formatDuration(w.Every))
	case w.Size/w.Every > keyspace.MaxSlices:
		p.fail(every.value, fmt.Sprintf("at most %d slices", keyspace.MaxSlices), "a hopping window of %d slices", w.Size/w.Every)
	}
}

// horizons reads the durations that say how long state lives, and what they must keep among themselves.
func (p *parser) horizons(m map[string]pair, windowOK bool) {
	j := p.job
	ok := true
	if l := m["allowed_lateness"]; l.given() {
		j.Lateness, ok = p.duration(l.value, "allowed_lateness", 0)
	}
	j.Retention = defaultRetention
	retention := m["retention"]
	if retention.given() {
		var ok2 bool
		j.Retention, ok2 = p.duration(retention.value, "retention", 0)
		ok = ok && ok2
	}
	if ok && j.Retention < j.Lateness {
		at, what := retention.value, "retention"
		if !retention.given() {
			at, what = m["allowed_lateness"].value, "the default retention"
		}
		p.fail(at, "a retention of at least "+formatDuration(j.Lateness), "%s %s is less than allowed_lateness %s",
			what, formatDuration(j.Retention), formatDuration(j.Lateness))
	}
	j.MaxSession = j.Retention
	longest := m["max_session"]
	if !longest.given() {
		return
	}
	j.MaxSession, ok = p.duration(longest.value, "max_session", 1)
	switch {
	case !windowOK:
	case j.Window.Kind != keyspace.Session:
		p.fail(longest.key, "max_session with {session: ...} only", "the window has no \"max_session\"")
	case ok && j.MaxSession < j.Window.Size:
		p.fail(longest.value, "at least "+formatDuration(j.Window.Size), "max_session %s is less than the gap",
			formatDuration(j.MaxSession))
	}
}

// claim takes a name for a member of rows. It reports a malformed name, and one that is taken.
func (p *parser) claim(n *yaml.Node, what, name string, pattern *regexp.Regexp) bool {
	const expected = "a name of letters, digits, _, - and ., that begins with a letter or _, at most 63"
	if pattern != nil && !pattern.MatchString(name) {
		p.fail(n, expected, "the %s is named %q", what, shorten(name))
		return false
	}
	if t, ok := p.names[name]; ok {
		p.fail(n, "a name of its own for each key member, aggregate and derived value",
			"duplicate name %q of the %s, taken by the %s at line %d", name, what, t.what, t.line)
		return false
	}
	for _, reserved := range []string{"window_start", "window_end", "key", "revision", "complete", "retracted"} {
		if what != "key" && name == reserved {
			p.fail(n, "another name", "the %s is named %q, as a member of every row is", what, name)
			return false
		}
	}
	p.names[name] = taken{what, n.Line}
	return true
}

// derive reads derive and having, over the key's members, the aggregates, and the derived values before.
func (p *parser) derive(m map[string]pair) {
	s := &scope{what: "the row", types: make(map[string]typeSet), slots: make(map[string]int)}
	for _, name := range p.job.KeyNames {
		s.add(name, anyType)
	}
	for _, a := range p.job.Aggregates {
		s.add(a.Name, resultType(a.Op))
	}
	if len(p.job.Inputs) == 0 || len(p.job.Aggregates) == 0 {
		s.unknown = true // what went wrong there is told already
	}
	if d := m["derive"]; d.given() {
		for i, member := range p.pairs(d.value, "derive", `a mapping such as {ratio: "a / b"}`) {
			if i == MaxDerived {
				p.fail(member.key, "", "more than %d derived values", MaxDerived)
				break
			}
			name := member.key.Value
			claimed := p.claim(member.key, "derived value", name, memberName)
			prog, typ := p.expression(member.value, "derive."+name, s, anyType)
			if claimed {
				p.job.Derived = append(p.job.Derived, Derived{name, prog})
				s.add(name, typ|nullType)
			}
		}
	}
	if h := m["having"]; h.given() {
		p.job.Having, _ = p.expression(h.value, "having", s, boolType)
	}
}

func (p *parser) emit(n *yaml.Node) {
	m := p.fields(n, "emit", "from", "unreachable", "sinks")
	e := &p.job.Emit
	if f := m["from"]; f.given() {
		s, _ := p.choice(f.value, "emit.from", "owner", "every-region")
		e.EveryRegion = s == "every-region"
	}
	if u := m["unreachable"]; u.given() {
		if u.value.Kind == yaml.MappingNode {
			um := p.fields(u.value, "emit.unreachable", "partial")
			if after, ok := p.need(u.value, um, "emit.unreachable", "partial", "wait, or {partial: 5s}"); ok {
				e.PartialAfter, e.Partial = p.duration(after, "emit.unreachable.partial", 0)
			}
		} else if s, ok := p.text(u.value, "emit.unreachable", "wait, or {partial: 5s}"); ok && s != "wait" {
			p.fail(u.value, "wait, or {partial: 5s}", "emit.unreachable is %q", shorten(s))
		}
	}
	if s := m["sinks"]; s.given() {
		for i, item := range p.items(s.value, "emit.sinks", "a list such as [{kafka: {topic: out}}]") {
			if i == MaxSinks {
				p.fail(item, "", "more than %d sinks", MaxSinks)
				break
			}
			p.sink(item, fmt.Sprintf("emit.sinks[%d]", i))
		}
		if p.job.Window.Kind == keyspace.Session && len(e.Sinks) > 0 {
			p.later(s.key, "a session window with emit.sinks", "no sinks with {session: ...}")
		}
	}
}

func (p *parser) sink(n *yaml.Node, what string) {
	m := p.fields(n, what, "kafka", "postgres")
	if len(m) != 1 && n.Kind == yaml.MappingNode && len(n.Content) != 2 {
		p.fail(n, "one of kafka, postgres", "%s has %d kinds", what, len(m))
	}
	if k := m["kafka"]; k.given() {
		km := p.fields(k.value, what+".kafka", "topic")
		if topic, ok := p.need(k.value, km, what+".kafka", "topic", "a topic"); ok {
			if s, ok := p.topic(topic, what+".kafka.topic"); ok {
				p.job.Emit.Sinks = append(p.job.Emit.Sinks, Sink{KafkaTopic: s})
			}
		}
	}
	if g := m["postgres"]; g.given() {
		gm := p.fields(g.value, what+".postgres", "dsn", "table")
		for _, name := range []string{"dsn", "table"} {
			if v, ok := p.need(g.value, gm, what+".postgres", name, "a text"); ok {
				p.text(v, what+".postgres."+name, "a text")
			}
		}
		p.later(g.key, what+".postgres", "kafka: {topic: ...}")
	}
}

func (p *parser) topic(n *yaml.Node, what string) (string, bool) {
	const expected = "a topic of letters, digits, dots, underscores and dashes, at most 249"
	s, ok := p.text(n, what, expected)
	if ok && (!topicName.MatchString(s) || s == "." || s == "..") {
		p.fail(n, expected, "%s is %q", what, shorten(s))
		return "", false
	}
	return s, ok
}

func (p *parser) sideOutputs(n *yaml.Node) {
	m := p.fields(n, "side_outputs", "late", "implausible", "invalid")
	o := &p.job.SideOutputs
	for name, into := range map[string]*string{"late": &o.Late, "implausible": &o.Implausible, "invalid": &o.Invalid} {
		if s := m[name]; s.given() {
			sm := p.fields(s.value, "side_outputs."+name, "topic")
			if topic, ok := p.need(s.value, sm, "side_outputs."+name, "topic", "a topic"); ok {
				*into, _ = p.topic(topic, "side_outputs."+name+".topic")
			}
		}
	}
}
