package table

import (
	"fmt"
	"testing"
)

// benchOp returns the i-th of a stream of operations of many sessions on one key of type t.
func benchOp(t Type, i, sessions int) *Op {
	id := ID{SessionID{1_000_000 + int64(i%sessions), uint64(i % sessions)}, uint64(i/sessions) + 1}
	o := &Op{ID: id, Kind: Increment, Amount: 3}
	switch t {
	case TypeRegister:
		o.Kind, o.Amount, o.Data = Assign, 0, []byte("a value of some forty bytes, as many are.")
	case TypeSet, TypeLWWSet:
		o.Kind, o.Amount, o.Data = Insert, 0, fmt.Appendf(nil, "driver-%06d", i%1000)
	}
	if t.stamped() {
		o.Time = TimeAt(id.Session.Born + int64(i))
	}
	return o
}

// benchValue returns a value of 1,000 sessions or elements, folded by the Sessions beside it.
func benchValue(t Type, ops int) (Value, *Sessions) {
	v, s := New(t, 0), new(Sessions)
	for i := range ops {
		o := benchOp(t, i, 1000)
		s.Add(o.ID)
		v.Apply(o)
	}
	v.Fold(s)
	return v, s
}

func forBench(b *testing.B, run func(b *testing.B, t Type)) {
	for _, t := range []Type{TypeCounter, TypeRegister, TypeSet, TypeLWWSet} {
		b.Run(t.String(), func(b *testing.B) {
			b.ReportAllocs()
			run(b, t)
		})
	}
}

// BenchmarkApply takes new operations of 1,000 sessions into a value, with their ids.
func BenchmarkApply(b *testing.B) {
	forBench(b, func(b *testing.B, t Type) {
		v, s := benchValue(t, 1000)
		ops := make([]*Op, 1<<16)
		for i := range ops {
			ops[i] = benchOp(t, i+1000, 1000)
		}
		for i := 0; b.Loop(); i++ {
			o := ops[i%len(ops)]
			o.ID.Sequence = uint64(i/1000) + 2
			if t.stamped() {
				o.Time = TimeAt(o.ID.Session.Born + int64(i))
			}
			if o.Observed = nil; t == TypeSet {
				o.Observed = v.(*Set).Inserts(o.Data)
			}
			s.Add(o.ID)
			v.Apply(o)
			if i%1000 == 999 {
				v.Fold(s)
			}
		}
	})
}

// BenchmarkJoinDelta joins the copy of one operation into a value of 1,000 sessions or elements.
func BenchmarkJoinDelta(b *testing.B) {
	forBench(b, func(b *testing.B, t Type) {
		v, _ := benchValue(t, 1000)
		delta := New(t, 0)
		delta.Apply(benchOp(t, 1500, 1000))
		for b.Loop() {
			v.Join(delta)
		}
	})
}

// BenchmarkJoinState joins a value of 1,000 sessions or elements again and again: only the first time something is new.
func BenchmarkJoinState(b *testing.B) {
	forBench(b, func(b *testing.B, t Type) {
		v, _ := benchValue(t, 1000)
		other, _ := benchValue(t, 1100)
		for b.Loop() {
			v.Join(other)
		}
	})
}

// BenchmarkEncode appends a value of 1,000 sessions or elements.
func BenchmarkEncode(b *testing.B) {
	forBench(b, func(b *testing.B, t Type) {
		v, _ := benchValue(t, 1000)
		buf := v.Append(nil)
		for b.Loop() {
			buf = v.Append(buf[:0])
		}
		b.ReportMetric(float64(len(buf)), "encoded-bytes")
	})
}

// BenchmarkDecode decodes a value of 1,000 sessions or elements.
func BenchmarkDecode(b *testing.B) {
	forBench(b, func(b *testing.B, t Type) {
		v, _ := benchValue(t, 1000)
		buf := v.Append(nil)
		for b.Loop() {
			if _, err := Decode(t, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAdmit lets an operation of one of 10,000 open sessions in, and takes its id.
func BenchmarkAdmit(b *testing.B) {
	s, l := new(Sessions), Limits{MaxAhead: 1000, Open: 1 << 20, Gaps: 64}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		id := benchOp(TypeCounter, i, 10_000).ID
		if held, err := s.Admit(id, 2_000_000, l); held || err != nil {
			b.Fatal(held, err)
		}
		s.Add(id)
	}
}
