package crdt

import (
	"bytes"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func (x *exact) rat() *big.Rat {
	i, exp := x.big()
	r := new(big.Rat).SetInt(i)
	if exp >= 0 {
		return r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(exp))))
	}
	return r.Quo(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(-exp))))
}

// A random walk of additions, squares, merges and round trips stays equal to a fraction, and its bytes are a function
// of the sum alone.
func TestExactWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x exact
		want, squares := new(big.Rat), false
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			f := genFloat().Draw(t, "f")
			v := new(big.Rat).SetFloat64(f)
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				x.add(f)
			case 1:
				x.addSquare(f)
				v.Mul(v, v)
				squares = true
			case 2:
				var y exact
				y.add(f)
				x.merge(&y)
			case 3:
				x.add(f)
				b := x.appendTo(nil)
				x = exact{}
				r := open(b)
				x.mergeFrom(&r)
				if err := r.Done(); err != nil {
					t.Fatal(err)
				}
			case 4: // back to about nothing
				if y, _ := want.Float64(); !math.IsInf(y, 0) {
					x.add(-y)
					v.SetFloat64(-y)
				} else {
					v.SetInt64(0)
				}
			}
			want.Add(want, v)
			if got := x.rat(); got.Cmp(want) != 0 {
				t.Fatalf("got %s, want %s", got, want)
			}
			if got, _ := want.Float64(); !squares && got != x.float() {
				t.Fatalf("rounded to %g, want %g", x.float(), got)
			}
		}
		var y exact // the same sum by another way: its own rounded parts
		rest := new(big.Rat).Set(want)
		for range 100 {
			f, _ := rest.Float64()
			if f = min(max(f, -math.MaxFloat64), math.MaxFloat64); f == 0 {
				break
			}
			y.add(f)
			rest.Sub(rest, new(big.Rat).SetFloat64(f))
		}
		if rest.Sign() == 0 && !bytes.Equal(x.appendTo(nil), y.appendTo(nil)) {
			t.Fatalf("%s as %x and %x", want, x.appendTo(nil), y.appendTo(nil))
		}
	})
}

// Sums that grow run over into new limbs, up and down, by additions and by merges.
func TestExactGrows(t *testing.T) {
	for e := -70; e < 70; e += 3 {
		for _, f := range []float64{math.Ldexp(1.999, e), -math.Ldexp(1.999, e)} {
			var x exact
			for range 9000 {
				x.add(f)
			}
			want := new(big.Rat).SetFloat64(f)
			want.Mul(want, big.NewRat(9000, 1))
			if x.rat().Cmp(want) != 0 {
				t.Fatalf("9000 times %g: got %s, want %s", f, x.rat(), want)
			}
			for range 100 {
				var y exact
				y.copyFrom(&x)
				x.merge(&y)
				if want.Add(want, want); x.rat().Cmp(want) != 0 {
					t.Fatalf("%g doubled: got %s, want %s", f, x.rat(), want)
				}
			}
		}
	}
}

func TestExactRounding(t *testing.T) {
	for _, x := range []struct {
		add  []float64
		want float64
	}{
		{[]float64{1e308, 1e308, -1e308}, 1e308},
		{[]float64{1, 0x1p-53}, 1},                          // a tie goes to even
		{[]float64{1, 0x1p-53, 0x1p-1074}, 1 + 0x1p-52},     // the least excess breaks it
		{[]float64{1, 0x1p-53, -0x1p-1074}, 1},              //
		{[]float64{1 + 0x1p-52, 0x1p-53}, 1 + 0x1p-51},      // the other tie
		{[]float64{-1, -0x1p-53, -0x1p-1074}, -1 - 0x1p-52}, // signs alike
		{[]float64{math.MaxFloat64, 0x1p969}, math.MaxFloat64},
		{[]float64{math.MaxFloat64, 0x1p970}, math.Inf(1)},
		{[]float64{-math.MaxFloat64, -0x1p970}, math.Inf(-1)},
		{[]float64{0x1p-1074, 0x1p-1074}, 0x1p-1073},
		{[]float64{0x1p-1022, -0x1p-1074}, 0x1p-1022 - 0x1p-1074},
		{[]float64{0.1, -0.1}, 0},
	} {
		var e exact
		for _, f := range x.add {
			e.add(f)
		}
		if got := e.float(); got != x.want {
			t.Errorf("%g: got %g, want %g", x.add, got, x.want)
		}
	}
}

// Sums that no data make wrap in one ring: they stay associative and can be decoded again.
func TestExactWraps(t *testing.T) {
	top := append(appendVarint([]byte{1<<1 | 1}, -exactBias-1), 1) // -2^2175, the least
	var x, y exact
	for _, e := range []*exact{&x, &y} {
		r := open(top)
		e.mergeFrom(&r)
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
	}
	if b := x.appendTo(nil); !bytes.Equal(b, top) {
		t.Fatalf("%x, want %x", b, top)
	}
	x.add(-1)
	if r := open(x.appendTo(nil)); true {
		var z exact
		if z.mergeFrom(&r); r.Done() != nil {
			t.Fatal(r.Err)
		}
	}
	x.merge(&y)
	if got := x.float(); got != -1 {
		t.Fatalf("got %g, want -1", got)
	}
}

func TestExactRejects(t *testing.T) {
	for name, b := range map[string][]byte{
		"even":       {1 << 1, 0, 2},
		"high zero":  {2 << 1, 0, 0, 1},
		"minus zero": {1},
		"too low":    append(appendVarint([]byte{1 << 1}, exactBias-1), 1),
		"too high":   append(appendVarint([]byte{1 << 1}, -exactBias-1), 1),
		"cut short":  {2 << 1, 0, 1},
	} {
		r := open(b)
		var x exact
		x.mergeFrom(&r)
		if r.Done() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
