package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/jepsen/cases"
	"github.com/watershed-db/watershed/jepsen/oracle"
)

// watershed runs a command line.
func watershed(t *testing.T, args ...string) (stdout []byte, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = execute(t.Context(), args, &out, &errs)
	return out.Bytes(), errs.String(), status
}

// pipeStdin makes standard input a pipe for a test, and returns its other end.
func pipeStdin(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	os.Stdin = r
	t.Cleanup(func() {
		os.Stdin = stdin
		_ = w.Close() // the test may have closed it
		_ = r.Close() // and the reader its end
	})
	return w
}

// Every job of the suite gives the oracle's rows and counts, whatever the size of the batches.
func TestRunAgreesWithTheOracle(t *testing.T) {
	for _, c := range cases.All() {
		for _, split := range []bool{false, true} {
			name := c.Name
			if split {
				name += "/split"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				generated := strings.HasPrefix(c.Name, "rides") || strings.HasPrefix(c.Name, "mixed") || strings.HasPrefix(c.Name, "fares")
				if !generated && (split || testing.Short()) {
					t.Skip("the oracle takes seconds")
				}
				c := c
				if split {
					c = cases.Split(c, "us-east", "eu-west")
				}
				agrees(t, c)
			})
		}
	}
}

func agrees(t *testing.T, c cases.Case) {
	dir := t.TempDir()
	args, err := c.WriteFiles(dir)
	if errors.Is(err, cases.ErrNoData) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	rows, counts, err := c.Expect()
	if err != nil {
		t.Fatal(err)
	}
	stats := filepath.Join(dir, "stats.json")
	for _, flush := range []string{"0", "1", "10000"} {
		if flush == "1" && counts.Events > 10_000 {
			continue
		}
		got, stderr, status := watershed(t, append([]string{"run", "--stats", stats, "--flush-records", flush}, args...)...)
		if status != 0 || stderr != "" {
			t.Fatalf("status %d: %s", status, stderr)
		}
		if !bytes.Equal(got, rows) {
			t.Fatalf("batches of %s: %s", flush, firstDifference(got, rows))
		}
		text, err := os.ReadFile(stats)
		if err != nil {
			t.Fatal(err)
		}
		var s oracle.Stats
		if err := json.Unmarshal(text, &s); err != nil || s != counts {
			t.Errorf("counts %s, want %+v (%v)", text, counts, err)
		}
	}
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		a, b := "(no line)", "(no line)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return "line " + a + "\nwant " + b
		}
	}
	return "no difference"
}

const editsJob = `
name: edits
sources:
  - topic: edits
    format: json
    time: {field: ts, unit: ms}
    key: [user.name]
    aggregates: {edits: count(), added: sum(added)}
window: {tumbling: 1s}
`

// files writes files into a new folder and returns it.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	edit1 = `{"ts":1,"user":{"name":"a"},"added":2}` + "\n"
	edit2 = `{"ts":1002,"user":{"name":null},"added":3}` + "\n"
	row1  = `{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:01Z","key":{"user.name":"a"},"edits":1,"added":2}` + "\n"
	row2  = `{"window_start":"1970-01-01T00:00:01Z","window_end":"1970-01-01T00:00:02Z","key":{"user.name":null},"edits":1,"added":3}` + "\n"
)

func TestRunReadsStandardInput(t *testing.T) {
	dir := files(t, map[string]string{"job.yaml": editsJob, "part.jsonl.gz": zipped(t, edit2)})
	in := pipeStdin(t)
	if _, err := in.WriteString("\n" + edit1 + "\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	out, stderr, status := watershed(t, "run", "--job", dir+"/job.yaml",
		"--input", "edits=-", "--input", "edits="+dir+"/part.jsonl.gz")
	if status != 0 || string(out) != row1+row2 {
		t.Errorf("status %d, %s%s", status, out, stderr)
	}
}

