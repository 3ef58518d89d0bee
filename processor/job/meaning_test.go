package job

import (
	"fmt"
	"strings"
	"testing"
)

// TestDiff changes the sample in one place at a time: what of it is a new meaning, and what changes in place.
func TestDiff(t *testing.T) {
	a := mustParse(t, sample)
	for _, c := range []struct{ old, new, meaning, inPlace string }{
		// spelling
		{"name: surge ", "name: other ", "[]", "[]"},
		{`"fare > 0"`, `(fare>0)`, "[]", "[]"},
		{"out_of_orderness: 5s", "out_of_orderness: 5000ms", "[]", "[]"},
		{"# [a-z0-9-]+", "", "[]", "[]"},
		{"zone: UTC", "zone: 'UTC'", "[]", "[]"},
		// what changes in place
		{"topic: surge}", "topic: surge2}", "[]", "[emit.sinks]"},
		{"retention: 1d12h", "retention: 2d", "[]", "[retention max_session]"},
		{"idle_after: 20s", "idle_after: 21s", "[]", "[sources[0].idle_after]"},
		{"from: every-region", "from: owner", "[]", "[emit.from]"},
		{"{partial: 5s}", "wait", "[]", "[emit.unreachable]"},
		{"surge-late", "surge-later", "[]", "[side_outputs]"},
		// meaning
		{"ride-requests", "rides", "[sources[0].topic]", "[]"},
		{"{field: ts, unit: ms}", "{field: ts, unit: s}", "[sources[0].time]", "[]"},
		{"{field: ts, unit: ms}", "ts", "[sources[0].time]", "[]"},
		{"out_of_orderness: 5s", "out_of_orderness: 6s", "[sources[0].out_of_orderness]", "[]"},
		{"max_future: 1m", "max_future: none", "[sources[0].max_future]", "[]"},
		{`"fare > 0"`, `"fare >= 0"`, "[sources[0].where]", "[]"},
		{`    where: "fare > 0"` + "\n", "", "[sources[0].where]", "[]"},
		{"geohash(lat, lon, 6)", "geohash(lat, lon, 5)", "[sources[0].key.cell]", "[]"},
		{"sum(fare)", "sum(fares)", "[sources[0].aggregates.fares]", "[]"},
		{"sum(fare)", "avg(fare)", "[sources[0].aggregates.fares]", "[]"},
		{"      requests: count()\n      fares: sum(fare)\n", "      fares: sum(fare)\n      requests: count()\n", "[the order of aggregates]", "[]"},
		{"{tumbling: 30s}", "{tumbling: 31s}", "[window]", "[]"},
		{"{tumbling: 30s}", "{hopping: 30s, every: 30s}", "[window]", "[]"},
		{"allowed_lateness: 1m", "allowed_lateness: 2m", "[allowed_lateness]", "[]"},
		{"max(drivers, 1)", "max(drivers, 2)", "[derive.surge]", "[]"},
		{`having: "requests > 0"`, "", "[having]", "[]"},
		{"derive: {surge:", "derive: {x: requests, surge:", "[the order of derive derive.x]", "[]"},
	} {
		if !strings.Contains(sample, c.old) {
			t.Fatalf("no %q to replace", c.old)
		}
		b := mustParse(t, strings.Replace(sample, c.old, c.new, 1))
		meaning, inPlace := a.Diff(b)
		if fmt.Sprint(meaning) != c.meaning || fmt.Sprint(inPlace) != c.inPlace {
			t.Errorf("%q for %q: %v, %v", c.new, c.old, meaning, inPlace)
		}
		if same := a.Meaning() == b.Meaning(); same != (meaning == nil) {
			t.Errorf("%q for %q: the hash is the same: %t", c.new, c.old, same)
		}
	}
}

// TestMeaningIsStored: the registry keeps the hash, so that one file must give one hash in every version.
func TestMeaningIsStored(t *testing.T) {
	const want = "9dc9a6447c14eb7d3074e3f35243b68aa6acd55b926554b2a3e5cc3c6481f47f"
	if got := fmt.Sprintf("%x", mustParse(t, sample).Meaning()); got != want {
		t.Errorf("the meaning of the sample is %s: every job that runs would need a new generation", got)
	}
}
