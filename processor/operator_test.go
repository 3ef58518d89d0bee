package processor

import (
	"errors"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/decode"
	"github.com/watershed-db/watershed/processor/job"
)

const tumblingJob = `
name: rides
sources:
  - topic: rides
    format: json
    time: {field: ts, unit: ms}
    out_of_orderness: 2ms
    max_future: 100ms
    where: "fare >= 0"
    key: [city]
    aggregates:
      rides: count()
      fares: sum(fare)
      riders: distinct(rider)
window: {tumbling: 10ms}
allowed_lateness: 5ms
`

// failer is what fails a test or a rapid check.
type failer interface{ Fatal(args ...any) }

func parseJob(t failer, file string) *job.Job {
	j, err := job.Parse("job.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

var rides = crdt.Source{Region: "us", Topic: "rides"}

func newOperator(t testing.TB, file string, columns ...decode.Column) *Operator {
	t.Helper()
	o, err := NewOperator(parseJob(t, file), rides, columns, crdt.FirstPoint(rides, 0))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// step is a record of a scenario and what must become of it.
type step struct {
	value     string
	outcome   crdt.Outcome
	watermark int64
	reason    string // a part of it
}

const none = crdt.MinTime

func play(t *testing.T, o *Operator, timestamp int64, steps []step) {
	t.Helper()
	var want crdt.Counts
	for i, s := range steps {
		before := o.Point()
		v, err := o.Judge(&log.Record{Offset: int64(i), Timestamp: timestamp, Value: []byte(s.value)})
		if err != nil {
			t.Fatal(err)
		}
		want[s.outcome]++
		p := o.Point()
		if v.Outcome != s.outcome || p.Watermark != s.watermark || p.Counts != want {
			t.Errorf("record %d %s: %s (%s), watermark %d, counts %v; want %s, %d, %v", i, s.value, v.Outcome, v.Reason,
				p.Watermark, p.Counts, s.outcome, s.watermark, want)
		}
		if s.reason == "" && v.Reason != "" && s.outcome == crdt.Counted || !strings.Contains(v.Reason, s.reason) {
			t.Errorf("record %d: reason %q, want %q", i, v.Reason, s.reason)
		}
		if p.Offset != before.Offset+1 || p.Chain == before.Chain || p.Chain != before.Chain.Next(p.Last) {
			t.Errorf("record %d: point %v after %v", i, p, before)
		}
	}
}

func TestOrderOfChecks(t *testing.T) {
	play(t, newOperator(t, tumblingJob), 1000, []step{
		{`{"ts":10,"fare":1,"city":"a"}`, crdt.Counted, 8, ""},
		{`{"ts":30,"fare":1`, crdt.Invalid, 8, "malformed"},
		{`{"fare":1,"city":"a"}`, crdt.Invalid, 8, "time"},
		{`{"ts":"30","fare":1,"city":"a"}`, crdt.Invalid, 8, "time"},
		{`{"ts":1101,"fare":1,"city":"a"}`, crdt.Implausible, 8, "too far"},
		{`{"ts":1101,"fare":-1}`, crdt.Implausible, 8, ""},
		{`{"ts":12,"fare":-1,"city":"a"}`, crdt.Filtered, 10, ""},
		{`{"ts":13,"fare":null,"city":"a"}`, crdt.Invalid, 11, "of null"},
		{`{"ts":14,"fare":"x","city":"a"}`, crdt.Invalid, 12, "where"},
		{`{"ts":15,"fare":-1}`, crdt.Filtered, 13, ""},
		{`{"ts":16,"fare":1}`, crdt.Invalid, 14, "key"},
		{`{"ts":17,"fare":1,"city":null}`, crdt.Counted, 15, ""},
		{`{"ts":18,"fare":1,"city":{"x":1}}`, crdt.Invalid, 16, "city"},
		{`{"ts":19,"fare":1,"city":18446744073709551616}`, crdt.Invalid, 17, ""},
		{`{"ts":20,"fare":18446744073709551616,"city":"a"}`, crdt.Invalid, 18, ""},
		{`{"ts":21,"fare":1,"city":"a","rider":[]}`, crdt.Invalid, 19, "rider"},
		{`{"ts":1,"fare":1,"rider":[]}`, crdt.Invalid, 19, "key"},
		{`{"ts":1100,"fare":1,"city":"a"}`, crdt.Counted, 1098, ""},
		{`{"ts":1082,"fare":1,"city":"a"}`, crdt.Late, 1098, "closed"},
		{`{"ts":1082,"fare":-1,"city":"a"}`, crdt.Filtered, 1098, ""},
	})
}

// The window's end and the lateness are judged by the watermark before the record.
func TestLate(t *testing.T) {
	ride := func(ts string) string { return `{"ts":` + ts + `,"fare":1,"city":"a"}` }
	play(t, newOperator(t, tumblingJob), 1000, []step{
		{ride("16"), crdt.Counted, 14, ""},
		{ride("9"), crdt.Counted, 14, ""}, // ends at 10, closed at 15
		{ride("17"), crdt.Counted, 15, ""},
		{ride("9"), crdt.Late, 15, "closed"},
		{ride("10"), crdt.Counted, 15, ""}, // ends at 20
		{ride("-5"), crdt.Late, 15, "closed"},
		{ride("1001"), crdt.Counted, 999, ""}, // judged by 15, not by its own 999
		{ride("992"), crdt.Counted, 999, ""},  // ends at 1000, closed at 1005
		{ride("979"), crdt.Late, 999, "closed"},
	})
}

func TestWithoutTimestampNothingIsImplausible(t *testing.T) {
	play(t, newOperator(t, tumblingJob), log.NoTimestamp, []step{
		{`{"ts":253402300799999,"fare":1,"city":"a"}`, crdt.Counted, 253402300799997, ""},
		{`{"ts":253402300800000,"fare":1,"city":"a"}`, crdt.Invalid, 253402300799997, "time"},
	})
}

func TestCSVRecords(t *testing.T) {
	o := newOperator(t, `
name: pickups
sources:
  - topic: rides
    format: csv
    time: {field: Date/Time, layout: "2006/1/2 15:04:05"}
    key: {base: Base}
    aggregates: {lat: sum(Lat), n: count(Lat)}
window: {global: true}
`, decode.Column{Name: "Date/Time"}, decode.Column{Name: "Lat"}, decode.Column{Name: "Base"})
	play(t, o, 2e12, []step{
		{`1970/1/1 00:00:01,40.5,B1`, crdt.Counted, 1000, ""},
		{`1970/1/1 00:00:02,,B1`, crdt.Counted, 2000, ""},
		{`1970/1/1 00:00:03,forty,B1`, crdt.Invalid, 3000, "no number"},
		{`1970/1/1 00:00:04,40`, crdt.Invalid, 3000, "fields"},
		{`,40,B1`, crdt.Invalid, 3000, "time"},
		{`1970/1/1 00:00:01,40,`, crdt.Counted, 3000, ""},
	})
}

func TestPoison(t *testing.T) {
	o := newOperator(t, tumblingJob)
	long := strings.Repeat("x", decode.MaxRecord+1)
	play(t, o, 1000, []step{
		{long, crdt.Invalid, none, "bytes"},
		{"\xff\xfe", crdt.Invalid, none, ""},
		{"", crdt.Invalid, none, "object"},
		{`{"ts":NaN}`, crdt.Invalid, none, "malformed"},
		{`{"ts":1,"ts":1}`, crdt.Invalid, none, "duplicate"},
		{`{"ts":5,"fare":1,"city":"` + strings.Repeat("k", 20000) + `"}`, crdt.Invalid, 3, "key"},
		{`{"ts":5,"fare":1,"city":"a","rider":"` + strings.Repeat("r", 20000) + `"}`, crdt.Counted, 3, ""},
	})
	v, err := o.Judge(&log.Record{Offset: 90, Oversized: true})
	if err != nil || v.Outcome != crdt.Invalid || v.Time != crdt.MinTime {
		t.Errorf("oversized: %+v, %v", v, err)
	}
	if _, err := o.Judge(&log.Record{Offset: 90}); !errors.Is(err, ErrOrder) {
		t.Errorf("the same offset again: %v", err)
	}
}

func TestNewOperatorRefuses(t *testing.T) {
	j := parseJob(t, tumblingJob)
	other := rides
	other.Input = 1
	if _, err := NewOperator(j, other, nil, crdt.FirstPoint(other, 0)); err == nil {
		t.Error("an input that the job has not")
	}
	csv := parseJob(t, strings.Replace(tumblingJob, "format: json", "format: csv", 1))
	_, err := NewOperator(csv, rides, []decode.Column{{Name: "ts"}}, crdt.FirstPoint(rides, 0))
	if !errors.Is(err, decode.ErrColumns) {
		t.Errorf("a column that the file has not: %v", err)
	}
}

func TestJudgeDoesNotAllocate(t *testing.T) {
	o := newOperator(t, tumblingJob)
	r := log.Record{Value: []byte(`{"ts":1442018952942,"fare":23.5,"city":"NYC","rider":"r1"}`), Timestamp: log.NoTimestamp}
	b := NewBatch(parseJob(t, tumblingJob).Schema())
	if n := testing.AllocsPerRun(100, func() {
		if v, err := o.Judge(&r); err != nil || v.Outcome != crdt.Counted {
			t.Fatal(v, err)
		}
		b.Fold(o)
		r.Offset++
	}); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func BenchmarkJudge(b *testing.B) {
	o := newOperator(b, tumblingJob)
	in := []byte(`{"ride_id":"r-000123","rider":"u-4711","driver_id":"d-0815","ts":1442018952942,"lat":40.74844,` +
		`"lon":-73.98566,"city":"NYC","fare":23.5,"currency":"USD","pool":false,"seats":2,"note":null}`)
	r := log.Record{Value: in, Timestamp: log.NoTimestamp}
	batch := NewBatch(parseJob(b, tumblingJob).Schema())
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if v, err := o.Judge(&r); err != nil || v.Outcome != crdt.Counted {
			b.Fatal(v, err)
		}
		batch.Fold(o)
		r.Offset++
	}
}
