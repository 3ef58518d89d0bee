package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/watershed-db/watershed/cmd/watershed/internal/demo"
)

// commandVar says that this process is to run a command line, and not the tests: commands start others of themselves.
const commandVar = "WATERSHED_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandVar) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		status := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(status)
	}
	os.Exit(m.Run())
}

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Setenv(commandVar, "1")
	t.Setenv("TMPDIR", t.TempDir())
	started := time.Now()
	out, stderr, status := watershed(t, "demo", "--duration", "20s", "--rate", "400", "--output", "json")
	var v demo.Verdict
	if err := json.Unmarshal(out, &v); err != nil || status != 0 {
		t.Fatalf("status %d, %v\n%s%s", status, err, out, stderr)
	}
	if !v.OK || !v.Alike || !v.Sink.Equal || v.Windows < 3 || v.Rows < 50 || v.Events.Late == 0 || v.Events.Implausible == 0 ||
		v.Drill.Killed == "" || v.Drill.Heal <= 0 || v.Drill.Restart <= 0 {
		t.Errorf("%s%s", out, stderr)
	}
	if took := time.Since(started); took > 50*time.Second {
		t.Errorf("it took %s", took)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// An interrupt ends it at once, with nothing left.
func TestDemoIsInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Setenv(commandVar, "1")
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	if status := execute(ctx, []string{"demo"}, &out, &errs); status == statusOK || out.Len() > 0 {
		t.Errorf("status %d, %s%s", status, out.String(), errs.String())
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDemoUsage(t *testing.T) {
	for _, args := range [][]string{{"--duration", "1s"}, {"--rate", "1"}, {"--output", "xml"}, {"now"}} {
		out, stderr, status := watershed(t, append([]string{"demo"}, args...)...)
		if status != statusUsage || len(out) > 0 || stderr == "" {
			t.Errorf("%q: status %d, %s%s", args, status, out, stderr)
		}
	}
	for _, args := range [][]string{{"--regions", "A"}, {"--nodes", "2"}, {"--kafka", "x"}, {"restart"}, {"cut", "a"}} {
		out, stderr, status := watershed(t, append([]string{"dev", "--data", t.TempDir()}, args...)...)
		if status != statusUsage || len(out) > 0 || stderr == "" {
			t.Errorf("%q: status %d, %s%s", args, status, out, stderr)
		}
	}
}
