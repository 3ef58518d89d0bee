package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const smallJob = `name: small
sources:
  - topic: events
    format: json
    time: {field: ts, unit: ms}
    key: [who]
    aggregates: {n: count(), total: sum(x)}
window: {tumbling: 1m}
`

const smallInput = `{"ts":1000,"who":"a","x":1}
{"ts":2000,"who":"b","x":2}
`

// badRun is a run that must be refused. The placeholders JOB, IN and DIR in its arguments stand for files that are written.
type badRun struct {
	name   string
	change [2]string // old and new text of the job file
	args   string    // default: --job JOB --input events=IN
	input  string    // default: smallInput
	gz     bool      // the input is written compressed, and cut in the middle
	status int
	want   []string
}

var badRuns = []badRun{
	{name: "unknown field", change: [2]string{"window:", "windw: 1\nwindow:"}, status: 1, want: []string{":8:1: ", "windw"}},
	{name: "wrong type", change: [2]string{"{tumbling: 1m}", "{tumbling: yes}"}, status: 1, want: []string{":8:20: ", "expected"}},
	{name: "bad expression", change: [2]string{"sum(x)", `"sum(x +)"`}, status: 1, want: []string{":7:"}},
	{name: "unknown function", change: [2]string{"sum(x)", "summ(x)"}, status: 1, want: []string{":7:", "summ"}},
	{name: "field csv cannot have", change: [2]string{"format: json", "format: csv\n    columns: {ts: int, who: text}"}, status: 1,
		want: []string{":8:", `"x"`}},
	{name: "window and lateness contradict", change: [2]string{"{tumbling: 1m}", "{session: 1m}\nmax_session: 1s"}, status: 1,
		want: []string{"max_session"}},
	{name: "hopping is no multiple", change: [2]string{"{tumbling: 1m}", "{hopping: 1m, every: 7s}"}, status: 1, want: []string{":8:"}},
	{name: "duplicate aggregate", change: [2]string{"total: sum(x)", "n: sum(x)"}, status: 1, want: []string{":7:", `"n"`}},
	{name: "not supported yet", change: [2]string{"sum(x)", `"topk(x, 3)"`}, status: 1, want: []string{":7:", "topk", "not supported yet"}},
	{name: "session with a sink", change: [2]string{"{tumbling: 1m}", "{session: 1m}\nemit: {sinks: [{kafka: {topic: out}}]}"},
		status: 1, want: []string{"not supported yet"}},
	{name: "no job file", args: "--job DIR/none.yaml --input events=IN", status: 1, want: []string{"none.yaml"}},
	{name: "job file is a folder", args: "--job DIR --input events=IN", status: 1},
	{name: "unknown topic", args: "--job JOB --input evnts=IN", status: 1, want: []string{"evnts"}},
	{name: "unknown topic beside a known one", args: "--job JOB --input events=IN --input more=IN", status: 1, want: []string{"more"}},
	{name: "source without input", change: [2]string{"window:", "  - {topic: others, format: json, time: ts, key: [who], " +
		"aggregates: {m: count()}}\nwindow:"}, status: 1, want: []string{"others"}},
	{name: "missing file", args: "--job JOB --input events=DIR/none.jsonl", status: 1, want: []string{"none.jsonl"}},
	{name: "missing file after a good one", args: "--job JOB --input events=IN --input events=DIR/none.jsonl", status: 1,
		want: []string{"none.jsonl"}},
	{name: "input is a folder", args: "--job JOB --input events=DIR", status: 1},
	{name: "truncated gzip", gz: true, status: 1, want: []string{"in.jsonl.gz"}},
	{name: "gzip that is none", args: "--job JOB --input events=DIR/plain.gz", status: 1, want: []string{"plain.gz"}},
	{name: "two of standard input", args: "--job JOB --input events=- --input events=-", status: 1, want: []string{"standard input"}},
	{name: "stats into no folder", args: "--job JOB --input events=IN --stats DIR/none/stats.json", status: 1, want: []string{"stats"}},
	{name: "no job", args: "--input events=IN", status: 2, want: []string{"--job"}},
	{name: "no input", args: "--job JOB", status: 2, want: []string{"--input"}},
	{name: "input without a topic", args: "--job JOB --input IN", status: 2, want: []string{"TOPIC=FILE"}},
	{name: "input of an empty topic", args: "--job JOB --input =IN", status: 2},
	{name: "input without a file", args: "--job JOB --input events=", status: 2},
	{name: "record time that is none", args: "--job JOB --input events=IN --record-time yesterday", status: 2, want: []string{"yesterday"}},
	{name: "unknown flag", args: "--job JOB --input events=IN --fast", status: 2, want: []string{"--fast"}},
	{name: "an argument too many", args: "--job JOB --input events=IN more", status: 2},
}

