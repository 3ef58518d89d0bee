package crdt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
)

// Kind says what a Value holds.
type Kind uint8

// The kinds of values. Raw and Big live only between decoding and evaluation: keys and accumulators never hold them.
const (
	KindNull  Kind = iota
	KindBool       // false or true
	KindInt        // a signed 64-bit integer
	KindFloat      // a finite binary64
	KindText       // UTF-8
	KindRaw        // a CSV field without a declared type: text that numeric functions and aggregates convert
	KindBig        // an integer beyond 64 bits, by its decimal digits
)

// Value is one value of a record's field, a key or a result. The zero Value is null. Values are immutable; a Value made
// from a decoder's buffer may share its bytes and is then valid as long as the buffer is: Clone before keeping it.
type Value struct {
	kind Kind
	bits uint64
	text string
}

// Null returns the null value.
func Null() Value { return Value{} }

// Bool returns a boolean value.
func Bool(b bool) Value {
	v := Value{kind: KindBool}
	if b {
		v.bits = 1
	}
	return v
}

// Int returns an integer value.
func Int(i int64) Value { return Value{kind: KindInt, bits: uint64(i)} }

// Float returns a float value. f must be finite; the sign of a zero is dropped.
func Float(f float64) Value {
	if f == 0 {
		f = 0
	}
	return Value{kind: KindFloat, bits: math.Float64bits(f)}
}

// Text returns a text value. s must be valid UTF-8.
func Text(s string) Value { return Value{kind: KindText, text: s} }

// Raw returns an untyped text, as a CSV field without a declared type is.
func Raw(s string) Value { return Value{kind: KindRaw, text: s} }

// Big returns an integer beyond 64 bits by its canonical decimal digits, with a minus sign where negative.
func Big(digits string) Value { return Value{kind: KindBig, text: digits} }

// Kind reports what v holds.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Bool returns the boolean that a value of KindBool holds.
func (v Value) Bool() bool { return v.bits != 0 }

// Int returns the integer that a value of KindInt holds.
func (v Value) Int() int64 { return int64(v.bits) }

// Float returns the float that a value of KindFloat holds.
func (v Value) Float() float64 { return math.Float64frombits(v.bits) }

// Text returns the text of a value of KindText, KindRaw or KindBig.
func (v Value) Text() string { return v.text }

// Clone returns v with bytes of its own.
func (v Value) Clone() Value {
	v.text = strings.Clone(v.text)
	return v
}

// Canonical returns v as keys, distinct and topk see it: a float of integral value within 64 bits becomes that integer,
// an untyped text becomes a text.
func (v Value) Canonical() Value {
	switch v.kind {
	case KindFloat:
		if f := v.Float(); f == math.Trunc(f) && f >= -(1<<63) && f < 1<<63 {
			return Int(int64(f))
		}
	case KindRaw:
		v.kind = KindText
	}
	return v
}

// rank orders kinds as rows and keys do: null, booleans, numbers, texts.
func (v Value) rank() int {
	switch v.kind {
	case KindNull:
		return 0
	case KindBool:
		return 1
	case KindInt, KindFloat, KindBig:
		return 2
	}
	return 3
}

// Compare orders values: null, false, true, numbers by size (exactly, over integers and floats), texts by bytes.
func Compare(a, b Value) int {
	if c := cmp.Compare(a.rank(), b.rank()); c != 0 {
		return c
	}
	switch a.rank() {
	case 1:
		return cmp.Compare(a.bits, b.bits)
	case 2:
		return compareNumbers(a, b)
	}
	return strings.Compare(a.text, b.text)
}

func compareNumbers(a, b Value) int {
	switch {
	case a.kind == KindInt && b.kind == KindInt:
		return cmp.Compare(a.Int(), b.Int())
	case a.kind == KindFloat && b.kind == KindFloat:
		return cmp.Compare(a.Float(), b.Float())
	case a.kind == KindBig || b.kind == KindBig:
		return bigOf(a).Cmp(bigOf(b))
	case a.kind == KindInt:
		return compareIntFloat(a.Int(), b.Float())
	}
	return -compareIntFloat(b.Int(), a.Float())
}

func compareIntFloat(i int64, f float64) int {
	if f >= 1<<63 {
		return -1
	}
	if f < -(1 << 63) {
		return 1
	}
	t := math.Trunc(f)
	if c := cmp.Compare(i, int64(t)); c != 0 {
		return c
	}
	return cmp.Compare(t, f)
}

func bigOf(v Value) *big.Float {
	f := new(big.Float).SetPrec(4096)
	switch v.kind {
	case KindInt:
		return f.SetInt64(v.Int())
	case KindFloat:
		return f.SetFloat64(v.Float())
	}
	f.SetString(v.text)
	return f
}

// ErrKey marks bytes that are no encoded key.
var ErrKey = errors.New("malformed key")

