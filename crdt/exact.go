package crdt

import (
	"math"
	"math/big"
	"math/bits"
)

// The range of an exact sum in limbs of 64 bits. Bit 0 of limb 0 is worth 2^exactBias: squares of float64 go down to
// 2^-2148 and up to 2^2048, and 2^64 of them still fit below the sign bit. Sums beyond, which no data make, wrap.
const (
	exactBias  = -2176
	exactLimbs = 68
	exactBits  = exactLimbs * 64
)

// exact is the exact sum of float64 values or of their squares: a two's complement number in the limbs from base on,
// extended by its sign above and by zeros below. The zero exact is zero. It must not be copied by value: limbs may
// point into small.
type exact struct {
	limbs []uint64
	base  int
	small [4]uint64
}

// split returns the magnitude of finite f as m * 2^e.
func split(f float64) (m uint64, e int, neg bool) {
	u := math.Float64bits(f)
	m, e, neg = u&(1<<52-1), int(u>>52&0x7ff), u>>63 != 0
	if e == 0 {
		return m, -1074, neg
	}
	return m | 1<<52, e - 1075, neg
}

// add adds f, which must be finite.
func (x *exact) add(f float64) {
	m, e, neg := split(f)
	if m != 0 {
		x.addAt(e-exactBias, m, neg)
	}
}

// addSquare adds the exact square of f.
func (x *exact) addSquare(f float64) {
	m, e, _ := split(f)
	if m == 0 {
		return
	}
	hi, lo := bits.Mul64(m, m)
	x.addAt(2*e-exactBias, lo, false)
	if hi != 0 {
		x.addAt(2*e-exactBias+64, hi, false)
	}
}

// addAt adds or subtracts m shifted left by pos bits.
func (x *exact) addAt(pos int, m uint64, neg bool) {
	limb, shift := pos>>6, uint(pos&63)
	lo, hi := m<<shift, m>>(64-shift)
	x.cover(limb, limb+2)
	l := x.limbs[limb-x.base:]
	before := x.limbs[len(x.limbs)-1] >> 63
	var c uint64
	if neg {
		l[0], c = bits.Sub64(l[0], lo, 0)
		for i := 1; i < len(l) && (hi|c) != 0; i++ {
			l[i], c = bits.Sub64(l[i], hi, c)
			hi = 0
		}
	} else {
		l[0], c = bits.Add64(l[0], lo, 0)
		for i := 1; i < len(l) && (hi|c) != 0; i++ {
			l[i], c = bits.Add64(l[i], hi, c)
			hi = 0
		}
	}
	if after := x.limbs[len(x.limbs)-1] >> 63; before != after {
		// The sign changed: by running over, if in the direction of the addend, else rightly.
		if neg == (before == 1) {
			x.widen(-before)
		}
	}
}

// widen puts a limb of sign on top.
func (x *exact) widen(sign uint64) {
	if x.base+len(x.limbs) < exactLimbs {
		x.limbs = append(x.limbs, sign)
	}
}

// cover makes the limbs from lo up to hi present.
func (x *exact) cover(lo, hi int) {
	hi = min(hi, exactLimbs)
	if len(x.limbs) == 0 {
		x.base = lo
		if cap(x.limbs) == 0 {
			x.limbs = x.small[:0]
		}
		x.limbs = append(x.limbs, 0)
	}
	if n := x.base - lo; n > 0 {
		limbs := x.limbs
		for range n {
			limbs = append(limbs, 0)
		}
		copy(limbs[n:], limbs[:len(limbs)-n])
		clear(limbs[:n])
		x.limbs, x.base = limbs, lo
	}
	for sign := -(x.limbs[len(x.limbs)-1] >> 63); x.base+len(x.limbs) < hi; {
		x.limbs = append(x.limbs, sign)
	}
}

// merge adds y.
func (x *exact) merge(y *exact) {
	if len(y.limbs) == 0 {
		return
	}
	x.cover(y.base, y.base+len(y.limbs))
	xs, ys := x.limbs[len(x.limbs)-1]>>63, y.limbs[len(y.limbs)-1]>>63
	l, c := x.limbs[y.base-x.base:], uint64(0)
	for i := range l {
		w := -ys
		if i < len(y.limbs) {
			w = y.limbs[i]
		}
		l[i], c = bits.Add64(l[i], w, c)
	}
	if xs == ys && l[len(l)-1]>>63 != xs {
		x.widen(-xs)
	}
}

// copyFrom makes x an independent copy of y.
func (x *exact) copyFrom(y *exact) {
	x.base, x.limbs = y.base, append(x.small[:0], y.limbs...)
}

