package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeTable writes a table's file.
func writeTable(t testing.TB, name, more string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(file, []byte("name: "+name+"\n"+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// table runs a command on tables in a region.
func (d *deployment) table(region string, args ...string) result {
	d.t.Helper()
	return watershed(d.t, nil, append(append([]string{"table"}, args...), d.endpoint(region)...)...)
}

// mustTable is table for a command that is to succeed.
func (d *deployment) mustTable(region string, args ...string) string {
	d.t.Helper()
	r := d.table(region, args...)
	if r.status != 0 {
		d.t.Fatalf("table %s in %s: status %d: %s", strings.Join(args, " "), region, r.status, r.stderr)
	}
	return string(r.stdout)
}

// tables lists a region's tables as NAME:TYPE.
func (d *deployment) tables(region string) string {
	d.t.Helper()
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(d.mustTable(region, "list", "--output", "jsonl")), "\n") {
		var x struct{ Table, Type string }
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			d.t.Fatal(err)
		}
		names = append(names, x.Table+":"+x.Type)
	}
	return strings.Join(names, " ")
}

// A table made in any region is in all of them, also in those that are cut off just then.
func TestTablesReachEveryRegion(t *testing.T) {
	d := startDev(t, filepath.Join(t.TempDir(), "deployment"), "--regions", east+","+west, "--nodes", "1", "--shards", "3")
	visits, tags := writeTable(t, "visits", "type: counter\n"), writeTable(t, "tags", "type: set\n")
	got := d.mustTable(west, "apply", visits, "--output", "jsonl") // east owns the registry
	if !strings.Contains(got, `"changed":true,"regions":["us-east","eu-west"],"missing":[]`) {
		t.Errorf("applied: %s", got)
	}
	for _, region := range []string{east, west} {
		if got := d.tables(region); got != "visits:counter" {
			t.Errorf("%s has %q", region, got)
		}
	}
	if got := d.mustTable(east, "apply", visits, "--output", "jsonl"); !strings.Contains(got, `"changed":false`) {
		t.Errorf("the same again: %s", got)
	}
	d.table(west, "apply", writeTable(t, "visits", "type: updown\n")).refused(t, 1, "visits", "another meaning: type changed")
	d.table(west, "apply", writeTable(t, "bad", "type: counters\n")).refused(t, 1, "bad.yaml:2:7", "did you mean", "expected owned")

	d.order("cut", east, west)
	if got := d.mustTable(east, "apply", tags, "--output", "jsonl"); !strings.Contains(got, `"regions":["us-east"],"missing":["eu-west"]`) {
		t.Errorf("applied while cut apart: %s", got)
	}
	d.table(west, "apply", writeTable(t, "more", "type: set\n"), "--timeout", "3s").refused(t, 1, "us-east, which owns the registry")
	d.kill(west, 0)
	d.restart(west, 0)
	d.ready(west, 0)
	if got := d.tables(west); got != "visits:counter" {
		t.Errorf("%s has %q when it starts again", west, got)
	}
	d.order("heal", east, west)
	has := func(region, want string) {
		t.Helper()
		await(t, settleWithin, fmt.Sprintf("%s to have %q", region, want), func() (bool, string) {
			got := d.tables(region)
			return got == want, got
		})
	}
	has(west, "tags:set visits:counter")
	d.mustTable(west, "drop", "visits")
	has(east, "tags:set")
	d.table(east, "drop", "visits").refused(t, 1, `there is no table "visits"`)
	d.table(east, "show", "visits").refused(t, 1, `there is no table "visits"`)
	d.mustTable(west, "apply", writeTable(t, "visits", "type: updown\n"))
	has(east, "tags:set visits:updown")
}
