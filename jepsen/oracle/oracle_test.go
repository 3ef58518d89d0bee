package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Everything below is worked out by hand: times are small numbers of seconds, rows are written out.

const jsonSource = `
sources:
  - topic: t
    format: json
    time: {field: ts, unit: s}
    out_of_orderness: 2s
    max_future: none
    key: [k]
    aggregates: {n: count(), s: sum(v)}
`

func records(lines ...string) []Record {
	var out []Record
	for i, l := range lines {
		out = append(out, Record{Offset: int64(i), Value: []byte(l), LogTime: NoLogTime})
	}
	return out
}

func one(lines ...string) []Partition {
	return []Partition{{Topic: "t", Records: records(lines...)}}
}

type expectation struct {
	name  string
	job   string
	exprs map[string]Expr
	logs  []Partition
	rows  []string
	stats Stats
}

func (x expectation) check(t *testing.T) {
	t.Helper()
	o, err := New([]byte(x.job), x.exprs)
	if err != nil {
		t.Fatal(err)
	}
	res, err := o.Run(x.logs)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(x.rows, "\n") + "\n"
	if len(x.rows) == 0 {
		want = ""
	}
	if got := string(res.Bytes()); got != want {
		t.Errorf("rows\n%swant\n%s", got, want)
	}
	if res.Stats != x.stats {
		t.Errorf("stats %+v, want %+v", res.Stats, x.stats)
	}
}

func row(start, end, rest string) string {
	return fmt.Sprintf(`{"window_start":"1970-01-01T00:%sZ","window_end":"1970-01-01T00:%sZ",%s}`, start, end, rest)
}