func TestRunFails(t *testing.T) {
	whole := zipped(t, strings.Repeat(edit1, 1000))
	dir := files(t, map[string]string{
		"job.yaml": editsJob, "ok.jsonl": edit1, "cut.jsonl.gz": whole[:len(whole)-9],
		"two.yaml":  editsJob + "---\n",
		"bad.yaml":  strings.Replace(editsJob, "format", "fromat", 1),
		"both.yaml": strings.Replace(editsJob, "window:", "  - topic: other\n    format: json\n    time: ts\n    key: [user.name]\n    aggregates: {n: count()}\nwindow:", 1),
		"csv.yaml":  strings.Replace(strings.Replace(editsJob, "json", "csv", 1), "user.name", "user", 1),
		"cols.csv":  "ts,usr,added\n1,a,2\n", "fits.csv": "ts,user,added\n1,a,2\n",
	})
	ok := "edits=" + dir + "/ok.jsonl"
	tests := []struct {
		name   string
		args   []string
		status int
		says   string // in one line
	}{
		{"no flags", nil, 2, "--job"},
		{"no input", []string{"--job", dir + "/job.yaml"}, 2, "--input"},
		{"unknown flag", []string{"--jobs", "x"}, 2, "--jobs"},
		{"argument", []string{"x"}, 2, "arguments"},
		{"input without file", []string{"--job", dir + "/job.yaml", "--input", "edits"}, 2, "TOPIC=FILE"},
		{"region name", []string{"--job", dir + "/job.yaml", "--input", "US/" + ok}, 2, "US"},
		{"record time", []string{"--job", dir + "/job.yaml", "--input", ok, "--record-time", "noon"}, 2, "noon"},
		{"no job file", []string{"--job", dir + "/none.yaml", "--input", ok}, 1, "none.yaml"},
		{"job with a typo", []string{"--job", dir + "/bad.yaml", "--input", ok}, 1, "bad.yaml:5:5"},
		{"unknown topic", []string{"--job", dir + "/job.yaml", "--input", ok, "--input", "x=" + dir + "/ok.jsonl"}, 1, `"x"`},
		{"source without input", []string{"--job", dir + "/both.yaml", "--input", ok}, 1, `"other"`},
		{"no such file", []string{"--job", dir + "/job.yaml", "--input", ok, "--input", "edits=" + dir + "/none"}, 1, "none"},
		{"folder", []string{"--job", dir + "/job.yaml", "--input", "edits=" + dir}, 1, "directory"},
		{"truncated gzip", []string{"--job", dir + "/job.yaml", "--input", ok, "--input", "edits=" + dir + "/cut.jsonl.gz"}, 1, "cut.jsonl.gz"},
		{"stdin twice", []string{"--job", dir + "/job.yaml", "--input", "edits=-", "--input", "edits=-"}, 1, "twice"},
		{"column missing", []string{"--job", dir + "/csv.yaml", "--input", "edits=" + dir + "/cols.csv"}, 1, `"user"`},
		{"stats nowhere", []string{"--job", dir + "/job.yaml", "--input", ok, "--stats", dir + "/no/stats"}, 1, "stats"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stats := filepath.Join(t.TempDir(), "stats.json")
			args := append([]string{"run", "--stats", stats}, tt.args...)
			out, stderr, status := watershed(t, args...)
			if status != tt.status || len(out) > 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.says) {
				t.Errorf("status %d, stdout %q, stderr %q; want status %d and %q in one line", status, out, stderr, tt.status, tt.says)
			}
			if _, err := os.Stat(stats); err == nil {
				t.Error("stats were written")
			}
		})
	}
}

// A run that waits for input ends at once when it is interrupted.
func TestRunIsInterrupted(t *testing.T) {
	dir := files(t, map[string]string{"job.yaml": editsJob})
	ctx, cancel := context.WithCancel(t.Context())
	feed := pipeStdin(t)
	var out, errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- execute(ctx, []string{"run", "--job", dir + "/job.yaml", "--input", "edits=-"}, &out, &errs)
	}()
	if _, err := feed.WriteString(edit1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if status := <-done; status != statusInterrupted || errs.String() != "watershed: interrupted\n" || out.Len() > 0 {
		t.Errorf("status %d, %q, %q", status, out.String(), errs.String())
	}
}

func TestPoisonedRecordsAreCounted(t *testing.T) {
	lines := []string{
		strings.TrimSpace(edit1), "", `{"ts":2`, "\xff", `{"ts":3,"ts":3}`, `{"ts":NaN}`, `{"user":{"name":"a"}}`,
		`{"ts":4,"user":{}}`, `{"ts":5,"user":{"name":"a"},"added":"x"}`, `{"ts":6,"user":{"name":"a"},"added":9007199254740993}`,
		`{"ts":7,"user":{"name":"a"},"added":"` + strings.Repeat("y", 20_000_000) + `"}`,
		`{"ts":8,"user":{"name":"a"},"added":18446744073709551616}`,
	}
	dir := files(t, map[string]string{"job.yaml": editsJob, "in.jsonl": strings.Join(lines, "\n")})
	out, stderr, status := watershed(t, "run", "--job", dir+"/job.yaml", "--input", "edits="+dir+"/in.jsonl", "--stats", dir+"/s")
	want := strings.Replace(row1, `"edits":1,"added":2`, `"edits":2,"added":9007199254740995`, 1)
	if status != 0 || string(out) != want {
		t.Errorf("status %d, %s%s", status, out, stderr)
	}
	if s, err := os.ReadFile(dir + "/s"); err != nil || !strings.HasPrefix(string(s), `{"events":11,"filtered":0,"late":0,"implausible":0,"invalid":9,"rows":1,"seconds":`) {
		t.Errorf("%s, %v", s, err)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"run", "--help"}} {
		out, stderr, status := watershed(t, args...)
		if status != 0 || stderr != "" || !bytes.Contains(out, []byte("Examples:")) {
			t.Errorf("%q: status %d, %s%s", args, status, out, stderr)
		}
	}
	if out, stderr, status := watershed(t, "rum"); status != 2 || len(out) > 0 || !strings.Contains(stderr, "did you mean run") {
		t.Errorf("status %d, %s%s", status, out, stderr)
	}
}
