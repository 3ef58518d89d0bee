package decode

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/watershed-db/watershed/crdt"
)

// ColumnType says how the fields of a CSV column become values.
type ColumnType uint8

// The types of columns. A field that does not fit its column's type is Unusable.
const (
	Untyped     ColumnType = iota // crdt.Raw: text that numeric functions and aggregates convert
	TextColumn                    // text
	IntColumn                     // an integer, crdt.Big beyond 64 bits
	FloatColumn                   // a decimal number with or without fraction and exponent, as a float
	BoolColumn                    // true or false
)

// ParseColumnType returns the type that a job file names.
func ParseColumnType(s string) (ColumnType, error) {
	switch s {
	case "text":
		return TextColumn, nil
	case "int":
		return IntColumn, nil
	case "float":
		return FloatColumn, nil
	case "bool":
		return BoolColumn, nil
	}
	return Untyped, fmt.Errorf("column type %q: want text, int, float or bool", s)
}

// Column is one column of a CSV source.
type Column struct {
	Name string
	Type ColumnType
}

// ErrColumns is wrapped by errors about columns that do not fit each other, a header or the wanted fields.
var ErrColumns = errors.New("columns do not fit")

// CSV decodes records of comma-separated fields with quotes as in RFC 4180. A record has as many fields as there are
// columns and is valid UTF-8; a line end behind it is no part of it, and line breaks stand within quotes only, where
// they are kept as they are. An empty field is null.
type CSV struct {
	columns []Column
	slots   []int // by column: index among the wanted fields, -1 if not wanted
	breaks  bool  // there is a line break in the record
	scratch []byte
}

// NewCSV returns a decoder of the wanted columns. It fails with ErrColumns if one of them is no column, or if two
// columns share a name.
func NewCSV(columns []Column, wanted []string) (*CSV, error) {
	d := &CSV{columns: columns, slots: make([]int, len(columns))}
	at := make(map[string]int, len(columns))
	for i, c := range columns {
		if _, twice := at[c.Name]; twice {
			return nil, fmt.Errorf("%w: two columns are named %q", ErrColumns, c.Name)
		}
		at[c.Name], d.slots[i] = i, -1
	}
	for i, name := range wanted {
		c, ok := at[name]
		if !ok {
			return nil, fmt.Errorf("%w: there is no column %q", ErrColumns, name)
		}
		d.slots[c] = i
	}
	return d, nil
}

// Header reads a file's header line into columns: their names are its fields. Where the job declares columns, the
// header must have the same names in the same order, and their types are the result's. It fails with ErrColumns or
// ErrMalformed.
func Header(line []byte, declared []Column) ([]Column, error) {
	if len(line) > MaxRecord {
		return nil, tooLong(len(line))
	}
	if !utf8.Valid(line) {
		return nil, malformed(0, "invalid UTF-8")
	}
	var columns []Column
	var d CSV
	for i := 0; i <= len(line); {
		text, next, err := d.field(line, i)
		if err != nil {
			return nil, err
		}
		columns = append(columns, Column{Name: string(text)})
		i = next
	}
	if declared == nil {
		return columns, nil
	}
	if len(columns) != len(declared) {
		return nil, fmt.Errorf("%w: the header has %d, the job names %d", ErrColumns, len(columns), len(declared))
	}
	for i, c := range columns {
		if c.Name != declared[i].Name {
			return nil, fmt.Errorf("%w: column %d is %q in the header, %q in the job", ErrColumns, i+1, c.Name,
				declared[i].Name)
		}
	}
	return declared, nil
}