func TestWindows(t *testing.T) {
	for _, x := range []expectation{
		{
			name: "tumbling with late, null key and absent key",
			job:  jsonSource + "window: {tumbling: 10s}\nallowed_lateness: 1s\n",
			logs: one(
				`{"ts":9,"k":"a","v":1}`,
				`{"ts":0,"k":"a","v":2}`,
				`{"ts":10,"k":null,"v":4}`,
				`{"ts":12,"k":"a","v":8}`, // watermark is 8 before and 10 after it
				`{"ts":1,"k":"a","v":16}`, // 10 + 1 > 10: still counts
				`{"ts":13,"v":32}`,        // no key, but the watermark is 11 now
				`{"ts":9,"k":"a","v":64}`, // 10 + 1 <= 11: late
				`nonsense`,
			),
			rows: []string{
				row("00:00", "00:10", `"key":{"k":"a"},"n":3,"s":19`),
				row("00:10", "00:20", `"key":{"k":null},"n":1,"s":4`),
				row("00:10", "00:20", `"key":{"k":"a"},"n":1,"s":8`),
			},
			stats: Stats{Events: 8, Late: 1, Invalid: 2, Rows: 3},
		},
		{
			name: "hopping, late for some windows and for all",
			job:  jsonSource + "window: {hopping: 4s, every: 2s}\n",
			logs: one(
				`{"ts":3,"k":1,"v":1}`,  // [0,4) and [2,6)
				`{"ts":6,"k":1,"v":10}`, // [4,8) and [6,10); watermark 4 after it
				`{"ts":2,"k":1,"v":5}`,  // late for [0,4), in [2,6)
				`{"ts":1,"k":1,"v":7}`,  // late for [-2,2) and [0,4)
			),
			rows: []string{
				row("00:00", "00:04", `"key":{"k":1},"n":1,"s":1`),
				row("00:02", "00:06", `"key":{"k":1},"n":2,"s":6`),
				row("00:04", "00:08", `"key":{"k":1},"n":1,"s":10`),
				row("00:06", "00:10", `"key":{"k":1},"n":1,"s":10`),
			},
			stats: Stats{Events: 4, Late: 1, Rows: 4},
		},
		{
			name: "session: a gap apart is apart, a late one judged on its own",
			job:  jsonSource + "window: {session: 5s}\n",
			logs: one(
				`{"ts":10,"k":"a","v":1}`,
				`{"ts":15,"k":"a","v":2}`,  // exactly the gap after 10
				`{"ts":19,"k":"a","v":4}`,  // joins 15
				`{"ts":13,"k":"a","v":8}`,  // 18 > watermark 17: joins 10 and 15 into one
				`{"ts":12,"k":"a","v":16}`, // 17 <= 17: late, though the session is open
				`{"ts":19,"k":"b","v":32}`,
			),
			rows: []string{
				row("00:10", "00:24", `"key":{"k":"a"},"n":4,"s":15`),
				row("00:19", "00:24", `"key":{"k":"b"},"n":1,"s":32`),
			},
			stats: Stats{Events: 6, Late: 1, Rows: 2},
		},
		{
			name: "session: two where nothing lies between",
			job:  jsonSource + "window: {session: 5s}\n",
			logs: one(`{"ts":10.25,"k":"a","v":1}`, `{"ts":15.25,"k":"a","v":2}`),
			rows: []string{
				row("00:10.250", "00:15.250", `"key":{"k":"a"},"n":1,"s":1`),
				row("00:15.250", "00:20.250", `"key":{"k":"a"},"n":1,"s":2`),
			},
			stats: Stats{Events: 2, Rows: 2},
		},
		{
			name: "global is never late; keys sort null, false, true, numbers, texts; 2 and 2.0 are one",
			job:  jsonSource + "window: {global: true}\n",
			logs: one(`{"ts":1000,"k":"b","v":1}`, `{"ts":0,"k":2.0,"v":1}`, `{"ts":0,"k":2,"v":1}`,
				`{"ts":0,"k":true,"v":1}`, `{"ts":0,"k":false,"v":1}`, `{"ts":0,"k":null,"v":1}`,
				`{"ts":0,"k":-1.5,"v":1}`, `{"ts":0,"k":"B","v":1}`),
			rows: []string{
				`{"window_start":null,"window_end":null,"key":{"k":null},"n":1,"s":1}`,
				`{"window_start":null,"window_end":null,"key":{"k":false},"n":1,"s":1}`,
				`{"window_start":null,"window_end":null,"key":{"k":true},"n":1,"s":1}`,
				`{"window_start":null,"window_end":null,"key":{"k":-1.5},"n":1,"s":1}`,
				`{"window_start":null,"window_end":null,"key":{"k":2},"n":2,"s":2}`,
				`{"window_start":null,"window_end":null,"key":{"k":"B"},"n":1,"s":1}`,
				`{"window_start":null,"window_end":null,"key":{"k":"b"},"n":1,"s":1}`,
			},
			stats: Stats{Events: 8, Rows: 7},
		},
		{
			name: "before the epoch windows are aligned downwards",
			job:  jsonSource + "window: {tumbling: 10s}\n",
			logs: one(`{"ts":-1,"k":"a","v":1}`),
			rows: []string{`{"window_start":"1969-12-31T23:59:50Z","window_end":"1970-01-01T00:00:00Z",` +
				`"key":{"k":"a"},"n":1,"s":1}`},
			stats: Stats{Events: 1, Rows: 1},
		},
	} {
		t.Run(x.name, x.check)
	}
}

