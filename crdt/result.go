package crdt

import (
	"math"
	"math/big"
)

// Result returns a column's result: for counts 0 over nothing, else null over nothing. A float out of range is null. The
// result is valid after the cell changes.
func (c *Cell) Result(col int) Value {
	a := &c.cols[col]
	switch a.op {
	case OpRecords, OpCount:
		return uintValue(a.n)
	case OpSum:
		return a.sumResult()
	case OpAvg:
		return a.avgResult()
	case OpStddev:
		return a.stddevResult()
	case OpMin, OpMax:
		return a.extreme()
	case OpDistinct:
		if s, ok := a.ext.(*set); ok {
			return Int(int64(len(s.ends)))
		}
		return Int(0)
	case OpFirst, OpLast:
		if h, ok := a.ext.(*held); ok {
			return h.v
		}
	}
	return Null()
}

func uintValue(n uint64) Value { return int128{lo: n}.value() }

// finite returns f, or null where it left the range of a float.
func finite(f float64) Value {
	if math.IsInf(f, 0) {
		return Null()
	}
	return Float(f)
}

func (a *acc) sumResult() Value {
	m, ok := a.ext.(*moments)
	switch {
	case a.n == 0:
		return Null()
	case !ok || !m.floats:
		return a.sum.value()
	}
	if a.sum.isZero() {
		return finite(m.sum.float())
	}
	var x exact
	x.copyFrom(&m.sum)
	x.addInt(a.sum)
	return finite(x.float())
}

// total returns ints + floats as an integer times 2^exp, exp at most 0.
func total(ints int128, floats *exact) (*big.Int, int) {
	x, exp := floats.big()
	if exp > 0 {
		x.Lsh(x, uint(exp))
		exp = 0
	}
	y := ints.big(new(big.Int))
	return x.Add(x, y.Lsh(y, uint(-exp))), exp
}

func (a *acc) avgResult() Value {
	if a.n == 0 {
		return Null()
	}
	m, ok := a.ext.(*moments)
	if !ok {
		const whole = 1 << 53
		if i, fits := a.sum.int64(); fits && i >= -whole && i <= whole && a.n <= whole {
			return Float(float64(i) / float64(a.n))
		}
		m = &noMoments
	}
	i, exp := total(a.sum, &m.sum)
	n := new(big.Int).SetUint64(a.n)
	return quotient(i, n.Lsh(n, uint(-exp)))
}

// quotient returns p / q rounded once, or null where it leaves the range. q must be above 0. Both are overwritten.
func quotient(p, q *big.Int) Value {
	// 66 bits of the quotient with whether anything follows in one more round as the whole does.
	shift := max(0, q.BitLen()-p.BitLen()+66)
	p.Lsh(p, uint(shift))
	var rest big.Int
	p.QuoRem(p, q, &rest)
	p.Lsh(p, 1)
	if s := rest.Sign(); s != 0 {
		p.Add(p, rest.SetInt64(int64(s)))
	}
	x := new(big.Float).SetInt(p)
	f, _ := x.SetMantExp(x, -shift-1).Float64()
	return finite(f)
}

// stddevResult returns the root of (n*squares - sum^2) / (n * (n-1)), which is rounded once before the root.
func (a *acc) stddevResult() Value {
	if a.n < 2 {
		return Null()
	}
	m, ok := a.ext.(*moments)
	if !ok {
		m = &noMoments
	}
	sum, exp := total(a.sum, &m.sum)
	squares, exp2 := m.squares.big()
	squares2 := m.intSquares.big(new(big.Int))
	// Bring the squares to 2^(2*exp), the scale of sum^2.
	low := min(2*exp, exp2)
	squares.Lsh(squares, uint(exp2-low))
	squares2.Lsh(squares2, uint(-low))
	squares.Add(squares, squares2)
	sum.Mul(sum, sum)
	sum.Lsh(sum, uint(2*exp-low))
	n := new(big.Int).SetUint64(a.n)
	p := squares.Mul(squares, n)
	p.Sub(p, sum)
	q := new(big.Int).Mul(n, new(big.Int).SetUint64(a.n-1))
	q.Lsh(q, uint(-low))
	v := quotient(p, q)
	if v.IsNull() || v.Float() < 0 {
		return Null()
	}
	return Float(math.Sqrt(v.Float()))
}