func TestRunRefuses(t *testing.T) {
	binary(t)
	for _, b := range badRuns {
		t.Run(b.name, func(t *testing.T) {
			dir := t.TempDir()
			args := strings.Fields(b.write(t, dir))
			stats := filepath.Join(dir, "stats.json")
			if !strings.Contains(b.args, "--stats") {
				args = append(args, "--stats", stats)
			}
			watershed(t, nil, append([]string{"run"}, args...)...).refused(t, b.status, b.want...)
			if _, err := os.Stat(stats); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the stats file is there: %v", err)
			}
		})
	}
}

// write writes the files of a bad run and returns its arguments.
func (b badRun) write(t *testing.T, dir string) string {
	t.Helper()
	text := smallJob
	if b.change[0] != "" {
		text = strings.Replace(smallJob, b.change[0], b.change[1], 1)
		if text == smallJob {
			t.Fatalf("%q is not in the job", b.change[0])
		}
	}
	input := b.input
	if input == "" {
		input = smallInput
	}
	job, in := filepath.Join(dir, "job.yaml"), filepath.Join(dir, "in.jsonl")
	for name, content := range map[string]string{job: text, in: input, filepath.Join(dir, "plain.gz"): smallInput} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b.gz {
		in = compress(t, in)
		whole, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in, whole[:len(whole)-10], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := b.args
	if args == "" {
		args = "--job JOB --input events=IN"
	}
	return strings.NewReplacer("JOB", job, "IN", in, "DIR", dir).Replace(args)
}

func TestWrongCommandLines(t *testing.T) {
	for _, line := range []string{"rum", "--nope", "run --help --nope", "version extra"} {
		t.Run(line, func(t *testing.T) {
			watershed(t, nil, strings.Fields(line)...).refused(t, 2)
		})
	}
}

// A bad record is counted and put aside, and the rest goes on.
func TestRunGoesOnAfterBadRecords(t *testing.T) {
	input := smallInput +
		`{"ts":3000,"who":"a","x":1,"pad":"` + strings.Repeat("x", 20<<20) + "\"}\n" + // 20 MB
		"{\"ts\":3000,\"who\":\"\xff\",\"x\":1}\n" +
		`{"ts":3000,"who":"a","x":1,"x":2}` + "\n" +
		`{"ts":3000,"who":"a","x":NaN}` + "\n" +
		`{"who":"a","x":1}` + "\n" +
		`{"ts":3000,"who":"b","x":9007199254740993}` + "\n" +
		`{"ts":3000,"who":"b","x":9223372036854775808}` + "\n" +
		"\n" +
		`{"ts":3001,"who":"b","x":3}` // and no line end
	dir := t.TempDir()
	args := badRun{input: input}.write(t, dir)
	stats := filepath.Join(dir, "stats.json")
	got := must(t, append([]string{"run", "--stats", stats}, strings.Fields(args)...)...)
	want := `{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"a"},"n":1,"total":1}
{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"b"},"n":3,"total":9007199254740998}
`
	sameRows(t, "bad records", got, []byte(want))
	text, err := os.ReadFile(stats)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"events":10,"filtered":0,"late":0,"implausible":0,"invalid":6,"rows":2,`; !strings.HasPrefix(string(text), want) {
		t.Errorf("stats %s, want %s", text, want)
	}
}
