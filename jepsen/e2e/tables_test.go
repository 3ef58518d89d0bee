package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
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
	return watershed(d.t, nil, slices.Concat([]string{"table", args[0]}, d.endpoint(region), args[1:])...)
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

// awaitValue awaits a key's value in a region, as `table get` prints it; "" for none.
func (d *deployment) awaitValue(region, table, key, want string) {
	d.t.Helper()
	await(d.t, settleWithin, fmt.Sprintf("%s of %s to be %q in %s", key, table, want, region), func() (bool, string) {
		r := d.table(region, "get", table, key)
		got := strings.ReplaceAll(strings.TrimSuffix(string(r.stdout), "\n"), "\n", " ")
		return got == want && (r.status == 0) == (want != ""), fmt.Sprintf("%q, status %d: %s", got, r.status, r.stderr)
	})
}

// Every region writes while they are cut apart; then they agree, and nothing is lost or counted twice: also what is tried
// again in the other region, in whatever order it comes there.
func TestTablesWrittenInBothRegions(t *testing.T) {
	d := startDev(t, filepath.Join(t.TempDir(), "deployment"), "--regions", east+","+west, "--nodes", "1", "--shards", "4")
	for _, x := range []string{"visits counter", "stock updown", "mottos register", "tags set", "marks lww-set"} {
		name, kind, _ := strings.Cut(x, " ")
		d.mustTable(east, "apply", writeTable(t, name, "type: "+kind+"\n"))
	}
	d.mustTable(east, "incr", "visits", "home", "1")
	d.mustTable(east, "add", "tags", "home", "red")
	d.mustTable(east, "add", "marks", "home", "red")
	for _, table := range []string{"tags", "marks"} {
		d.awaitValue(west, table, "home", "red")
	}
	d.awaitValue(west, "visits", "home", "1")

	d.order("cut", east, west)
	again := d.write(east, &watershedv1.WriteRequest{
		Table: "visits", Key: textKey("again"), Operation: &watershedv1.WriteRequest_Increment{Increment: 100},
	})
	for range 3 {
		d.mustTable(east, "incr", "visits", "home", "10")
		d.mustTable(west, "incr", "visits", "home", "200")
		d.mustTable(east, "decr", "stock", "home", "5")
		d.mustTable(west, "incr", "stock", "home")
	}
	d.retry(west, again) // as one whose answer from the east was lost
	d.retry(east, again)
	d.mustTable(east, "remove", "tags", "home", "red")
	d.mustTable(west, "add", "tags", "home", "red") // which the east does not know of
	d.mustTable(west, "add", "tags", "home", "blue")
	d.mustTable(west, "put", "mottos", "home", "first")
	d.mustTable(east, "put", "mottos", "home", "last")
	d.mustTable(west, "add", "marks", "home", "blue")
	d.mustTable(east, "remove", "marks", "home", "red")
	d.awaitValue(west, "visits", "home", "601")
	d.awaitValue(east, "visits", "home", "31")
	d.kill(west, 0)
	d.restart(west, 0)
	d.ready(west, 0)
	d.order("heal", east, west)
	d.retry(west, again)
	for _, region := range []string{east, west} {
		d.awaitValue(region, "visits", "home", "631")
		d.awaitValue(region, "visits", "again", "100")
		d.awaitValue(region, "stock", "home", "-12")
		d.awaitValue(region, "tags", "home", "blue red")
		d.awaitValue(region, "mottos", "home", "last")
		d.awaitValue(region, "marks", "home", "blue")
	}
	d.retry(west, again)
	d.awaitValue(west, "visits", "again", "100")
	if a, b := d.mustTable(east, "scan", "visits", "--output", "jsonl"), d.mustTable(west, "scan", "visits", "--output", "jsonl"); a != b ||
		a != `{"key":"again","count":100}`+"\n"+`{"key":"home","count":631}`+"\n" {
		t.Errorf("scans:\n%s\n%s", a, b)
	}

	d.mustTable(west, "drop", "visits")
	d.mustTable(west, "apply", writeTable(t, "visits", "type: counter\n"))
	d.awaitValue(west, "visits", "home", "0")
	d.awaitValue(east, "visits", "home", "0")
	d.table(east, "incr", "visits", "--", "home", "-1").refused(t, 1, "a counter only grows")
	d.table(east, "get", "none", "home").refused(t, 1, `there is no table "none"`)
}

func textKey(key string) *watershedv1.Value {
	return &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: key}}
}

// write carries out a write under a session of its own, and returns it as it was sent.
func (d *deployment) write(region string, in *watershedv1.WriteRequest) *watershedv1.WriteRequest {
	d.t.Helper()
	session, err := ask(d.t, d.Regions[region].GRPC, settleWithin, watershedv1.NewStateServiceClient,
		watershedv1.StateServiceClient.OpenSession, &watershedv1.OpenSessionRequest{Table: in.GetTable()})
	if err != nil {
		d.t.Fatal(err)
	}
	in.TableId, in.Session, in.Sequence = session.GetTableId(), session.GetSession(), 1
	if out := d.retry(region, in); out.GetAgain() {
		d.t.Errorf("a first try was told that it is another one")
	}
	return in
}

// retry sends a write until it is answered.
func (d *deployment) retry(region string, in *watershedv1.WriteRequest) (out *watershedv1.WriteResponse) {
	d.t.Helper()
	await(d.t, settleWithin, "a write", func() (bool, string) {
		var err error
		out, err = ask(d.t, d.Regions[region].GRPC, settleWithin, watershedv1.NewStateServiceClient, watershedv1.StateServiceClient.Write, in)
		return err == nil, fmt.Sprint(err)
	})
	return out
}
