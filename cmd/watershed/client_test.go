package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

var update = flag.Bool("update", false, "rewrite the files of expected outputs")

// What every command prints, in every format: in testdata/cli, a file a command.
func TestOutputs(t *testing.T) {
	endpoint := (&fakeNode{}).serve(t)
	dir := files(t, map[string]string{"surge.yaml": "surge\n", "same.yaml": "same\n", "bad.yaml": "bad\n", "other.yaml": "other\n"})
	t.Chdir(dir)
	commands := map[string]string{
		"query": "query surge", "query-empty": "query surge --closed", "topology": "topology", "upgrade": "upgrade", "upgrade-to": "upgrade --to 2 --without ap-south",
		"upgrade-too-high": "upgrade --to 3", "list": "job list",
		"show": "job show surge", "delete": "job delete surge", "validate": "job validate surge.yaml bad.yaml",
		"apply": "job apply surge.yaml same.yaml", "apply-invalid": "job apply surge.yaml bad.yaml",
		"apply-other": "job apply same.yaml other.yaml surge.yaml", "no-job": "query other", "show-no-job": "job show other",
		"delete-no-job": "job delete other", "table-apply": "table apply surge.yaml same.yaml",
		"table-apply-invalid": "table apply surge.yaml bad.yaml", "table-apply-other": "table apply same.yaml other.yaml surge.yaml",
		"table-list": "table list", "table-show": "table show drivers", "table-show-none": "table show other",
		"table-get": "table get visits home", "table-get-set": "table get tags tags", "table-get-none": "table get visits other",
		"table-get-owned": "table get drivers owned", "table-scan": "table scan visits", "table-scan-none": "table scan other",
		"table-drop": "table drop drivers", "table-drop-none": "table drop other",
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			var all bytes.Buffer
			for _, f := range []string{"jsonl", "json", "table"} {
				line := command + " --output " + f
				out, stderr, status := watershed(t, append(strings.Fields(line), "--endpoint", endpoint)...)
				fmt.Fprintf(&all, "$ watershed %s\n%s--- standard error\n%s--- status %d\n\n", line, out, stderr, status)
			}
			golden(t, name, all.Bytes())
		})
	}
}

// root is this package's folder, before a test changes it.
var root, _ = os.Getwd()

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join(root, "testdata", "cli", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %s", file, firstDifference(got, want))
	}
}

func TestQueryAsks(t *testing.T) {
	n := &fakeNode{}
	t.Setenv(endpointVariable, "127.0.0.1:1,"+n.serve(t)) // nobody listens on the first
	_, stderr, code := watershed(t, "query", "surge", "--key", "cell=a=b", "--key", "vip=", "--from", "1970-01-01T00:00:01Z",
		"--to", "1970-01-01T01:00:00.0005+01:00", "--closed", "--consistency", "local", "--top", "3", "--by", "requests")
	if code != 0 || stderr != "" {
		t.Fatalf("status %d: %s", code, stderr)
	}
	s := n.scanned.GetSelection()
	if s.GetJob() != "surge" || len(s.GetKey()) != 2 || s.GetKey()[0].GetName() != "cell" || s.GetKey()[0].GetValue().GetText() != "a=b" ||
		s.GetKey()[1].GetValue().GetText() != "" || s.GetFromMs() != 1000 || s.GetToMs() != 1 || !s.GetClosed() ||
		s.GetConsistency() != watershedv1.Consistency_CONSISTENCY_LOCAL || n.scanned.GetTop() != 3 || n.scanned.GetBy() != "requests" {
		t.Errorf("asked for %v", n.scanned)
	}
	if _, _, code := watershed(t, "query", "surge"); code != 0 || n.scanned.GetSelection().ToMs != nil ||
		n.scanned.GetSelection().GetConsistency() != watershedv1.Consistency_CONSISTENCY_LINEARIZABLE {
		t.Errorf("status %d, asked for %v", code, n.scanned)
	}
}

func TestAQueryThatIsCutShort(t *testing.T) {
	endpoint := (&fakeNode{cut: true}).serve(t)
	for _, f := range []string{"jsonl", "json", "table"} {
		out, stderr, code := watershed(t, "query", "surge", "--output", f, "--endpoint", endpoint)
		want := "watershed: query surge: the answer was cut short: shard 1 has lost its leader\n"
		if code != 1 || stderr != want || bytes.Count(out, []byte("requests")) == 0 || bytes.Contains(out, []byte("watermark")) {
			t.Errorf("%s: status %d, %s%s", f, code, out, stderr)
		}
	}
}