func TestAggregates(t *testing.T) {
	job := `
sources:
  - topic: t
    format: json
    time: {field: ts, unit: ms}
    max_future: none
    key: [k]
    aggregates:
      nv: count(v)
      s: sum(v)
      a: avg(v)
      sd: stddev(v)
      d: distinct(x)
      lo: min(m)
      hi: max(m)
      f: first(x)
      l: last(x)
window: {global: true}
`
	const head = `{"window_start":null,"window_end":null,"key":{"k":"g"},`
	for _, x := range []expectation{
		{
			name: "mixed values",
			job:  job,
			logs: one(
				`{"ts":5,"k":"g","v":2,"x":"late","m":"b"}`,
				`{"ts":1,"k":"g","v":4,"x":null,"m":10}`,
				`{"ts":2,"k":"g","v":4,"x":1,"m":9.5}`,
				`{"ts":4,"k":"g","v":4.0,"x":1.0,"m":"a"}`,
				`{"ts":4,"k":"g","v":5,"x":"1","m":null}`,
				`{"ts":3,"k":"g","v":5,"x":true}`,
				`{"ts":3,"k":"g","v":7,"x":false}`,
				`{"ts":3,"k":"g","v":9,"x":true}`,
				`{"ts":3,"k":"g","x":null}`,
				`{"ts":3,"k":"g","v":"7"}`,  // sum of a text
				`{"ts":3,"k":"g","m":true}`, // min of a bool
				`{"ts":3,"k":"g","x":[1]}`,  // distinct of a list
			),
			// v: 2 4 4 4 5 5 7 9 with mean 5: squares 9+1+1+1+0+0+4+16 = 32 over 7. x: "late" 1 "1" true false.
			rows: []string{head + `"nv":8,"s":40,"a":5,"sd":2.138089935299395,"d":5,"lo":9.5,"hi":"b",` +
				`"f":1,"l":"late"}`},
			stats: Stats{Events: 12, Invalid: 3, Rows: 1},
		},
		{
			name: "over nothing",
			job:  job,
			logs: one(`{"ts":5,"k":"g"}`),
			rows: []string{head + `"nv":0,"s":null,"a":null,"sd":null,"d":0,"lo":null,"hi":null,` +
				`"f":null,"l":null}`},
			stats: Stats{Events: 1, Rows: 1},
		},
		{
			name: "exact sums: beyond 64 bits, and floats that cancel",
			job:  job,
			logs: one(`{"ts":1,"k":"g","v":9223372036854775807}`, `{"ts":1,"k":"g","v":9223372036854775807}`,
				`{"ts":1,"k":"g","v":9223372036854775808}`, // beyond 64 bits
				`{"ts":1,"k":"h","v":1e100}`, `{"ts":1,"k":"h","v":0.5}`, `{"ts":1,"k":"h","v":-1e100}`),
			rows: []string{
				head + `"nv":2,"s":18446744073709551614,"a":9223372036854776000,"sd":0,"d":0,"lo":null,"hi":null,` +
					`"f":null,"l":null}`,
				strings.Replace(head, `"g"`, `"h"`, 1) + `"nv":3,"s":0.5,"a":0.16666666666666666,"sd":1e+100,"d":0,` +
					`"lo":null,"hi":null,"f":null,"l":null}`,
			},
			stats: Stats{Events: 6, Invalid: 1, Rows: 2},
		},
		{
			name: "a tie of event time goes to region, partition, offset",
			job:  job,
			logs: []Partition{
				{Region: "b", Topic: "t", Records: records(`{"ts":1,"k":"g","x":"b/0/0"}`)},
				{Region: "a", Topic: "t", Number: 1, Records: records(`{"ts":1,"k":"g","x":"a/1/0"}`)},
				{Region: "a", Topic: "t", Records: records(`{"ts":1,"k":"g","x":"a/0/0"}`, `{"ts":1,"k":"g","x":"a/0/1"}`)},
			},
			rows: []string{head + `"nv":0,"s":null,"a":null,"sd":null,"d":4,"lo":null,"hi":null,` +
				`"f":"a/0/0","l":"b/0/0"}`},
			stats: Stats{Events: 4, Rows: 1},
		},
	} {
		t.Run(x.name, x.check)
	}
}

