package crdt

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func BenchmarkAdd(b *testing.B) {
	at := Order{Time: 1, Source: &testSources[0]}
	for _, x := range []struct {
		name  string
		ops   []Op
		value func(i int) Value
	}{
		{"count+sum/int", []Op{OpRecords, OpSum}, func(i int) Value { return Int(int64(i)) }},
		{"min+max/int", []Op{OpMin, OpMax}, func(i int) Value { return Int(int64(i ^ 0x5555)) }},
		{"sum/float", []Op{OpSum}, func(i int) Value { return Float(float64(i) * 0.1) }},
		{"stddev/float", []Op{OpStddev}, func(i int) Value { return Float(float64(i) * 0.1) }},
		{"stddev/int", []Op{OpStddev}, func(i int) Value { return Int(int64(i)) }},
		{"distinct/1000", []Op{OpDistinct}, func(i int) Value { return Int(int64(i % 1000)) }},
		{"last/int", []Op{OpLast}, func(i int) Value { return Int(int64(i)) }},
	} {
		b.Run(x.name, func(b *testing.B) {
			values := make([]Value, 4096)
			for i := range values {
				values[i] = x.value(i)
			}
			c := NewCell(&Schema{Ops: x.ops})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at.Offset = int64(i)
				c.Touch(at.Time)
				for col := range x.ops {
					c.Add(col, values[i%len(values)], at)
				}
			}
		})
	}
}

func BenchmarkNewCell(b *testing.B) {
	s := &Schema{Ops: []Op{OpRecords, OpSum, OpMax}}
	b.ReportAllocs()
	for b.Loop() {
		NewCell(s).Add(1, Int(5), Order{})
	}
}

func benchCells() map[string]*Cell {
	cells := make(map[string]*Cell)
	for _, x := range []struct {
		name string
		ops  []Op
		f    float64
	}{
		{"count+sum/int", []Op{OpRecords, OpSum}, 0}, {"sum/float", []Op{OpSum}, 0.1},
		{"stddev/float", []Op{OpStddev}, 0.1}, {"distinct/100", []Op{OpDistinct}, 0}, {"last", []Op{OpLast}, 0},
	} {
		c := NewCell(&Schema{Ops: x.ops})
		for i := range 100 {
			v := Int(int64(i))
			if x.f != 0 {
				v = Float(float64(i) * x.f)
			}
			at := Order{Time: int64(i), Source: &testSources[i%len(testSources)]}
			c.Touch(at.Time)
			for col := range x.ops {
				c.Add(col, v, at)
			}
		}
		cells[x.name] = c
	}
	return cells
}

var cellNames = []string{"count+sum/int", "sum/float", "stddev/float", "distinct/100", "last"}

func BenchmarkMerge(b *testing.B) {
	cells := benchCells()
	for _, name := range cellNames {
		c := cells[name]
		e := c.AppendTo(nil)
		b.Run("memory/"+name, func(b *testing.B) {
			d := c.Clone()
			b.ReportAllocs()
			for b.Loop() {
				d.Merge(c)
			}
		})
		b.Run("encoded/"+name, func(b *testing.B) {
			d := c.Clone()
			b.ReportAllocs()
			for b.Loop() {
				if err := d.MergeEncoded(e); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("bytes/"+name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				var err error
				if buf, err = MergeCells(buf[:0], e, e); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("encode/"+name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = c.AppendTo(buf[:0])
			}
			b.ReportMetric(float64(len(buf)), "B/cell")
		})
	}
}

func BenchmarkResult(b *testing.B) {
	cells := benchCells()
	for _, name := range cellNames {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				cells[name].Result(len(cells[name].cols) - 1)
			}
		})
	}
}

func BenchmarkAdvance(b *testing.B) {
	const n = 10000
	a := &Advance{Group: "us-east"}
	for i := range 4 {
		s := Source{Region: "us-east", Topic: "rides", Partition: int32(i)}
		p := FirstPoint(s, 0)
		a.Ranges = append(a.Ranges, Range{s, p.Mark(), p.After(1000, Hash{}, 1e12, Counted)})
	}
	c := NewCell(&Schema{Ops: []Op{OpRecords, OpSum}})
	c.Touch(0)
	c.Add(0, Null(), Order{})
	c.Add(1, Int(12345), Order{})
	cell := c.AppendTo(nil)
	for i := range n {
		key := Text(fmt.Sprintf("dr5%05d", i)).AppendKey(nil)
		a.Deltas = append(a.Deltas, Delta{Slot{Time: 1e12, Key: key}, cell})
	}
	e := a.AppendTo(nil)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = a.AppendTo(buf[:0])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/delta")
		b.ReportMetric(float64(len(e))/n, "B/delta")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeAdvance(e); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/delta")
	})
	b.Run("validate", func(b *testing.B) {
		s := &Schema{Ops: []Op{OpRecords, OpSum}}
		b.ReportAllocs()
		for b.Loop() {
			if err := a.Validate(s); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/delta")
	})
}

func BenchmarkHasher(b *testing.B) {
	var h Hasher
	value := binary.BigEndian.AppendUint64(make([]byte, 192), 1)
	b.ReportAllocs()
	for b.Loop() {
		h.Record(1, 2, nil, value, nil)
	}
}
