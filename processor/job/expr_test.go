package job

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/strict"
	"go.yaml.in/yaml/v3"
)

// compile compiles an expression over the fields of a record, whose names are the result's slots.
func compile(src string) (*Program, []Field, error) {
	p := &parser{Reader: strict.Reader{File: "expr"}, job: &Job{}}
	for _, line := range strings.Split(src, "\n") {
		p.Lines = append(p.Lines, []rune(line))
	}
	s := &scope{what: "the record", record: true, nested: true, slots: make(map[string]int)}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: src, Line: 1, Column: 1}
	prog, _ := p.expression(n, "expr", s, anyType)
	if len(p.Errs) > 0 {
		return nil, nil, p.Errs.Sorted()
	}
	return prog, s.fields, nil
}

var bindings = map[string]crdt.Value{
	"i": crdt.Int(7), "j": crdt.Int(-3), "zero": crdt.Int(0), "least": crdt.Int(-1 << 63), "most": crdt.Int(1<<63 - 1),
	"f": crdt.Float(2.5), "g": crdt.Float(-0.5), "huge": crdt.Float(1.7e308), "t": crdt.Text("Abc"), "u": crdt.Text("é€"),
	"yes": crdt.Bool(true), "no": crdt.Bool(false), "null": crdt.Null(), "raw12": crdt.Raw("12"), "raw25": crdt.Raw("2.5"),
	"rawx": crdt.Raw("x"), "rawtrue": crdt.Raw("true"), "big": crdt.Big("9223372036854775808"),
	"vast": crdt.Big("1" + strings.Repeat("0", 400)), "user.id": crdt.Int(42), "a b": crdt.Text("spaced"),
	"lat": crdt.Float(57.64911), "lon": crdt.Float(10.40744), "empty": crdt.Text(""), "two53": crdt.Int(1<<53 + 1),
}

func record(fields []Field) []crdt.Value {
	rec := make([]crdt.Value, len(fields))
	for i, f := range fields {
		rec[i] = bindings[f.Name]
	}
	return rec
}

// evaluate returns the value as JSON, "!reason" for a failure, "?message" for what does not compile.
func evaluate(src string) string {
	prog, fields, err := compile(src)
	if err != nil {
		return "?" + err.Error()
	}
	v, err := prog.Eval(record(fields))
	var e *EvalError
	switch {
	case errors.As(err, &e):
		return "!" + e.Reason
	case err != nil:
		return "!" + err.Error()
	}
	return string(v.AppendJSON(nil))
}

