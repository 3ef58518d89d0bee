package crdt

import (
	"fmt"
	"unsafe"
)

// cellVersion is the first byte of an encoded cell.
const cellVersion = 1

// Bits of an encoded column.
const (
	colEmpty   = 0x80 // beside the op: nothing was added, no payload follows
	partInts   = 1    // sums: the integers' part is not zero
	partFloats = 2    // sums: a float was added
)

// AppendTo appends the cell's encoding. Cells of equal content have equal encodings.
//
// It is: the version; the number of columns with whether there are spans as the lowest bit; Records; with spans and
// records First and Last - First; for each column its op, colEmpty added where nothing was added, else its payload.
func (c *Cell) AppendTo(b []byte) []byte {
	b = c.appendHead(b, len(c.cols))
	for i := range c.cols {
		a := &c.cols[i]
		if a.isEmpty() {
			b = append(b, byte(a.op)|colEmpty)
			continue
		}
		b = a.appendPayload(append(b, byte(a.op)))
	}
	return b
}

func (c *Cell) appendHead(b []byte, columns int) []byte {
	head := uint64(columns) << 1
	if c.spans {
		head |= 1
	}
	b = appendUvarint(appendUvarint(append(b, cellVersion), head), c.Records)
	if c.spans && c.Records > 0 {
		b = appendVarint(b, c.First)
		b = appendUvarint(b, uint64(c.Last)-uint64(c.First))
	}
	return b
}

func (a *acc) isEmpty() bool {
	if a.n != 0 || a.kind != KindNull {
		return false
	}
	_, sums := a.ext.(*moments)
	return sums || a.ext == nil
}

func (a *acc) appendPayload(b []byte) []byte {
	switch a.op {
	case OpRecords, OpCount:
		return appendUvarint(b, a.n)
	case OpSum, OpAvg, OpStddev:
		if a.op != OpSum {
			b = appendUvarint(b, a.n)
		}
		return a.appendSums(b)
	case OpMin, OpMax:
		return appendValue(b, a.extreme())
	case OpDistinct:
		return a.set().appendTo(b)
	}
	h := a.ext.(*held)
	b = appendVarint(appendValue(b, h.v), h.at.Time)
	return AppendSource(appendVarint(b, h.at.Offset), *h.at.Source)
}

func (a *acc) appendSums(b []byte) []byte {
	m, ok := a.ext.(*moments)
	if !ok {
		m = &noMoments
	}
	var parts byte
	if !a.sum.isZero() || !m.intSquares.isZero() {
		parts |= partInts
	}
	if m.floats {
		parts |= partFloats
	}
	b = append(b, parts)
	if parts&partInts != 0 {
		b = appendWide(b, a.sum.zigzag())
		if a.op == OpStddev {
			b = appendWide(b, m.intSquares)
		}
	}
	if parts&partFloats != 0 {
		b = m.sum.appendTo(b)
		if a.op == OpStddev {
			b = m.squares.appendTo(b)
		}
	}
	return b
}

// noMoments stands for those of a column without any; it is never written.
var noMoments moments

// appendValue appends a non-null value that keeps its kind.
func appendValue(b []byte, v Value) []byte {
	b = append(b, byte(v.kind))
	switch v.kind {
	case KindBool:
		return append(b, byte(v.bits))
	case KindInt:
		return appendVarint(b, v.Int())
	case KindFloat:
		return appendBits(b, v.bits)
	}
	return appendString(b, v.text)
}

// DecodeCell decodes one whole encoded cell. It fails with ErrEncoding for anything that AppendTo does not write. The
// cell keeps nothing of b.
func DecodeCell(b []byte) (*Cell, error) {
	r := open(b)
	n, spans := r.cellHead()
	if r.Failed() {
		return nil, fmt.Errorf("cell: %w", r.Err)
	}
	c := newCell(n, spans)
	c.mergeBody(&r, true)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("cell: %w", err)
	}
	return c, nil
}

// MergeEncoded adds an encoded cell of the same Schema. It fails with ErrEncoding, and the cell is then spoilt: bytes
// from outside are validated before (ValidateCell). It keeps nothing of b.
func (c *Cell) MergeEncoded(b []byte) error {
	r := open(b)
	n, spans := r.cellHead()
	if !r.Failed() && (n != len(c.cols) || spans != c.spans) {
		r.Fail("another schema")
	}
	if !r.Failed() {
		c.mergeBody(&r, false)
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("cell: %w", err)
	}
	return nil
}

