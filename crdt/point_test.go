package crdt

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genSource() *rapid.Generator[Source] {
	return rapid.Custom(func(t *rapid.T) Source {
		return Source{
			Input:  rapid.Uint16Range(0, 2).Draw(t, "input"),
			Region: RegionID(rapid.StringMatching(`[a-z0-9-]{1,3}`).Draw(t, "region")),
			Topic:  rapid.SampledFrom([]string{"a", "b", "rides.v1", "x/y", strings.Repeat("t", MaxTopic)}).Draw(t, "topic"),
			Partition: rapid.OneOf(rapid.Int32Range(0, 3), rapid.Int32Range(0, math.MaxInt32)).
				Draw(t, "partition"),
			Incarnation: rapid.OneOf(rapid.Uint32Range(0, 1), rapid.Uint32()).Draw(t, "incarnation"),
		}
	})
}

func genHash() *rapid.Generator[Hash] {
	return rapid.Map(rapid.Byte(), func(b byte) (h Hash) {
		for i := range h {
			h[i] = b
		}
		return h
	})
}

func genPoint(from int64) *rapid.Generator[Point] {
	return rapid.Custom(func(t *rapid.T) Point {
		p := Point{
			Offset:    rapid.OneOf(rapid.Int64Range(from, from+min(1000, math.MaxInt64-from)), rapid.Int64Range(from, math.MaxInt64)).Draw(t, "offset"),
			Watermark: rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{MinTime, MaxTime})).Draw(t, "watermark"),
			Chain:     genHash().Draw(t, "chain"),
			Last:      genHash().Draw(t, "last"),
		}
		for o := range p.Counts {
			p.Counts[o] = rapid.OneOf(rapid.Uint64Range(0, 9), rapid.Uint64()).Draw(t, "count")
		}
		return p
	})
}

func genFrontier(region RegionID) *rapid.Generator[Frontier] {
	return rapid.Map(rapid.MapOfN(genSource(), genPoint(0), 0, 5), func(m map[Source]Point) Frontier {
		f := Frontier{}
		for s, p := range m {
			if region != "" {
				s.Region = region
			}
			f[s] = p
		}
		return f
	})
}

func TestParseSource(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSource().Draw(t, "source")
		s.Input = 0
		if got, err := ParseSource(s.String()); err != nil || got != s {
			t.Fatalf("%s parses as %v, %v", s, got, err)
		}
	})
	for _, bad := range []string{"", "a", "a/b", "a//0", "A/b/0", "/b/0", "a/b/x", "a/b/-1", "a/b/00", "a/b/2147483648",
		"a/b/0@0", "a/b/0@", "a/b/0@4294967296", "a/b/+1", "a/" + strings.Repeat("t", MaxTopic+1) + "/0"} {
		if s, err := ParseSource(bad); !errors.Is(err, ErrName) {
			t.Errorf("%.40q parses as %v, %v", bad, s, err)
		}
	}
}

func TestRegionID(t *testing.T) {
	for _, id := range []RegionID{"us-east", "0", RegionID(strings.Repeat("r", MaxRegion))} {
		if err := id.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []RegionID{"", "US", "a_b", "a/b", "é", RegionID(strings.Repeat("r", MaxRegion+1))} {
		if err := id.Validate(); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestPointRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPoint(0).Draw(t, "point")
		b := AppendPoint(nil, p)
		if got, err := DecodePoint(b); err != nil || got != p {
			t.Fatalf("%+v, %v; want %+v", got, err, p)
		}
		if _, err := DecodePoint(b[:len(b)-1]); !errors.Is(err, ErrEncoding) {
			t.Fatalf("cut short: %v", err)
		}
		s := genSource().Draw(t, "source")
		if got, rest, err := CutSource(append(AppendSource(nil, s), b...)); err != nil || got != s || !bytes.Equal(rest, b) {
			t.Fatalf("%v, %v; want %v", got, err, s)
		}
	})
}

func TestFrontierRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFrontier("").Draw(t, "frontier")
		b := AppendFrontier(nil, f)
		if got, err := DecodeFrontier(b); err != nil || !maps.Equal(got, f) {
			t.Fatalf("%v, %v; want %v", got, err, f)
		}
	})
}

