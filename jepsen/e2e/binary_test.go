package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// binaryEnv names a binary to test instead of one that is built here.
const binaryEnv = "WATERSHED_BINARY"

// built is the folder that holds the binary once it is built.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "watershed-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built = dir
	status := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

var build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binaryEnv); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(built, "watershed")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/watershed").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build watershed: %w\n%s", err, out)
	}
	return path, nil
})

// binary returns the path of the watershed under test; the test is skipped by -short.
func binary(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("drives processes")
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// commandWithin bounds a command that is to end by itself.
const commandWithin = 3 * time.Minute

// result is what a command that ended left.
type result struct {
	stdout, stderr []byte
	status         int
}

// watershed runs a command to its end. stdin may be nil.
func watershed(t testing.TB, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.Env = environment()
	cmd.WaitDelay = 5 * time.Second
	p, err := spawn(cmd)
	if err != nil {
		t.Fatal(err)
	}
	err = p.wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("watershed %s: %v: %v\n%s", strings.Join(args, " "), err, ctx.Err(), stderr.Bytes())
	}
	return result{stdout.Bytes(), stderr.Bytes(), cmd.ProcessState.ExitCode()}
}

// environment is this process's without what would change how watershed behaves, but for a seeded bug.
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); name == "WATERSHED_MUTANT" || !strings.HasPrefix(name, "WATERSHED_") {
			env = append(env, e)
		}
	}
	return env
}

// must runs a command that is to succeed, and returns what it printed.
func must(t testing.TB, args ...string) []byte {
	t.Helper()
	r := watershed(t, nil, args...)
	if r.status != 0 {
		t.Fatalf("watershed %s: status %d: %s", strings.Join(args, " "), r.status, r.stderr)
	}
	return r.stdout
}

// refused asserts that a command failed with a status and one line on standard error that holds want, and printed
// nothing else.
func (r result) refused(t testing.TB, status int, want ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d", r.status, status)
	}
	if len(r.stdout) > 0 {
		t.Errorf("standard output holds %.200q", r.stdout)
	}
	line := strings.TrimSuffix(string(r.stderr), "\n")
	if line == "" || strings.Contains(line, "\n") || len(line) == len(r.stderr) {
		t.Errorf("standard error is not one line: %q", r.stderr)
	}
	for _, w := range want {
		if !strings.Contains(line, w) {
			t.Errorf("%q does not say %q", line, w)
		}
	}
}

// sameRows compares rows byte for byte and shows the first that differs.
func sameRows(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	at := 0
	for at < len(g) && at < len(w) && bytes.Equal(g[at], w[at]) {
		at++
	}
	line := func(lines [][]byte) string {
		if at < len(lines) {
			return string(lines[at])
		}
		return "(none)"
	}
	t.Errorf("%s: %d rows, want %d; row %d differs:\n got %s\nwant %s", what, len(g)-1, len(w)-1, at+1, line(g), line(w))
}
