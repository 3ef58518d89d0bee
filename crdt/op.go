package crdt

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Op is an aggregate. Its number is stored in cells and never changes its meaning.
type Op uint8

// The aggregates.
const (
	OpRecords  Op = 1  // count(): records
	OpCount    Op = 2  // count(x): non-null values
	OpSum      Op = 3  // exact; a float if one value was a float
	OpMin      Op = 4  // least by Compare
	OpMax      Op = 5  // greatest by Compare
	OpAvg      Op = 6  // the exact quotient, rounded once
	OpDistinct Op = 7  // exact number of canonical values
	OpStddev   Op = 8  // of the sample, from exact sums, rounded once before the root
	OpFirst    Op = 9  // the value of the first record by Order
	OpLast     Op = 10 // the value of the last record by Order
	opEnd      Op = 11
)

var opNames = [opEnd]string{OpRecords: "count", OpCount: "count", OpSum: "sum", OpMin: "min", OpMax: "max",
	OpAvg: "avg", OpDistinct: "distinct", OpStddev: "stddev", OpFirst: "first", OpLast: "last"}

// String returns the aggregate's name in a job file.
func (o Op) String() string {
	if o.valid() {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

func (o Op) valid() bool { return o >= OpRecords && o < opEnd }

// ParseOp returns the aggregate that takes one argument under that name in a job file: "count" is OpCount, and without
// an argument the caller takes OpRecords instead. It reports whether this package has such an aggregate.
func ParseOp(name string) (Op, bool) {
	for o := OpCount; o < opEnd; o++ {
		if opNames[o] == name {
			return o, true
		}
	}
	return 0, false
}

// MaxColumns bounds the aggregates of a job.
const MaxColumns = 1024

// Schema says what the cells of a generation hold. It must not change once a cell was made from it.
type Schema struct {
	Ops   []Op // at most MaxColumns
	Spans bool // cells keep their least and greatest event time, as sessions need
}

// ErrArgument marks a value that an aggregate does not take; its record is invalid.
var ErrArgument = errors.New("argument of the wrong type")

// Check returns v as Cell.Add takes it for op, or fails with ErrArgument. Null stays null and is skipped by every
// aggregate but OpRecords. An untyped text becomes a number for sum, avg and stddev and a text for all others; an
// integer beyond 64 bits is never taken.
func Check(op Op, v Value) (Value, error) {
	switch {
	case op == OpRecords:
		return Null(), nil
	case v.kind == KindNull || v.kind == KindRaw && v.text == "":
		return Null(), nil
	case v.kind == KindBig:
		return Value{}, fmt.Errorf("%w: %s of an integer beyond 64 bits", ErrArgument, op)
	}
	switch op {
	case OpSum, OpAvg, OpStddev:
		return checkNumber(op, v)
	case OpDistinct:
		return v.Canonical(), nil
	}
	if v.kind == KindRaw {
		v.kind = KindText
	}
	return v, nil
}

func checkNumber(op Op, v Value) (Value, error) {
	switch v.kind {
	case KindInt, KindFloat:
		return v, nil
	case KindRaw:
		n, err := ParseNumber(v.text)
		if err != nil {
			return Value{}, fmt.Errorf("%w: %s of %w", ErrArgument, op, err)
		}
		if n.kind == KindBig {
			return Value{}, fmt.Errorf("%w: %s of an integer beyond 64 bits", ErrArgument, op)
		}
		return n, nil
	case KindBool:
		return Value{}, fmt.Errorf("%w: %s of a boolean", ErrArgument, op)
	}
	return Value{}, fmt.Errorf("%w: %s of a text", ErrArgument, op)
}

// ParseNumber converts an untyped text: digits with an optional sign are an integer (KindBig beyond 64 bits), decimal
// fractions and exponents a float. Blanks, hexadecimals, NaN, infinities and floats out of range are errors.
func ParseNumber(s string) (Value, error) {
	digits := s
	if s != "" && (s[0] == '-' || s[0] == '+') {
		digits = s[1:]
	}
	if digits == "" || strings.Trim(digits, "0123456789.eE+-") != "" {
		return Value{}, notNumber(s)
	}
	if strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }) < 0 {
		i, err := strconv.ParseInt(s, 10, 64)
		if err == nil {
			return Int(i), nil
		}
		digits = strings.TrimLeft(digits, "0")
		if s[0] == '-' {
			digits = "-" + digits
		}
		return Big(digits), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return Value{}, notNumber(s)
	}
	return Float(f), nil
}

func notNumber(s string) error {
	if len(s) > 40 {
		s = s[:40]
	}
	return fmt.Errorf("%q, which is no number", s)
}