func FuzzDecodeFrontier(f *testing.F) {
	for seed := range 4 {
		f.Add(AppendFrontier(nil, genFrontier("").Example(seed)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := DecodeFrontier(b); err == nil && !bytes.Equal(AppendFrontier(nil, x), b) {
			t.Fatalf("%x taken, %x written", b, AppendFrontier(nil, x))
		}
	})
}

// Records that differ in anything that stands in the hash have different hashes.
func TestHasherRecord(t *testing.T) {
	var h Hasher
	seen := map[Hash]string{}
	add := func(name string, x Hash) {
		if other, ok := seen[x]; ok {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[x] = name
	}
	add("base", h.Record(1, 2, []byte("k"), []byte("v"), nil))
	add("offset", h.Record(2, 2, []byte("k"), []byte("v"), nil))
	add("timestamp", h.Record(1, 3, []byte("k"), []byte("v"), nil))
	add("parts moved", h.Record(1, 2, []byte("kv"), []byte(""), nil))
	add("key null", h.Record(1, 2, nil, []byte("v"), nil))
	add("key empty", h.Record(1, 2, []byte{}, []byte("v"), nil))
	add("value null", h.Record(1, 2, []byte("k"), nil, nil))
	add("value empty", h.Record(1, 2, []byte("k"), []byte{}, nil))
	add("header", h.Record(1, 2, []byte("k"), []byte("v"), []Header{{"a", []byte("1")}}))
	add("header null", h.Record(1, 2, []byte("k"), []byte("v"), []Header{{"a", nil}}))
	add("header moved", h.Record(1, 2, []byte("k"), []byte("v"), []Header{{"a1", []byte{}}}))
	add("headers", h.Record(1, 2, []byte("k"), []byte("v"), []Header{{"a", []byte("1")}, {"b", nil}}))
	add("headers turned", h.Record(1, 2, []byte("k"), []byte("v"), []Header{{"b", nil}, {"a", []byte("1")}}))
	mirrored := []Header{{HeaderPrefix + "origin", []byte("x")}, {"a", []byte("1")}}
	if seen[h.Record(1, 2, []byte("k"), []byte("v"), mirrored)] != "header" {
		t.Error("the mirror's headers stand in the hash")
	}
}

func TestPoints(t *testing.T) {
	s := testSources[0]
	p := FirstPoint(s, 7)
	if p.Offset != 7 || p.Watermark != MinTime || p.Last != (Hash{}) || p.Counts != (Counts{}) {
		t.Errorf("%+v", p)
	}
	chains := map[Hash]bool{p.Chain: true, FirstPoint(s, 8).Chain: true}
	for _, other := range testSources[1:] {
		chains[FirstPoint(other, 7).Chain] = true
	}
	if len(chains) != len(testSources)+1 {
		t.Error("first points share chains")
	}
	var h Hasher
	last := h.Record(9, 1, nil, nil, nil)
	q := p.After(9, last, 100, Late)
	if q.Offset != 10 || q.Watermark != 100 || q.Last != last || q.Chain != p.Chain.Next(last) || q.Counts != (Counts{Late: 1}) {
		t.Errorf("%+v", q)
	}
	if p.Counts != (Counts{}) || q.Mark() != (Mark{10, q.Chain}) || q.End().Watermark != MaxTime {
		t.Error("After changed its origin, or Mark or End are wrong")
	}
	for o := range Outcome(Outcomes) {
		if o.String() == "" {
			t.Errorf("outcome %d has no name", o)
		}
	}
}

// Order.Compare against fields compared one after the other.
func TestOrder(t *testing.T) {
	var orders []Order
	for i := range 24 {
		s := testSources[i/4]
		orders = append(orders, Order{int64(i & 1), &s, int64(i >> 1 & 1)})
	}
	less := func(a, b Order) bool {
		switch x, y := a.Source, b.Source; {
		case a.Time != b.Time:
			return a.Time < b.Time
		case x.Topic != y.Topic:
			return x.Topic < y.Topic
		case x.Region != y.Region:
			return x.Region < y.Region
		case x.Partition != y.Partition:
			return x.Partition < y.Partition
		case x.Incarnation != y.Incarnation:
			return x.Incarnation < y.Incarnation
		case a.Offset != b.Offset:
			return a.Offset < b.Offset
		default:
			return x.Input < y.Input
		}
	}
	for _, a := range orders {
		for _, b := range orders {
			want := 0
			if less(a, b) {
				want = -1
			} else if less(b, a) {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("%v and %v: got %d, want %d", a, b, got, want)
			}
		}
	}
}