// semantics says what every operator and function gives. A want of !text or ?text needs to hold the text alone.
var semantics = []struct{ src, want string }{
	// literals and fields
	{`1`, `1`}, {`0x10`, `16`}, {`1_000`, `1000`}, {`1.5`, `1.5`}, {`1e3`, `1000`}, {`"a"`, `"a"`}, {`'a"'`, `"a\""`},
	{`true`, `true`}, {`nil`, `null`}, {`i`, `7`}, {`user.id`, `42`}, {`$["a b"]`, `"spaced"`}, {`$.user.id`, `42`},
	{`$["user"]["id"]`, `42`}, {`$env.i`, `7`}, {`nothing`, `null`}, {`nothing.at.all`, `null`}, {`rawx`, `"x"`},
	{`9223372036854775807`, `9223372036854775807`},
	{`big`, `!beyond 64 bits`}, {`big + 0`, `9223372036854776000`}, {`big > 1`, `true`}, {`vast > 1`, `!too big`},
	// integers stay exact
	{`i + j`, `4`}, {`i - j`, `10`}, {`i * j`, `-21`}, {`i % 4`, `3`}, {`j % 2`, `-1`}, {`least % -1`, `0`}, {`-i`, `-7`},
	{`+i`, `7`}, {`two53 + 0`, `9007199254740993`}, {`two53 * 1`, `9007199254740993`},
	{`most + 1`, `!integer overflow in +`}, {`least - 1`, `!integer overflow in -`}, {`least + -1`, `!overflow`},
	{`most - -1`, `!overflow`}, {`least * -1`, `!integer overflow in *`}, {`-least`, `!overflow`}, {`most * 2`, `!overflow`},
	{`least * 1`, `-9223372036854775808`}, {`most + zero`, `9223372036854775807`}, {`least - zero`, `-9223372036854775808`},
	{`3037000500 * 3037000500`, `!overflow`}, {`3037000499 * 3037000499`, `9223372030926249001`},
	{`4294967296 * -2147483648`, `-9223372036854775808`}, {`i % zero`, `!% by zero`},
	// floats
	{`i + f`, `9.5`}, {`f - i`, `-4.5`}, {`f * 2`, `5`}, {`i / 2`, `3.5`}, {`6 / 3`, `2`}, {`i / zero`, `!/ by zero`},
	{`i / 0.0`, `!/ by zero`}, {`huge * 10`, `!no finite number`}, {`huge + huge`, `!no finite number`}, {`-f`, `-2.5`},
	{`f % 2`, `!no number`}, {`0.1 + 0.2`, `0.30000000000000004`}, {`g * 0`, `0`},
	// types that do not fit
	{`t + 1`, `!no number`}, {`t - 1`, `!no number`}, {`yes + 1`, `!no number`}, {`-t`, `!no number`}, {`!i`, `!neither`},
	{`i && yes`, `!neither`}, {`yes && i`, `!neither`}, {`no || t`, `!neither`}, {`i ? 1 : 2`, `!condition`},
	// texts
	{`t + u`, `"Abcé€"`}, {`t + empty`, `"Abc"`}, {`t contains "b"`, `true`}, {`t startsWith "A"`, `true`},
	{`t endsWith "A"`, `false`}, {`t not contains "z"`, `true`}, {`i contains "z"`, `!no text`}, {`rawx + t`, `"xAbc"`},
	// untyped texts of CSV
	{`raw12 + 1`, `13`}, {`raw12 + raw12`, `24`}, {`raw25 * 2`, `5`}, {`rawx + 1`, `!no number`}, {`raw12 > 9`, `true`},
	{`raw12 > "9"`, `false`}, {`raw12 == 12`, `true`}, {`raw12 == 12.0`, `true`}, {`raw12 == "12"`, `true`},
	{`raw12 == raw25`, `false`}, {`rawx == 12`, `false`}, {`rawx > 12`, `!no order`}, {`rawtrue == true`, `true`},
	{`rawtrue != false`, `true`}, {`raw12 in [1, 12]`, `true`}, {`-raw12`, `-12`}, {`raw12 / raw25`, `4.8`},
	// comparison
	{`1 == 1.0`, `true`}, {`1 < 1.5`, `true`}, {`two53 == 9007199254740992.0`, `false`}, {`two53 > 9007199254740992.0`, `true`},
	{`"a" < "b"`, `true`}, {`"a" <= "a"`, `true`}, {`"b" >= "a"`, `true`}, {`i != j`, `true`}, {`t == 1`, `false`},
	{`yes == true`, `true`}, {`yes == 1`, `false`}, {`t < 1`, `!no order`}, {`yes < no`, `!no order`}, {`0 < i < 9`, `true`},
	{`i in [1, 7]`, `true`}, {`i not in [1, 7]`, `false`}, {`t in []`, `false`}, {`null in [nil]`, `true`}, {`i in [t, 7.0]`, `true`},
	// null
	{`null + 1`, `null`}, {`1 - null`, `null`}, {`null / 0`, `null`}, {`-null`, `null`}, {`!null`, `null`},
	{`null < 1`, `null`}, {`null == nil`, `true`}, {`null != nil`, `false`}, {`null == 1`, `false`}, {`i != nil`, `true`},
	{`null && yes`, `null`}, {`null && no`, `false`}, {`no && null`, `false`}, {`null || yes`, `true`}, {`null || no`, `null`},
	{`yes || t`, `true`}, {`no && t`, `false`}, {`null ? 1 : 2`, `2`}, {`yes ? null : 2`, `null`}, {`null ?? 5`, `5`},
	{`i ?? 5`, `7`}, {`null contains "a"`, `null`}, {`lower(null)`, `null`}, {`geohash(lat, null, 6)`, `null`},
	{`max(null, 1)`, `null`}, {`null + t`, `null`}, {`(null ?? t) + "d"`, `"Abcd"`}, {`yes ?: 3`, `true`},
	// functions
	{`abs(j)`, `3`}, {`abs(g)`, `0.5`}, {`abs(least)`, `!abs is beyond 64 bits`}, {`floor(f)`, `2`}, {`ceil(f)`, `3`},
	{`round(f)`, `3`}, {`round(g)`, `-1`}, {`floor(i)`, `7`}, {`floor(most)`, `9223372036854775807`}, {`min(i, j, f)`, `-3`},
	{`max(i, f)`, `7`}, {`max(1, 1.0)`, `1`}, {`max(raw12, 3)`, `12`}, {`max(t, 1)`, `!max takes a number`},
	{`int(f)`, `2`}, {`int(g)`, `0`}, {`int("12")`, `12`}, {`int(raw12)`, `12`}, {`int("x")`, `!no number`},
	{`int(huge)`, `!beyond 64 bits`}, {`int(9223372036854775807.0)`, `!beyond`}, {`int("99999999999999999999")`, `!beyond`},
	{`float(i) / 2`, `3.5`}, {`float("1e2")`, `100`}, {`float("x")`, `!no number`}, {`string(i) + t`, `"7Abc"`},
	{`string(f)`, `"2.5"`}, {`string(yes)`, `"true"`}, {`string(t)`, `"Abc"`}, {`len(t)`, `3`}, {`len(u)`, `2`},
	{`len(i)`, `!len takes a text`}, {`lower(t)`, `"abc"`}, {`upper(u)`, `"É€"`}, {`trim(" a ")`, `"a"`},
	{`lower(rawx) + "y"`, `"xy"`}, {`coalesce(null, nothing, 3)`, `3`}, {`coalesce(null)`, `null`}, {`coalesce(i, t + 1)`, `7`},
	{`geohash(lat, lon, 11)`, `"u4pruydqqvj"`}, {`geohash(0, 0, 1)`, `"s"`}, {`geohash(91, 0, 5)`, `!not on Earth`},
	{`geohash(0, -180.5, 5)`, `!not on Earth`}, {`geohash(lat, lon, i - 7)`, `!length`}, {`geohash(raw12, raw25, 5)`, `"s41u2"`},
	{`geohash(rawx, 1, 5)`, `!takes a number`}, {`geohash(90, 180, 12)`, `"zzzzzzzzzzzz"`}, {`geohash(-90, -180, 3)`, `"000"`},
	// what does not compile, with its place
	{`i +`, `?expr:1:3: expr: unexpected token EOF`}, {`foo(1)`, `?expr:1:1: unknown function "foo"`},
	{`i + now()`, `?expr:1:5: unknown function "now"`}, {`lowr(t)`, `?did you mean "lower"?`}, {`sum(i)`, `?an aggregate`},
	{`filter([1], # > 0)`, `?unexpected token`}, {`j | abs()`, `3`}, {`t matches "a"`, `?operator matches is not supported`},
	{`i ** 2`, `?operator ** is not supported`}, {`1..3`, `?operator .. is not supported`}, {`[1, 2]`, `?a list but behind in`},
	{`{a: 1}`, `?a map is not supported`}, {`t[0]`, `?an index is not supported`}, {`t[1:2]`, `?a slice is not supported`},
	{`user?.id`, `?is not supported`}, {`let x = 1; x`, `?more than one expression`}, {`1; 2`, `?more than one expression`},
	{`t.lower()`, `?a call of what is no function`}, {`abs()`, `?abs with 0 arguments; expected abs(x)`},
	{`abs(1, 2)`, `?abs with 2 arguments`}, {`geohash(1, 2)`, `?geohash with 2 arguments`}, {`geohash(1, 2, 13)`, `?length 13`},
	{`geohash(1, 2, 0)`, `?expr:1:15: a geohash of length 0`}, {`coalesce()`, `?coalesce with 0 arguments`},
	{`i in t`, `?the right of in is no list`}, {`"a" - 1`, `?expr:1:1: the left of - is a text; expected a number`},
	{`1 + true`, `?the right of + is true or false`}, {`!"a"`, `?what ! negates is a text`}, {`"a" && true`, `?the left of &&`},
	{`1 < "a"`, `?< between a number and a text`}, {`lower(1)`, `?argument 1 of lower is a number; expected a text`},
	{`1 ? 2 : 3`, `?the condition of ?: is a number`}, {`"\xff"`, `"ÿ"`}, {`-"a"`, `?what - is put before`},
	{`99999999999999999999`, `?invalid integer literal`}, {`b"a"`, `?is not supported`}, {`$["a.b"]`, `?a dot in it`},
	{`$`, `?is not supported`}, {`if yes {1} else {2}`, `1`}, {`"é" + foo()`, `?expr:1:7: unknown function`},
	{"i +\n  foo()", `?expr:2:3: unknown function`}, {`1e400`, `?float`}, {``, `?expr is the text ""`},
}