func TestSourcesAndExpressions(t *testing.T) {
	job := `
sources:
  - topic: a
    format: json
    time: at
    max_future: 10s
    where: "fare > 0"
    key: {c: "c"}
    aggregates: {requests: count(), fares: sum(fare)}
  - topic: b
    format: csv
    columns: {"When/At": text, c: text, who: text}
    time: {field: When/At, layout: "2006/1/2 15:04"}
    max_future: none
    key: {c: '$["c"]'}
    aggregates: {drivers: distinct(who)}
window: {tumbling: 1d}
derive: {ratio: "requests / drivers", note: "'x'"}
having: "requests > 0"
`
	num := func(v Value) float64 { f, _ := v.AsFloat(); return f }
	exprs := map[string]Expr{
		"fare > 0": func(env func(string) Value) (Value, error) {
			f, err := env("fare").AsFloat()
			return MakeBool(f > 0), err
		},
		"requests / drivers": func(env func(string) Value) (Value, error) {
			return MakeFloat(num(env("requests")) / num(env("drivers"))), nil
		},
		"'x'": func(func(string) Value) (Value, error) { return MakeText("x\u2028<\"\\\n\x01"), nil },
		"requests > 0": func(env func(string) Value) (Value, error) {
			return MakeBool(num(env("requests")) > 0), nil
		},
	}
	noon := time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC).UnixMilli()
	a := Partition{Topic: "a", Records: records(
		`{"at":"2020-01-01T12:00:10Z","c":"x","fare":1.5}`,       // ten seconds ahead of the log: plausible
		`{"at":"2020-01-01T12:00:10.001Z","c":"x","fare":1}`,     // not any more
		`{"at":"2020-01-01T13:00:00+01:30","c":"x","fare":2}`,    // 11:30Z
		`{"at":"2020-01-01T11:00:00Z","c":"x","fare":0}`,         // filtered
		`{"at":"2020-01-01T11:00:00Z","c":"x"}`,                  // where fails
		`{"at":"2020-01-01T11:00:00Z","c":"x","fare":1,"c":"y"}`, // duplicate name
		`{"at":"2020-01-01T11:00:00Z","c":"y","fare":1}`,
		`{"at":7,"c":"y","fare":1}`, // no time
	)}
	for i := range a.Records {
		a.Records[i].LogTime = noon
	}
	b := Partition{Topic: "b", Records: records(
		`2020/1/1 05:06,x,d1`, `2020/1/1 05:06,x,d2`, `2020/1/1 05:06,x,`, `2020/1/1 05:06,x,d1`,
		`2020/1/1 05:06,z,d1`, `2020/1/1 05:06,z`, `2020-1-1 05:06,z,d1`)}
	day := `{"window_start":"2020-01-01T00:00:00Z","window_end":"2020-01-02T00:00:00Z",`
	tail := `,"note":"x` + "\u2028" + `<\"\\\n\u0001"}`
	expectation{
		job: job, exprs: exprs, logs: []Partition{a, b},
		rows: []string{
			day + `"key":{"c":"x"},"requests":2,"fares":3.5,"drivers":2,"ratio":1` + tail,
			day + `"key":{"c":"y"},"requests":1,"fares":1,"drivers":0,"ratio":null` + tail, // 1/0
		},
		stats: Stats{Events: 15, Filtered: 1, Implausible: 1, Invalid: 5, Rows: 2},
	}.check(t)
}

