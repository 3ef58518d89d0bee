package crdt

import (
	"bytes"
	"cmp"
	"fmt"
)

// advanceVersion is the first byte of an encoded Advance or Install.
const advanceVersion = 1

// CompareSlots orders slots as they are stored: by time, key, class.
func CompareSlots(a, b Slot) int {
	if c := cmp.Compare(a.Time, b.Time); c != 0 {
		return c
	}
	if c := bytes.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return cmp.Compare(a.Class, b.Class)
}

// AppendTo appends a's encoding, column by column. Equal Advances have equal encodings. a must hold what Validate asks
// of its order; cells are not looked at.
//
// It is: version, generation, group; the number of ranges and each (appendRanges); the number of deltas n; their times
// as runs of (difference to the time before, length less one); n classes, or 1 byte where all are zero; n lengths of
// keys; n lengths of cells; the keys; the cells.
func (a *Advance) AppendTo(b []byte) []byte {
	b = append(b, advanceVersion)
	b = append(b, a.Generation[:]...)
	b = appendString(b, string(a.Group))
	b = appendRanges(b, a.Ranges)
	b = appendUvarint(b, uint64(len(a.Deltas)))
	if len(a.Deltas) == 0 {
		return b
	}
	b = appendTimes(b, a.Deltas)
	b = appendClasses(b, a.Deltas)
	for i := range a.Deltas {
		b = appendUvarint(b, uint64(len(a.Deltas[i].Slot.Key)))
	}
	for i := range a.Deltas {
		b = appendUvarint(b, uint64(len(a.Deltas[i].Cell)))
	}
	for i := range a.Deltas {
		b = append(b, a.Deltas[i].Slot.Key...)
	}
	for i := range a.Deltas {
		b = append(b, a.Deltas[i].Cell...)
	}
	return b
}

// appendRanges appends, for each range: input, topic (a 0 for that of the range before), partition, incarnation, from's
// offset and chain, and to with offset and watermark as differences to from's offset and the watermark before. The
// region is the group.
func appendRanges(b []byte, ranges []Range) []byte {
	b = appendUvarint(b, uint64(len(ranges)))
	topic, watermark := "", int64(0)
	for i := range ranges {
		x := &ranges[i]
		b = appendUvarint(b, uint64(x.Source.Input))
		if x.Source.Topic == topic {
			b = append(b, 0)
		} else {
			topic = x.Source.Topic
			b = appendString(b, topic)
		}
		b = appendUvarint(b, uint64(uint32(x.Source.Partition)))
		b = appendUvarint(b, uint64(x.Source.Incarnation))
		b = appendUvarint(b, uint64(x.From.Offset))
		b = append(b, x.From.Chain[:]...)
		b = appendPoint(b, x.To, x.From.Offset, watermark)
		watermark = x.To.Watermark
	}
	return b
}

func (r *reader) ranges(group RegionID) []Range {
	n := r.Size()
	if n == 0 {
		return nil
	}
	ranges := make([]Range, 0, min(n, len(r.B)/64+1))
	topic, watermark := "", int64(0)
	for i := 0; i < n && !r.Failed(); i++ {
		x := Range{Source: Source{Region: group, Input: uint16(r.below(1 << 16))}}
		if len(r.B) > 0 && r.B[0] == 0 && i > 0 {
			r.Byte()
		} else if t := string(r.topic()); t == topic {
			r.Fail("topic written twice")
		} else {
			topic = t
		}
		x.Source.Topic = topic
		x.Source.Partition = int32(r.below(1 << 31))
		x.Source.Incarnation = uint32(r.below(1 << 32))
		x.From.Offset = int64(r.below(1 << 63))
		x.From.Chain = r.hash()
		x.To = r.point(x.From.Offset, watermark)
		watermark = x.To.Watermark
		ranges = append(ranges, x)
	}
	return ranges
}

func appendTimes(b []byte, deltas []Delta) []byte {
	before := int64(0)
	for i := 0; i < len(deltas); {
		t, j := deltas[i].Slot.Time, i+1
		for j < len(deltas) && deltas[j].Slot.Time == t {
			j++
		}
		if i == 0 {
			b = appendVarint(b, t)
		} else {
			b = appendUvarint(b, uint64(t)-uint64(before))
		}
		b = appendUvarint(b, uint64(j-i-1))
		before, i = t, j
	}
	return b
}

