// Package decode turns the bytes of records into values. Decoders are strict: what one of them accepts has one meaning.
// They keep scratch space between records, so each goroutine needs its own. The package is pure.
package decode

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/watershed-db/watershed/crdt"
)

// ErrMalformed is wrapped by every error that is the record's fault.
var ErrMalformed = errors.New("malformed record")

// MaxRecord bounds the bytes of a record's value; a longer one is malformed, whatever it holds.
const MaxRecord = 16 << 20

// State says what a record has in the place of a wanted field.
type State uint8

// The states of a field.
const (
	Absent   State = iota // there is no such field
	Present               // there is, with a value (possibly null)
	Unusable              // there is, but what it holds is no value: the record is invalid where the field is used
)

// unusable stands in a row for an object, an array, a number that no float64 can hold, or a CSV field that is not of its
// column's type: a number without digits, which no key, no argument and no expression takes.
var unusable = crdt.Big("")

// Row holds the wanted fields of one record, by their index among the wanted fields. Texts may share the record's bytes
// and the decoder's scratch space: they are valid until either is used again.
type Row struct {
	Values []crdt.Value // null where the state is Absent
	States []State
}

// NewRow returns a row for n wanted fields.
func NewRow(n int) *Row {
	return &Row{Values: make([]crdt.Value, n), States: make([]State, n)}
}

// Reset empties the row.
func (r *Row) Reset() {
	clear(r.Values)
	clear(r.States)
}

func (r *Row) set(i int, v crdt.Value) {
	r.Values[i], r.States[i] = v, Present
}

// Decoder turns one record's value into a row.
type Decoder interface {
	// Decode fills row with the wanted fields of record. An error wraps ErrMalformed; its text is short and does not
	// repeat the record. After an error the row's content is unspecified.
	Decode(record []byte, row *Row) error
}

func (r *Row) spoil(i int) {
	r.Values[i], r.States[i] = unusable, Unusable
}

func malformed(at int, what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, at)
}

func tooLong(n int) error {
	return fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, n, MaxRecord)
}

// borrow returns b as a string that shares its bytes.
func borrow(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
