package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// row prints a bucket, and tells whether `having` shows it.
func (j *job) row(b *bucket) (Row, bool, error) {
	out := Row{Start: b.span.start, End: b.span.end, Global: j.window.kind == global, Records: int64(len(b.events))}
	members := map[string]Value{}
	env := func(name string) Value {
		if v, ok := members[name]; ok {
			return v
		}
		return Value{Kind: Absent}
	}
	var line bytes.Buffer
	line.WriteString(`{"window_start":` + bound(out.Global, out.Start) + `,"window_end":` + bound(out.Global, out.End))
	line.WriteString(`,"key":{`)
	for i, k := range j.sources[0].key {
		if i > 0 {
			line.WriteByte(',')
		}
		v := b.key[i].asKey()
		members[k.name] = v
		line.WriteString(quote(k.name) + ":" + v.print())
	}
	line.WriteByte('}')
	add := func(name string, v Value) {
		members[name] = v
		line.WriteString("," + quote(name) + ":" + v.print())
	}
	for input, in := range j.sources {
		for a, agg := range in.aggregates {
			var args []Value
			for _, e := range b.events {
				if e.source.Input == input {
					args = append(args, e.args[a])
				}
			}
			add(agg.name, agg.over(args, len(args)))
		}
	}
	for _, d := range j.derive {
		v, err := d.expr(env)
		if err != nil || v.Kind > Text {
			v = Value{Kind: Null}
		}
		add(d.name, v)
	}
	line.WriteByte('}')
	out.Line = line.Bytes()
	if j.having == nil {
		return out, true, nil
	}
	v, err := j.having(env)
	if err != nil {
		return out, false, fmt.Errorf("having: %w", err)
	}
	return out, v.Kind == Bool && v.Bool, nil
}

// bound prints a window's bound: RFC 3339, with milliseconds only where they are not zero.
func bound(none bool, ms int64) string {
	if none {
		return "null"
	}
	layout := "2006-01-02T15:04:05Z"
	if ms%1000 != 0 {
		layout = "2006-01-02T15:04:05.000Z"
	}
	return `"` + time.UnixMilli(ms).UTC().Format(layout) + `"`
}

// print is the value in JSON, numbers as encoding/json prints them.
func (v Value) print() string {
	switch v.Kind {
	case Bool:
		return fmt.Sprint(v.Bool)
	case Text:
		return quote(v.Text)
	case Number:
		if v.Int != nil {
			return v.Int.String()
		}
		out, err := json.Marshal(v.Float)
		if err != nil {
			panic("oracle: a float value is finite: " + err.Error())
		}
		return string(out)
	}
	return "null"
}

// quote writes a text as a JSON string in UTF-8, with only those characters escaped that JSON does not allow plain.
func quote(s string) string {
	out := []byte{'"'}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c == '\b':
			out = append(out, `\b`...)
		case c == '\f':
			out = append(out, `\f`...)
		case c == '\n':
			out = append(out, `\n`...)
		case c == '\r':
			out = append(out, `\r`...)
		case c == '\t':
			out = append(out, `\t`...)
		case c < ' ':
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			out = append(out, c)
		}
	}
	return string(append(out, '"'))
}
