package oracle

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// Kind says what a Value holds.
type Kind int

// The kinds of values, in the order in which keys of different kinds sort.
const (
	Null Kind = iota
	Bool
	Number
	Text
	// Absent is a field that the record does not have.
	Absent
	// Other is an object or an array.
	Other
	// Bad is a number or a declared column that can't be read: invalid where it is used.
	Bad
)

// Value is one value of a record, of a row or of an expression.
type Value struct {
	Kind Kind
	Bool bool
	// Int is the number where it is an integer of any size; else it is nil and Float is the number.
	Int   *big.Int
	Float float64
	Text  string

	fields map[string]Value // of an Other that is an object
	loose  bool             // a Text of a CSV column without a type: numeric aggregates convert it
}

// MakeInt returns an integer.
func MakeInt(i int64) Value { return Value{Kind: Number, Int: big.NewInt(i)} }

// MakeFloat returns a float; NaN and infinities give a Bad value.
func MakeFloat(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{Kind: Bad}
	}
	return Value{Kind: Number, Float: f}
}

// MakeText returns a text.
func MakeText(s string) Value { return Value{Kind: Text, Text: s} }

// MakeBool returns a boolean.
func MakeBool(b bool) Value { return Value{Kind: Bool, Bool: b} }

// AsFloat returns a number as an expression sees it in float arithmetic; an error for all else, null included.
func (v Value) AsFloat() (float64, error) {
	v = v.number()
	switch {
	case v.Kind != Number:
		return 0, fmt.Errorf("%v is not a number", v.Kind)
	case v.Int != nil:
		f, _ := new(big.Float).SetInt(v.Int).Float64()
		return f, nil
	}
	return v.Float, nil
}

// AsInt returns an integer of 64 bits; an error for all else, null included.
func (v Value) AsInt() (int64, error) {
	if v.Kind != Number || v.Int == nil || !v.Int.IsInt64() {
		return 0, fmt.Errorf("%v is not an integer of 64 bits", v.Kind)
	}
	return v.Int.Int64(), nil
}

// usable tells whether a value taken from a record may be used: not Bad, and an integer only within 64 bits.
func (v Value) usable() bool {
	return v.Kind != Bad && (v.Kind != Number || v.Int == nil || v.Int.IsInt64())
}

// number converts the text of a CSV column without a type; what does not convert stays as it is.
func (v Value) number() Value {
	if v.Kind != Text || !v.loose {
		return v
	}
	if n := parseNumber(v.Text); n.Kind == Number {
		return n
	}
	return v
}

// rat is the exact value of a number.
func (v Value) rat() *big.Rat {
	if v.Int != nil {
		return new(big.Rat).SetInt(v.Int)
	}
	return new(big.Rat).SetFloat64(v.Float)
}

// written is the value of a number as it is written: of a float the shortest decimal that means it.
func (v Value) written() *big.Rat {
	if v.Int != nil {
		return v.rat()
	}
	x, ok := new(big.Rat).SetString(strconv.FormatFloat(v.Float, 'g', -1, 64))
	if !ok {
		panic("oracle: a float's decimal is no number")
	}
	return x
}

// identity is equal for values that are one key or one distinct value.
func (v Value) identity() string {
	switch v.Kind {
	case Bool:
		return "b" + strconv.FormatBool(v.Bool)
	case Number:
		return "n" + v.rat().RatString()
	case Text:
		return "t" + strconv.Quote(v.Text)
	}
	return "null"
}

// compare orders null, false, true, numbers by size, texts by bytes.
func (v Value) compare(w Value) int {
	if v.Kind != w.Kind {
		return int(v.Kind) - int(w.Kind)
	}
	switch v.Kind {
	case Bool:
		switch {
		case v.Bool == w.Bool:
			return 0
		case v.Bool:
			return 1
		}
		return -1
	case Number:
		return v.rat().Cmp(w.rat())
	case Text:
		return strings.Compare(v.Text, w.Text)
	}
	return 0
}

// asKey is the value as a key prints it: a float that equals an integer of 64 bits is that integer.
func (v Value) asKey() Value {
	if v.Kind == Number && v.Int == nil {
		if r := v.rat(); r.IsInt() && r.Num().IsInt64() {
			return Value{Kind: Number, Int: r.Num()}
		}
	}
	return v
}

var (
	integerForm = regexp.MustCompile(`^[+-]?[0-9]+$`)
	floatForm   = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
)

// parseNumber reads a number: an integer without fraction and exponent, else a float. Bad is what is none, or a float
// that is out of range.
func parseNumber(s string) Value {
	if integerForm.MatchString(s) {
		n, ok := new(big.Int).SetString(s, 10)
		if !ok {
			return Value{Kind: Bad}
		}
		return Value{Kind: Number, Int: n}
	}
	if !floatForm.MatchString(s) {
		return Value{Kind: Bad}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return Value{Kind: Bad}
	}
	return MakeFloat(f)
}

// String names the kind.
func (k Kind) String() string {
	return [...]string{"null", "bool", "number", "text", "absent", "object or list", "bad value"}[k]
}
