package crdt

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genSlot() *rapid.Generator[Slot] {
	return rapid.Custom(func(t *rapid.T) Slot {
		return Slot{
			Time:  rapid.OneOf(rapid.Int64Range(0, 2), rapid.SampledFrom([]int64{MinTime, -1, MaxTime})).Draw(t, "time"),
			Class: rapid.SampledFrom([]uint16{0, 0, 1, 65535}).Draw(t, "class"),
			Key:   rapid.SampledFrom([]Value{Text("a"), Text("b"), Int(1), Null()}).Draw(t, "key").AppendKey([]byte{}),
		}
	})
}

func genDeltas(s *Schema) *rapid.Generator[[]Delta] {
	one := rapid.Custom(func(t *rapid.T) Delta {
		return Delta{genSlot().Draw(t, "slot"), fold(s, genRecords(s.Ops).Draw(t, "records")).AppendTo(nil)}
	})
	type id struct {
		time  int64
		class uint16
		key   string
	}
	distinct := rapid.SliceOfNDistinct(one, 0, 6, func(d Delta) id { return id{d.Slot.Time, d.Slot.Class, string(d.Slot.Key)} })
	return rapid.Map(distinct, func(d []Delta) []Delta {
		slices.SortFunc(d, func(a, b Delta) int { return CompareSlots(a.Slot, b.Slot) })
		return d
	})
}

// genAdvance draws an Advance of group "eu" whose ranges start at what base holds.
func genAdvance(base Frontier) *rapid.Generator[*Advance] {
	return rapid.Custom(func(t *rapid.T) *Advance {
		a := &Advance{Generation: GenerationID{15: 1}, Group: "eu"}
		to := genFrontier("eu").Draw(t, "to")
		for s, p := range base {
			if _, ok := to[s]; !ok && rapid.Bool().Draw(t, "known") {
				to[s] = p
			}
		}
		for _, s := range to.Sources() {
			from, ok := base[s]
			if !ok {
				from = genPoint(0).Draw(t, "from")
			}
			p := genPoint(from.Offset).Draw(t, "point")
			p.Watermark = max(p.Watermark, from.Watermark)
			if p.Offset == from.Offset {
				p.Chain = from.Chain
			}
			a.Ranges = append(a.Ranges, Range{s, from.Mark(), p})
		}
		a.Deltas = genDeltas(testSchema).Draw(t, "deltas")
		return a
	})
}

func equalAdvances(a, b *Advance) bool {
	return a.Generation == b.Generation && a.Group == b.Group && slices.Equal(a.Ranges, b.Ranges) &&
		slices.EqualFunc(a.Deltas, b.Deltas, func(x, y Delta) bool { return reflect.DeepEqual(x, y) })
}

func TestAdvanceRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := genAdvance(nil).Draw(t, "advance")
		if err := a.Validate(testSchema); err != nil {
			t.Fatal(err)
		}
		b := a.AppendTo([]byte("before"))[len("before"):]
		got, err := DecodeAdvance(b)
		if err != nil || !equalAdvances(got, a) {
			t.Fatalf("%+v, %v; want %+v", got, err, a)
		}
		if _, err := DecodeAdvance(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); !errors.Is(err, ErrEncoding) {
			t.Fatalf("cut short: %v", err)
		}
		if _, err := DecodeAdvance(append(b, 0)); !errors.Is(err, ErrEncoding) {
			t.Fatalf("left over: %v", err)
		}
	})
}

// apply adds an Advance to a shard of the slowest kind.
func apply(t *rapid.T, points Frontier, cells map[string][]byte, a *Advance) {
	for _, r := range a.Ranges {
		if p, ok := points[r.Source]; ok && p.Mark() != r.From {
			t.Fatalf("%s starts elsewhere", r.Source)
		}
		points[r.Source] = r.To
	}
	for _, d := range a.Deltas {
		key := string((&Advance{Deltas: []Delta{{Slot: d.Slot}}}).AppendTo(nil))
		if old, ok := cells[key]; ok {
			var err error
			if cells[key], err = MergeCells(nil, old, d.Cell); err != nil {
				t.Fatal(err)
			}
		} else {
			cells[key] = d.Cell
		}
	}
}

