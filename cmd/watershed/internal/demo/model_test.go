package demo

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/processor/job"
)

// play generates events of all sources for some seconds of a clock, and tallies those that keep lets through.
func play(t *testing.T, keep func(n int, e event) int) *tally {
	t.Helper()
	total := newTally()
	n := 0
	for _, s := range newTraffic([]string{"us-east", "eu-west"}, 2, 1000, 7).sources {
		for ms := int64(0); ms < 30_000; ms += 20 {
			now := 1_700_000_000_000 + ms
			e := s.script.next(now)
			for range keep(n, e) {
				s.tally.take(e, now)
			}
			n++
		}
		total.merge(s.tally)
	}
	return total
}

func all(int, event) int { return 1 }

func verdict(want, got *tally) *Verdict {
	v := &Verdict{}
	v.check(want.expect(), []string{"us-east", "eu-west"}, map[string]map[rowID]string{"us-east": want.expect(), "eu-west": got.expect()})
	return v
}

func TestEveryOutcomeIsPlayed(t *testing.T) {
	total := play(t, all)
	for o, n := range total.counts {
		if n == 0 {
			t.Errorf("no event with outcome %d", o)
		}
	}
	if v := verdict(total, play(t, all)); len(v.Problems) > 0 || !v.Alike || v.Rows < 100 || v.Windows < 5 {
		t.Errorf("%+v", v)
	}
}

// One event that is dropped or counted twice shows in the verdict.
func TestOneEventMakesTheDifference(t *testing.T) {
	want := play(t, all)
	// A request early in the traffic that is counted, and does not hold its source's watermark.
	target := -1
	play(t, func(n int, e event) int {
		if target < 0 && n > 20 && e.request && !e.filtered && !e.invalid && !e.undecodable && e.time < 1_700_000_000_000 &&
			e.time > 1_700_000_000_000-500 {
			target = n
		}
		return 1
	})
	if target < 0 {
		t.Fatal("no such event")
	}
	for name, times := range map[string]int{"dropped": 0, "doubled": 2} {
		got := play(t, func(n int, _ event) int {
			if n == target {
				return times
			}
			return 1
		})
		v := verdict(want, got)
		if v.Alike || len(v.Problems) == 0 || v.Regions[0].Equal != v.Rows || v.Regions[1].Equal != v.Rows-1 {
			t.Errorf("%s: %+v", name, v)
		}
		if got.counts == want.counts {
			t.Errorf("%s: the counts do not show it", name)
		}
	}
}

func TestRowsThatDiffer(t *testing.T) {
	want := play(t, all).expect()
	ids := sortedIDs(want)
	for name, change := range map[string]func(map[rowID]string){
		"missing":   func(rows map[rowID]string) { delete(rows, ids[3]) },
		"too many":  func(rows map[rowID]string) { rows[rowID{ids[0].end, "zzzzzz"}] = "{}" },
		"different": func(rows map[rowID]string) { rows[ids[5]] = strings.Replace(rows[ids[5]], "true", "false", 1) },
	} {
		got := maps.Clone(want)
		change(got)
		if d := compare(want, got); d.none() || d.missing+d.extra+d.other != 1 || len(d.first) != 1 {
			t.Errorf("%s: %v", name, d)
		}
	}
	if d := compare(want, maps.Clone(want)); !d.none() {
		t.Error(d)
	}
}

// The rule of late records, at its edges.
func TestLate(t *testing.T) {
	p := markerPlace(0)
	ride := func(at int64) event { return event{time: at, request: true, cell: p.cell, fare: 1} }
	tally := newTally()
	for _, step := range []struct {
		e      event
		logged int64
		want   outcome
	}{
		{ride(100_000), 100_000, counted},
		{event{undecodable: true}, 100_000, invalid},
		{ride(160_001), 100_000, implausible},                     // and the watermark stays
		{ride(91_000), 100_000, late},                             // the watermark is 99 s, and 95 + 3 <= 99
		{event{time: 104_000, filtered: true}, 104_000, filtered}, // the watermark: 103 s
		{ride(95_000), 104_000, late},                             // 100 + 3 <= 103
		{ride(100_000), 104_000, counted},                         // 105 + 3
		{event{time: 109_000, invalid: true}, 109_000, invalid},   // 108 s
		{ride(104_999), 109_000, late},                            // 105 + 3 <= 108
		{event{time: 109_001, cell: p.cell, driver: "d"}, 109_001, counted},
	} {
		if got := tally.take(step.e, step.logged); got != step.want {
			t.Errorf("%+v: %d, want %d", step.e, got, step.want)
		}
	}
}

// The generator's constants are those of the job file.
func TestJobFile(t *testing.T) {
	j, err := job.Parse("surge.yaml", surgeJob)
	if err != nil {
		t.Fatal(err)
	}
	if j.Name != jobName || j.Lateness != lateness || len(j.Inputs) != 2 || j.Emit.Sinks[0].KafkaTopic != sinkTopic {
		t.Errorf("%+v", j)
	}
	for i, in := range j.Inputs {
		if in.Topic != []string{requestsTopic, pingsTopic}[i] || in.Bound != bound || in.MaxFuture != maxFuture {
			t.Errorf("%+v", in)
		}
	}
}

func TestGeohash(t *testing.T) {
	for want, at := range map[string][2]float64{"u4pruydqqvj": {57.64911, 10.40744}, "ezs42": {42.605, -5.603}, "s": {0, 0}} {
		if got := geohash(at[0], at[1], len(want)); got != want {
			t.Errorf("%v: %s, want %s", at, got, want)
		}
	}
}

func TestRowIsJSON(t *testing.T) {
	r := newTotals()
	r.add(event{request: true, fare: 0.1})
	r.add(event{request: true, fare: 0.2})
	r.add(event{driver: "d"})
	id := rowID{1_700_000_005_000, "dr5reg"}
	const want = `{"window_start":"2023-11-14T22:13:20Z","window_end":"2023-11-14T22:13:25Z","key":{"cell":"dr5reg"},"requests":2,` +
		`"fares":0.30000000000000004,"drivers":1,"surge":2,"revision":3,"complete":true}`
	if got := r.json(id); got != want || !json.Valid([]byte(got)) {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, err := parseRow([]byte(want)); got != id || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}