func TestSemantics(t *testing.T) {
	for _, c := range semantics {
		got := evaluate(c.src)
		ok := got == c.want
		if c.want[0] == '!' || c.want[0] == '?' {
			ok = got[0] == c.want[0] && strings.Contains(got, c.want[1:])
		}
		if !ok {
			t.Errorf("%s\n gives %s\n  want %s", c.src, got, c.want)
		}
	}
}

// TestTextsStayBounded: a derived value can use the one before it twice, and so on.
func TestTextsStayBounded(t *testing.T) {
	prog, _, err := compile("x + x")
	if err != nil {
		t.Fatal(err)
	}
	v := crdt.Text("0123456789")
	for range 64 {
		v, err = prog.Eval([]crdt.Value{v})
		if err != nil {
			break
		}
	}
	if !errors.Is(err, ErrEval) || len(v.Text()) > maxText {
		t.Errorf("a text of %d bytes, %v", len(v.Text()), err)
	}
}

// TestUnicodeTables: lower, upper and trim go by them. Where they change, their functions are new versions.
func TestUnicodeTables(t *testing.T) {
	if unicode.Version != "15.0.0" {
		t.Errorf("Unicode %s: raise the versions of lower, upper and trim, and this test", unicode.Version)
	}
}

func TestCanonOfEqualExpressions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`a+b*2`, `(a) + (b * 2)`, true}, {`a && b`, `a and b`, true}, {`!a`, `not a`, true}, {`user.id`, `$["user"].id`, true},
		{`'x'`, `"x"`, true}, {`a ?? 1`, `coalesce(a, 1)`, true}, {`a + b`, `b + a`, false}, {`1`, `1.0`, false},
		{`"a"`, `a`, false}, {`a > 1`, `a >= 1`, false}, {`min(a, b)`, `max(a, b)`, false}, {`a ? b : c`, `a ? c : b`, false},
		{`a in [1]`, `a not in [1]`, false}, {`-a`, `+a`, false},
	} {
		p, _, err := compile(c.a)
		q, _, err2 := compile(c.b)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if (p.canon == q.canon) != c.same {
			t.Errorf("%s: %s\n%s: %s", c.a, p.canon, c.b, q.canon)
		}
	}
}

