package crdt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Bounds of names from outside, in bytes.
const (
	// MaxRegion is the longest RegionID.
	MaxRegion = 63
	// MaxTopic is the longest topic.
	MaxTopic = 1024
)

// ErrName marks a text that names no region or source.
var ErrName = errors.New("malformed name")

// Validate fails with ErrName unless id is [a-z0-9-]{1,63}.
func (id RegionID) Validate() error {
	if !isRegion([]byte(id)) {
		return fmt.Errorf("%w: region %.80q", ErrName, string(id))
	}
	return nil
}

func isRegion(id []byte) bool {
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(id) > 0 && len(id) <= MaxRegion
}

// ParseSource reads what Source.String returns; the input, which is not in it, is 0. It fails with ErrName.
func ParseSource(text string) (Source, error) {
	bad := fmt.Errorf("%w: source %.200q, not region/topic/partition", ErrName, text)
	region, rest, ok := strings.Cut(text, "/")
	slash := strings.LastIndexByte(rest, '/')
	if !ok || slash < 1 || slash > MaxTopic {
		return Source{}, bad
	}
	s := Source{Region: RegionID(region), Topic: rest[:slash]}
	number, incarnation, ok := strings.Cut(rest[slash+1:], "@")
	p, err := strconv.ParseInt(number, 10, 32)
	if err != nil || p < 0 || s.Region.Validate() != nil {
		return Source{}, bad
	}
	s.Partition = int32(p)
	if ok {
		i, err := strconv.ParseUint(incarnation, 10, 32)
		if err != nil {
			return Source{}, bad
		}
		s.Incarnation = uint32(i)
	}
	if s.String() != text {
		return Source{}, bad
	}
	return s, nil
}

func appendBits(b []byte, u uint64) []byte { return binary.LittleEndian.AppendUint64(b, u) }

// float takes a finite float that is not minus zero.
func (r *reader) float() Value {
	b := r.Take(8)
	if r.Failed() {
		return Value{}
	}
	f := math.Float64frombits(binary.LittleEndian.Uint64(b))
	if math.IsNaN(f) || math.IsInf(f, 0) || f == 0 && math.Signbit(f) {
		r.Fail("float out of its normal form")
		return Value{}
	}
	return Float(f)
}

// AppendSource appends s: input, region, topic, partition, incarnation. Equal sources have equal encodings.
func AppendSource(b []byte, s Source) []byte {
	b = appendUvarint(b, uint64(s.Input))
	b = appendString(b, string(s.Region))
	b = appendString(b, s.Topic)
	b = appendUvarint(b, uint64(uint32(s.Partition)))
	return appendUvarint(b, uint64(s.Incarnation))
}

// CutSource takes a source off its encoding. It fails with ErrEncoding. The source keeps nothing of b.
func CutSource(b []byte) (s Source, rest []byte, err error) {
	r := open(b)
	s = r.source()
	if r.Failed() {
		return Source{}, nil, fmt.Errorf("source: %w", r.Err)
	}
	return s, r.B, nil
}

func (r *reader) source() (s Source) {
	input, region, topic, partition, incarnation := r.sourceParts()
	return Source{input, RegionID(region), string(topic), partition, incarnation}
}

// sourceParts takes a source; its names are the buffer's.
func (r *reader) sourceParts() (input uint16, region, topic []byte, partition int32, incarnation uint32) {
	input = uint16(r.below(1 << 16))
	region, topic = r.region(), r.topic()
	return input, region, topic, int32(r.below(1 << 31)), uint32(r.below(1 << 32))
}

// takeSame takes a source if it is s, and else leaves it.
func (r *reader) takeSame(s *Source) bool {
	ahead := *r
	input, region, topic, partition, incarnation := ahead.sourceParts()
	if ahead.Failed() || input != s.Input || string(region) != string(s.Region) || string(topic) != s.Topic ||
		partition != s.Partition || incarnation != s.Incarnation {
		return false
	}
	*r = ahead
	return true
}

