package output

import (
	"fmt"
	"strconv"

	"github.com/watershed-db/watershed/crdt"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Rows prints the rows of one answer.
type Rows struct {
	columns      *watershedv1.Columns
	keys, values [][]byte // names as JSON, with their colons
}

// NewRows returns a printer of rows with the given members.
func NewRows(c *watershedv1.Columns) *Rows {
	label := func(names []string) (out [][]byte) {
		for _, n := range names {
			out = append(out, append(crdt.AppendQuoted(nil, n), ':'))
		}
		return out
	}
	return &Rows{columns: c, keys: label(c.GetKey()), values: label(c.GetValues())}
}

// check says whether a row has the members that it should have.
func (r *Rows) check(row *watershedv1.Row) error {
	if len(row.GetKey()) != len(r.keys) || !row.GetRetracted() && len(row.GetValues()) != len(r.values) {
		return fmt.Errorf("%w: %d key parts and %d values, want %d and %d", ErrRow, len(row.GetKey()), len(row.GetValues()),
			len(r.keys), len(r.values))
	}
	if (row.WindowStartMs == nil) != (row.WindowEndMs == nil) {
		return fmt.Errorf("%w: a window with one bound", ErrRow)
	}
	return nil
}

// AppendJSON appends a row as one JSON object: window, key, values, revision and whether it is complete, and the shard
// where asked for. A row that is taken back has no values. It fails with ErrRow.
func (r *Rows) AppendJSON(b []byte, row *watershedv1.Row, shard bool) ([]byte, error) {
	if err := r.check(row); err != nil {
		return b, err
	}
	b = appendBounds(b, row)
	b = append(b, `,"key":{`...)
	b, err := appendMembers(b, r.keys, row.GetKey())
	b = append(b, '}')
	if row.GetRetracted() {
		b = append(b, `,"revision":`...)
		b = strconv.AppendUint(b, row.GetRevision(), 10)
		b = append(b, `,"retracted":true`...)
	} else {
		if err == nil && len(r.values) > 0 {
			b, err = appendMembers(append(b, ','), r.values, row.GetValues())
		}
		b = append(b, `,"revision":`...)
		b = strconv.AppendUint(b, row.GetRevision(), 10)
		b = append(b, `,"complete":`...)
		b = strconv.AppendBool(b, row.GetComplete())
	}
	if shard {
		b = append(b, `,"shard":`...)
		b = strconv.AppendUint(b, uint64(row.GetShard()), 10)
	}
	return append(b, '}'), err
}

func appendMembers(b []byte, labels [][]byte, values []*watershedv1.Value) ([]byte, error) {
	for i, v := range values {
		value, err := toValue(v)
		if err != nil {
			return b, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = value.AppendJSON(append(b, labels[i]...))
	}
	return b, nil
}

func appendBounds(b []byte, row *watershedv1.Row) []byte {
	if row.WindowEndMs == nil {
		return append(b, `{"window_start":null,"window_end":null`...)
	}
	b = append(b, `{"window_start":"`...)
	b = append(b, Time(row.GetWindowStartMs())...)
	b = append(b, `","window_end":"`...)
	b = append(b, Time(row.GetWindowEndMs())...)
	return append(b, '"')
}

// Header returns the titles of a table's columns.
func (r *Rows) Header() []string {
	out := append([]string{"WINDOW_START", "WINDOW_END"}, r.columns.GetKey()...)
	return append(append(out, r.columns.GetValues()...), "REVISION", "COMPLETE")
}

// Cells returns a row as a table shows it. It fails with ErrRow.
func (r *Rows) Cells(row *watershedv1.Row) ([]string, error) {
	if err := r.check(row); err != nil {
		return nil, err
	}
	out := []string{"", ""}
	if row.WindowEndMs != nil {
		out = []string{Time(row.GetWindowStartMs()), Time(row.GetWindowEndMs())}
	}
	values := row.GetKey()
	if row.GetRetracted() {
		values = append(values[:len(values):len(values)], make([]*watershedv1.Value, len(r.values))...)
	} else {
		values = append(values[:len(values):len(values)], row.GetValues()...)
	}
	for i, v := range values {
		value, err := toValue(v)
		if err != nil {
			return nil, err
		}
		out = append(out, cell(value, row.GetRetracted() && i >= len(r.keys)))
	}
	complete := "no"
	switch {
	case row.GetRetracted():
		complete = "retracted"
	case row.GetComplete():
		complete = "yes"
	}
	return append(out, strconv.FormatUint(row.GetRevision(), 10), complete), nil
}

func cell(v crdt.Value, gone bool) string {
	switch {
	case gone:
		return ""
	case v.Kind() != crdt.KindText:
		return string(v.AppendJSON(nil))
	case v.Text() == "" || v.Text() == "-" || v.Text() == "null":
		return strconv.Quote(v.Text())
	}
	return v.Text()
}
