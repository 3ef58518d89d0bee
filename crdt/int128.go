package crdt

import (
	"encoding/binary"
	"math/big"
	"math/bits"
)

// int128 is a two's complement integer: the sum of any 2^64 int64 fits. It wraps beyond.
type int128 struct{ lo, hi uint64 }

// add adds i, sign-extended.
func (s *int128) add(i int64) {
	var c uint64
	s.lo, c = bits.Add64(s.lo, uint64(i), 0)
	s.hi, _ = bits.Add64(s.hi, uint64(i>>63), c)
}

func (s *int128) merge(t int128) {
	var c uint64
	s.lo, c = bits.Add64(s.lo, t.lo, 0)
	s.hi, _ = bits.Add64(s.hi, t.hi, c)
}

func (s int128) isZero() bool { return s.lo|s.hi == 0 }

// int64 returns s and whether it fits.
func (s int128) int64() (int64, bool) { return int64(s.lo), s.hi == uint64(int64(s.lo)>>63) }

// big returns s in b.
func (s int128) big(b *big.Int) *big.Int {
	neg := int64(s.hi) < 0
	if neg {
		var c uint64
		s.lo, c = bits.Sub64(0, s.lo, 0)
		s.hi, _ = bits.Sub64(0, s.hi, c)
	}
	setWords(b, []uint64{s.lo, s.hi})
	if neg {
		b.Neg(b)
	}
	return b
}

// value returns s as KindInt, or as KindBig where it does not fit.
func (s int128) value() Value {
	if i, ok := s.int64(); ok {
		return Int(i)
	}
	return Big(s.big(new(big.Int)).String())
}

// zigzag folds the sign into the lowest bit, so that small numbers have small varints.
func (s int128) zigzag() uint192 {
	m := uint64(int64(s.hi) >> 63)
	return uint192{s.lo<<1 ^ m, s.hi<<1 ^ s.lo>>63 ^ m}
}

func unzigzag(u uint192) int128 {
	m := -(u[0] & 1)
	return int128{(u[0]>>1 | u[1]<<63) ^ m, u[1]>>1 ^ m}
}

// uint192 holds a sum of up to 2^64 squares of int64, least word first. It wraps beyond.
type uint192 [3]uint64

// addSquare adds i*i.
func (s *uint192) addSquare(i int64) {
	u := uint64(i)
	if i < 0 {
		u = -u
	}
	hi, lo := bits.Mul64(u, u)
	s.merge(uint192{lo, hi})
}

func (s *uint192) merge(t uint192) {
	var c uint64
	s[0], c = bits.Add64(s[0], t[0], 0)
	s[1], c = bits.Add64(s[1], t[1], c)
	s[2], _ = bits.Add64(s[2], t[2], c)
}

func (s uint192) isZero() bool { return s[0]|s[1]|s[2] == 0 }

func (s uint192) big(b *big.Int) *big.Int { return setWords(b, s[:]) }

// setWords sets b to a magnitude given least word first, at most exactLimbs of them.
func setWords(b *big.Int, words []uint64) *big.Int {
	var buf [exactLimbs * 8]byte
	k := len(buf)
	for _, w := range words {
		k -= 8
		binary.BigEndian.PutUint64(buf[k:], w)
	}
	return b.SetBytes(buf[k:])
}
