package crdt

import (
	"errors"
	"testing"
)

func TestParseOp(t *testing.T) {
	for _, op := range allOps[1:] {
		if got, ok := ParseOp(op.String()); !ok || got != op {
			t.Errorf("%s parses as %s, %v", op, got, ok)
		}
	}
	for _, name := range []string{"", "topk", "COUNT"} {
		if op, ok := ParseOp(name); ok {
			t.Errorf("%q parses as %s", name, op)
		}
	}
	if Op(99).String() != "op(99)" {
		t.Error(Op(99).String())
	}
}

// Numbers of ops are on disk.
func TestOpNumbers(t *testing.T) {
	for i, op := range []Op{OpRecords, OpCount, OpSum, OpMin, OpMax, OpAvg, OpDistinct, OpStddev, OpFirst, OpLast} {
		if op != Op(i+1) {
			t.Errorf("%s has become %d", op, op)
		}
	}
}

func TestCheck(t *testing.T) {
	bad := Big("bad")
	numbers := []Op{OpSum, OpAvg, OpStddev}
	others := []Op{OpCount, OpMin, OpMax, OpFirst, OpLast}
	for _, x := range []struct {
		ops      []Op
		in, want Value
	}{
		{numbers, Int(1), Int(1)}, {numbers, Float(1), Float(1)}, {numbers, Null(), Null()}, {numbers, Raw(""), Null()},
		{numbers, Raw("12"), Int(12)}, {numbers, Raw("+7"), Int(7)}, {numbers, Raw("-0"), Int(0)},
		{numbers, Raw("007"), Int(7)}, {numbers, Raw("1.0"), Float(1)}, {numbers, Raw("1e3"), Float(1000)},
		{numbers, Raw(".5"), Float(0.5)}, {numbers, Raw("-5."), Float(-5)},
		{numbers, Raw("9223372036854775807"), Int(1<<63 - 1)}, {numbers, Raw("9223372036854775808"), bad},
		{numbers, Raw("9223372036854775808.0"), Float(1 << 63)},
		{numbers, Raw("x"), bad}, {numbers, Raw(" 1"), bad}, {numbers, Raw("0x10"), bad}, {numbers, Raw("1_000"), bad},
		{numbers, Raw("NaN"), bad}, {numbers, Raw("inf"), bad}, {numbers, Raw("1e999"), bad}, {numbers, Raw("-"), bad},
		{numbers, Raw("."), bad}, {numbers, Raw("1e"), bad}, {numbers, Raw("+-1"), bad},
		{numbers, Text("1"), bad}, {numbers, Bool(true), bad}, {numbers, Big("9223372036854775808"), bad},
		{others, Raw("12"), Text("12")}, {others, Raw(""), Null()}, {others, Text(""), Text("")}, {others, Null(), Null()},
		{others, Float(1), Float(1)}, {others, Bool(true), Bool(true)}, {others, Big("9223372036854775808"), bad},
		{[]Op{OpDistinct}, Float(2), Int(2)}, {[]Op{OpDistinct}, Raw("2"), Text("2")}, {[]Op{OpDistinct}, Big("1"), bad},
		{[]Op{OpRecords}, Big("1"), Null()}, {[]Op{OpRecords}, Text("x"), Null()},
	} {
		for _, op := range x.ops {
			got, err := Check(op, x.in)
			switch {
			case x.want == bad && !errors.Is(err, ErrArgument):
				t.Errorf("%s of %s: no error but %s", op, x.in.AppendJSON(nil), got.AppendJSON(nil))
			case x.want != bad && (err != nil || got != x.want):
				t.Errorf("%s of %s: %s, %v", op, x.in.AppendJSON(nil), got.AppendJSON(nil), err)
			}
		}
	}
}

func TestParseNumberBig(t *testing.T) {
	for in, want := range map[string]string{
		"9223372036854775808": "9223372036854775808", "+0009223372036854775808": "9223372036854775808",
		"-9223372036854775809": "-9223372036854775809",
	} {
		if v, err := ParseNumber(in); err != nil || v != Big(want) {
			t.Errorf("%s: %v, %v", in, v, err)
		}
	}
}
