package table

import (
	"math/big"
	"math/bits"
)

// Sum is a counter's total: a two's complement integer of 128 bits, which holds any 2^64 amounts. It is comparable.
type Sum struct{ hi, lo uint64 }

// Int64 returns s and whether it fits.
func (s Sum) Int64() (int64, bool) { return int64(s.lo), s.hi == uint64(int64(s.lo)>>63) }

// String returns s in decimal.
func (s Sum) String() string {
	hi := new(big.Int).Lsh(big.NewInt(int64(s.hi)), 64)
	return hi.Add(hi, new(big.Int).SetUint64(s.lo)).String()
}

func (s Sum) plus(t Sum) Sum {
	lo, carry := bits.Add64(s.lo, t.lo, 0)
	hi, _ := bits.Add64(s.hi, t.hi, carry)
	return Sum{hi, lo}
}

func sumOf(i int64) Sum { return Sum{uint64(i >> 63), uint64(i)} }

// zigzag folds the sign into the lowest bit, so that small sums have short encodings.
func (s Sum) zigzag() Sum {
	sign := uint64(int64(s.hi) >> 63)
	return Sum{s.hi<<1 ^ s.lo>>63 ^ sign, s.lo<<1 ^ sign}
}

func (s Sum) unzigzag() Sum {
	sign := -(s.lo & 1)
	return Sum{s.hi>>1 ^ sign, (s.lo>>1 | s.hi<<63) ^ sign}
}
