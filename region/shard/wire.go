package shard

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
)

func appendUvarint(b []byte, u uint64) []byte { return binary.AppendUvarint(b, u) }

func appendVarint(b []byte, i int64) []byte { return binary.AppendVarint(b, i) }

func appendBytes(b, part []byte) []byte { return append(appendUvarint(b, uint64(len(part))), part...) }

func appendString(b []byte, s string) []byte { return append(appendUvarint(b, uint64(len(s))), s...) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendMark(b []byte, m crdt.Mark) []byte {
	return append(appendUvarint(b, uint64(m.Offset)), m.Chain[:]...)
}

func appendPoint(b []byte, p crdt.Point) []byte { return appendBytes(b, crdt.AppendPoint(nil, p)) }

func appendSourcePoints(b []byte, list []SourcePoint) []byte {
	b = appendUvarint(b, uint64(len(list)))
	for _, sp := range list {
		b = appendPoint(crdt.AppendSource(b, sp.Source), sp.Point)
	}
	return b
}

func appendSourceMarks(b []byte, list []SourceMark) []byte {
	b = appendUvarint(b, uint64(len(list)))
	for _, sm := range list {
		b = appendMark(crdt.AppendSource(b, sm.Source), sm.Mark)
	}
	return b
}

func appendRegions(b []byte, list []crdt.RegionID) []byte {
	b = appendUvarint(b, uint64(len(list)))
	for _, x := range list {
		b = appendString(b, string(x))
	}
	return b
}

func appendPins(b []byte, list []job.Pinned) []byte {
	b = appendUvarint(b, uint64(len(list)))
	for _, p := range list {
		b = appendUvarint(appendString(b, p.Name), uint64(p.Version))
	}
	return b
}

// sortedPoints lists a frontier in source order.
func sortedPoints(f crdt.Frontier) []SourcePoint {
	list := make([]SourcePoint, 0, len(f))
	for s, p := range f {
		list = append(list, SourcePoint{s, p})
	}
	slices.SortFunc(list, func(a, b SourcePoint) int { return crdt.CompareSources(a.Source, b.Source) })
	return list
}

// reader takes an encoding apart. Its first failure stays; every later call returns zero. What it returns shares the
// buffer's bytes only where it says so.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCommand, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes left over", len(r.b))
	}
	return r.err
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("cut short")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) bool() bool {
	c := r.byte()
	if c > 1 {
		r.fail("bad boolean")
	}
	return c == 1
}

// uvarint takes a varint in its shortest form, up to limit.
func (r *reader) uvarint(limit uint64) uint64 {
	u, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("bad varint")
		return 0
	}
	if u > limit {
		r.fail("%d is above %d", u, limit)
		return 0
	}
	r.b = r.b[n:]
	return u
}

func (r *reader) uint64() uint64 { return r.uvarint(1<<64 - 1) }

func (r *reader) uint32() uint32 { return uint32(r.uvarint(1<<32 - 1)) }

func (r *reader) varint() int64 {
	u := r.uint64()
	return int64(u>>1) ^ -int64(u&1)
}

// take takes n bytes, which stay the buffer's.
func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("cut short")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// rest takes all that is left, which stays the buffer's.
func (r *reader) rest() []byte { return r.take(len(r.b)) }

// bytes takes length-prefixed bytes, which stay the buffer's.
func (r *reader) bytes(limit int) []byte { return r.take(int(r.uvarint(uint64(limit)))) }

func (r *reader) string(limit int) string { return string(r.bytes(limit)) }

// count takes the number of things to come, each of at least one byte.
func (r *reader) count(limit int) int {
	n := r.uvarint(uint64(limit))
	if n > uint64(len(r.b)) {
		r.fail("cut short")
		return 0
	}
	return int(n)
}

func (r *reader) hash16() (h [16]byte) {
	copy(h[:], r.take(16))
	return h
}

func (r *reader) hash32() (h [32]byte) {
	copy(h[:], r.take(32))
	return h
}

func (r *reader) region() crdt.RegionID { return crdt.RegionID(r.string(MaxName)) }

// crdt takes an error of crdt's decoders over as the reader's own.
func (r *reader) crdt(err error) {
	if err != nil && r.err == nil {
		r.err, r.b = fmt.Errorf("%w: %w", ErrCommand, err), nil
	}
}

func (r *reader) source() crdt.Source {
	s, rest, err := crdt.CutSource(r.b)
	r.b = rest
	r.crdt(err)
	return s
}

func (r *reader) mark() crdt.Mark {
	return crdt.Mark{Offset: int64(r.uvarint(1<<63 - 1)), Chain: r.hash16()}
}

func (r *reader) point() crdt.Point {
	b := r.bytes(maxPoint)
	if r.err != nil {
		return crdt.Point{}
	}
	p, err := crdt.DecodePoint(b)
	r.crdt(err)
	return p
}

// ordered fails unless s comes after prev, the source before it in the list.
func (r *reader) ordered(i int, prev *crdt.Source, s crdt.Source) {
	if i > 0 && r.err == nil && crdt.CompareSources(*prev, s) >= 0 {
		r.fail("sources out of order: %v, %v", *prev, s)
	}
	*prev = s
}

func (r *reader) sourcePoints() []SourcePoint {
	var list []SourcePoint
	var prev crdt.Source
	for i, n := 0, r.count(MaxSources); i < n && r.err == nil; i++ {
		sp := SourcePoint{Source: r.source()}
		sp.Point = r.point()
		r.ordered(i, &prev, sp.Source)
		list = append(list, sp)
	}
	return list
}

func (r *reader) sourceMarks() []SourceMark {
	var list []SourceMark
	var prev crdt.Source
	for i, n := 0, r.count(MaxSources); i < n && r.err == nil; i++ {
		sm := SourceMark{Source: r.source()}
		sm.Mark = r.mark()
		r.ordered(i, &prev, sm.Source)
		list = append(list, sm)
	}
	return list
}

func (r *reader) pins() []job.Pinned {
	var list []job.Pinned
	for i, n := 0, r.count(MaxPins); i < n && r.err == nil; i++ {
		p := job.Pinned{Name: r.string(MaxName), Version: uint16(r.uvarint(1<<16 - 1))}
		if i > 0 && list[i-1].Name >= p.Name {
			r.fail("pinned versions out of order")
		}
		list = append(list, p)
	}
	return list
}

func (r *reader) regions() []crdt.RegionID {
	var list []crdt.RegionID
	for i, n := 0, r.count(MaxSources); i < n && r.err == nil; i++ {
		x := r.region()
		if i > 0 && list[i-1] >= x {
			r.fail("regions out of order")
		}
		list = append(list, x)
	}
	return list
}