func TestUnavailableIsTriedAgain(t *testing.T) {
	n := &fakeNode{busy: 2}
	endpoint := n.serve(t)
	if out, stderr, code := watershed(t, "job", "delete", "surge", "--endpoint", endpoint); code != 0 || len(out) == 0 {
		t.Errorf("status %d, %s", code, stderr)
	}
	n.mu.Lock()
	n.busy = 1 << 30
	n.mu.Unlock()
	_, stderr, code := watershed(t, "topology", "--endpoint", endpoint, "--timeout", "150ms")
	if code != 1 || stderr != "watershed: topology: no answer in time: no leader; yet\n" {
		t.Errorf("status %d, %s", code, stderr)
	}
}

// signals is an output that closes seen once it holds a text.
type signals struct {
	bytes.Buffer
	text string
	seen chan struct{}
}

func (s *signals) Write(b []byte) (int, error) {
	n, err := s.Buffer.Write(b)
	if s.seen != nil && bytes.Contains(s.Bytes(), []byte(s.text)) {
		close(s.seen)
		s.seen = nil
	}
	return n, err
}

func TestWatchUntilInterrupted(t *testing.T) {
	n := &fakeNode{watching: func(out watershedv1.StateService_WatchServer) error {
		<-out.Context().Done()
		return nil
	}}
	endpoint := n.serve(t)
	for format, want := range map[string]string{
		"jsonl": `{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:30Z","key":{"cell":"dr5reg","vip":null},"requests":3,"surge":1.5,"revision":3,"complete":true}
{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:30Z","key":{"cell":"dr5reg","vip":null},"revision":4,"retracted":true}
`,
		"table": `WINDOW_START          WINDOW_END            cell    vip   requests  surge  REVISION  COMPLETE
1970-01-01T00:00:00Z  1970-01-01T00:00:30Z  dr5reg  null  3         1.5    3         yes
1970-01-01T00:00:00Z  1970-01-01T00:00:30Z  dr5reg  null  -         -      4         retracted
`,
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		seen := make(chan struct{})
		out, errs := &signals{text: "retracted", seen: seen}, &bytes.Buffer{}
		done := make(chan int, 1)
		go func() {
			done <- execute(ctx, []string{"watch", "surge", "--output", format, "--endpoint", endpoint}, out, errs)
		}()
		<-seen
		interrupt()
		if code := <-done; code != 0 || errs.Len() > 0 {
			t.Errorf("%s: status %d, %s", format, code, errs)
		}
		if format == "jsonl" && out.String() != want || format == "table" && strings.Join(strings.Fields(out.String()), " ") != strings.Join(strings.Fields(want), " ") {
			t.Errorf("%s: %s", format, out)
		}
	}
}

func TestWatchEnds(t *testing.T) {
	cuts := 0
	n := &fakeNode{watching: func(watershedv1.StateService_WatchServer) error {
		if cuts++; cuts == 1 {
			return status.Error(codes.Unavailable, "going away")
		}
		return status.Error(codes.NotFound, "the job was deleted")
	}}
	endpoint := n.serve(t)
	out, stderr, code := watershed(t, "watch", "surge", "--endpoint", endpoint)
	if want := "watershed: the watch was cut, changes may be missing: going away\nwatershed: watch surge: the job was deleted\n"; code != 1 ||
		stderr != want || bytes.Count(out, []byte("\n")) != 4 {
		t.Errorf("status %d, %s%s", code, out, stderr)
	}
	if _, stderr, code := watershed(t, "watch", "other", "--endpoint", endpoint); code != 1 || !strings.Contains(stderr, `"other"`) {
		t.Errorf("status %d, %s", code, stderr)
	}
}

func TestValidateHere(t *testing.T) {
	t.Setenv(endpointVariable, "")
	dir := files(t, map[string]string{
		"ok.yaml": editsJob, "bad.yaml": strings.Replace(editsJob, "format", "fromat", 1),
		"csv.yaml": strings.Replace(strings.Replace(editsJob, "json", "csv", 1), "user.name", "user", 1),
	})
	t.Chdir(dir)
	out, stderr, code := watershed(t, "job", "validate", "ok.yaml")
	if want := `{"file":"ok.yaml","job":"edits","valid":true,"problems":[],"warnings":[]}` + "\n"; code != 0 || string(out) != want || stderr != "" {
		t.Errorf("status %d, %s%s", code, out, stderr)
	}
	out, stderr, code = watershed(t, "job", "validate", "ok.yaml", "bad.yaml", "csv.yaml", "--output", "table")
	if code != 1 || stderr != "watershed: 3 problems in 2 of 3 files\n" || !bytes.HasPrefix(out, []byte("ok.yaml: ok\n")) || !bytes.Contains(out, []byte("\nbad.yaml:5:5: ")) ||
		!bytes.Contains(out, []byte("csv.yaml:4:5: the source edits is csv from a topic, which has no header line; expected columns")) {
		t.Errorf("status %d, %s%s", code, out, stderr)
	}
}