func (r *reader) times(deltas []Delta) {
	t := int64(0)
	for i := 0; i < len(deltas) && !r.Failed(); {
		if i == 0 {
			t = r.Varint()
		} else {
			next := int64(uint64(t) + r.Uvarint())
			if next <= t {
				r.Fail("times out of order")
			}
			t = next
		}
		run := r.below(uint64(len(deltas) - i))
		for ; ; run-- {
			deltas[i].Slot.Time = t
			i++
			if run == 0 {
				break
			}
		}
	}
}

func appendClasses(b []byte, deltas []Delta) []byte {
	for i := range deltas {
		if deltas[i].Slot.Class != 0 {
			b = append(b, 1)
			for j := range deltas {
				b = appendUvarint(b, uint64(deltas[j].Slot.Class))
			}
			return b
		}
	}
	return append(b, 0)
}

func (r *reader) classes(deltas []Delta) {
	switch r.Byte() {
	case 0:
	case 1:
		some := uint16(0)
		for i := range deltas {
			deltas[i].Slot.Class = uint16(r.below(1 << 16))
			some |= deltas[i].Slot.Class
		}
		if some == 0 {
			r.Fail("classes that are all zero")
		}
	default:
		r.Fail("bad classes")
	}
}

// DecodeAdvance decodes one whole Advance. It fails with ErrEncoding. Keys and cells are b's bytes: the Advance is valid
// while b is unchanged. Cells are not looked at: Validate does that once, where an Advance enters a region.
func DecodeAdvance(b []byte) (*Advance, error) {
	r := open(b)
	a := new(Advance)
	r.version(advanceVersion)
	copy(a.Generation[:], r.Take(len(a.Generation)))
	a.Group = RegionID(r.region())
	a.Ranges = r.ranges(a.Group)
	a.Deltas = r.deltas()
	err := r.Done()
	if err == nil {
		err = a.checkOrder()
	}
	if err != nil {
		return nil, fmt.Errorf("advance: %w", err)
	}
	return a, nil
}

func (r *reader) deltas() []Delta {
	n := r.Size()
	if n == 0 || n > len(r.B)/2 {
		if n > 0 {
			r.Fail("cut short")
		}
		return nil
	}
	deltas := make([]Delta, n)
	r.times(deltas)
	r.classes(deltas)
	keys, cells := r.lengths(n), r.lengths(n)
	if keys.total+cells.total != len(r.B) {
		r.Fail("columns of another length")
	}
	if r.Failed() {
		return nil
	}
	for i := range deltas {
		deltas[i].Slot.Key = r.Take(int(keys.Uvarint()))
	}
	for i := range deltas {
		deltas[i].Cell = r.Take(int(cells.Uvarint()))
	}
	return deltas
}

// lengths is a column of lengths, checked and to be read again.
type lengths struct {
	reader
	total int
}

// lengths takes n lengths, of which each and the sum are at most what is left.
func (r *reader) lengths(n int) lengths {
	start, total := r.B, 0
	for range n {
		k := r.Size()
		if total += k; total > len(start) {
			r.Fail("cut short")
		}
		if r.Failed() {
			return lengths{}
		}
	}
	return lengths{open(start[:len(start)-len(r.B)]), total}
}

// Validate fails with ErrEncoding unless a keeps every rule of an Advance: a valid group; ranges in CompareSources
// order, each source once, of the group's region; no offset that falls, and none that stands with another chain; slots
// in order, each once; whole keys; and cells of Schema s. It is the deep check for an Advance from outside.
func (a *Advance) Validate(s *Schema) error {
	if err := a.Group.Validate(); err != nil {
		return fmt.Errorf("advance: %w: %w", ErrEncoding, err)
	}
	if err := a.checkOrder(); err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	scratch := NewCell(s)
	for i := range a.Deltas {
		d := &a.Deltas[i]
		for k := d.Slot.Key; len(k) > 0; {
			n := keySize(k)
			if n == 0 {
				return fmt.Errorf("advance: delta %d: %w: %w", i, ErrEncoding, ErrKey)
			}
			k = k[n:]
		}
		scratch.reset()
		if err := scratch.MergeEncoded(d.Cell); err != nil {
			return fmt.Errorf("advance: delta %d: %w", i, err)
		}
	}
	return nil
}

