package crdt

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/zeebo/xxh3"
)

// Source is one partition of one input of a job, in its origin region, in one incarnation of that log (rules A2). It is
// comparable and is used as a map key. Its group is its Region.
type Source struct {
	Input       uint16 // which of the job file's sources, from 0
	Region      RegionID
	Topic       string
	Partition   int32
	Incarnation uint32
}

// String returns region/topic/partition, with the incarnation behind it when it is not the first.
func (s Source) String() string {
	if s.Incarnation > 0 {
		return fmt.Sprintf("%s/%s/%d@%d", s.Region, s.Topic, s.Partition, s.Incarnation)
	}
	return fmt.Sprintf("%s/%s/%d", s.Region, s.Topic, s.Partition)
}

// CompareSources orders sources as records of equal event time are ordered (rules A16): topic, region, partition,
// incarnation, then input. (The offset stands before the input there; two inputs never share an offset's record twice.)
func CompareSources(a, b Source) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), strings.Compare(string(a.Region), string(b.Region)),
		cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.Input, b.Input))
}

// Hash is a 128-bit hash.
type Hash [16]byte

// Header is one header of a record, in the record's order.
type Header struct {
	Key   string
	Value []byte // nil is null
}

// HeaderPrefix marks headers that belong to the mirror and are outside the hash.
const HeaderPrefix = "watershed-"

// Hasher computes hashes of records. It holds only a scratch buffer; the zero Hasher is ready. It is not safe for
// concurrent use.
type Hasher struct{ buf []byte }

// Record returns the hash of one record alone: offset, origin timestamp, key, value and headers, each part
// length-prefixed, null apart from empty, headers in order without those that begin with HeaderPrefix.
func (h *Hasher) Record(offset, timestamp int64, key, value []byte, headers []Header) Hash {
	b := binary.BigEndian.AppendUint64(h.buf[:0], uint64(offset))
	b = binary.BigEndian.AppendUint64(b, uint64(timestamp))
	b = appendPart(b, key)
	b = appendPart(b, value)
	for _, x := range headers {
		if strings.HasPrefix(x.Key, HeaderPrefix) {
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(x.Key))+1)
		b = append(b, x.Key...)
		b = appendPart(b, x.Value)
	}
	h.buf = b
	return xxh3.Hash128(b).Bytes()
}

func appendPart(b, part []byte) []byte {
	if part == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(part))+1)
	return append(b, part...)
}

// Next returns the chain after a record whose own hash is last.
func (h Hash) Next(last Hash) Hash {
	var b [32]byte
	copy(b[:16], h[:])
	copy(b[16:], last[:])
	return xxh3.Hash128(b[:]).Bytes()
}

// Outcome is what became of a record.
type Outcome uint8

// The outcomes; each record has exactly one (rules A1: counts).
const (
	Counted Outcome = iota
	Filtered
	Late
	Implausible
	Invalid
	Outcomes = 5
)

// String returns the outcome's name.
func (o Outcome) String() string {
	return [...]string{"counted", "filtered", "late", "implausible", "invalid"}[o]
}

// Counts says how many records before a point met each Outcome.
type Counts [Outcomes]uint64

// Point is where a reader stands in a source. It is a function of the log's prefix alone, whoever computed it. It is
// comparable: two points of a source are the same exactly if they are equal.
type Point struct {
	Offset    int64 // after the last record taken, never after a transaction marker
	Watermark int64 // greatest event time seen less the bound; MinTime before the first
	Chain     Hash  // running hash of the records before Offset
	Last      Hash  // hash of the last record alone; zero at a first point
	Counts    Counts
}

// Mark is the part of a Point that identifies a prefix: what an Advance's `from` carries.
type Mark struct {
	Offset int64
	Chain  Hash
}

// Mark returns p's mark.
func (p Point) Mark() Mark { return Mark{p.Offset, p.Chain} }

// FirstPoint returns the point at which source s begins: its chain is seeded with the source's id and first offset.
func FirstPoint(s Source, offset int64) Point {
	b := binary.BigEndian.AppendUint16(nil, s.Input)
	b = appendPart(b, []byte(s.Region))
	b = appendPart(b, []byte(s.Topic))
	b = binary.BigEndian.AppendUint32(b, uint32(s.Partition))
	b = binary.BigEndian.AppendUint32(b, s.Incarnation)
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	return Point{Offset: offset, Watermark: MinTime, Chain: xxh3.Hash128(b).Bytes()}
}

// After returns the point after a record at offset whose hash is last, whose fate was o, with the watermark after it.
// The watermark must not be below p's.
func (p Point) After(offset int64, last Hash, watermark int64, o Outcome) Point {
	p.Step(offset, last, watermark, o)
	return p
}

// Step makes p what After returns, without copying it.
func (p *Point) Step(offset int64, last Hash, watermark int64, o Outcome) {
	p.Offset, p.Watermark, p.Chain, p.Last = offset+1, watermark, p.Chain.Next(last), last
	p.Counts[o]++
}

// End returns p with the watermark of a source that has ended.
func (p Point) End() Point {
	p.Watermark = MaxTime
	return p
}

// Frontier is a shard's points. A source that it lacks is below every point.
type Frontier map[Source]Point
