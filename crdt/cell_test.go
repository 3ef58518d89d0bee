package crdt

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Any cut of the records into cells, merged in any order and by any way, gives the same bytes.
func TestCellRegrouping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Schema{Ops: rapid.SliceOfN(rapid.SampledFrom(allOps), 0, 7).Draw(t, "ops"), Spans: rapid.Bool().Draw(t, "spans")}
		records := genRecords(s.Ops).Draw(t, "records")
		want := fold(s, records).AppendTo(nil)
		cells := make([]*Cell, rapid.IntRange(1, 5).Draw(t, "cells"))
		for i := range cells {
			cells[i] = NewCell(s)
		}
		for _, r := range rapid.Permutation(records).Draw(t, "order") {
			c := cells[rapid.IntRange(0, len(cells)-1).Draw(t, "cell")]
			c.Touch(r.at.Time)
			for i, v := range r.values {
				c.Add(i, v, r.at)
			}
		}
		for len(cells) > 1 {
			i := rapid.IntRange(1, len(cells)-1).Draw(t, "into")
			cells[i] = mergeSomehow(t, cells[0], cells[i])
			cells = cells[1:]
		}
		if got := cells[0].AppendTo(nil); !bytes.Equal(got, want) {
			t.Fatalf("merged %x, folded at once %x", got, want)
		}
	})
}

// mergeSomehow merges in one of the ways there are; it checks that b stays as it was.
func mergeSomehow(t *rapid.T, a, b *Cell) *Cell {
	x, y := a.AppendTo(nil), b.AppendTo(nil)
	switch rapid.IntRange(0, 2).Draw(t, "way") {
	case 0:
		c := a.Clone()
		c.Merge(b)
		if !bytes.Equal(a.AppendTo(nil), x) || !bytes.Equal(b.AppendTo(nil), y) {
			t.Fatal("Merge changed its argument or the origin of a clone")
		}
		return c
	case 1:
		if err := a.MergeEncoded(y); err != nil {
			t.Fatal(err)
		}
		return a
	}
	z, err := MergeCells([]byte("before"), x, y)
	if err != nil || !bytes.HasPrefix(z, []byte("before")) {
		t.Fatalf("%q: %v", z, err)
	}
	c, err := DecodeCell(z[len("before"):])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A cell holds copies: the caller's bytes may change behind it.
func TestCellKeepsNothing(t *testing.T) {
	records := genRecords(allOps).Filter(func(r []record) bool { return len(r) > 3 }).Example(7)
	b := fold(testSchema, records).AppendTo(nil)
	want := bytes.Clone(b)
	c, err := DecodeCell(b)
	if err != nil {
		t.Fatal(err)
	}
	d := NewCell(testSchema)
	if err := d.MergeEncoded(b); err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !bytes.Equal(c.AppendTo(nil), want) || !bytes.Equal(d.AppendTo(nil), want) {
		t.Fatal("a decoded cell shares its buffer")
	}
}

func TestCellSpans(t *testing.T) {
	c := NewCell(&Schema{Spans: true})
	for _, x := range []int64{5, -7, 3} {
		c.Touch(x)
	}
	d, err := DecodeCell(c.AppendTo(nil))
	if err != nil || d.First != -7 || d.Last != 5 || d.Records != 3 {
		t.Fatalf("%+v, %v", d, err)
	}
	e := NewCell(&Schema{Spans: true})
	e.Touch(math.MinInt64)
	e.Touch(math.MaxInt64)
	d.Merge(e)
	if d, err = DecodeCell(d.AppendTo(nil)); err != nil || d.First != math.MinInt64 || d.Last != math.MaxInt64 {
		t.Fatalf("%+v, %v", d, err)
	}
	d.Merge(NewCell(&Schema{Spans: true}))
	if d.First != math.MinInt64 || d.Records != 5 {
		t.Fatal("an empty cell moved the span")
	}
	if c = NewCell(&Schema{}); c.First != 0 {
		t.Fatal("span without Spans")
	}
}

func TestEqualIntegerAndFloat(t *testing.T) {
	for _, op := range []Op{OpMin, OpMax} {
		for _, values := range [][]Value{{Int(1), Float(1)}, {Float(1), Int(1)}} {
			c := NewCell(&Schema{Ops: []Op{op}})
			for _, v := range values {
				c.Add(0, v, Order{})
			}
			if got := c.Result(0); got != Int(1) {
				t.Errorf("%s keeps %v", op, got)
			}
		}
	}
}

// The laws hold even for two values of one record, which no data have.
func TestTwoValuesOfOneRecord(t *testing.T) {
	s := &Schema{Ops: []Op{OpFirst, OpLast}}
	at := Order{Source: &testSources[0]}
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SliceOfN(rapid.SampledFrom([]Value{Int(1), Float(1), Text("a"), Bool(true)}), 2, 2).Draw(t, "values")
		c := []*Cell{NewCell(s), NewCell(s)}
		for i := range c {
			for col := range s.Ops {
				c[i].Add(col, v[i], at)
			}
		}
		d := []*Cell{c[0].Clone(), c[1].Clone()}
		d[0].Merge(c[1])
		d[1].Merge(c[0])
		if x, y := d[0].AppendTo(nil), d[1].AppendTo(nil); !bytes.Equal(x, y) {
			t.Fatalf("%x one way, %x the other", x, y)
		}
	})
}

