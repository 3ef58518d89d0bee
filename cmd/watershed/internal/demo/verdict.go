package demo

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Verdict is what a demo found.
type Verdict struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems,omitempty"`
	Seconds  float64  `json:"seconds"`
	Data     string   `json:"data"` // the folder, which is gone where all is well

	Events  Events          `json:"events"`
	Windows int             `json:"windows"` // checked
	Rows    int             `json:"rows"`    // checked in each region
	Regions []RegionVerdict `json:"regions"`
	Alike   bool            `json:"regions_alike"` // byte for byte
	Sink    SinkVerdict     `json:"sink"`

	Drill Drill `json:"drill"`
	// Query is how long an event took from before it was sent into its region's log until a watcher of that region saw it
	// counted, while nothing was broken; Faults the same while something was; Across until one of another region saw it.
	Query  Latency `json:"event_to_query"`
	Faults Latency `json:"event_to_query_in_faults"`
	Across Latency `json:"event_to_query_across_regions"`
}

// Events says what was sent, and what becomes of it by the rules of the job file.
type Events struct {
	Sent        uint64 `json:"sent"`
	Counted     uint64 `json:"counted"`
	Filtered    uint64 `json:"filtered"`
	Late        uint64 `json:"late"`
	Implausible uint64 `json:"implausible"`
	Invalid     uint64 `json:"invalid"`
}

// RegionVerdict compares a region's rows with what was sent.
type RegionVerdict struct {
	Region    string `json:"region"`
	Rows      int    `json:"rows"`
	Equal     int    `json:"equal"`
	Missing   int    `json:"missing"`
	Extra     int    `json:"extra"`
	Different int    `json:"different"`
}

// SinkVerdict compares the topic of results with what a query shows.
type SinkVerdict struct {
	Records int  `json:"records"`
	Rows    int  `json:"rows"`
	Equal   bool `json:"equal"`
}

func (v *Verdict) problem(format string, args ...any) {
	v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
}

// judge waits until both regions have everything and compares all there is with what was sent.
func (r *run) judge(ctx context.Context, closed int64) (*Verdict, error) {
	r.screen.event("waiting for the last events")
	v := &Verdict{}
	v.Drill, v.Problems = r.drill.taken()
	sent := r.traffic.total()
	c := sent.counts
	v.Events = Events{sent.events(), c[counted], c[filtered], c[late], c[implausible], c[invalid]}
	if err := r.drain(ctx, closed); err != nil {
		v.problem("%v", err)
	}
	r.screen.event("comparing")
	got, err := r.readAll(ctx)
	if err != nil {
		return nil, err
	}
	v.check(sent.expect(), r.regions, got)
	if err := r.checkSink(ctx, v, got[r.regions[0]]); err != nil {
		return nil, err
	}
	if err := r.checkAsides(ctx, v); err != nil {
		return nil, err
	}
	r.latencies(v)
	v.OK = len(v.Problems) == 0
	return v, nil
}

