package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/jepsen/cases"
	"github.com/watershed-db/watershed/jepsen/oracle"
)

// files writes a case's files and returns the arguments of run for them. The test is skipped where data is missing.
func files(t *testing.T, c cases.Case) []string {
	t.Helper()
	args, err := c.WriteFiles(t.TempDir())
	if errors.Is(err, cases.ErrNoData) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return args
}

// checkRun runs a case and compares its rows and counts with the oracle's.
func checkRun(t *testing.T, c cases.Case, stdin *os.File, args []string) {
	t.Helper()
	want, counts, err := c.Expect()
	if err != nil {
		t.Fatal(err)
	}
	stats := filepath.Join(t.TempDir(), "stats.json")
	args = append([]string{"run", "--stats", stats}, args...)
	var r result
	if stdin != nil {
		r = watershed(t, stdin, args...)
	} else {
		r = watershed(t, nil, args...)
	}
	if r.status != 0 {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	if len(r.stderr) > 0 {
		t.Errorf("standard error holds %q", r.stderr)
	}
	sameRows(t, c.Name, r.stdout, want)
	checkStats(t, stats, counts)
}

func checkStats(t *testing.T, name string, want oracle.Stats) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		oracle.Stats
		Seconds *float64 `json:"seconds"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("stats %s: %v", text, err)
	}
	if got.Stats != want {
		t.Errorf("stats %+v, want %+v", got.Stats, want)
	}
	if got.Seconds == nil || *got.Seconds <= 0 {
		t.Errorf("stats %s: no seconds", text)
	}
}

func named(t *testing.T, name string) cases.Case {
	t.Helper()
	c, err := cases.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRunPrintsWhatTheOracleSays(t *testing.T) {
	binary(t)
	for _, c := range cases.All() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			checkRun(t, c, nil, files(t, c))
		})
	}
}

func TestRunOverTwoRegions(t *testing.T) {
	binary(t)
	for _, c := range cases.All() {
		if c.Large {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			split := cases.Split(c, "us-east", "eu-west")
			checkRun(t, split, nil, files(t, split))
		})
	}
}

func TestRunReadsGzip(t *testing.T) {
	binary(t)
	for _, name := range []string{"fares-csv", "wiki-filtered", "rides-poisoned"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := named(t, name)
			args := files(t, c)
			for i, a := range args {
				if topic, file, ok := strings.Cut(a, "="); ok && args[i-1] == "--input" {
					args[i] = topic + "=" + compress(t, file)
				}
			}
			checkRun(t, c, nil, args)
		})
	}
}

// compress writes FILE.gz beside a file, in two members as gzip files that were appended to have, and returns its name.
func compress(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, part := range [][]byte{text[:len(text)/2], text[len(text)/2:]} {
		w := gzip.NewWriter(&out)
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file+".gz", out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file + ".gz"
}

func TestRunReadsStandardInput(t *testing.T) {
	binary(t)
	for _, name := range []string{"rides-surge", "fares-csv"} {
		t.Run(name, func(t *testing.T) {
			c := named(t, name)
			args := files(t, c)
			var stdin *os.File
			for i, a := range args {
				topic, file, ok := strings.Cut(a, "=")
				if !ok || args[i-1] != "--input" {
					continue
				}
				f, err := os.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				stdin, args[i] = f, topic+"=-"
				break
			}
			checkRun(t, c, stdin, args)
		})
	}
}
