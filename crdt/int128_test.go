package crdt

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestInt128(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s int128
		var q uint192
		want, squares := new(big.Int), new(big.Int)
		for _, i := range rapid.SliceOf(genInt()).Draw(t, "ints") {
			s.add(i)
			q.addSquare(i)
			x := big.NewInt(i)
			want.Add(want, x)
			squares.Add(squares, x.Mul(x, x))
			if rapid.Bool().Draw(t, "double") {
				s.merge(s)
				q.merge(q)
				want.Lsh(want, 1)
				squares.Lsh(squares, 1)
			}
		}
		if want.BitLen() > 127 || squares.BitLen() > 192 {
			t.Skip("wraps")
		}
		if got := s.big(new(big.Int)); got.Cmp(want) != 0 {
			t.Fatalf("sum %s, want %s", got, want)
		}
		if got := q.big(new(big.Int)); got.Cmp(squares) != 0 {
			t.Fatalf("squares %s, want %s", got, squares)
		}
		if i, ok := s.int64(); ok != want.IsInt64() || ok && i != want.Int64() {
			t.Fatalf("%d, %v as 64 bits of %s", i, ok, want)
		}
		if want.IsInt64() != (s.value().Kind() == KindInt) || string(s.value().AppendJSON(nil)) != want.String() {
			t.Fatalf("%s prints as %s", want, s.value().AppendJSON(nil))
		}
		r := open(appendWide(appendWide(nil, s.zigzag()), q))
		if s2, q2 := unzigzag(r.wide(128)), r.wide(192); r.Done() != nil || s2 != s || q2 != q {
			t.Fatalf("decoded %v and %v, want %v and %v: %v", s2, q2, s, q, r.Err)
		}
	})
}

func TestWideRejects(t *testing.T) {
	ones := func(n int, last byte) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = 0xff
		}
		return append(b, last)
	}
	for name, b := range map[string][]byte{
		"cut short": {0x80}, "not the shortest": {0x80, 0}, "not the shortest, long": ones(11, 0), "129 bits": ones(18, 4),
		"too long": ones(19, 1),
	} {
		r := open(b)
		if r.wide(128); r.Done() == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, b := range map[string][]byte{"193 bits": ones(27, 8), "too long": ones(28, 1)} {
		r := open(b)
		if r.wide(192); r.Done() == nil {
			t.Errorf("%s: taken", name)
		}
	}
	r := open(append(ones(18, 3), ones(27, 7)...))
	if a, b := r.wide(128), r.wide(192); r.Done() != nil || a != (uint192{^uint64(0), ^uint64(0)}) ||
		b != (uint192{^uint64(0), ^uint64(0), ^uint64(0)}) {
		t.Errorf("greatest: %x, %x, %v", a, b, r.Err)
	}
}
