package bounded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/decode"
	"github.com/watershed-db/watershed/processor/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ridesJob = `
name: rides
sources:
  - topic: rides
    format: json
    time: {field: ts, unit: ms}
    out_of_orderness: 5s
    key: [city]
    aggregates: {rides: count(), fares: sum(fare)}
  - topic: rides
    format: json
    time: {field: ts, unit: ms}
    where: "fare > 30"
    key: {city: city}
    aggregates: {dear: count(), last_fare: last(fare)}
window: {hopping: 1m, every: 10s}
allowed_lateness: 10s
`

func parse(t testing.TB, file string) *job.Job {
	t.Helper()
	j, err := job.Parse("job.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// lines is a file in memory; after its last line comes err, or its end.
type lines struct {
	lines  [][]byte
	header []byte
	at     int
	err    error
	opened *int
}

func (l *lines) Read(dst []log.Record) (int, error) {
	n := 0
	for n < len(dst) && l.at < len(l.lines) {
		dst[n] = log.Record{Offset: int64(l.at), Timestamp: log.NoTimestamp, Value: l.lines[l.at]}
		n++
		l.at++
	}
	if n > 0 {
		return n, nil
	}
	if l.err != nil {
		return 0, l.err
	}
	return 0, io.EOF
}

func (l *lines) Header() []byte { return l.header }

func (l *lines) Close() error {
	if l.opened != nil {
		*l.opened--
	}
	return nil
}

func rideLines(n, seed int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		x := i*7919 + seed*104729
		out[i] = fmt.Appendf(nil, `{"ride_id":"r-%06d","rider_id":"u-%d","driver_id":"d-%04d","ts":%d,"lat":40.7%04d,`+
			`"lon":-73.9%04d,"city":"c-%d","fare":%d.5,"currency":"USD","pool":false,"seats":%d,"note":null}`,
			i, x%5000, x%900, 1442018952942+int64(i)*10-int64(x%13)*1000, x%9999, x%9973, x%1000, x%60, x%4)
	}
	return out
}

func outcome(t testing.TB, cfg Config) (string, Stats) {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	if err := r.Rows(func(row *job.Row) error {
		out = append(cfg.Job.AppendRow(out, row, true), '\n')
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return string(out), stats
}

func config(t testing.TB, parts ...[][]byte) Config {
	cfg := Config{Job: parse(t, ridesJob), RecordTime: log.NoTimestamp}
	for i := range parts {
		cfg.Inputs = append(cfg.Inputs, Input{DefaultRegion, "rides", fmt.Sprint(i)})
	}
	cfg.Inputs[0].Region = "other"
	cfg.Open = func(in Input, _ job.Format) (File, error) {
		var i int
		if _, err := fmt.Sscan(in.File, &i); err != nil {
			return nil, err
		}
		return &lines{lines: parts[i]}, nil
	}
	return cfg
}

// The rows are a function of job and files: of no batch's size, and of nothing that goroutines do.
func TestBatchesDoNotShow(t *testing.T) {
	cfg := config(t, rideLines(900, 1), rideLines(400, 2), rideLines(10, 3), nil)
	want, stats := outcome(t, cfg)
	if stats.Events != 2*1310 || !strings.Contains(want, `"last_fare"`) {
		t.Fatalf("%+v, %s", stats, want)
	}
	for _, c := range []Config{{FlushRecords: 1}, {FlushRecords: 7}, {FlushRecords: 10_000}, {FlushBytes: 1}, {FlushBytes: 5000}} {
		cfg.FlushRecords, cfg.FlushBytes = c.FlushRecords, c.FlushBytes
		for range 2 {
			if got, s := outcome(t, cfg); got != want || s != stats {
				t.Errorf("batches of %d records, %d bytes: other rows or counts", c.FlushRecords, c.FlushBytes)
			}
		}
	}
}

func TestTheFirstErrorInOrderIsTold(t *testing.T) {
	cfg := config(t, rideLines(10, 1), rideLines(5000, 2), rideLines(10, 3))
	broken, late := errors.New("file breaks off"), errors.New("another breaks off")
	open, opened := cfg.Open, 0
	cfg.Open = func(in Input, f job.Format) (File, error) {
		file, err := open(in, f)
		if err != nil {
			return nil, err
		}
		l := file.(*lines)
		l.err = map[string]error{"1": broken, "2": late}[in.File]
		return l, nil
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(t.Context()); !errors.Is(err, broken) && !errors.Is(err, late) {
		t.Errorf("error %v", err)
	}
	if opened != 0 {
		t.Errorf("%d files stay open", opened)
	}
}

func TestCancelledRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := New(config(t, rideLines(10, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestHeaders(t *testing.T) {
	cfg := Config{
		Job: parse(t, `
