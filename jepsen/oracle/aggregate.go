package oracle

import (
	"fmt"
	"math"
	"math/big"
)

// aggregate is one member `name: function(arg)` of a source.
type aggregate struct {
	name, function string
	arg            Expr // nil for count()
}

// accept checks an argument's type; what is absent is null, and a CSV text becomes a number where one is needed.
func (a aggregate) accept(v Value) (Value, error) {
	if v.Kind == Absent {
		v = Value{Kind: Null}
	}
	if a.function == "sum" || a.function == "avg" || a.function == "stddev" {
		v = v.number()
	}
	if !v.usable() {
		return v, fmt.Errorf("%s: unreadable argument", a.name)
	}
	var ok bool
	switch a.function {
	case "sum", "avg", "stddev":
		ok = v.Kind == Null || v.Kind == Number
	case "min", "max":
		ok = v.Kind == Null || v.Kind == Number || v.Kind == Text
	case "count", "distinct", "first", "last":
		ok = v.Kind != Other
	}
	if !ok {
		return v, fmt.Errorf("%s: %s of a %v", a.name, a.function, v.Kind)
	}
	return v, nil
}

// over computes the aggregate over the arguments of records, in the order of the records; records is their number.
func (a aggregate) over(args []Value, records int) Value {
	if a.arg == nil {
		return MakeInt(int64(records))
	}
	var vs []Value
	for _, v := range args {
		if v.Kind != Null {
			vs = append(vs, v)
		}
	}
	switch a.function {
	case "count":
		return MakeInt(int64(len(vs)))
	case "distinct":
		set := map[string]bool{}
		for _, v := range vs {
			set[v.identity()] = true
		}
		return MakeInt(int64(len(set)))
	}
	if len(vs) == 0 {
		return Value{Kind: Null}
	}
	switch a.function {
	case "first":
		return vs[0]
	case "last":
		return vs[len(vs)-1]
	case "min", "max":
		best := vs[0]
		for _, v := range vs {
			if c := v.compare(best); a.function == "min" && c < 0 || a.function == "max" && c > 0 {
				best = v
			}
		}
		return best
	case "sum":
		return sum(vs)
	case "avg":
		return rounded(new(big.Rat).Quo(total(vs), big.NewRat(int64(len(vs)), 1)))
	}
	return stddev(vs)
}

// total is the exact sum.
func total(vs []Value) *big.Rat {
	t := new(big.Rat)
	for _, v := range vs {
		t.Add(t, v.rat())
	}
	return t
}

// sum stays an integer as long as every value is one.
func sum(vs []Value) Value {
	t := total(vs)
	for _, v := range vs {
		if v.Int == nil {
			return rounded(t)
		}
	}
	return Value{Kind: Number, Int: t.Num()}
}

// rounded is the nearest float, or null where it is out of range: JSON has no infinity.
func rounded(r *big.Rat) Value {
	f, _ := r.Float64()
	if math.IsInf(f, 0) {
		return Value{Kind: Null}
	}
	return MakeFloat(f)
}

// stddev is the sample's: the root of the exact sum of squared distances from the exact mean over n-1, rounded once.
func stddev(vs []Value) Value {
	if len(vs) < 2 {
		return Value{Kind: Null}
	}
	n := big.NewRat(int64(len(vs)), 1)
	mean := new(big.Rat).Quo(total(vs), n)
	squares := new(big.Rat)
	for _, v := range vs {
		d := new(big.Rat).Sub(v.rat(), mean)
		squares.Add(squares, d.Mul(d, d))
	}
	variance := rounded(squares.Quo(squares, n.Sub(n, big.NewRat(1, 1))))
	if variance.Kind == Null {
		return variance
	}
	return MakeFloat(math.Sqrt(variance.Float))
}
