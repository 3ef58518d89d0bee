package job

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/strict"
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

// Parse reads and checks a job file. filename stands in front of every message and means nothing else. The error is a
// strict.ErrorList: everything that is wrong, each with its line and column. src is kept.
func Parse(filename string, src []byte) (*Job, error) {
	p := &parser{Reader: strict.Reader{File: filename}, job: &Job{File: src}}
	if len(src) > MaxFileBytes {
		p.FailAt(1, 1, fmt.Sprintf("at most %d bytes", MaxFileBytes), "the file has %d bytes", len(src))
		return nil, p.Errs
	}
	if root := p.Document(bytes.TrimPrefix(src, []byte("\ufeff")), "job", "name, sources and window"); root != nil {
		p.root(root)
	}
	if len(p.Errs) > 0 {
		return nil, p.Errs.Sorted()
	}
	p.job.makeLabels()
	return p.job, nil
}

// parser fills a Job from the nodes of a file.
type parser struct {
	strict.Reader
	job   *Job
	start strict.Pair
	names map[string]taken // of key members, aggregates and derived values
}

// taken says what already bears a name.
type taken struct {
	what string
	line int
}

func (p *parser) root(root *yaml.Node) {
	m := p.Fields(root, "the job", "name", "sources", "window", "allowed_lateness", "retention", "max_session", "start",
		"derive", "having", "emit", "side_outputs")
	if root.Kind != yaml.MappingNode {
		return
	}
	p.names = make(map[string]taken)
	const nameExpected = "a name of lower-case letters, digits and dashes, at most 63"
	if n, ok := p.Need(root, m, "the job", "name", nameExpected); ok {
		if s, ok := p.Text(n, "name", nameExpected); ok {
			if p.job.Name = s; !jobName.MatchString(s) {
				p.Fail(n, nameExpected, "name is %q", strict.Shorten(s))
			}
		}
	}
	p.start = m["start"]
	p.checkStart(p.start)
	windowOK := false
	if n, ok := p.Need(root, m, "the job", "window", windowExpected); ok {
		windowOK = p.window(n)
	}
	p.horizons(m, windowOK)
	if n, ok := p.Need(root, m, "the job", "sources", "a list of sources"); ok {
		p.sources(n)
	}
	p.derive(m)
	if e := m["emit"]; e.Given() {
		p.emit(e.Value)
	}
	if s := m["side_outputs"]; s.Given() {
		p.sideOutputs(s.Value)
	}
}

// checkStart checks where a source begins: what is kept of its log, as far as it is done yet.
func (p *parser) checkStart(s strict.Pair) {
	const expected = "earliest"
	if !s.Given() {
		return
	}
	if v, ok := p.Text(s.Value, "start", expected); ok && v != "earliest" {
		p.Later(s.Value, fmt.Sprintf("start: %s", strict.Shorten(v)), expected)
	}
}

const windowExpected = "one of {tumbling: 30s}, {hopping: 1m, every: 10s}, {session: 5m}, {global: true}"