func (a *Advance) checkOrder() error {
	for i := range a.Ranges {
		x := &a.Ranges[i]
		switch {
		case x.Source.Region != a.Group:
			return fmt.Errorf("%w: source %s in group %s", ErrEncoding, x.Source, a.Group)
		case i > 0 && CompareSources(a.Ranges[i-1].Source, x.Source) >= 0:
			return fmt.Errorf("%w: source %s out of order", ErrEncoding, x.Source)
		case x.From.Offset < 0 || x.To.Offset < x.From.Offset:
			return fmt.Errorf("%w: source %s from offset %d to %d", ErrEncoding, x.Source, x.From.Offset, x.To.Offset)
		case x.To.Offset == x.From.Offset && x.To.Chain != x.From.Chain:
			return fmt.Errorf("%w: source %s with two chains at offset %d", ErrEncoding, x.Source, x.To.Offset)
		}
	}
	for i := 1; i < len(a.Deltas); i++ {
		if CompareSlots(a.Deltas[i-1].Slot, a.Deltas[i].Slot) >= 0 {
			return fmt.Errorf("%w: delta %d out of order", ErrEncoding, i)
		}
	}
	return nil
}

// MergeAdvances returns the Advance that does what a and then b do: for sources of both, b must start where a ends, and
// sources of one alone are carried over. It reports false where they do not join. What it returns shares keys and cells
// with both.
func MergeAdvances(a, b *Advance) (*Advance, bool) {
	if a.Generation != b.Generation || a.Group != b.Group {
		return nil, false
	}
	m := &Advance{Generation: a.Generation, Group: a.Group}
	x, y := a.Ranges, b.Ranges
	for len(x) > 0 && len(y) > 0 {
		switch c := CompareSources(x[0].Source, y[0].Source); {
		case c < 0:
			m.Ranges, x = append(m.Ranges, x[0]), x[1:]
		case c > 0:
			m.Ranges, y = append(m.Ranges, y[0]), y[1:]
		case x[0].To.Mark() != y[0].From || y[0].To.Watermark < x[0].To.Watermark:
			return nil, false
		default:
			m.Ranges = append(m.Ranges, Range{x[0].Source, x[0].From, y[0].To})
			x, y = x[1:], y[1:]
		}
	}
	m.Ranges = append(append(m.Ranges, x...), y...)
	var ok bool
	if m.Deltas, ok = mergeDeltas(a.Deltas, b.Deltas); !ok {
		return nil, false
	}
	return m, true
}

func mergeDeltas(x, y []Delta) ([]Delta, bool) {
	m := make([]Delta, 0, len(x)+len(y))
	for len(x) > 0 && len(y) > 0 {
		switch c := CompareSlots(x[0].Slot, y[0].Slot); {
		case c < 0:
			m, x = append(m, x[0]), x[1:]
		case c > 0:
			m, y = append(m, y[0]), y[1:]
		default:
			cell, err := MergeCells(nil, x[0].Cell, y[0].Cell)
			if err != nil {
				return nil, false
			}
			m = append(m, Delta{x[0].Slot, cell})
			x, y = x[1:], y[1:]
		}
	}
	return append(append(m, x...), y...), true
}

// AppendTo appends x's encoding: version, generation, group, copy, horizon, frontier.
func (x *Install) AppendTo(b []byte) []byte {
	b = append(b, advanceVersion)
	b = append(b, x.Generation[:]...)
	b = appendString(b, string(x.Group))
	b = appendUvarint(b, uint64(x.Copy))
	b = appendVarint(b, x.Horizon)
	return AppendFrontier(b, x.To)
}

// DecodeInstall decodes one whole Install; its sources must be of its group. It fails with ErrEncoding. The Install
// keeps nothing of b.
func DecodeInstall(b []byte) (*Install, error) {
	r := open(b)
	x := new(Install)
	r.version(advanceVersion)
	copy(x.Generation[:], r.Take(len(x.Generation)))
	x.Group = RegionID(r.region())
	x.Copy = uint32(r.below(1 << 32))
	x.Horizon = r.Varint()
	x.To = r.frontier()
	for s := range x.To {
		if s.Region != x.Group {
			r.Fail("a source of another group")
		}
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	return x, nil
}