// below takes a number under limit.
func (r *reader) below(limit uint64) uint64 {
	u := r.Uvarint()
	if u >= limit {
		r.Fail("%d, not below %d", u, limit)
		return 0
	}
	return u
}

// region takes a RegionID; the bytes are the buffer's.
func (r *reader) region() []byte {
	b := r.bytes()
	if !r.Failed() && !isRegion(b) {
		r.Fail("region name")
	}
	return b
}

// topic takes a topic; the bytes are the buffer's.
func (r *reader) topic() []byte {
	b := r.bytes()
	if !r.Failed() && (len(b) == 0 || len(b) > MaxTopic) {
		r.Fail("topic of %d bytes", len(b))
	}
	return b
}

// pointVersion is the first byte of a point or frontier.
const pointVersion = 1

// AppendPoint appends p: version, offset, watermark, chain, last, counts.
func AppendPoint(b []byte, p Point) []byte { return appendPoint(append(b, pointVersion), p, 0, 0) }

// DecodePoint decodes one whole point. It fails with ErrEncoding.
func DecodePoint(b []byte) (Point, error) {
	r := open(b)
	r.version(pointVersion)
	p := r.point(0, 0)
	if err := r.Done(); err != nil {
		return Point{}, fmt.Errorf("point: %w", err)
	}
	return p, nil
}

// appendPoint appends p with its offset and watermark as differences. The records counted are written as what they
// differ from the offset, most often little.
func appendPoint(b []byte, p Point, offset, watermark int64) []byte {
	b = appendVarint(b, p.Offset-offset)
	b = appendVarint(b, p.Watermark-watermark)
	b = append(b, p.Chain[:]...)
	b = append(b, p.Last[:]...)
	rest := uint64(p.Offset)
	for o := Filtered; o < Outcomes; o++ {
		b = appendUvarint(b, p.Counts[o])
		rest -= p.Counts[o]
	}
	return appendVarint(b, int64(rest-p.Counts[Counted]))
}

func (r *reader) point(offset, watermark int64) (p Point) {
	p.Offset = offset + r.Varint()
	p.Watermark = watermark + r.Varint()
	p.Chain = r.hash()
	p.Last = r.hash()
	rest := uint64(p.Offset)
	for o := Filtered; o < Outcomes; o++ {
		p.Counts[o] = r.Uvarint()
		rest -= p.Counts[o]
	}
	p.Counts[Counted] = rest - uint64(r.Varint())
	if p.Offset < 0 {
		r.Fail("offset %d", p.Offset)
	}
	return p
}

// Sources returns f's sources in CompareSources order.
func (f Frontier) Sources() []Source {
	s := make([]Source, 0, len(f))
	for x := range f {
		s = append(s, x)
	}
	slices.SortFunc(s, CompareSources)
	return s
}

// AppendFrontier appends f: version, number of sources, then source and point of each in CompareSources order.
func AppendFrontier(b []byte, f Frontier) []byte {
	b = appendUvarint(append(b, pointVersion), uint64(len(f)))
	for _, s := range f.Sources() {
		b = appendPoint(AppendSource(b, s), f[s], 0, 0)
	}
	return b
}

// DecodeFrontier decodes one whole frontier. It fails with ErrEncoding. The frontier is never nil and keeps nothing of b.
func DecodeFrontier(b []byte) (Frontier, error) {
	r := open(b)
	f := r.frontier()
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("frontier: %w", err)
	}
	return f, nil
}

func (r *reader) frontier() Frontier {
	r.version(pointVersion)
	n := r.Size()
	f := make(Frontier, min(n, 1024))
	var last Source
	for i := 0; i < n && !r.Failed(); i++ {
		s := r.source()
		if i > 0 && CompareSources(last, s) >= 0 {
			r.Fail("sources out of order")
		}
		f[s] = r.point(0, 0)
		last = s
	}
	return f
}
