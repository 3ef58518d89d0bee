package peertest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/region/shard"
)

// File is a job that counts records by a text key in windows of a second; options are further lines.
func File(options ...string) []byte {
	return []byte("name: count\n" +
		"sources:\n" +
		"  - topic: events\n" +
		"    format: json\n" +
		"    time: {field: ts, unit: ms}\n" +
		"    key: {k: k}\n" +
		"    aggregates: {n: count()}\n" +
		"window: {tumbling: 1s}\n" + strings.Join(options, "\n") + "\n")
}

// Job is File's job, and its generation by number.
type Job struct {
	ID  crdt.GenerationID
	Add *shard.AddGeneration
	job *job.Job
}

// NewJob returns the job of a file as generation n.
func NewJob(t testing.TB, n uint64, file []byte) *Job {
	t.Helper()
	j, err := job.Parse("count", file)
	if err != nil {
		t.Fatal(err)
	}
	id := shard.GenerationOf(1<<16|1, n)
	return &Job{id, &shard.AddGeneration{ID: id, Name: j.Name, File: j.File, Meaning: j.Meaning()}, j}
}

// Source returns a partition of a region's log.
func Source(region string, partition int32) crdt.Source {
	return crdt.Source{Region: crdt.RegionID(region), Topic: "events", Partition: partition}
}

// Point returns the point of a source over n records of one history of its log, the record at offset i of event time 100 x
// (i + 1).
func Point(s crdt.Source, history string, n int64) crdt.Point {
	p := crdt.FirstPoint(s, 0)
	var h crdt.Hasher
	for i := range n {
		p = p.After(i, h.Record(i, i, nil, []byte(history), nil), 100*(i+1), crdt.Counted)
	}
	return p
}

// Sources declares a region's sources, all from their first points.
func (j *Job) Sources(region string, partitions int32) *shard.AddSources {
	c := &shard.AddSources{Generation: j.ID, Group: crdt.RegionID(region)}
	for i := range partitions {
		s := Source(region, i)
		c.Sources = append(c.Sources, shard.SourcePoint{Source: s, Point: crdt.FirstPoint(s, 0)})
	}
	return c
}

// Step is the Advance of a source over its records from offset n to m, all of one key.
func (j *Job) Step(s crdt.Source, history string, n, m int64, key string) *shard.Advance {
	c := &shard.Advance{Advance: crdt.Advance{Generation: j.ID, Group: s.Region, Ranges: []crdt.Range{{
		Source: s, From: Point(s, history, n).Mark(), To: Point(s, history, m)}}}}
	for i := n; i < m; i++ {
		time := 100 * (i + 1)
		end := (time/1000 + 1) * 1000
		cell := crdt.NewCell(j.job.Schema())
		cell.Touch(time)
		cell.Add(0, crdt.Null(), crdt.Order{Time: time})
		d := crdt.Delta{Slot: crdt.Slot{Time: end, Key: crdt.Text(key).AppendKey(nil)}, Cell: cell.AppendTo(nil)}
		next, ok := crdt.MergeAdvances(&crdt.Advance{Generation: j.ID, Group: s.Region, Deltas: c.Deltas},
			&crdt.Advance{Generation: j.ID, Group: s.Region, Deltas: []crdt.Delta{d}})
		if !ok {
			panic("peertest: two deltas do not merge")
		}
		c.Deltas = next.Deltas
	}
	return c
}

// Dump prints what a region holds of the job: horizon, points, and how many records of each slot, whatever its clock.
func (r *Region) Dump(j *Job) string {
	t := r.World.t
	t.Helper()
	snap, err := r.Replica.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	g := snap.Generation(j.ID)
	if g == nil {
		return "no generation\n"
	}
	var b strings.Builder
	if g.Horizon > crdt.MinTime {
		fmt.Fprintf(&b, "horizon %d\n", g.Horizon)
	}
	for _, region := range g.Groups() {
		fmt.Fprintf(&b, "%s declared %t\n", region, g.Declared(region))
		for _, st := range g.Standings(region) {
			fmt.Fprintf(&b, "  %d: %d %x %d\n", st.Source.Partition, st.Point.Offset, st.Point.Chain[:4], st.Point.Watermark)
		}
		err := snap.Slots(g, region, crdt.MinTime, crdt.MaxTime, func(slot crdt.Slot, cell []byte) bool {
			c, err := crdt.DecodeCell(cell)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "  %d %x = %d\n", slot.Time, slot.Key, c.Records)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// AwaitAlike waits until regions hold the same of a job, and returns what.
func (w *World) AwaitAlike(j *Job, names ...string) string {
	w.t.Helper()
	if len(names) == 0 {
		for _, r := range w.Regions {
			names = append(names, string(r.Name))
		}
	}
	var last string
	ok := func() bool {
		last = w.Region(names[0]).Dump(j)
		for _, name := range names[1:] {
			if w.Region(name).Dump(j) != last {
				return false
			}
		}
		return true
	}
	w.Await("the same state in all regions", ok)
	return last
}

// AwaitOffset waits until a region stands at an offset of a source, or above.
func (r *Region) AwaitOffset(j *Job, s crdt.Source, offset int64) {
	r.World.t.Helper()
	r.World.Await(fmt.Sprintf("offset %d of %v in %s", offset, s, r.Name), func() bool { return r.Offset(j, s) >= offset })
}

// Offset returns where a region stands in a source, -1 where it does not know it.
func (r *Region) Offset(j *Job, s crdt.Source) int64 {
	g := r.Replica.State().Generation(j.ID)
	if g == nil {
		return -1
	}
	st, ok := g.Standing(s)
	if !ok {
		return -1
	}
	return st.Point.Offset
}

// Records returns how many records a region's cells of the job hold.
func (r *Region) Records(j *Job) (n int64) {
	t := r.World.t
	t.Helper()
	snap, err := r.Replica.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	g := snap.Generation(j.ID)
	for _, region := range g.Groups() {
		err := snap.Slots(g, region, crdt.MinTime, crdt.MaxTime, func(_ crdt.Slot, cell []byte) bool {
			c, err := crdt.DecodeCell(cell)
			if err != nil {
				t.Fatal(err)
			}
			n += int64(c.Records)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}