func (p *parser) window(n *yaml.Node) bool {
	before := len(p.Errs)
	m := p.Fields(n, "window", "tumbling", "hopping", "every", "session", "global")
	if n.Kind != yaml.MappingNode {
		return false
	}
	w := &p.job.Window
	var kinds []string
	for _, k := range []string{"tumbling", "hopping", "session", "global"} {
		if m[k].Given() {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) != 1 {
		if len(p.Errs) == before {
			p.Fail(n, windowExpected, "window has %d kinds%s", len(kinds), listed(kinds))
		}
		return false
	}
	kind := m[kinds[0]].Value
	if every := m["every"]; every.Given() && kinds[0] != "hopping" {
		p.Fail(every.Key, "every with hopping only", "a %s window has no \"every\"", kinds[0])
	}
	switch kinds[0] {
	case "tumbling":
		w.Kind = keyspace.Tumbling
		w.Size, _ = p.Duration(kind, "window.tumbling", 1)
	case "session":
		w.Kind = keyspace.Session
		w.Size, _ = p.Duration(kind, "window.session", 1)
	case "global":
		w.Kind = keyspace.Global
		if kind.Kind != yaml.ScalarNode || kind.ShortTag() != "!!bool" || !isTrue(kind) {
			p.Fail(kind, "true", "window.global is %s", strict.KindOf(kind))
		}
	case "hopping":
		p.hopping(n, kind, m["every"])
	}
	return len(p.Errs) == before
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

func (p *parser) hopping(n, size *yaml.Node, every strict.Pair) {
	w := &p.job.Window
	w.Kind = keyspace.Hopping
	var ok, ok2 bool
	w.Size, ok = p.Duration(size, "window.hopping", 1)
	if !every.Given() {
		p.Fail(n, "such as {hopping: 1m, every: 10s}", "a hopping window lacks \"every\"")
		return
	}
	w.Every, ok2 = p.Duration(every.Value, "window.every", 1)
	switch {
	case !ok || !ok2:
	case w.Size%w.Every != 0:
		p.Fail(every.Value, "a divisor of "+strict.FormatDuration(w.Size), "window.hopping %s is no multiple of every %s",
			strict.FormatDuration(w.Size), strict.FormatDuration(w.Every))
	case w.Size/w.Every > keyspace.MaxSlices:
		p.Fail(every.Value, fmt.Sprintf("at most %d slices", keyspace.MaxSlices), "a hopping window of %d slices", w.Size/w.Every)
	}
}

// horizons reads the durations that say how long state lives, and what they must keep among themselves.
func (p *parser) horizons(m map[string]strict.Pair, windowOK bool) {
	j := p.job
	ok := true
	if l := m["allowed_lateness"]; l.Given() {
		j.Lateness, ok = p.Duration(l.Value, "allowed_lateness", 0)
	}
	j.Retention = defaultRetention
	retention := m["retention"]
	if retention.Given() {
		var ok2 bool
		j.Retention, ok2 = p.Duration(retention.Value, "retention", 0)
		ok = ok && ok2
	}
	if ok && j.Retention < j.Lateness {
		at, what := retention.Value, "retention"
		if !retention.Given() {
			at, what = m["allowed_lateness"].Value, "the default retention"
		}
		p.Fail(at, "a retention of at least "+strict.FormatDuration(j.Lateness), "%s %s is less than allowed_lateness %s",
			what, strict.FormatDuration(j.Retention), strict.FormatDuration(j.Lateness))
	}
	j.MaxSession = j.Retention
	longest := m["max_session"]
	if !longest.Given() {
		return
	}
	j.MaxSession, ok = p.Duration(longest.Value, "max_session", 1)
	switch {
	case !windowOK:
	case j.Window.Kind != keyspace.Session:
		p.Fail(longest.Key, "max_session with {session: ...} only", "the window has no \"max_session\"")
	case ok && j.MaxSession < j.Window.Size:
		p.Fail(longest.Value, "at least "+strict.FormatDuration(j.Window.Size), "max_session %s is less than the gap",
			strict.FormatDuration(j.MaxSession))
	}
}

// claim takes a name for a member of rows. It reports a malformed name, and one that is taken.
func (p *parser) claim(n *yaml.Node, what, name string, pattern *regexp.Regexp) bool {
	const expected = "a name of letters, digits, _, - and ., that begins with a letter or _, at most 63"
	if pattern != nil && !pattern.MatchString(name) {
		p.Fail(n, expected, "the %s is named %q", what, strict.Shorten(name))
		return false
	}
	if t, ok := p.names[name]; ok {
		p.Fail(n, "a name of its own for each key member, aggregate and derived value",
			"duplicate name %q of the %s, taken by the %s at line %d", name, what, t.what, t.line)
		return false
	}
	for _, reserved := range []string{"window_start", "window_end", "key", "revision", "complete", "retracted"} {
		if what != "key" && name == reserved {
			p.Fail(n, "another name", "the %s is named %q, as a member of every row is", what, name)
			return false
		}
	}
	p.names[name] = taken{what, n.Line}
	return true
}

// derive reads derive and having, over the key's members, the aggregates, and the derived values before.
func (p *parser) derive(m map[string]strict.Pair) {
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
	if d := m["derive"]; d.Given() {
		for i, member := range p.Pairs(d.Value, "derive", `a mapping such as {ratio: "a / b"}`) {
			if i == MaxDerived {
				p.Fail(member.Key, "", "more than %d derived values", MaxDerived)
				break
			}
			name := member.Key.Value
			claimed := p.claim(member.Key, "derived value", name, memberName)
			prog, typ := p.expression(member.Value, "derive."+name, s, anyType)
			if claimed {
				p.job.Derived = append(p.job.Derived, Derived{name, prog})
				s.add(name, typ|nullType)
			}
		}
	}
	if h := m["having"]; h.Given() {
		p.job.Having, _ = p.expression(h.Value, "having", s, boolType)
	}
}

func (p *parser) emit(n *yaml.Node) {
	m := p.Fields(n, "emit", "from", "unreachable", "sinks")
	e := &p.job.Emit
	if f := m["from"]; f.Given() {
		s, _ := p.Choice(f.Value, "emit.from", "owner", "every-region")
		e.EveryRegion = s == "every-region"
	}
	if u := m["unreachable"]; u.Given() {
		if u.Value.Kind == yaml.MappingNode {
			um := p.Fields(u.Value, "emit.unreachable", "partial")
			if after, ok := p.Need(u.Value, um, "emit.unreachable", "partial", "wait, or {partial: 5s}"); ok {
				e.PartialAfter, e.Partial = p.Duration(after, "emit.unreachable.partial", 0)
			}
		} else if s, ok := p.Text(u.Value, "emit.unreachable", "wait, or {partial: 5s}"); ok && s != "wait" {
			p.Fail(u.Value, "wait, or {partial: 5s}", "emit.unreachable is %q", strict.Shorten(s))
		}
	}
	if s := m["sinks"]; s.Given() {
		for i, item := range p.Items(s.Value, "emit.sinks", "a list such as [{kafka: {topic: out}}]") {
			if i == MaxSinks {
				p.Fail(item, "", "more than %d sinks", MaxSinks)
				break
			}
			p.sink(item, fmt.Sprintf("emit.sinks[%d]", i))
		}
		if p.job.Window.Kind == keyspace.Session && len(e.Sinks) > 0 {
			p.Later(s.Key, "a session window with emit.sinks", "no sinks with {session: ...}")
		}
	}
}

func (p *parser) sink(n *yaml.Node, what string) {
	m := p.Fields(n, what, "kafka", "postgres")
	if len(m) != 1 && n.Kind == yaml.MappingNode && len(n.Content) != 2 {
		p.Fail(n, "one of kafka, postgres", "%s has %d kinds", what, len(m))
	}
	if k := m["kafka"]; k.Given() {
		km := p.Fields(k.Value, what+".kafka", "topic")
		if topic, ok := p.Need(k.Value, km, what+".kafka", "topic", "a topic"); ok {
			if s, ok := p.topic(topic, what+".kafka.topic"); ok {
				p.job.Emit.Sinks = append(p.job.Emit.Sinks, Sink{KafkaTopic: s})
			}
		}
	}
	if g := m["postgres"]; g.Given() {
		gm := p.Fields(g.Value, what+".postgres", "dsn", "table")
		for _, name := range []string{"dsn", "table"} {
			if v, ok := p.Need(g.Value, gm, what+".postgres", name, "a text"); ok {
				p.Text(v, what+".postgres."+name, "a text")
			}
		}
		p.Later(g.Key, what+".postgres", "kafka: {topic: ...}")
	}
}

func (p *parser) topic(n *yaml.Node, what string) (string, bool) {
	const expected = "a topic of letters, digits, dots, underscores and dashes, at most 249"
	s, ok := p.Text(n, what, expected)
	if ok && (!topicName.MatchString(s) || s == "." || s == "..") {
		p.Fail(n, expected, "%s is %q", what, strict.Shorten(s))
		return "", false
	}
	return s, ok
}

func (p *parser) sideOutputs(n *yaml.Node) {
	m := p.Fields(n, "side_outputs", "late", "implausible", "invalid")
	o := &p.job.SideOutputs
	for name, into := range map[string]*string{"late": &o.Late, "implausible": &o.Implausible, "invalid": &o.Invalid} {
		if s := m[name]; s.Given() {
			sm := p.Fields(s.Value, "side_outputs."+name, "topic")
			if topic, ok := p.Need(s.Value, sm, "side_outputs."+name, "topic", "a topic"); ok {
				*into, _ = p.topic(topic, "side_outputs."+name+".topic")
			}
		}
	}
}