// Decode implements Decoder.
func (d *CSV) Decode(record []byte, row *Row) error {
	if len(record) > MaxRecord {
		return tooLong(len(record))
	}
	if !utf8.Valid(record) {
		return malformed(0, "invalid UTF-8")
	}
	row.Reset()
	if n := len(record); n > 0 && record[n-1] == '\n' {
		record = bytes.TrimSuffix(record[:n-1], []byte("\r"))
	}
	d.scratch, d.breaks = d.scratch[:0], bytes.IndexByte(record, '\n') >= 0
	i := 0
	for c := range d.columns {
		if i > len(record) {
			return fmt.Errorf("%w: %d fields, want %d", ErrMalformed, c, len(d.columns))
		}
		text, next, err := d.field(record, i)
		if err != nil {
			return err
		}
		if slot := d.slots[c]; slot >= 0 {
			if v, ok := d.columns[c].Type.value(text); ok {
				row.set(slot, v)
			} else {
				row.spoil(slot)
			}
		}
		i = next
	}
	if i <= len(record) {
		return fmt.Errorf("%w: more than %d fields", ErrMalformed, len(d.columns))
	}
	return nil
}

// field cuts the field at i. next is where the one after it begins; past the end of b if this was the last.
func (d *CSV) field(b []byte, i int) (text []byte, next int, err error) {
	if i == len(b) || b[i] != '"' {
		end := len(b)
		if k := bytes.IndexByte(b[i:], ','); k >= 0 {
			end = i + k
		}
		if k := bytes.IndexByte(b[i:end], '"'); k >= 0 {
			return nil, 0, malformed(i+k, "a quote inside a field without quotes")
		}
		if d.breaks && bytes.IndexByte(b[i:end], '\n') >= 0 {
			return nil, 0, malformed(i, "a line break inside a field without quotes")
		}
		return b[i:end], end + 1, nil
	}
	i++
	start, from := i, len(d.scratch)
	for {
		k := bytes.IndexByte(b[i:], '"')
		if k < 0 {
			return nil, 0, malformed(len(b), "a quoted field without end")
		}
		end := i + k
		if end+1 < len(b) && b[end+1] == '"' {
			d.scratch = append(d.scratch, b[i:end+1]...)
			i = end + 2
			continue
		}
		if end+1 < len(b) && b[end+1] != ',' {
			return nil, 0, malformed(end+1, "text after a closing quote")
		}
		if len(d.scratch) == from && i == start {
			return b[i:end], end + 2, nil
		}
		d.scratch = append(d.scratch, b[i:end]...)
		return d.scratch[from:], end + 2, nil
	}
}

// value converts a field's text.
func (t ColumnType) value(text []byte) (crdt.Value, bool) {
	if len(text) == 0 {
		return crdt.Null(), true
	}
	switch t {
	case TextColumn:
		return crdt.Text(borrow(text)), true
	case IntColumn:
		return parseInt(text)
	case FloatColumn:
		return parseFloat(text)
	case BoolColumn:
		s := string(text)
		return crdt.Bool(s == "true"), s == "true" || s == "false"
	}
	return crdt.Raw(borrow(text)), true
}

// parseInt takes an optional sign and decimal digits, nothing else.
func parseInt(text []byte) (crdt.Value, bool) {
	digits := text
	if len(text) == 0 {
		return crdt.Null(), false
	}
	if text[0] == '-' || text[0] == '+' {
		digits = text[1:]
	}
	for _, c := range digits {
		if c-'0' > 9 {
			return crdt.Null(), false
		}
	}
	if len(digits) == 0 {
		return crdt.Null(), false
	}
	i, err := strconv.ParseInt(borrow(text), 10, 64)
	if err == nil {
		return crdt.Int(i), true
	}
	digits = bytes.TrimLeft(digits, "0")
	if text[0] != '-' {
		return crdt.Big(borrow(digits)), true
	}
	return crdt.Big("-" + string(digits)), true
}

// parseFloat takes a decimal number that a float64 can hold: no NaN, no infinity, no hexadecimal, no underscores.
func parseFloat(text []byte) (crdt.Value, bool) {
	for _, c := range text {
		if c-'0' > 9 && c != '.' && c != '-' && c != '+' && c|0x20 != 'e' {
			return crdt.Null(), false
		}
	}
	f, err := strconv.ParseFloat(borrow(text), 64)
	if err != nil || math.IsInf(f, 0) {
		return crdt.Null(), false
	}
	return crdt.Float(f), true
}
