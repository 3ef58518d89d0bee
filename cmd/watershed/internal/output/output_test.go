package output

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

var columns = &watershedv1.Columns{Key: []string{"k"}, Values: []string{"n"}}

func value(kind any) *watershedv1.Value {
	switch k := kind.(type) {
	case string:
		return &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: k}}
	case float64:
		return &watershedv1.Value{Kind: &watershedv1.Value_Float{Float: k}}
	case int:
		return &watershedv1.Value{Kind: &watershedv1.Value_Int{Int: int64(k)}}
	}
	return &watershedv1.Value{}
}

// A row that came over the wire reads as the job itself prints it.
func TestRowsReadAsTheJobPrintsThem(t *testing.T) {
	j, err := job.Parse("j", []byte(`
name: j
sources:
  - {topic: t, format: json, time: ts, key: [k], aggregates: {n: sum(x)}}
window: {tumbling: 1s}
`))
	if err != nil {
		t.Fatal(err)
	}
	r := NewRows(columns)
	for _, tt := range []struct {
		start int64
		key   string
		n     float64
	}{{0, "a", 1.5}, {1_500, "\x00\"é\u2028", 1e-9}, {-62_135_596_800_000, "", 0}} {
		want := j.AppendRow(nil, &job.Row{
			Start: tt.start, End: tt.start + 1000, KeyValues: []crdt.Value{crdt.Text(tt.key)},
			Values: []crdt.Value{crdt.Float(tt.n)}, Revision: 2, Complete: true,
		}, true)
		row := &watershedv1.Row{
			WindowStartMs: proto.Int64(tt.start), WindowEndMs: proto.Int64(tt.start + 1000), Key: []*watershedv1.Value{value(tt.key)},
			Values: []*watershedv1.Value{value(tt.n)}, Revision: 2, Complete: true,
		}
		got, err := r.AppendJSON(nil, row, false)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
		if _, err := r.Cells(row); err != nil {
			t.Error(err)
		}
	}
}

func TestMalformedRowsAreRefused(t *testing.T) {
	one := []*watershedv1.Value{value(1)}
	big := func(s string) []*watershedv1.Value {
		return []*watershedv1.Value{{Kind: &watershedv1.Value_Big{Big: s}}}
	}
	for name, row := range map[string]*watershedv1.Row{
		"no key":       {Values: one},
		"two values":   {Key: one, Values: append(one, one...)},
		"one bound":    {Key: one, Values: one, WindowEndMs: proto.Int64(1)},
		"NaN":          {Key: one, Values: []*watershedv1.Value{value(math.NaN())}},
		"infinity":     {Key: []*watershedv1.Value{value(math.Inf(1))}, Values: one},
		"no digits":    {Key: one, Values: big(`1,"x":2`)},
		"empty":        {Key: one, Values: big("")},
		"leading zero": {Key: one, Values: big("-01")},
		"long":         {Key: one, Values: big(strings.Repeat("1", bigDigits+1))},
	} {
		if _, err := NewRows(columns).AppendJSON(nil, row, true); !errors.Is(err, ErrRow) {
			t.Errorf("%s as JSON: %v", name, err)
		}
		if _, err := NewRows(columns).Cells(row); !errors.Is(err, ErrRow) {
			t.Errorf("%s as cells: %v", name, err)
		}
	}
	b, err := NewRows(&watershedv1.Columns{Key: []string{"k"}}).AppendJSON(nil, &watershedv1.Row{Key: one}, false)
	if err != nil || !json.Valid(b) {
		t.Errorf("a row without values: %s, %v", b, err)
	}
}

func TestTime(t *testing.T) {
	for ms, want := range map[int64]string{
		crdt.MinTime: "", firstTime - 1: "", firstTime: "0001-01-01T00:00:00Z", 0: "1970-01-01T00:00:00Z", -1: "1969-12-31T23:59:59.999Z",
		lastTime: "9999-12-31T23:59:59.999Z", lastTime + 1: "infinity", crdt.MaxTime: "infinity",
	} {
		if got := Time(ms); got != want {
			t.Errorf("%d: %q, want %q", ms, got, want)
		}
		if p := TimeOrNull(ms); (p == nil) != (want == "") || p != nil && *p != want {
			t.Errorf("%d: %v", ms, p)
		}
	}
}

func TestReflectsTheLeast(t *testing.T) {
	point := func(input uint32, topic string, incarnation uint32, offset int64) *watershedv1.SourcePoint {
		return &watershedv1.SourcePoint{Input: input, Region: "r", Topic: topic, Incarnation: incarnation, Offset: offset}
	}
	r := NewReflects([]*watershedv1.ShardState{
		{Shard: 3, WatermarkMs: 5, Missing: []string{"z", "b"}, Points: []*watershedv1.SourcePoint{
			point(0, "a", 0, 9), point(1, "a", 0, 7), point(0, "b", 1, 2), point(0, "b", 0, 100), point(0, "c", 0, 1),
		}},
		{Shard: 12, WatermarkMs: 4, Missing: []string{"b"}, Points: []*watershedv1.SourcePoint{
			point(1, "a", 0, 8), point(0, "a", 0, 8), point(0, "b", 0, 100), point(0, "b", 1, 3),
		}},
	})
	got, err := json.Marshal(r)
	want := `{"shards":{` +
		`"12":{"frontiers":{"r":{"a/0":8,"b/0":3}},"watermark":"1970-01-01T00:00:00.004Z","staleness_ms":0},` +
		`"3":{"frontiers":{"r":{"a/0":7,"b/0":2,"c/0":1}},"watermark":"1970-01-01T00:00:00.005Z","staleness_ms":0}},` +
		`"frontiers":{"r":{"a/0":7,"b/0":2}},"watermark":"1970-01-01T00:00:00.004Z","missing":["b","z"]}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
	if got, err := json.Marshal(NewReflects(nil)); err != nil || string(got) != `{"shards":{},"frontiers":{},"watermark":null,"missing":[]}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestFormats(t *testing.T) {
	var b bytes.Buffer
	for s, want := range map[string]Format{"": Lines, "table": Table, "json": JSON, "jsonl": Lines} {
		if f, err := ParseFormat(s, &b); err != nil || f != want {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
	if _, err := ParseFormat("JSON", &b); err == nil {
		t.Error("JSON is a format")
	}
	if err := Objects[int](&b, JSON, nil); err != nil || b.String() != "[]\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

type full struct{ writes int }

func (f *full) Write([]byte) (int, error) {
	f.writes++
	return 0, errors.New("disk full")
}

func TestTables(t *testing.T) {
	var b bytes.Buffer
	w := NewTable(&b, "A", "LONG")
	w.Add("é\t", "")
	for range 2 {
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	w.Add("x", "y")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "A      LONG\n\"é\\t\"  -\nx      y\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	f := &full{}
	w = NewTable(f, "A")
	for range 10 * maxPending {
		w.Add("x")
	}
	if err := w.Flush(); err == nil || f.writes > 1 {
		t.Errorf("%v after %d writes", err, f.writes)
	}
	for _, err := range []error{Object(f, Lines, 1), Objects(f, Lines, []int{1})} {
		if err == nil {
			t.Error("an error of the output is lost")
		}
	}
}