func TestWrongUsage(t *testing.T) {
	t.Setenv(endpointVariable, "")
	tests := []struct{ args, says string }{
		{"query", "takes 1 argument"},
		{"query a b", "takes 1 argument"},
		{"query a", endpointVariable},
		{"query a --endpoint x", "HOST:PORT"},
		{"query a --endpoint h:1 --key x", "PART=VALUE"},
		{"query a --endpoint h:1 --from noon", "--from"},
		{"query a --endpoint h:1 --to noon", "--to"},
		{"query a --endpoint h:1 --top 1", "--by"},
		{"query a --endpoint h:1 --by x", "--top"},
		{"query a --endpoint h:1 --consistency strong", "strong"},
		{"query a --endpoint h:1 --output xml", "xml"},
		{"query a --endpoint h:1 --timeout 0s", "--timeout"},
		{"query a --complete-to T", "--complete-to"},
		{"watch", "takes 1 argument"},
		{"watch a --key x --endpoint h:1", "PART=VALUE"},
		{"topology x", "takes 0 arguments"},
		{"upgrade --to 0", "formats begin at 1"},
		{"upgrade --without eu-west", "--to"},
		{"version x", "takes 0 arguments"},
		{"version --endpoint h:1", "--endpoint"},
		{"job lst", "did you mean list"},
		{"job pause x", `"pause"`},
		{"job apply", "at least one file"},
		{"job list --output yaml", "yaml"},
		{"completion", "takes 1 argument"},
		{"node add n4 --raft h:1", `watershed node add: required flag(s) "grpc", "http" not set`},
		{"completion tcsh", "tcsh"},
		{"explain surge", `"explain"`},
	}
	for _, tt := range tests {
		out, stderr, code := watershed(t, strings.Fields(tt.args)...)
		if code != 2 || len(out) > 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.says) ||
			!strings.Contains(stderr, "usage: watershed") {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %q", tt.args, code, out, stderr, tt.says)
		}
	}
	endpoint := (&fakeNode{}).serve(t)
	if _, stderr, code := watershed(t, "watch", "a", "--output", "json", "--endpoint", endpoint); code != 2 {
		t.Errorf("status %d, %s", code, stderr)
	}
}

func TestMissingFiles(t *testing.T) {
	for _, args := range [][]string{{"job", "validate", "none.yaml"}, {"job", "apply", "none.yaml", "--endpoint", "h:1"}} {
		if out, stderr, code := watershed(t, args...); code != 1 || len(out) > 0 || !strings.Contains(stderr, "none.yaml") {
			t.Errorf("%q: status %d, %s%s", args, code, out, stderr)
		}
	}
}

// Every command that is shown has help with an example.
func TestEveryCommandHasHelp(t *testing.T) {
	var check func(path ...string)
	check = func(path ...string) {
		cmd, _, err := newRoot().Find(path)
		if err != nil {
			t.Fatal(err)
		}
		out, stderr, code := watershed(t, append(path, "--help")...)
		if code != 0 || stderr != "" || !bytes.Contains(out, []byte("Examples:")) {
			t.Errorf("%q: status %d, %s%s", path, code, out, stderr)
		}
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				check(append(path[:len(path):len(path)], sub.Name())...)
			}
		}
	}
	check()
}

func TestVersionAndCompletion(t *testing.T) {
	out, _, code := watershed(t, "version")
	for _, part := range []string{`"api":"watershed.v1","data_folder":1,"formats":{"addresses":1`, `"builtins":{"aggregate.avg":1`} {
		if code != 0 || !bytes.Contains(out, []byte(part)) {
			t.Errorf("status %d, no %s in %s", code, part, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, stderr, code := watershed(t, "completion", shell); code != 0 || !bytes.Contains(out, []byte("watershed")) {
			t.Errorf("%s: status %d, %s", shell, code, stderr)
		}
	}
	if out, _, code := watershed(t, "__complete", "que"); code != 0 || !bytes.HasPrefix(out, []byte("query\t")) {
		t.Errorf("status %d, %s", code, out)
	}
}
