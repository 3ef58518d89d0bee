package job

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/watershed-db/watershed/strict"
)

func (p *parser) sources(n *yaml.Node) {
	items := p.Items(n, "sources", "a list of sources")
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		p.Fail(n, "at least one source", "sources is empty")
	}
	for i, item := range items {
		if i == MaxSources {
			p.Fail(item, "", "more than %d sources", MaxSources)
			return
		}
		p.source(item, i)
	}
}

func (p *parser) source(n *yaml.Node, index int) {
	what := fmt.Sprintf("sources[%d]", index)
	m := p.Fields(n, what, "topic", "format", "columns", "time", "out_of_orderness", "max_future", "idle_after", "start",
		"where", "key", "aggregates")
	if n.Kind != yaml.MappingNode {
		return
	}
	in := Input{Index: index, MaxFuture: defaultMaxFuture, IdleAfter: defaultIdleAfter, at: position{n.Line, n.Column}}
	if t, ok := p.Need(n, m, what, "topic", "a topic"); ok {
		in.Topic, _ = p.topic(t, what+".topic")
	}
	s := p.recordScope(n, m, what, &in)
	if t, ok := p.Need(n, m, what, "time", timeExpected); ok {
		in.Time = p.time(t, what+".time", s)
	}
	if d := m["out_of_orderness"]; d.Given() {
		in.Bound, _ = p.Duration(d.Value, what+".out_of_orderness", 0)
	}
	if d := m["idle_after"]; d.Given() {
		in.IdleAfter, _ = p.Duration(d.Value, what+".idle_after", 1)
	}
	if d := m["max_future"]; d.Given() {
		if d.Value.Kind == yaml.ScalarNode && d.Value.Value == "none" {
			in.MaxFuture = NoMaxFuture
		} else {
			in.MaxFuture, _ = p.Duration(d.Value, what+".max_future (none switches it off)", 0)
		}
	}
	p.checkStart(m["start"])
	if w := m["where"]; w.Given() {
		in.Where, _ = p.decision(w.Value, what+".where", s, boolType)
	}
	if k, ok := p.Need(n, m, what, "key", keyExpected); ok {
		p.key(k, what+".key", s, &in)
	}
	in.FirstAggregate = len(p.job.Aggregates)
	if a, ok := p.Need(n, m, what, "aggregates", aggregatesExpected); ok {
		p.aggregates(a, what+".aggregates", s, index)
	}
	in.Aggregates = len(p.job.Aggregates) - in.FirstAggregate
	in.Fields = s.fields
	p.job.Inputs = append(p.job.Inputs, in)
}

// recordScope reads format and columns: what the source's expressions can name.
func (p *parser) recordScope(n *yaml.Node, m map[string]strict.Pair, what string, in *Input) *scope {
	s := &scope{what: "the record", record: true, slots: make(map[string]int)}
	if f, ok := p.Need(n, m, what, "format", "json | csv"); ok {
		name, ok := p.Choice(f, what+".format", "json", "csv", "protobuf", "avro")
		switch {
		case name == "json":
			in.Format = JSON
		case name == "csv":
			in.Format = CSV
		case ok:
			p.Later(f, "format: "+name, "json | csv")
		}
		s.nested = in.Format != CSV
	}
	c := m["columns"]
	if !c.Given() {
		return s
	}
	if in.Format == JSON {
		p.Fail(c.Key, "columns with format: csv only", "%s has columns, which json has not", what)
		return s
	}
	s.types = make(map[string]typeSet)
	for i, member := range p.Pairs(c.Value, what+".columns", "names and types such as {city: text, fare: float}") {
		if i == MaxColumns {
			p.Fail(member.Key, "", "more than %d columns", MaxColumns)
			break
		}
		name := member.Key.Value
		if t, ok := p.Choice(member.Value, "the type of column "+strict.Shorten(name), typeNames[1:]...); ok {
			in.Columns = append(in.Columns, Column{name, typeNamed(t)})
		}
		s.declare(name, typeNamed(member.Value.Value))
	}
	if len(s.names) == 0 {
		s.types = nil // nothing can be said of names
	}
	if len(in.Columns) == 0 && c.Value.Kind == yaml.MappingNode && len(c.Value.Content) == 0 {
		p.Fail(c.Value, "the file's columns, or no columns at all", "%s.columns is empty", what)
	}
	return s
}

