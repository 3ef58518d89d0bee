package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/strict"
)

// sample is the job file of the contract, less what is not supported yet.
const sample = `name: surge                       # [a-z0-9-]+
sources:
  - topic: ride-requests
    format: json
    time: {field: ts, unit: ms}
    out_of_orderness: 5s
    max_future: 1m
    idle_after: 20s
    where: "fare > 0"
    key: {cell: "geohash(lat, lon, 6)"}
    aggregates:
      requests: count()
      fares: sum(fare)
  - topic: driver-pings
    format: json
    time: {field: at.ts, layout: "2006-01-02 15:04:05", zone: UTC}
    max_future: none
    key: {cell: "geohash(pos.lat, pos.lon, 6)"}
    aggregates:
      drivers: distinct(driver_id)
window: {tumbling: 30s}
allowed_lateness: 1m
retention: 1d12h
derive: {surge: "requests / max(drivers, 1)"}
having: "requests > 0"
emit:
  from: every-region
  unreachable: {partial: 5s}
  sinks:
    - kafka: {topic: surge}
side_outputs: {late: {topic: surge-late}, implausible: {topic: surge-implausible}, invalid: {topic: surge-invalid}}
`

func mustParse(t testing.TB, src string) *Job {
	t.Helper()
	j, err := Parse("job.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestSample(t *testing.T) {
	j := mustParse(t, sample)
	if j.Name != "surge" || j.Lateness != 60_000 || j.Retention != 129_600_000 || j.MaxSession != j.Retention ||
		j.Window != (keyspace.Window{Kind: keyspace.Tumbling, Size: 30_000}) {
		t.Errorf("%+v", j)
	}
	if !reflect.DeepEqual(j.Emit, Emit{EveryRegion: true, Partial: true, PartialAfter: 5000, Sinks: []Sink{{"surge"}}}) {
		t.Errorf("emit: %+v", j.Emit)
	}
	if j.SideOutputs != (SideOutputs{"surge-late", "surge-implausible", "surge-invalid"}) {
		t.Errorf("side outputs: %+v", j.SideOutputs)
	}
	a, b := j.Inputs[0], j.Inputs[1]
	if a.Topic != "ride-requests" || a.Format != JSON || a.Bound != 5000 || a.MaxFuture != 60_000 || a.IdleAfter != 20_000 ||
		a.FirstAggregate != 0 || a.Aggregates != 2 || a.Where.String() != "fare > 0" {
		t.Errorf("%+v", a)
	}
	if want := []Field{{"ts", Untyped}, {"fare", Untyped}, {"lat", Untyped}, {"lon", Untyped}}; !reflect.DeepEqual(a.Fields, want) {
		t.Errorf("fields: %v", a.Fields)
	}
	if a.Time != (Time{Field: 0, Unit: "ms"}) || !reflect.DeepEqual(a.KeyFields, []int{2, 3}) {
		t.Errorf("%+v %v", a.Time, a.KeyFields)
	}
	if b.MaxFuture != NoMaxFuture || b.IdleAfter != 30_000 || b.Bound != 0 || b.FirstAggregate != 2 || b.Aggregates != 1 ||
		b.Time != (Time{Field: 0, Layout: "2006-01-02 15:04:05"}) || b.Fields[0].Name != "at.ts" || b.Where != nil {
		t.Errorf("%+v", b)
	}
	ops := []crdt.Op{crdt.OpRecords, crdt.OpSum, crdt.OpDistinct}
	if s := j.Schema(); s.Spans || !reflect.DeepEqual(s.Ops, ops) || j.Aggregates[0].Arg != nil || j.Aggregates[2].Input != 1 {
		t.Errorf("%+v", s)
	}
	if got := fmt.Sprint(j.Builtins()); got != "[{aggregate.count() 1} {aggregate.distinct 1} {aggregate.sum 1} {expression 1} "+
		"{format.json 1} {function.geohash 1} {function.max 1} {time 1}]" {
		t.Error(got)
	}
	known := fmt.Sprint(Announced())
	for _, p := range j.Builtins() {
		if !strings.Contains(known, fmt.Sprint(p)) {
			t.Errorf("%v is pinned and not announced", p)
		}
	}
}

func TestDefaults(t *testing.T) {
	j := mustParse(t, minimal)
	in := j.Inputs[0]
	if j.Lateness != 0 || j.Retention != 7*86_400_000 || j.MaxSession != j.Retention || in.Bound != 0 ||
		in.MaxFuture != 3_600_000 || in.IdleAfter != 30_000 || j.Having != nil || j.Emit.Partial || j.Emit.EveryRegion {
		t.Errorf("%+v", j)
	}
	if in.Time != (Time{}) || in.Fields[0].Name != "ts" || j.KeyNames[0] != "who" {
		t.Errorf("%+v", in)
	}
}

// minimal is the least job there is; the table of mistakes alters it.
const minimal = `name: least
sources:
  - topic: events
    format: json
    time: ts
    key: [who]
    aggregates: {n: count()}
window: {tumbling: 1m}
`

// csvJob has typed columns.
const csvJob = `name: csv
sources:
  - topic: events
    format: csv
    columns: {"Date/Time": text, who: text, fare: float, ok: bool, n: int}
    time: {field: Date/Time, layout: "2006-01-02 15:04:05"}
    key: [who]
    aggregates: {a: sum(fare), b: 'last($["Date/Time"])'}
window: {global: true}
`

func TestCSV(t *testing.T) {
	j := mustParse(t, csvJob)
	in := j.Inputs[0]
	if in.Format != CSV || len(in.Columns) != 5 || in.Columns[3] != (Column{"ok", Boolean}) {
		t.Errorf("%+v", in)
	}
	if want := []Field{{"Date/Time", Text}, {"who", Text}, {"fare", Float}}; !reflect.DeepEqual(in.Fields, want) {
		t.Errorf("%+v", in.Fields)
	}
	if err := j.RequireTopics("job.yaml"); err != nil {
		t.Error(err)
	}
	bare := mustParse(t, strings.Replace(csvJob, csvColumns, "", 1))
	err := bare.RequireTopics("job.yaml")
	if err == nil || !strings.HasPrefix(err.Error(), "job.yaml:3:5: the source events is csv from a topic") {
		t.Error(err)
	}
}

const csvColumns = `    columns: {"Date/Time": text, who: text, fare: float, ok: bool, n: int}
`

// TestMistakes holds a failing case for every rule: what is replaced in which job, by what, and the error.
func TestMistakes(t *testing.T) {
	for _, c := range mistakes {
		t.Run(c.name, func(t *testing.T) {
			base := minimal
			if c.base != "" {
				base = c.base
			}
			if !strings.Contains(base, c.old) {
				t.Fatalf("no %q to replace", c.old)
			}
			_, err := Parse("job.yaml", []byte(strings.Replace(base, c.old, c.new, 1)))
			var list strict.ErrorList
			if !errors.As(err, &list) {
				t.Fatalf("no error: %v", err)
			}
			if !strings.HasPrefix(err.Error(), "job.yaml:"+c.want) || strings.Count(err.Error(), "\n") > c.more {
				t.Errorf("\n     %v\nwant job.yaml:%s", err, c.want)
			}
		})
	}
}

func TestCasesOfTheHarness(t *testing.T) {
	files, _ := filepath.Glob("../../jepsen/cases/testdata/*.yaml")
	if len(files) == 0 {
		t.Fatal("no job files: this test looks in the wrong place")
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(f, src); err != nil {
			t.Error(err)
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	src := minimal
	for i := range 100 {
		src += fmt.Sprintf("unknown%d: 1\n", i)
	}
	_, err := Parse("job.yaml", []byte(src))
	var list strict.ErrorList
	if !errors.As(err, &list) || len(list) != strict.MaxErrors || !strings.HasSuffix(list[strict.MaxErrors-1].What, "(and 80 more errors)") {
		t.Error(err)
	}
	if _, err = Parse("job.yaml", make([]byte, MaxFileBytes+1)); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Error(err)
	}
}

func TestKeyOfOtherSourcesIsPutInOrder(t *testing.T) {
	const more = `  - topic: more
    format: json
    time: ts
    key: {b: y, who: x}
    aggregates: {m: max(v)}
window:`
	j := mustParse(t, strings.Replace(strings.Replace(minimal, "[who]", "[who, b]", 1), "window:", more, 1))
	in := j.Inputs[1]
	if in.Key[0].String() != "x" || in.Key[1].String() != "y" || fmt.Sprint(j.KeyNames) != "[who b]" {
		t.Errorf("%v %v", in.Key, j.KeyNames)
	}
	if slot, ok := in.Key[0].Bare(); !ok || in.Fields[slot].Name != "x" {
		t.Errorf("bare: %d, %t", slot, ok)
	}
}

func TestKeyFields(t *testing.T) {
	for key, want := range map[string]string{
		`[who]`: "[1]", `{a: "x + y"}`: "[1 2]", `{a: "x ?? y"}`: "[]", `{a: "coalesce(x, 'none')", b: x}`: "[1]",
		`{a: "(x ?? 1) + y"}`: "[2]", `{a: "1"}`: "[]",
	} {
		j := mustParse(t, strings.Replace(minimal, "[who]", key, 1))
		if got := fmt.Sprint(append([]int{}, j.Inputs[0].KeyFields...)); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(csvJob))
	for _, c := range mistakes {
		base := minimal
		if c.base != "" {
			base = c.base
		}
		f.Add([]byte(strings.Replace(base, c.old, c.new, 1)))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		j, err := Parse("job.yaml", src)
		var list strict.ErrorList
		switch {
		case err != nil && (!errors.As(err, &list) || len(list) == 0 || j != nil):
			t.Fatalf("%T: %v", err, err)
		case err != nil:
			return
		}
		if err := j.Window.Validate(); err != nil {
			t.Error(err)
		}
		again := mustParse(t, string(src))
		if again.Meaning() != j.Meaning() {
			t.Error("one file, two meanings")
		}
		if m, e := j.Diff(again); m != nil || e != nil {
			t.Errorf("one file differs from itself: %v, %v", m, e)
		}
	})
}