// drain waits until every region has taken every record, counted as it should be, and closed every window.
func (r *run) drain(ctx context.Context, closed int64) error {
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	goal := map[sourceID]int64{}
	for _, s := range r.traffic.sources {
		goal[s.id()] = s.written.Load()
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, region := range r.regions {
		g.Go(func() error {
			var last view
			err := await(ctx, region+" does not take everything that was sent", func() (bool, error) {
				v, err := r.look(ctx, region)
				if err == nil {
					last = v
				}
				return err == nil && v.reaches(goal) && v.watermark >= closed && len(v.missing) == 0, err
			})
			if err != nil {
				return fmt.Errorf("%w: %s", err, last.lacks(goal, closed))
			}
			return r.balance(region, last)
		})
	}
	return g.Wait()
}

// lacks says in words what a view lacks.
func (v view) lacks(goal map[sourceID]int64, closed int64) string {
	n := int64(0)
	for id, want := range goal {
		n += max(want-v.offsets[id], 0)
	}
	return fmt.Sprintf("%d records, watermark %s of %s, cannot reach %d regions", n, instant(v.watermark), instant(closed), len(v.missing))
}

// balance compares a region's own counts of every source with what was sent.
func (r *run) balance(region string, v view) error {
	for _, s := range r.traffic.sources {
		if got := v.counts[s.id()]; got != s.tally.counts {
			return fmt.Errorf("%s counts %v of %s/%s/%d, which holds %v (counted, filtered, late, implausible, invalid)", region, got,
				s.region, s.topic, s.partition, s.tally.counts)
		}
	}
	return nil
}

func (r *run) readAll(ctx context.Context) (map[string]map[rowID]string, error) {
	got := make(map[string]map[rowID]string, len(r.regions))
	for _, region := range r.regions {
		var err error
		if got[region], err = rows(ctx, r.clients[region]); err != nil {
			return nil, fmt.Errorf("%s: %w", region, err)
		}
	}
	return got, nil
}

// check compares each region's rows with those that were sent, and with each other.
func (v *Verdict) check(want map[rowID]string, regions []string, got map[string]map[rowID]string) {
	v.Rows, v.Windows, v.Alike = len(want), windows(want), true
	for _, region := range regions {
		d := compare(want, got[region])
		v.Regions = append(v.Regions, RegionVerdict{Region: region, Rows: len(got[region]),
			Equal: len(want) - d.missing - d.other, Missing: d.missing, Extra: d.extra, Different: d.other})
		if !d.none() {
			v.problem("%s differs from what was sent: %s", region, d)
		}
		if d := compare(got[regions[0]], got[region]); !d.none() {
			v.Alike = false
			v.problem("%s differs from %s: %s", region, regions[0], d)
		}
	}
	if len(want) == 0 {
		v.problem("nothing was sent that could be checked")
	}
}

// checkSink compares the owner's topic of results with what it answers.
func (r *run) checkSink(ctx context.Context, v *Verdict, want map[rowID]string) error {
	l, d, err := awaitSink(ctx, r.brokers[r.regions[0]], want)
	if err != nil {
		return err
	}
	v.Sink = SinkVerdict{Records: l.records, Rows: len(l.standing()), Equal: d.none()}
	if !d.none() {
		v.problem("the topic %s differs from what a query shows: %s", sinkTopic, d)
	}
	return nil
}

// checkAsides counts what each region has put aside.
func (r *run) checkAsides(ctx context.Context, v *Verdict) error {
	ctx, cancel := context.WithTimeout(ctx, sinkWithin)
	defer cancel()
	for _, region := range r.regions {
		var sent [outcomes]uint64
		for _, s := range r.traffic.sources {
			if s.region == region {
				for i, n := range s.tally.counts {
					sent[i] += n
				}
			}
		}
		for _, side := range []struct {
			topic string
			what  outcome
		}{{"surge-late", late}, {"surge-implausible", implausible}, {"surge-invalid", invalid}} {
			n, err := asides(ctx, r.brokers[region], side.topic)
			if err != nil {
				return err
			}
			if uint64(n) != sent[side.what] {
				v.problem("%s holds %d records in %s, not %d", side.topic, n, region, sent[side.what])
			}
		}
	}
	return nil
}

// latencies puts together what the probes have measured.
func (r *run) latencies(v *Verdict) {
	var query, faults, across []time.Duration
	for i, p := range r.probes {
		for region, path := range p.paths {
			calm, rough := path.take()
			if region == r.regions[i] {
				query, faults = append(query, calm...), append(faults, rough...)
			} else {
				across = append(across, calm...)
			}
		}
	}
	v.Query, v.Faults, v.Across = summarise(query), summarise(faults), summarise(across)
	if v.Query.Samples+v.Faults.Samples == 0 {
		v.problem("no event was seen by a watcher")
	}
}

// Table returns the verdict for people to read.
func (v *Verdict) Table() string {
	word := func(ok bool, text string) string {
		if ok {
			return "ok    " + text
		}
		return "WRONG " + text
	}
	var b []byte
	line := func(name, text string) { b = fmt.Appendf(b, "%-22s %s\n", name, text) }
	line("events sent", fmt.Sprintf("%d: %d counted, %d filtered, %d late, %d implausible, %d invalid", v.Events.Sent,
		v.Events.Counted, v.Events.Filtered, v.Events.Late, v.Events.Implausible, v.Events.Invalid))
	line("windows checked", fmt.Sprintf("%d, with %d rows", v.Windows, v.Rows))
	for _, r := range v.Regions {
		line(r.Region+" as sent", word(r.Equal == v.Rows && r.Extra == 0, fmt.Sprintf("%d of %d rows equal, %d missing, %d too many",
			r.Equal, v.Rows, r.Missing, r.Extra)))
	}
	line("regions alike", word(v.Alike, "byte for byte"))
	line("Kafka sink", word(v.Sink.Equal, fmt.Sprintf("%d rows stand, of %d records", v.Sink.Rows, v.Sink.Records)))
	line("leader killed", fmt.Sprintf("%s; new leaders after %.0f ms, restarted in %.0f ms", v.Drill.Killed, v.Drill.LeadersAfter,
		v.Drill.Restart))
	line("regions cut", fmt.Sprintf("for %.1f s; equal points %.0f ms after the heal", v.Drill.Cut/1000, v.Drill.Heal))
	for _, l := range []struct {
		name string
		Latency
	}{{"event to query", v.Query}, {"  across regions", v.Across}, {"  while faults last", v.Faults}} {
		line(l.name, fmt.Sprintf("p50 %.0f ms, p99 %.0f ms", l.P50, l.P99))
	}
	for _, p := range v.Problems {
		line("problem", p)
	}
	if v.OK {
		line("verdict", fmt.Sprintf("nothing lost, nothing counted twice (%.0f s)", v.Seconds))
	} else {
		line("verdict", fmt.Sprintf("WRONG; state and logs are kept in %s", v.Data))
	}
	return string(b)
}