func typeNamed(name string) Type {
	for i, t := range typeNames {
		if t == name {
			return Type(i)
		}
	}
	return Untyped
}

const keyExpected = `a list of fields such as [channel], or names and expressions such as {cell: "geohash(lat, lon, 6)"}`

// key reads the key of a source and puts it in the order of the first source's.
func (p *parser) key(n *yaml.Node, what string, s *scope, in *Input) {
	var names []string
	var nodes []*yaml.Node
	s.reads = make(map[int]bool)
	defer func() { s.reads = nil }()
	add := func(at *yaml.Node, name string, prog *Program) {
		if prog == nil {
			return
		}
		names, nodes, in.Key = append(names, name), append(nodes, at), append(in.Key, prog)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		seen := make(map[string]bool)
		for _, item := range n.Content {
			name, ok := p.Text(item, "a part of "+what, "the name of a field")
			if ok && seen[name] {
				p.Fail(item, "each name once", "duplicate %q in %s", name, what)
				continue
			}
			if seen[name] = true; ok {
				add(item, name, p.field(item, name, s))
			}
		}
	case yaml.MappingNode:
		for _, member := range p.Pairs(n, what, keyExpected) {
			prog, _ := p.decision(member.Value, what+"."+member.Key.Value, s, anyType)
			add(member.Key, member.Key.Value, prog)
		}
	default:
		p.Fail(n, keyExpected, "%s is %s", what, strict.KindOf(n))
		return
	}
	switch {
	case len(n.Content) == 0:
		p.Fail(n, keyExpected, "%s is empty", what)
	case len(names) > MaxKeyParts:
		p.Fail(n, "", "%s has more than %d parts", what, MaxKeyParts)
	}
	for i := range s.fields {
		if s.reads[i] {
			in.KeyFields = append(in.KeyFields, i)
		}
	}
	p.agreeOnKey(n, what, names, nodes, in)
}

// agreeOnKey makes the first source's key names the job's, and orders those of every other source like them.
func (p *parser) agreeOnKey(n *yaml.Node, what string, names []string, nodes []*yaml.Node, in *Input) {
	if in.Index == 0 {
		for i, name := range names {
			if p.claim(nodes[i], "key", name, nil) {
				p.job.KeyNames = append(p.job.KeyNames, name)
			}
		}
		return
	}
	want := p.job.KeyNames
	if len(want) == 0 {
		return // what is wrong with the first source's key is told already
	}
	ordered := make([]*Program, len(want))
	found := 0
	for i, w := range want {
		for k, name := range names {
			if name == w {
				ordered[i] = in.Key[k]
				found++
			}
		}
	}
	if found != len(want) || len(names) != len(want) {
		p.Fail(n, "the key of the first source: "+strings.Join(want, ", "), "%s has the members %s", what,
			strings.Join(names, ", "))
		return
	}
	in.Key = ordered
}

// maxFieldName bounds the name of a field.
const maxFieldName = 1024

// field compiles a field that is named plainly: in key lists and in time.
func (p *parser) field(n *yaml.Node, name string, s *scope) *Program {
	path := []string{name}
	if s.nested {
		path = strings.Split(name, ".")
	}
	for _, part := range path {
		if part == "" || len(name) > maxFieldName {
			p.Fail(n, "the name of a field", "%q names no field", strict.Shorten(name))
			return nil
		}
	}
	slot, typ, problem := s.field(path)
	if problem != "" {
		p.Fail(n, "a field of "+s.what, "%s", problem)
		return nil
	}
	c := fieldNode(slot, path, typ)
	return &Program{source: name, eval: s.bareField(slot, path), canon: c.canon, bare: slot}
}