// Tags of encoded key parts; their order is the order of values.
const (
	tagNull   byte = 0x01
	tagFalse  byte = 0x02
	tagTrue   byte = 0x03
	tagNumber byte = 0x04
	tagText   byte = 0x05
)

// AppendKey appends v in its order-preserving encoding: bytes.Compare over encodings is Compare over values, part by
// part, and an integer and a float of equal value are the same bytes. v must not be KindBig.
//
// A number is its float64 rounded towards minus infinity, as ordered bits, then the rest (below 1,024) as 16 bits. A
// text has 0x00 escaped as 0x00 0xff and ends with 0x00 0x01.
func (v Value) AppendKey(b []byte) []byte {
	v = v.Canonical()
	switch v.kind {
	case KindNull:
		return append(b, tagNull)
	case KindBool:
		return append(b, tagFalse+byte(v.bits))
	case KindInt:
		f, rest := floorFloat(v.Int())
		b = append(b, tagNumber)
		b = binary.BigEndian.AppendUint64(b, orderedBits(f))
		return binary.BigEndian.AppendUint16(b, rest)
	case KindFloat:
		b = append(b, tagNumber)
		b = binary.BigEndian.AppendUint64(b, orderedBits(v.Float()))
		return append(b, 0, 0)
	case KindText:
		b = append(b, tagText)
		for s := v.text; ; {
			i := strings.IndexByte(s, 0)
			if i < 0 {
				b = append(b, s...)
				break
			}
			b = append(append(b, s[:i]...), 0x00, 0xff)
			s = s[i+1:]
		}
		return append(b, 0x00, 0x01)
	}
	panic(fmt.Sprintf("crdt: a value of kind %d as a key", v.kind))
}

// floorFloat returns the greatest float64 not above i and what remains to i.
func floorFloat(i int64) (float64, uint16) {
	f := float64(i)
	if f >= 1<<63 || int64(f) > i {
		f = math.Nextafter(f, math.Inf(-1))
	}
	return f, uint16(i - int64(f))
}

func orderedBits(f float64) uint64 {
	u := math.Float64bits(f)
	if u>>63 != 0 {
		return ^u
	}
	return u | 1<<63
}

func fromOrderedBits(u uint64) float64 {
	if u>>63 != 0 {
		return math.Float64frombits(u &^ (1 << 63))
	}
	return math.Float64frombits(^u)
}

// CutKey takes the first value off an encoded key. A text's bytes are copied. It fails with ErrKey.
func CutKey(b []byte) (v Value, rest []byte, err error) {
	if len(b) == 0 {
		return v, nil, ErrKey
	}
	tag, b := b[0], b[1:]
	switch tag {
	case tagNull:
		return Null(), b, nil
	case tagFalse, tagTrue:
		return Bool(tag == tagTrue), b, nil
	case tagNumber:
		return cutNumber(b)
	case tagText:
		return cutText(b)
	}
	return v, nil, ErrKey
}

// keySize returns the length of the first value of an encoded key, or 0 if there is none.
func keySize(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case tagNull, tagFalse, tagTrue:
		return 1
	case tagNumber:
		if _, _, err := cutNumber(b[1:]); err == nil {
			return 11
		}
	case tagText:
		for n := 1; ; n += 2 {
			i := bytes.IndexByte(b[n:], 0)
			if i < 0 || n+i+1 >= len(b) {
				return 0
			}
			switch n += i; b[n+1] {
			case 0x01:
				return n + 2
			case 0xff:
			default:
				return 0
			}
		}
	}
	return 0
}

func cutNumber(b []byte) (Value, []byte, error) {
	if len(b) < 10 {
		return Value{}, nil, ErrKey
	}
	f, r := fromOrderedBits(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint16(b[8:])
	if math.IsNaN(f) || math.IsInf(f, 0) || math.Float64bits(f) == 1<<63 {
		return Value{}, nil, ErrKey
	}
	v := Float(f).Canonical()
	if r != 0 {
		if v.kind != KindInt || v.Int() > math.MaxInt64-int64(r) {
			return Value{}, nil, ErrKey
		}
		v = Int(v.Int() + int64(r))
		if f2, r2 := floorFloat(v.Int()); f2 != f || r2 != r {
			return Value{}, nil, ErrKey
		}
	}
	return v, b[10:], nil
}

func cutText(b []byte) (Value, []byte, error) {
	var s strings.Builder
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 || i+1 >= len(b) {
			return Value{}, nil, ErrKey
		}
		s.Write(b[:i])
		switch b[i+1] {
		case 0x01:
			return Text(s.String()), b[i+2:], nil
		case 0xff:
			s.WriteByte(0)
		default:
			return Value{}, nil, ErrKey
		}
		b = b[i+2:]
	}
}