// Counts that no data make stop at the greatest, so that what is merged can always be decoded.
func TestCountsStop(t *testing.T) {
	c := NewCell(&Schema{Ops: []Op{OpAvg}})
	c.Add(0, Int(3), Order{})
	c.cols[0].n, c.Records = math.MaxUint64, math.MaxUint64-1
	b := c.AppendTo(nil)
	m, err := MergeCells(nil, b, b)
	if err != nil {
		t.Fatal(err)
	}
	d, err := DecodeCell(m)
	if err != nil || d.Records != math.MaxUint64 || d.cols[0].n != math.MaxUint64 {
		t.Fatalf("%+v, %v", d, err)
	}
}

func TestMergeOfOtherSchemas(t *testing.T) {
	schemas := []*Schema{{Ops: []Op{OpSum}}, {Ops: []Op{OpSum}, Spans: true}, {Ops: []Op{OpMin}}, {Ops: []Op{OpSum, OpSum}}}
	for i, s := range schemas {
		for j, o := range schemas {
			a, b := NewCell(s).AppendTo(nil), NewCell(o).AppendTo(nil)
			if _, err := MergeCells(nil, a, b); (err == nil) != (i == j) || err != nil && !errors.Is(err, ErrEncoding) {
				t.Errorf("MergeCells of %d and %d: %v", i, j, err)
			}
			if err := ValidateCell(s, b); (err == nil) != (i == j) || err != nil && !errors.Is(err, ErrEncoding) {
				t.Errorf("ValidateCell of %d and %d: %v", i, j, err)
			}
			func() {
				defer func() {
					if (recover() == nil) != (i == j) {
						t.Errorf("Merge of %d and %d", i, j)
					}
				}()
				NewCell(s).Merge(NewCell(o))
			}()
		}
	}
}