name: pickups
sources:
  - topic: pickups
    format: csv
    columns: {at: text, n: int}
    time: at
    key: [n]
    aggregates: {c: count()}
window: {global: true}
`),
		Inputs: []Input{{DefaultRegion, "pickups", "f.csv"}}, RecordTime: log.NoTimestamp,
	}
	for header, want := range map[string]error{"at,n": nil, "n,at": decode.ErrColumns, "at,n,x": decode.ErrColumns, "at,\"n": decode.ErrMalformed} {
		cfg.Open = func(Input, job.Format) (File, error) {
			return &lines{header: []byte(header), lines: [][]byte{[]byte("2015-09-12T00:00:00Z,1")}}, nil
		}
		r, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := r.Read(t.Context())
		if !errors.Is(err, want) || err == nil && stats.Events != 1 || err != nil && !strings.Contains(err.Error(), "f.csv") {
			t.Errorf("header %q: %+v, %v; want %v", header, stats, err, want)
		}
	}
}

func TestParseInput(t *testing.T) {
	for s, want := range map[string]Input{
		"rides=a.jsonl": {DefaultRegion, "rides", "a.jsonl"}, "us-east/rides=-": {"us-east", "rides", "-"},
		"rides=a=b": {DefaultRegion, "rides", "a=b"},
	} {
		if got, err := ParseInput(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "rides", "=f", "rides=", "US/rides=f", "us/=f", strings.Repeat("t", 2000) + "=f"} {
		if _, err := ParseInput(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestMemoryRefusesWhatDoesNotFit(t *testing.T) {
	src := crdt.Source{Region: "us", Topic: "rides"}
	m := NewMemory(parse(t, ridesJob).Schema())
	p := crdt.FirstPoint(src, 0)
	to := p.After(0, crdt.Hash{1}, 5, crdt.Filtered)
	a := &crdt.Advance{Group: "us", Ranges: []crdt.Range{{Source: src, From: p.Mark(), To: to}}}
	if err := m.Apply(a); err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(a); err == nil {
		t.Error("the same Advance was applied twice")
	}
}

// BenchmarkRun reports processor time beside the wall's, which other work on the machine stretches.
func BenchmarkRun(b *testing.B) {
	parts := rideLines(100_000, 1)
	file := strings.Replace(ridesJob, ridesJob[strings.Index(ridesJob, "  - topic: rides\n    format: json\n    time: {field: ts, unit: ms}\n    where"):strings.Index(ridesJob, "window:")], "", 1)
	file = strings.Replace(file, "{hopping: 1m, every: 10s}", "{tumbling: 1m}", 1)
	cfg := config(b, parts)
	cfg.Job = parse(b, file)
	b.SetBytes(int64(len(bytes.Join(parts, nil))))
	start := cpu(b)
	n := 0
	for b.Loop() {
		outcome(b, cfg)
		n++
	}
	b.ReportMetric(float64(cpu(b)-start)/float64(n*len(parts)), "cpu-ns/record")
}

func cpu(t testing.TB) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