// ValidateCell fails with ErrEncoding if b is no encoded cell of Schema s.
func ValidateCell(s *Schema, b []byte) error { return NewCell(s).MergeEncoded(b) }

// cellHead takes version, columns and spans.
func (r *reader) cellHead() (columns int, spans bool) {
	r.version(cellVersion)
	head := r.Uvarint()
	if head>>1 > MaxColumns {
		r.Fail("%d columns", head>>1)
	}
	return int(head >> 1), head&1 != 0
}

// mergeHead adds records and span.
func (c *Cell) mergeHead(r *reader) {
	records := r.Uvarint()
	var first, last int64
	if c.spans && records > 0 {
		first = r.Varint()
		width := r.Uvarint()
		if last = int64(uint64(first) + width); last < first {
			r.Fail("span out of range")
		}
	}
	c.touch(records, first, last)
}

// mergeBody adds what follows the head. A fresh cell takes the ops it finds.
func (c *Cell) mergeBody(r *reader, fresh bool) {
	c.mergeHead(r)
	for i := range c.cols {
		a := &c.cols[i]
		o := r.Byte()
		op := Op(o &^ colEmpty)
		if fresh {
			a.op = op
		}
		if !op.valid() || op != a.op {
			r.Fail("column %d has op %d", i, op)
		}
		if r.Failed() {
			return
		}
		if o&colEmpty == 0 {
			a.mergeFrom(r)
		}
	}
}

func (a *acc) mergeFrom(r *reader) {
	switch a.op {
	case OpRecords, OpCount:
		a.n = addCounts(a.n, r.count())
	case OpSum:
		a.n = 1
		a.mergeSums(r)
	case OpAvg, OpStddev:
		a.n = addCounts(a.n, r.count())
		a.mergeSums(r)
	case OpMin, OpMax:
		if v := r.value(); !r.Failed() {
			a.addExtreme(v)
		}
	case OpDistinct:
		a.set().mergeFrom(r)
	case OpFirst, OpLast:
		a.mergePlaced(r)
	}
}

// count takes a number above zero.
func (r *reader) count() uint64 {
	n := r.Uvarint()
	if n == 0 {
		r.Fail("a column of no values")
	}
	return n
}

func (a *acc) mergeSums(r *reader) {
	parts := r.Byte()
	if parts&^(partInts|partFloats) != 0 {
		r.Fail("unknown parts of a sum")
	}
	if parts&partInts != 0 {
		sum, zero := unzigzag(r.wide(128)), false
		if zero = sum.isZero(); a.op == OpStddev {
			squares := r.wide(192)
			zero = zero && squares.isZero()
			a.moments().intSquares.merge(squares)
		}
		if zero {
			r.Fail("part of a sum that is zero")
		}
		a.sum.merge(sum)
	}
	if parts&partFloats != 0 {
		m := a.moments()
		m.floats = true
		m.sum.mergeFrom(r)
		if a.op == OpStddev {
			m.squares.mergeFrom(r)
		}
	}
}

// value takes what appendValue wrote; a text shares the buffer's bytes.
func (r *reader) value() Value {
	switch k := Kind(r.Byte()); k {
	case KindBool:
		c := r.Byte()
		if c > 1 {
			r.Fail("bad boolean")
		}
		return Bool(c == 1)
	case KindInt:
		return Int(r.Varint())
	case KindFloat:
		return r.float()
	case KindText:
		b := r.bytes()
		return Text(unsafe.String(unsafe.SliceData(b), len(b)))
	default:
		r.Fail("value of kind %d", k)
		return Value{}
	}
}

// mergePlaced adds an encoded value with its place. It makes a Source only where the value is kept.
func (a *acc) mergePlaced(r *reader) {
	v := r.value()
	at := Order{Time: r.Varint(), Offset: r.Varint()}
	if h, ok := a.ext.(*held); ok {
		if at.Source = h.at.Source; r.takeSame(at.Source) {
			a.addPlaced(v, at)
			return
		}
		if later := at.Time > h.at.Time; at.Time != h.at.Time && later == (a.op == OpFirst) {
			r.sourceParts()
			return
		}
	}
	s := r.source()
	if r.Failed() {
		return
	}
	at.Source = &s
	a.addPlaced(v, at)
}
