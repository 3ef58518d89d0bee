package keyspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/watershed-db/watershed/crdt"
)

// ErrCorrupt marks stored bytes that this package did not write, or spans of applied indexes that overlap: the store
// can't be trusted and the replica is to be rebuilt from another.
var ErrCorrupt = errors.New("corrupt store")

// operandVersion is the first byte of a stored operand.
const operandVersion = 1

// operand is a slot's stored value: a cell, and the applied indexes of the first and the last command in it, by which a
// replay can't add it twice.
type operand struct {
	lo, hi uint64 // 1 <= lo <= hi
	cell   []byte // encoded
}

// appendOperandHead appends what precedes the cell: the version, lo, and hi - lo.
func appendOperandHead(b []byte, lo, hi uint64) []byte {
	b = append(b, operandVersion)
	b = binary.AppendUvarint(b, lo)
	return binary.AppendUvarint(b, hi-lo)
}

// decodeOperand takes a stored operand apart. The cell shares b's bytes and is not decoded. It fails with ErrCorrupt.
func decodeOperand(b []byte) (o operand, err error) {
	if len(b) == 0 || b[0] == 0 {
		return o, fmt.Errorf("%w: operand of %d bytes without a version", ErrCorrupt, len(b))
	}
	if b[0] > operandVersion {
		return o, fmt.Errorf("%w: operand of version %d, this program reads up to %d", ErrFormat, b[0], operandVersion)
	}
	b = b[1:]
	lo, n := binary.Uvarint(b)
	if n <= 0 || lo == 0 {
		return o, fmt.Errorf("%w: operand's first index", ErrCorrupt)
	}
	b = b[n:]
	width, n := binary.Uvarint(b)
	if n <= 0 || lo+width < lo {
		return o, fmt.Errorf("%w: operand's last index", ErrCorrupt)
	}
	return operand{lo, lo + width, b[n:]}, nil
}

// mergerName is stored in every database; one of another name does not open.
const mergerName = "watershed.cell.v1"

// cellMerger adds cells. It is associative over operands whose spans ascend; an operand of a span that is already
// merged is dropped, and one that overlaps in part fails with ErrCorrupt, so that nothing is ever added twice.
var cellMerger = &pebble.Merger{
	Name: mergerName,
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		o, err := decodeOperand(value)
		if err != nil {
			return nil, err
		}
		return &merging{lo: o.lo, hi: o.hi, one: bytes.Clone(o.cell)}, nil
	},
}

// merging is one merge under way.
type merging struct {
	lo, hi uint64
	one    []byte     // the first operand's cell, while there is no other
	sum    *crdt.Cell // else
}

// MergeNewer implements pebble.ValueMerger.
func (m *merging) MergeNewer(value []byte) error {
	o, err := decodeOperand(value)
	switch {
	case err != nil:
		return err
	case o.hi <= m.hi:
		return nil
	case o.lo <= m.hi:
		return m.overlap(o)
	}
	m.hi = o.hi
	return m.add(o.cell)
}

// MergeOlder implements pebble.ValueMerger.
func (m *merging) MergeOlder(value []byte) error {
	o, err := decodeOperand(value)
	switch {
	case err != nil:
		return err
	case m.hi <= o.hi: // what is here repeats what the older one holds
		*m = merging{lo: o.lo, hi: o.hi, one: bytes.Clone(o.cell)}
		return nil
	case m.lo <= o.hi:
		return m.overlap(o)
	}
	m.lo = o.lo
	return m.add(o.cell)
}

func (m *merging) overlap(o operand) error {
	return fmt.Errorf("%w: operands of indexes %d..%d and %d..%d overlap", ErrCorrupt, m.lo, m.hi, o.lo, o.hi)
}

func (m *merging) add(cell []byte) (err error) {
	if m.sum == nil {
		if m.sum, err = crdt.DecodeCell(m.one); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		m.one = nil
	}
	if err := m.sum.MergeEncoded(cell); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// Finish implements pebble.ValueMerger.
func (m *merging) Finish(bool) ([]byte, io.Closer, error) {
	b := appendOperandHead(make([]byte, 0, len(m.one)+24), m.lo, m.hi)
	if m.sum != nil {
		return m.sum.AppendTo(b), nil, nil
	}
	return append(b, m.one...), nil, nil
}
