package crdt

import (
	"math"

	"pgregory.net/rapid"
)

var allOps = []Op{OpRecords, OpCount, OpSum, OpMin, OpMax, OpAvg, OpDistinct, OpStddev, OpFirst, OpLast}

var testSchema = &Schema{Ops: allOps, Spans: true}

// genFloat draws floats with all exponents as likely as the usual ones.
func genFloat() *rapid.Generator[float64] {
	bits := rapid.Custom(func(t *rapid.T) float64 {
		u := rapid.Uint64().Draw(t, "bits")
		if f := math.Float64frombits(u); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
		return math.Float64frombits(u &^ (1 << 62))
	})
	return rapid.OneOf(bits, rapid.Float64(), rapid.Float64Range(-100, 100), rapid.SampledFrom([]float64{
		0, 1, -1, 0.1, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64,
		0x1p-1022, 1 << 53, 1 << 63, 1e300, 1e-300}))
}

func genInt() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64(), rapid.Int64Range(-9, 9), rapid.SampledFrom([]int64{
		math.MinInt64, math.MaxInt64, 1 << 53, 1<<53 + 1, -1<<53 - 1}))
}

func genText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b", "a\x00", "a\x00b", "\x00\xff", "12", "é"}), rapid.String())
}

// genValue draws values as keys and results are.
func genValue() *rapid.Generator[Value] {
	return rapid.OneOf(rapid.Just(Null()), rapid.Map(rapid.Bool(), Bool), rapid.Map(genInt(), Int),
		rapid.Map(genFloat(), Float), rapid.Map(genText(), Text))
}

var testSources = []Source{
	{0, "us-east", "rides", 0, 0}, {1, "us-east", "rides", 0, 0}, {0, "us-east", "pings", 7, 0},
	{0, "eu-west", "rides", 0, 0}, {0, "us-east", "rides", 0, 2}, {300, "eu-west", "ünicode", 1 << 30, 1 << 31},
}

// record is what one record adds to a cell.
type record struct {
	at     Order
	values []Value
}

// genRecords draws records with unequal Orders.
func genRecords(ops []Op) *rapid.Generator[[]record] {
	var sources []*Source
	for i := range testSources {
		sources = append(sources, &testSources[i])
	}
	times := []int64{0, 1, 2, 1448000000000, MinTime, MaxTime} // few, so that records meet at the first and last
	one := rapid.Custom(func(t *rapid.T) record {
		r := record{at: Order{
			Time:   rapid.SampledFrom(times).Draw(t, "time"),
			Source: rapid.SampledFrom(sources).Draw(t, "source"),
			Offset: rapid.Int64Range(0, 5).Draw(t, "offset"),
		}}
		for _, op := range ops {
			v, err := Check(op, genValue().Draw(t, "value"))
			if err != nil {
				v = Null()
			}
			r.values = append(r.values, v)
		}
		return r
	})
	return rapid.SliceOfNDistinct(one, 0, 20, func(r record) Order {
		return r.at
	})
}

// fold makes the cell of records.
func fold(s *Schema, records []record) *Cell {
	c := NewCell(s)
	for _, r := range records {
		c.Touch(r.at.Time)
		for i, v := range r.values {
			c.Add(i, v, r.at)
		}
	}
	return c
}
