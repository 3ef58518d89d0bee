package job

import (
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watershed-db/watershed/strict"
)

// Time says where a record's event time is and how it is written: a number of a unit since 1970-01-01 UTC, or a text in
// a layout, or of RFC 3339 where it has neither.
type Time struct {
	Field  int    // in Input.Fields
	Unit   string // ms, s, us or ns
	Layout string // of Go's package time, read in UTC unless the text names its own offset
}

const timeExpected = "the name of a field (RFC 3339), {field: ts, unit: ms} or " +
	`{field: ts, layout: "2006-01-02 15:04:05", zone: UTC}`

func (p *parser) time(n *yaml.Node, what string, s *scope) Time {
	t := Time{Field: -1}
	at := n
	if n.Kind == yaml.MappingNode {
		m := p.Fields(n, what, "field", "unit", "layout", "zone")
		f, ok := p.Need(n, m, what, "field", timeExpected)
		p.timeForm(m, what, &t)
		if !ok {
			return t
		}
		at, what = f, what+".field"
	}
	name, ok := p.Text(at, what, timeExpected)
	if !ok {
		return t
	}
	prog := p.field(at, name, s)
	if prog == nil {
		return t
	}
	t.Field = prog.bare
	want, typ := textType, declaredType(s.fields[t.Field].Type)
	if t.Unit != "" {
		want = numberType
	}
	if typ&want == 0 {
		p.Fail(at, "a column of "+want.String(), "%s: the column %q is %s", what, name, typ)
	}
	return t
}

func (p *parser) timeForm(m map[string]strict.Pair, what string, t *Time) {
	unit, layout, zone := m["unit"], m["layout"], m["zone"]
	if unit.Given() {
		t.Unit, _ = p.Choice(unit.Value, what+".unit", "ms", "s", "us", "ns")
	}
	if layout.Given() {
		if unit.Given() {
			p.Fail(layout.Key, "unit or layout", "%s has both unit and layout", what)
		}
		l, ok := p.Text(layout.Value, what+".layout", "a layout such as 2006-01-02 15:04:05")
		if t.Layout = l; ok && !layoutOK(l) {
			p.Fail(layout.Value, "a layout of Go's reference time with year, month and day, such as 2006-01-02 15:04:05",
				"%s.layout is %q", what, strict.Shorten(l))
		}
	}
	if zone.Given() {
		if !layout.Given() {
			p.Fail(zone.Key, "zone with layout only", "%s has a zone and no layout", what)
		}
		if z, ok := p.Text(zone.Value, what+".zone", "UTC"); ok && z != "UTC" {
			p.Later(zone.Value, fmt.Sprintf("%s: %s", what+".zone", strict.Shorten(z)), "UTC")
		}
	}
}

// layoutOK reports whether a layout keeps a date. Zone abbreviations are refused: they mean different offsets.
func layoutOK(layout string) bool {
	ref := time.Date(2017, 11, 23, 13, 47, 58, 0, time.UTC)
	at, err := time.ParseInLocation(layout, ref.Format(layout), time.UTC)
	if err != nil || strings.Contains(layout, "MST") || len(layout) > 100 {
		return false
	}
	y, m, d := at.Date()
	return y == 2017 && m == 11 && d == 23
}