// Two Advances joined do what they do one after the other, and joining is associative.
func TestMergeAdvances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points, cells := Frontier{}, map[string][]byte{}
		var as []*Advance
		for range 3 {
			a := genAdvance(points).Draw(t, "advance")
			as = append(as, a)
			apply(t, points, cells, a)
		}
		ab, ok := MergeAdvances(as[0], as[1])
		if !ok {
			t.Fatal("a and b do not join")
		}
		abc, ok := MergeAdvances(ab, as[2])
		if !ok || abc.Validate(testSchema) != nil {
			t.Fatal("ab and c do not join")
		}
		bc, ok := MergeAdvances(as[1], as[2])
		if !ok {
			t.Fatal("b and c do not join")
		}
		if x, ok := MergeAdvances(as[0], bc); !ok || !bytes.Equal(x.AppendTo(nil), abc.AppendTo(nil)) {
			t.Fatal("a(bc) is not (ab)c")
		}
		gotPoints, gotCells := Frontier{}, map[string][]byte{}
		apply(t, gotPoints, gotCells, abc)
		if !maps.Equal(gotPoints, points) || !maps.EqualFunc(gotCells, cells, bytes.Equal) {
			t.Fatal("joined they do something else")
		}
	})
}

func testAdvance() *Advance {
	s := Source{Region: "eu", Topic: "rides"}
	p := FirstPoint(s, 5)
	q := p.After(5, Hash{1}, 10, Counted)
	s2 := s
	s2.Partition = 1
	p2 := FirstPoint(s2, 0)
	cell := fold(testSchema, nil).AppendTo(nil)
	return &Advance{Group: "eu", Ranges: []Range{{s, p.Mark(), q}, {s2, p2.Mark(), p2.End()}},
		Deltas: []Delta{{Slot{1, 0, Text("a").AppendKey(nil)}, cell}, {Slot{1, 1, Text("a").AppendKey(nil)}, cell}}}
}

func TestMergeAdvancesRefuses(t *testing.T) {
	for name, change := range map[string]func(a *Advance){
		"generation":  func(a *Advance) { a.Generation[0] = 9 },
		"group":       func(a *Advance) { a.Group = "us" },
		"offset":      func(a *Advance) { a.Ranges[0].From.Offset++ },
		"chain":       func(a *Advance) { a.Ranges[0].From.Chain[0]++ },
		"watermark":   func(a *Advance) { a.Ranges[1].To.Watermark = 3 },
		"broken cell": func(a *Advance) { a.Deltas[1].Cell = []byte{9} },
	} {
		a, b := testAdvance(), testAdvance()
		for i := range b.Ranges {
			b.Ranges[i].From = a.Ranges[i].To.Mark()
			b.Ranges[i].To = a.Ranges[i].To
		}
		if _, ok := MergeAdvances(a, b); !ok {
			t.Fatal("the unchanged ones do not join")
		}
		if change(b); name == "group" {
			b.Ranges = nil
		}
		if m, ok := MergeAdvances(a, b); ok || m != nil {
			t.Errorf("%s: joined", name)
		}
	}
}