func TestRunToTakesPrefixes(t *testing.T) {
	o, err := New([]byte(jsonSource+"window: {global: true}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	logs := []Partition{
		{Region: "r", Topic: "t", Records: []Record{
			{Offset: 3, Value: []byte(`{"ts":1,"k":"a","v":1}`), LogTime: NoLogTime},
			{Offset: 7, Value: []byte(`{"ts":1,"k":"a","v":2}`), LogTime: NoLogTime},
		}},
		{Region: "r", Topic: "t", Number: 1, Records: records(`{"ts":1,"k":"a","v":4}`)},
	}
	src := Source{Region: "r", Topic: "t"}
	for point, want := range map[int64]string{
		3: "",
		4: `{"window_start":null,"window_end":null,"key":{"k":"a"},"n":1,"s":1}` + "\n",
		7: `{"window_start":null,"window_end":null,"key":{"k":"a"},"n":1,"s":1}` + "\n",
		8: `{"window_start":null,"window_end":null,"key":{"k":"a"},"n":2,"s":3}` + "\n",
	} {
		res, err := o.RunTo(logs, map[Source]int64{src: point})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(res.Bytes()); got != want {
			t.Errorf("to %d: %q, want %q", point, got, want)
		}
	}
	logs[0].Records[1].Offset = 3
	if _, err := o.Run(logs); err == nil {
		t.Error("an offset that comes twice was taken")
	}
}

func TestAsideNamesRecords(t *testing.T) {
	o, err := New([]byte(jsonSource+"window: {tumbling: 1s}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := o.Run(one(`{"ts":9,"k":"a","v":1}`, `{"ts":1,"k":"a","v":1}`, `{`))
	if err != nil {
		t.Fatal(err)
	}
	src := Source{Topic: "t"}
	want := []Aside{{src, 1, "late"}, {src, 2, "invalid"}}
	if fmt.Sprint(res.Aside) != fmt.Sprint(want) {
		t.Errorf("aside %v, want %v", res.Aside, want)
	}
	if len(res.Rows) != 1 || res.Rows[0].Records != 1 || res.Rows[0].Start != 9000 || res.Rows[0].End != 10000 {
		t.Errorf("rows %+v", res.Rows)
	}
}

func TestDecodeRefuses(t *testing.T) {
	in := &source{format: "json"}
	for _, text := range []string{``, `[]`, `7`, `{"a":1`, `{"a":1,}`, `{"a":01}`, `{"a":NaN}`, "{\"a\":\"\xff\"}",
		`{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"b":2}]}`, `{"a":"\ud800"}`,
		`{"a":"\ud800\u0041"}`, `{"a":"\udc00"}`, `{"a":1} {}`, "{\"a\":\"\x01\"}"} {
		if _, err := decode(in, nil, []byte(text)); err == nil {
			t.Errorf("%q was decoded", text)
		}
	}
	for text, want := range map[string]string{
		`{"a":"\ud83d\ude00\\ud800"}`: `"😀\\ud800"`,
		`{"a":1e400}`:                 "null", // bad, but only where it is used
		`{"a":-0}`:                    "0",
		`{"a":{"b":1}}` + " \r":       "null",
		`{"a":1E2}`:                   "100",
	} {
		env, err := decode(in, nil, []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := env("a").print(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	env, err := decode(in, nil, []byte(`{"user":{"id":7}}`))
	if err != nil || env("user.id").print() != "7" || env("user.name").Kind != Absent {
		t.Errorf("nested field: %v %v", err, env("user.id"))
	}
}

func TestNumbersPrintAsEncodingJSON(t *testing.T) {
	for _, f := range []float64{0, 1, -1.5, 1e20, 1e21, 1e-6, 1e-7, 0.1, 123456789.125, 5e-324} {
		want, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := MakeFloat(f).print(); got != string(want) {
			t.Errorf("%v: %s, want %s", f, got, want)
		}
	}
	if got := MakeFloat(1 << 62).asKey().print(); got != "4611686018427387904" {
		t.Errorf("a float key prints %s", got)
	}
}

func TestGeohash(t *testing.T) {
	for _, x := range []struct {
		lat, lon float64
		n        int
		want     string
	}{ // well-known examples of the format
		{42.605, -5.603, 5, "ezs42"},
		{57.64911, 10.40744, 11, "u4pruydqqvj"},
		{48.669, -4.329, 6, "gbsuv7"},
		{-25.382708, -49.265506, 8, "6gkzwgjz"},
		{0, 0, 4, "s000"},
	} {
		got, err := Geohash(MakeFloat(x.lat), MakeFloat(x.lon), x.n)
		if err != nil || got.Text != x.want {
			t.Errorf("%v,%v: %s %v, want %s", x.lat, x.lon, got.Text, err, x.want)
		}
	}
	for _, bad := range []Value{MakeFloat(90.5), {Kind: Null}, MakeText("1"), {Kind: Absent}} {
		if _, err := Geohash(bad, MakeInt(0), 6); err == nil {
			t.Errorf("latitude %v was taken", bad)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New([]byte(strings.Replace(jsonSource, "sum(v)", "sum(v + 1)", 1)+"window: {global: true}"),
		nil); !errors.Is(err, ErrNoExpr) {
		t.Errorf("an unknown expression gave %v", err)
	}
	for _, text := range []string{"a: [", "sources: []", jsonSource, jsonSource + "window: {tumbling: soon}",
		strings.Replace(jsonSource, "sum(v)", "median(v)", 1) + "window: {global: true}",
		strings.Replace(jsonSource, "sum(v)", "sum()", 1) + "window: {global: true}",
		strings.Replace(jsonSource, "unit: s", "unit: weeks", 1) + "window: {global: true}"} {
		if _, err := New([]byte(text), nil); err == nil {
			t.Errorf("%s: taken", text)
		}
	}
}

// An oracle that shares code with what it judges agrees with its mistakes.
func TestImportsNothingOfTheProduct(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			if strings.Contains(path, ".") && path != "go.yaml.in/yaml/v3" {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}

// A time in seconds means the millisecond that is written, not the float just below it.
func TestFloatTimes(t *testing.T) {
	in := source{timeUnit: time.Second}
	if ms, ok := in.when(MakeFloat(1442018952.942)); !ok || ms != 1442018952942 {
		t.Errorf("%d, %v", ms, ok)
	}
}
