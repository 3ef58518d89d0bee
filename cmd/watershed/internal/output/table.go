package output

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPending bounds the rows that a TableWriter keeps back to see how wide they are.
const maxPending = 500

// TableWriter prints rows in aligned columns. It keeps rows back until Flush, or until there are many: columns that grow
// later do so from there on.
type TableWriter struct {
	w       io.Writer
	widths  []int
	pending [][]string
	err     error
}

// NewTable returns a table with a header.
func NewTable(w io.Writer, header ...string) *TableWriter {
	t := &TableWriter{w: w}
	t.Add(header...)
	return t
}

// Add appends a row. What can't be shown in a cell, as line breaks and control characters, is shown escaped.
func (t *TableWriter) Add(cells ...string) {
	if t.err != nil {
		return // Flush will say so
	}
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Printable(c)
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
	}
	if t.pending = append(t.pending, row); len(t.pending) >= maxPending {
		t.err = t.Flush()
	}
}

// Flush prints what was kept back. It returns the first error of the table.
func (t *TableWriter) Flush() error {
	if t.err != nil {
		return t.err
	}
	var b bytes.Buffer
	for _, row := range t.pending {
		for i, c := range row {
			b.WriteString(c)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c)+2))
			}
		}
		b.WriteByte('\n')
	}
	t.pending = t.pending[:0]
	_, err := t.w.Write(b.Bytes())
	t.err = wrote(err)
	return t.err
}

// Printable returns s as it can be shown on one line of a terminal: quoted and escaped where it must be, - where it is
// empty.
func Printable(s string) string {
	if s == "" {
		return "-"
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return strconv.Quote(s)
		}
	}
	return s
}