func TestAdvanceValidates(t *testing.T) {
	if err := testAdvance().Validate(testSchema); err != nil {
		t.Fatal(err)
	}
	deep := map[string]bool{"key": true, "cell": true, "schema": true}
	for name, change := range map[string]func(a *Advance){
		"group":            func(a *Advance) { a.Group = "EU" },
		"source elsewhere": func(a *Advance) { a.Ranges[1].Source.Region = "us" },
		"sources turned":   func(a *Advance) { a.Ranges[0], a.Ranges[1] = a.Ranges[1], a.Ranges[0] },
		"source twice":     func(a *Advance) { a.Ranges[1].Source = a.Ranges[0].Source },
		"offset falls":     func(a *Advance) { a.Ranges[0].To.Offset = 4 },
		"offset below 0":   func(a *Advance) { a.Ranges[1].From.Offset = -1 },
		"two chains":       func(a *Advance) { a.Ranges[1].To.Chain[3]++ },
		"slots turned":     func(a *Advance) { a.Deltas[0], a.Deltas[1] = a.Deltas[1], a.Deltas[0] },
		"slot twice":       func(a *Advance) { a.Deltas[1].Slot = a.Deltas[0].Slot },
		"times turned":     func(a *Advance) { a.Deltas[0].Slot.Time = 2 },
		"key":              func(a *Advance) { a.Deltas[1].Slot.Key = []byte{tagText, 'a', 0} },
		"cell":             func(a *Advance) { a.Deltas[1].Cell = []byte{cellVersion} },
		"schema":           func(a *Advance) { a.Deltas[1].Cell = NewCell(&Schema{Ops: []Op{OpSum}}).AppendTo(nil) },
	} {
		a := testAdvance()
		change(a)
		if err := a.Validate(testSchema); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: Validate says %v", name, err)
		}
		if name == "source elsewhere" { // cannot be written: the region is the group
			continue
		}
		if _, err := DecodeAdvance(a.AppendTo(nil)); !deep[name] && !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: DecodeAdvance says %v", name, err)
		}
	}
}

func TestAdvanceIsCompact(t *testing.T) {
	a := testAdvance()
	n := len(a.AppendTo(nil))
	for i := range 100 {
		k := Text("a" + strings.Repeat("x", i+1)).AppendKey(nil)
		a.Deltas = append(a.Deltas, Delta{Slot{1, 0, k}, []byte{1, 0, 0}})
		n += len(k) + 3 + 4 // key, cell, and for each its two lengths and its class
	}
	if got := len(a.AppendTo(nil)); got > n {
		t.Errorf("%d bytes, more than %d", got, n)
	}
}

func TestInstallRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &Install{Generation: GenerationID{3: 7}, Group: "eu", Copy: rapid.Uint32().Draw(t, "copy"),
			To: genFrontier("eu").Draw(t, "to"), Horizon: rapid.Int64().Draw(t, "horizon")}
		b := x.AppendTo(nil)
		if got, err := DecodeInstall(b); err != nil || !reflect.DeepEqual(got, x) {
			t.Fatalf("%+v, %v; want %+v", got, err, x)
		}
		if _, err := DecodeInstall(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); !errors.Is(err, ErrEncoding) {
			t.Fatalf("cut short: %v", err)
		}
	})
	x := &Install{Group: "eu", To: Frontier{{Region: "us", Topic: "a"}: {}}}
	if _, err := DecodeInstall(x.AppendTo(nil)); !errors.Is(err, ErrEncoding) {
		t.Errorf("a source of another group: %v", err)
	}
}

func FuzzDecodeAdvance(f *testing.F) {
	for seed := range 4 {
		f.Add(genAdvance(nil).Example(seed).AppendTo(nil))
	}
	f.Add(testAdvance().AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := DecodeAdvance(b)
		if err != nil {
			return
		}
		if got := a.AppendTo(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x taken, %x written", b, got)
		}
		_ = a.Validate(testSchema)
		MergeAdvances(a, a)
	})
}

func FuzzDecodeInstall(f *testing.F) {
	for seed := range 4 {
		x := &Install{Group: "eu", Copy: 3, To: genFrontier("eu").Example(seed), Horizon: -5}
		f.Add(x.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := DecodeInstall(b); err == nil && !bytes.Equal(x.AppendTo(nil), b) {
			t.Fatalf("%x taken, %x written", b, x.AppendTo(nil))
		}
	})
}