// magnitude returns |x| in buf, least word first without high zeros, with the place of its first word and its sign.
func (x *exact) magnitude(buf *[exactLimbs]uint64) (words []uint64, base int, neg bool) {
	words = buf[:copy(buf[:], x.limbs)]
	if n := len(words); n > 0 && words[n-1]>>63 != 0 {
		neg = true
		var c uint64
		for i := range words {
			words[i], c = bits.Sub64(0, words[i], c)
		}
	}
	for len(words) > 0 && words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	return words, x.base, neg
}

// appendTo appends x in its normal form, odd * 2^e: the length of the odd magnitude in bytes with the sign as the
// lowest bit, then e and the magnitude, big-endian. Zero is a single 0.
func (x *exact) appendTo(b []byte) []byte {
	var buf [exactLimbs]uint64
	words, base, neg := x.magnitude(&buf)
	if len(words) == 0 {
		return append(b, 0)
	}
	skip := 0
	for words[skip] == 0 {
		skip++
	}
	words = words[skip:]
	tz := bits.TrailingZeros64(words[0])
	for i := range words {
		words[i] >>= uint(tz)
		if i+1 < len(words) {
			words[i] |= words[i+1] << uint(64-tz)
		}
	}
	if words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	top := (bits.Len64(words[len(words)-1]) + 7) / 8
	n := (len(words)-1)*8 + top
	sign := uint64(0)
	if neg {
		sign = 1
	}
	b = appendUvarint(b, uint64(n)<<1|sign)
	b = appendVarint(b, int64((base+skip)*64+tz+exactBias))
	for i := n - 1; i >= 0; i-- {
		b = append(b, byte(words[i/8]>>(i%8*8)))
	}
	return b
}

// mergeFrom adds an encoded sum.
func (x *exact) mergeFrom(r *reader) {
	head := r.Uvarint()
	if head == 0 || r.Failed() {
		return
	}
	n, neg, pos := int(min(head>>1, exactBits)), head&1 != 0, r.Varint()
	b := r.Take(n)
	if r.Failed() {
		return
	}
	if n == 0 || n > exactBits/8 || b[0] == 0 || b[n-1]&1 == 0 || pos < exactBias || pos > -exactBias {
		r.Fail("exact sum out of its normal form")
		return
	}
	pos -= exactBias
	top := int(pos) + (n-1)*8 + bits.Len8(b[0])
	if top >= exactBits && !(neg && top == exactBits && n == 1 && b[0] == 1) {
		r.Fail("exact sum out of range")
		return
	}
	for ; n > 0; pos += 64 {
		k := max(n-8, 0)
		var m uint64
		for _, c := range b[k:n] {
			m = m<<8 | uint64(c)
		}
		x.addAt(int(pos), m, neg)
		n = k
	}
}

// addInt adds i.
func (x *exact) addInt(i int128) {
	neg := int64(i.hi) < 0
	if neg {
		var c uint64
		i.lo, c = bits.Sub64(0, i.lo, 0)
		i.hi, _ = bits.Sub64(0, i.hi, c)
	}
	x.addAt(-exactBias, i.lo, neg)
	if i.hi != 0 {
		x.addAt(64-exactBias, i.hi, neg)
	}
}

// float returns x, a sum but not one of squares, rounded to nearest even; infinite beyond the range. Where the result is
// subnormal nothing is rounded, for no sum has a part below the least float.
func (x *exact) float() float64 {
	var buf [exactLimbs]uint64
	words, base, neg := x.magnitude(&buf)
	n := len(words)
	if n == 0 {
		return 0
	}
	// The top 64 bits with whether anything follows in the lowest of them round as the whole does.
	zeros := bits.LeadingZeros64(words[n-1])
	m, rest := words[n-1]<<zeros, uint64(0)
	if n > 1 {
		m |= words[n-2] >> (64 - zeros)
		rest = words[n-2] << zeros
	}
	for i := 0; i < n-2; i++ {
		rest |= words[i]
	}
	if rest != 0 {
		m |= 1
	}
	exp := (base+n-1)*64 + exactBias - zeros
	f := math.Ldexp(float64(m), exp)
	if neg {
		f = -f
	}
	return f
}

// big returns x as an integer times 2^exp.
func (x *exact) big() (i *big.Int, exp int) {
	var buf [exactLimbs]uint64
	words, base, neg := x.magnitude(&buf)
	i = setWords(new(big.Int), words)
	if neg {
		i.Neg(i)
	}
	return i, base*64 + exactBias
}
