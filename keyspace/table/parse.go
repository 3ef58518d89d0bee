package table

import (
	"bytes"
	"fmt"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watershed-db/watershed/strict"
)

// A value that goes sooner than a second after it was put could go before anybody read it; the other is a hundred years.
const (
	minTTL = int64(time.Second / time.Millisecond)
	maxTTL = int64(36500 * 24 * time.Hour / time.Millisecond)
)

var tableName = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// Parse reads and checks a table's file. filename stands in front of every message and means nothing else. The error is a
// strict.ErrorList: everything that is wrong, each with its line and column.
func Parse(filename string, src []byte) (Def, error) {
	p := &parser{Reader: strict.Reader{File: filename}, def: Def{MaxBytes: defaultValueBytes}}
	if len(src) > MaxFileBytes {
		p.FailAt(1, 1, fmt.Sprintf("at most %d bytes", MaxFileBytes), "the file has %d bytes", len(src))
		return Def{}, p.Errs
	}
	if root := p.Document(bytes.TrimPrefix(src, []byte("\ufeff")), "table", "name and type"); root != nil {
		p.root(root)
	}
	if len(p.Errs) > 0 {
		return Def{}, p.Errs.Sorted()
	}
	return p.def, nil
}

// parser fills a Def from the nodes of a file.
type parser struct {
	strict.Reader
	def Def
}

func (p *parser) root(root *yaml.Node) {
	m := p.Fields(root, "the table", "name", "type", "durability", "ttl", "value")
	if root.Kind != yaml.MappingNode {
		return
	}
	const nameExpected = "a name of lower-case letters, digits and dashes, at most 63"
	if n, ok := p.Need(root, m, "the table", "name", nameExpected); ok {
		if s, ok := p.Text(n, "name", nameExpected); ok {
			if p.def.Name = s; !tableName.MatchString(s) {
				p.Fail(n, nameExpected, "name is %q", strict.Shorten(s))
			}
		}
	}
	const typeExpected = "owned, counter, updown, register, set or lww-set"
	if n, ok := p.Need(root, m, "the table", "type", typeExpected); ok {
		if s, ok := p.Choice(n, "type", typeNames...); ok {
			p.def.Type, _ = parseType(s)
		}
	}
	p.owned(root, m)
	if v := m["value"]; v.Given() {
		p.value(v.Value)
	}
}

// owned reads what only an owned table has.
func (p *parser) owned(root *yaml.Node, m map[string]strict.Pair) {
	for _, name := range []string{"durability", "ttl"} {
		if f := m[name]; f.Given() && p.def.Type.Valid() && p.def.Type != Owned {
			p.Fail(f.Key, name+" with type owned only", "a table of type %s has no %q", p.def.Type, name)
			return
		}
	}
	if t := m["ttl"]; t.Given() {
		p.def.TTL, _ = p.Duration(t.Value, "ttl", minTTL)
	}
	if d := m["durability"]; d.Given() {
		switch s, _ := p.Choice(d.Value, "durability", "quorum", "region"); s {
		case "quorum":
			p.def.Durability = Quorum
		case "region":
			p.def.Durability = Region
		}
	} else if p.def.Type == Owned {
		p.Need(root, m, "an owned table", "durability", "quorum, or region")
	}
}

func (p *parser) value(n *yaml.Node) {
	m := p.Fields(n, "value", "max_bytes")
	if n.Kind != yaml.MappingNode {
		return
	}
	if b, ok := p.Need(n, m, "value", "max_bytes", "a number of bytes"); ok {
		most, _ := p.Whole(b, "value.max_bytes", 1, MaxValueBytes)
		p.def.MaxBytes = int(most)
	}
}
