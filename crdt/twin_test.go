package crdt

import (
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// twin is the slow and obvious column: it keeps every value and computes with fractions.
type twin struct {
	op      Op
	records int
	values  []Value
	at      []Order
}

func (w *twin) add(v Value, at Order) {
	w.records++
	if !v.IsNull() {
		w.values, w.at = append(w.values, v), append(w.at, at)
	}
}

func rat(v Value) *big.Rat {
	if v.Kind() == KindInt {
		return new(big.Rat).SetInt64(v.Int())
	}
	return new(big.Rat).SetFloat64(v.Float())
}

func rounded(r *big.Rat) Value {
	f, _ := r.Float64()
	if math.IsInf(f, 0) {
		return Null()
	}
	return Float(f)
}

// sums returns the sum, the sum of squares and whether there was a float.
func (w *twin) sums() (sum, squares *big.Rat, floats bool) {
	sum, squares = new(big.Rat), new(big.Rat)
	for _, v := range w.values {
		x := rat(v)
		sum.Add(sum, x)
		squares.Add(squares, x.Mul(x, x))
		floats = floats || v.Kind() == KindFloat
	}
	return sum, squares, floats
}

func (w *twin) result() Value {
	n := int64(len(w.values))
	sum, squares, floats := new(big.Rat), new(big.Rat), false
	if w.op == OpSum || w.op == OpAvg || w.op == OpStddev {
		sum, squares, floats = w.sums()
	}
	switch {
	case w.op == OpRecords:
		return Int(int64(w.records))
	case w.op == OpCount:
		return Int(n)
	case w.op == OpDistinct:
		return Int(int64(w.distinct()))
	case n == 0 || w.op == OpStddev && n == 1:
		return Null()
	case w.op == OpSum && floats:
		return rounded(sum)
	case w.op == OpSum && sum.Num().IsInt64():
		return Int(sum.Num().Int64())
	case w.op == OpSum:
		return Big(sum.Num().String())
	case w.op == OpAvg:
		return rounded(sum.Quo(sum, big.NewRat(n, 1)))
	case w.op == OpStddev:
		squares.Mul(squares, big.NewRat(n, 1))
		squares.Sub(squares, sum.Mul(sum, sum))
		if v := rounded(squares.Quo(squares, big.NewRat(n*(n-1), 1))); !v.IsNull() {
			return Float(math.Sqrt(v.Float()))
		}
		return Null()
	}
	return w.chosen()
}

func (w *twin) distinct() (n int) {
	for i, v := range w.values {
		if !slices.ContainsFunc(w.values[:i], func(u Value) bool { return Compare(u, v) == 0 }) {
			n++
		}
	}
	return n
}

func (w *twin) chosen() Value {
	order := make([]int, len(w.values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		switch w.op {
		case OpFirst, OpLast:
			return w.at[i].Compare(w.at[j])
		case OpMax:
			i, j = j, i
			fallthrough
		default:
			if c := Compare(w.values[i], w.values[j]); c != 0 {
				return c
			}
		}
		if w.op == OpMax {
			i, j = j, i
		}
		return int(w.values[i].Kind()) - int(w.values[j].Kind())
	})
	if w.op == OpLast {
		return w.values[order[len(order)-1]]
	}
	return w.values[order[0]]
}

// Every aggregate gives what the slow twin gives.
func TestResults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := genRecords(allOps).Draw(t, "records")
		c := fold(testSchema, records)
		d, err := DecodeCell(c.AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		for col, op := range allOps {
			w := twin{op: op}
			for _, r := range records {
				w.add(r.values[col], r.at)
			}
			if got, want := c.Result(col), w.result(); got != want {
				t.Fatalf("%s: got %s, want %s", op, got.AppendJSON(nil), want.AppendJSON(nil))
			}
			if c.Result(col) != d.Result(col) {
				t.Fatalf("%s: the decoded cell gives %s", op, d.Result(col).AppendJSON(nil))
			}
		}
	})
}

// Columns that meet nothing but numbers, which genValue draws too seldom.
func TestNumberResults(t *testing.T) {
	ops := []Op{OpSum, OpAvg, OpStddev}
	ints, floats := rapid.Map(genInt(), Int), rapid.Map(genFloat(), Float)
	small := rapid.Map(rapid.Float64Range(-1e6, 1e6), Float)
	tiny := rapid.Map(rapid.Uint64Range(0, 1<<54), func(u uint64) Value { return Float(math.Float64frombits(u)) })
	for name, values := range map[string]*rapid.Generator[Value]{
		"ints": ints, "floats": floats, "mixed": rapid.OneOf(ints, floats), "small": small, "tiny": tiny,
		"small mixed": rapid.OneOf(rapid.Map(rapid.Int64Range(-50, 50), Int), small),
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				c := NewCell(&Schema{Ops: ops})
				w := twin{}
				for _, v := range rapid.SliceOfN(values, 0, 40).Draw(t, "values") {
					w.add(v, Order{})
					for col := range ops {
						c.Add(col, v, Order{})
					}
				}
				for col, op := range ops {
					w.op = op
					if got, want := c.Result(col), w.result(); got != want {
						t.Fatalf("%s: got %s, want %s", op, got.AppendJSON(nil), want.AppendJSON(nil))
					}
				}
			})
		})
	}
}

// A tie that only what follows far behind it breaks.
func TestQuotientRounding(t *testing.T) {
	const tie = 1<<54 + 2 // between floats 1<<54 and 1<<54 + 4
	for _, x := range []struct {
		sum, rest float64
		want      float64
	}{{1, 0, 1 << 54}, {1, 0x1p-100, 1<<54 + 4}, {1, -0x1p-100, 1 << 54}, {-1, -0x1p-100, -(1<<54 + 4)}} {
		c := NewCell(&Schema{Ops: []Op{OpAvg}})
		for _, v := range []Value{Int(int64(x.sum) * (3*tie - 1)), Int(int64(x.sum)), Float(x.rest)} {
			c.Add(0, v, Order{})
		}
		if got := c.Result(0); got != Float(x.want) {
			t.Errorf("%+v: got %s", x, got.AppendJSON(nil))
		}
	}
}