func TestEvalDoesNotAllocate(t *testing.T) {
	for _, src := range []string{`fare > 0`, `!bot && delta < -100`, `price * qty + 1.5`, `max(a, b, 3)`, `city == "NYC"`,
		`x in ["a", "b"]`, `t - u`, `int(f)`} {
		prog, fields, err := compile(src)
		if err != nil {
			t.Fatal(err)
		}
		rec := make([]crdt.Value, len(fields))
		for i := range rec {
			rec[i] = crdt.Int(int64(i + 3))
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = prog.Eval(rec) }); n > 0 {
			t.Errorf("%s: %v allocations", src, n)
		}
	}
}

// FuzzExpr compiles any text and evaluates it over values of all kinds: no panic, and only values that a job can use.
func FuzzExpr(f *testing.F) {
	for _, c := range semantics {
		f.Add(c.src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		if !utf8.ValidString(src) {
			return // the file is checked before
		}
		prog, fields, err := compile(src)
		if err != nil {
			return
		}
		for shift := range 4 {
			rec := record(fields)
			for i := range rec {
				if shift > 0 {
					rec[i] = fuzzValues[(i*7+shift)%len(fuzzValues)]
				}
			}
			v, err := prog.Eval(rec)
			again, err2 := prog.Eval(rec)
			if (err == nil) != (err2 == nil) || err == nil && crdt.Compare(v, again) != 0 {
				t.Fatalf("%q gives %v, %v and then %v, %v", src, v, err, again, err2)
			}
			if err != nil && !errors.Is(err, ErrEval) {
				t.Fatalf("%q fails with %v", src, err)
			}
			if err == nil {
				if v.Kind() == crdt.KindBig || !utf8.ValidString(v.Text()) {
					t.Fatalf("%q gives a value of kind %d: %q", src, v.Kind(), v.Text())
				}
				v.AppendKey(nil)
			}
		}
	})
}