func TestDecodeCellRejects(t *testing.T) {
	source := AppendSource(nil, testSources[0])
	for name, b := range map[string][]byte{
		"empty":                    {},
		"version":                  {2, 0, 0},
		"too many columns":         append(appendUvarint([]byte{1}, (MaxColumns+1)<<1), 0),
		"columns cut short":        {1, 2, 0},
		"left over":                {1, 0, 0, 0},
		"long varint":              {1, 0, 0x80, 0},
		"span out of range":        appendUvarint(appendVarint([]byte{1, 1, 1}, 5), math.MaxUint64),
		"op 0":                     {1, 2, 0, 0},
		"unknown op":               {1, 2, 0, byte(opEnd)},
		"count of nothing":         {1, 2, 0, byte(OpCount), 0},
		"avg of nothing":           {1, 2, 0, byte(OpAvg), 0, 0},
		"unknown part":             {1, 2, 0, byte(OpSum), 4},
		"zero integers":            {1, 2, 0, byte(OpSum), partInts, 0},
		"zero squares":             {1, 2, 0, byte(OpStddev), 1, partInts, 0, 0},
		"min of null":              {1, 2, 0, byte(OpMin), byte(KindNull)},
		"min of an untyped text":   {1, 2, 0, byte(OpMin), byte(KindRaw), 0},
		"boolean of 2":             {1, 2, 0, byte(OpMin), byte(KindBool), 2},
		"NaN":                      append([]byte{1, 2, 0, byte(OpMin), byte(KindFloat)}, 1, 0, 0, 0, 0, 0, 0xf0, 0x7f),
		"infinity":                 append([]byte{1, 2, 0, byte(OpMin), byte(KindFloat)}, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f),
		"minus zero":               append([]byte{1, 2, 0, byte(OpMin), byte(KindFloat)}, 0, 0, 0, 0, 0, 0, 0, 0x80),
		"text cut short":           {1, 2, 0, byte(OpMin), byte(KindText), 3, 'a'},
		"empty set":                {1, 2, 0, byte(OpDistinct), 0},
		"set of null":              {1, 2, 0, byte(OpDistinct), 1, 0, 1, tagNull},
		"set of two in one":        {1, 2, 0, byte(OpDistinct), 1, 0, 2, tagTrue, tagTrue},
		"set out of order":         {1, 2, 0, byte(OpDistinct), 2, 0, 1, tagTrue, 0, 1, tagFalse},
		"set with one twice":       {1, 2, 0, byte(OpDistinct), 2, 0, 1, tagTrue, 0, 1, tagTrue},
		"set that shares too much": {1, 2, 0, byte(OpDistinct), 1, 1, 1, tagTrue},
		"set cut short":            {1, 2, 0, byte(OpDistinct), 9, 0, 1, tagTrue},
		"first without source":     {1, 2, 0, byte(OpFirst), byte(KindBool), 1, 0, 0},
		"first of a bad region":    append([]byte{1, 2, 0, byte(OpFirst), byte(KindBool), 1, 0, 0}, bytes.ToUpper(source)...),
	} {
		if c, err := DecodeCell(b); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	good := append([]byte{1, 2, 0, byte(OpFirst), byte(KindBool), 1, 0, 0}, source...)
	if _, err := DecodeCell(good); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeCell(f *testing.F) {
	for seed := range 8 {
		f.Add(fold(testSchema, genRecords(allOps).Example(seed)).AppendTo(nil))
	}
	for _, c := range benchCells() {
		f.Add(c.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCell(b)
		if err != nil {
			return
		}
		if got := c.AppendTo(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x taken, %x written", b, got)
		}
		for i := range c.cols {
			c.Result(i).AppendJSON(nil)
		}
		twice, err := MergeCells(nil, b, b)
		if err != nil {
			t.Fatal(err)
		}
		d := c.Clone()
		if d.Merge(c); !bytes.Equal(d.AppendTo(nil), twice) {
			t.Fatalf("doubled %x in memory, %x encoded", d.AppendTo(nil), twice)
		}
		if _, err := DecodeCell(twice); err != nil {
			t.Fatal(err)
		}
	})
}

// The hot path must not allocate a thing per record.
func TestAddAllocates(t *testing.T) {
	c := NewCell(testSchema)
	at := Order{Source: &testSources[0]}
	add := func() {
		for i, v := range []Value{Null(), Text("x"), Int(5), Text("a"), Text("b"), Float(0.1), Int(3), Float(7), Text("f"), Text("f")} {
			c.Add(i, v, at)
		}
		at.Offset++
		c.Touch(at.Offset)
	}
	add()
	if n := testing.AllocsPerRun(100, add); n > 0 {
		t.Errorf("%v allocations a record", n)
	}
}

// Size follows what a cell really holds, for memory is bounded by it.
func TestCellSize(t *testing.T) {
	s := &Schema{Ops: []Op{OpDistinct, OpLast, OpStddev}}
	c := NewCell(s)
	if n := c.Size(); n < 3*48 || n > 500 {
		t.Errorf("%d bytes empty", n)
	}
	long := strings.Repeat("x", 1000)
	for i := range 1000 {
		c.Add(0, Text(long+strconv.Itoa(i)), Order{})
	}
	if n := c.Size(); n < 1e6 || n > 3e6 {
		t.Errorf("%d bytes for a set of 1 MB", n)
	}
	n := c.Size()
	c.Add(1, Text(long), Order{Source: &testSources[0]})
	c.Add(2, Float(1), Order{})
	if d := c.Size() - n; d < 1200 || d > 2000 {
		t.Errorf("%d bytes for a text of 1 kB and two sums", d)
	}
	for i, op := range s.Ops {
		if c.Columns() != len(s.Ops) || c.Op(i) != op {
			t.Errorf("column %d is %s", i, c.Op(i))
		}
	}
}
