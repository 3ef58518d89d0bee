package decode

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/watershed-db/watershed/crdt"
)

// escapeLen returns the length of the escape sequence that b begins with (both halves of a surrogate pair), 0 if it is
// none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return 0
	}
	r := hex4(b[2:])
	switch {
	case r < 0:
		return 0
	case !utf16.IsSurrogate(r):
		return 6
	case len(b) < 12 || b[6] != '\\' || b[7] != 'u':
		return 0
	}
	low := hex4(b[8:])
	if low < 0 || utf16.DecodeRune(r, low) == utf8.RuneError {
		return 0
	}
	return 12
}

// hex4 returns the number that four hexadecimal digits make, -1 if there are none.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape appends the text that raw stands for. Its escapes are valid.
func unescape(to, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(to, raw...)
		}
		to = append(to, raw[:i]...)
		raw = raw[i:]
		n := escapeLen(raw)
		switch c := raw[1]; c {
		case 'b':
			to = append(to, '\b')
		case 'f':
			to = append(to, '\f')
		case 'n':
			to = append(to, '\n')
		case 'r':
			to = append(to, '\r')
		case 't':
			to = append(to, '\t')
		case 'u':
			r := hex4(raw[2:])
			if n == 12 {
				r = utf16.DecodeRune(r, hex4(raw[8:]))
			}
			to = utf8.AppendRune(to, r)
		default:
			to = append(to, c)
		}
		raw = raw[n:]
	}
}

// digits returns where the digits at i end.
func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}

// skipNumber scans the number at i, of which nothing is wanted.
func (d *JSON) skipNumber(b []byte, i int) int {
	start := i
	if b[i] == '-' {
		i++
	}
	first := i
	if i = digits(b, i); i == first || i-first > 1 && b[first] == '0' {
		return d.fail(start, "not a value")
	}
	if i < len(b) && b[i] == '.' {
		dot := i + 1
		if i = digits(b, dot); i == dot {
			return d.fail(i, "a digit expected")
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		exp := i
		if i = digits(b, exp); i == exp {
			return d.fail(i, "a digit expected")
		}
	}
	return i
}

// number scans the number at i, which node n is for.
func (d *JSON) number(b []byte, i int, n *node) int {
	start := i
	if b[i] == '-' {
		i++
	}
	first := i
	var mantissa uint64
	for i < len(b) && b[i]-'0' <= 9 {
		mantissa = mantissa*10 + uint64(b[i]-'0')
		i++
	}
	count := i - first
	if count == 0 || count > 1 && b[first] == '0' {
		return d.fail(start, "not a value")
	}
	if i == len(b) || b[i] != '.' && b[i]|0x20 != 'e' {
		d.row.set(n.slot, integer(b[start:i], mantissa, count))
		return i
	}
	places, exponent := 0, false
	if b[i] == '.' {
		i++
		dot := i
		for i < len(b) && b[i]-'0' <= 9 {
			mantissa = mantissa*10 + uint64(b[i]-'0')
			i++
		}
		if places = i - dot; places == 0 {
			return d.fail(i, "a digit expected")
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		exp := i
		if i = digits(b, exp); i == exp {
			return d.fail(i, "a digit expected")
		}
		exponent = true
	}
	if f, ok := float(b[start:i], mantissa, count+places, places, exponent); ok {
		d.row.set(n.slot, crdt.Float(f))
	} else {
		d.row.spoil(n.slot)
	}
	return i
}

// integer returns the value of an integer's text; mantissa is its absolute value if it has at most 18 digits.
func integer(text []byte, mantissa uint64, digits int) crdt.Value {
	if digits <= 18 {
		if text[0] == '-' {
			return crdt.Int(-int64(mantissa))
		}
		return crdt.Int(int64(mantissa))
	}
	if i, err := strconv.ParseInt(borrow(text), 10, 64); err == nil {
		return crdt.Int(i)
	}
	return crdt.Big(borrow(text))
}

// tens are the powers of ten that a float64 holds exactly and that a mantissa of 15 digits may be divided by with one
// rounding.
var tens = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// float returns the float64 nearest to a number's text. mantissa holds its digits if there are at most 15.
func float(text []byte, mantissa uint64, digits, places int, exponent bool) (float64, bool) {
	if digits <= 15 && !exponent {
		f := float64(mantissa) / tens[places]
		if text[0] == '-' {
			f = -f
		}
		return f, true
	}
	f, err := strconv.ParseFloat(borrow(text), 64)
	return f, err == nil && !math.IsInf(f, 0)
}