var fuzzValues = func() []crdt.Value {
	out := []crdt.Value{crdt.Raw("-1e3"), crdt.Raw("1e-400"), crdt.Float(-1.7e308), crdt.Big("-99999999999999999999"),
		crdt.Float(5e-324), crdt.Text("\x00")}
	for _, name := range []string{"i", "least", "most", "huge", "t", "yes", "null", "raw12", "rawx", "big", "lat"} {
		out = append(out, bindings[name])
	}
	return out
}()

func BenchmarkEval(b *testing.B) {
	bindings := map[string]crdt.Value{"fare": crdt.Float(12.5), "city": crdt.Text("NYC"), "isRobot": crdt.Bool(false),
		"delta": crdt.Int(-12), "price": crdt.Float(3.25), "qty": crdt.Int(4), "lat": crdt.Float(40.7), "lon": crdt.Float(-74)}
	for _, src := range []string{`fare`, `fare > 0`, `fare > 0 && city == "NYC"`, `!isRobot && delta < 0`, `price * qty`,
		`max(qty, 1)`, `geohash(lat, lon, 6)`} {
		b.Run(src, func(b *testing.B) {
			prog, fields, err := compile(src)
			if err != nil {
				b.Fatal(err)
			}
			rec := make([]crdt.Value, len(fields))
			for i, f := range fields {
				rec[i] = bindings[f.Name]
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := prog.Eval(rec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestNullFailsInADecision(t *testing.T) {
	for _, c := range []struct{ where, want string }{
		{"fare > 0", "> of null"}, {"fare + 1 == 2", "+ of null"}, {"-fare < 0", "- of null"},
		{`city contains "x"`, "contains of null"}, {"lower(city) == \"x\"", "lower of null"},
		{"fare == nil", "true"}, {"(fare ?? 1) > 0", "true"}, {"flag", "null"}, {"fare != nil && fare > 0", "false"},
	} {
		j, err := Parse("job.yaml", []byte("name: a\nsources:\n  - topic: t\n    format: json\n"+
			"    time: {field: ts, unit: ms}\n    key: [k]\n    where: '"+c.where+"'\n"+
			"    aggregates: {n: count()}\nwindow: {tumbling: 1s}\n"))
		if err != nil {
			t.Fatalf("%s: %v", c.where, err)
		}
		v, err := j.Inputs[0].Where.Eval(make([]crdt.Value, len(j.Inputs[0].Fields)))
		got := string(v.AppendJSON(nil))
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s over nulls is %s, want %s", c.where, got, c.want)
		}
	}
}
