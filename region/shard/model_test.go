package shard

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
	"pgregory.net/rapid"
)

// modelSlot names a slot of a group; the twin's whole content is counts of records.
type modelSlot struct {
	group crdt.RegionID
	time  int64
	key   string
}

// twin is the state machine by obvious means: what model.py's State is, for one generation.
type twin struct {
	points  map[crdt.Source]crdt.Point
	slots   map[modelSlot]uint64
	horizon int64
}

func newTwin() *twin {
	return &twin{map[crdt.Source]crdt.Point{}, map[modelSlot]uint64{}, crdt.MinTime}
}

func (w *twin) raise(h int64) bool {
	if h <= w.horizon {
		return false
	}
	w.horizon = h
	maps.DeleteFunc(w.slots, func(s modelSlot, _ uint64) bool { return s.time <= h })
	return true
}

func (w *twin) add(group crdt.RegionID, deltas []crdt.Delta) {
	for _, d := range deltas {
		if d.Slot.Time > w.horizon {
			w.slots[modelSlot{group, d.Slot.Time, string(d.Slot.Key)}] += records(d.Cell)
		}
	}
}

func (w *twin) advance(c *Advance) Outcome {
	duplicate, fits := true, true
	for _, x := range c.Ranges {
		own, ok := w.points[x.Source]
		if ok && (own.Offset == x.To.Offset && own != x.To || own.Offset == x.From.Offset && own.Chain != x.From.Chain) {
			return Mismatch
		}
		duplicate = duplicate && ok && own.Offset >= x.To.Offset
		fits = fits && ok && own.Mark() == x.From
	}
	switch {
	case duplicate:
		return Duplicate
	case !fits:
		return Refused
	}
	w.add(c.Group, c.Deltas)
	for _, x := range c.Ranges {
		w.points[x.Source] = x.To
	}
	return Applied
}

func (w *twin) install(group crdt.RegionID, to crdt.Frontier, slots []crdt.Delta, h int64) {
	w.raise(h)
	maps.DeleteFunc(w.slots, func(s modelSlot, _ uint64) bool { return s.group == group })
	w.add(group, slots)
	maps.Copy(w.points, to)
}

func (w *twin) text() string {
	var lines []string
	for s, p := range w.points {
		lines = append(lines, fmt.Sprintf("%v %d %x", s, p.Offset, p.Chain))
	}
	for s, n := range w.slots {
		lines = append(lines, fmt.Sprintf("%s %d %x %d", s.group, s.time, s.key, n))
	}
	slices.Sort(lines)
	return fmt.Sprintf("horizon %d\n%s", w.horizon, strings.Join(lines, "\n"))
}

// twinOf reads what a twin holds from a machine.
func twinOf(tb rapid.TB, m *Machine, id crdt.GenerationID) *twin {
	s, err := m.Snapshot()
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	w, g := newTwin(), s.Generation(id)
	w.points, w.horizon = g.Points(), g.Horizon
	for _, region := range g.Groups() {
		err := s.Slots(g, region, crdt.MinTime, crdt.MaxTime, func(slot crdt.Slot, cell []byte) bool {
			w.slots[modelSlot{region, slot.Time, string(slot.Key)}] = records(cell)
			return true
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return w
}

// fuzzer makes random commands for one shard, most of which could be real ones.
type fuzzer struct {
	t    *testing.T
	rt   *rapid.T
	job  *job.Job
	id   crdt.GenerationID
	twin *twin
	m    *Machine
	raw  [][]byte // the log: command i has index i+1
}

// TestRandomCommandsAndCrashes drives a shard with random commands. It must hold what the twin holds; and after a crash at
// any moment, with any part of what was not synced lost, opening the store and replaying the log from its own index must
// come to the same bytes, those of a replica that never crashed.
func TestRandomCommandsAndCrashes(t *testing.T) {
	file := jobFile("{tumbling: 10ms}", "retention: 50ms", withSink)
	j, err := job.Parse("model", file)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		fs := vfs.NewCrashableMem()
		f := &fuzzer{t: t, rt: rt, job: j, id: GenerationOf(1, 1), twin: newTwin(), m: openMachine(t, twoRegions(), fs)}
		defer func() { closeMachine(t, f.m) }()
		f.apply(&AddGeneration{ID: f.id, Name: "count", File: file, Meaning: j.Meaning()})
		for _, region := range []string{"a", "b"} {
			c := &AddSources{Generation: f.id, Group: crdt.RegionID(region)}
			for p := range int32(2) {
				s := sourceOf(region, p)
				c.Sources = append(c.Sources, SourcePoint{s, crdt.FirstPoint(s, 0)})
				f.twin.points[s] = crdt.FirstPoint(s, 0)
			}
			f.apply(c)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"advance": func(*rapid.T) { f.advance() },
			"horizon": func(*rapid.T) { f.horizon() },
			"install": func(*rapid.T) { f.install() },
			"clock":   func(*rapid.T) { f.clock() },
			"outbox":  func(*rapid.T) { f.outbox() },
			"owned":   func(*rapid.T) { f.ownStep() },
			"crash":   func(*rapid.T) { f.crash(fs) },
			"": func(rt *rapid.T) {
				f.checkOwned()
				if got, want := twinOf(rt, f.m, f.id).text(), f.twin.text(); got != want {
					rt.Fatalf("the shard holds\n%s\nwant\n%s", got, want)
				}
			},
		})
	})
}

func (f *fuzzer) int(name string, lo, hi int64) int64 {
	return rapid.Int64Range(lo, hi).Draw(f.rt, name)
}

func (f *fuzzer) apply(c Command) Result {
	raw := Encode(c)
	f.raw = append(f.raw, raw)
	return f.m.Apply(uint64(len(f.raw)), raw).(Result)
}

func (f *fuzzer) source() crdt.Source {
	return sourceOf(rapid.SampledFrom([]string{"a", "b"}).Draw(f.rt, "region"), int32(f.int("partition", 0, 1)))
}

func (f *fuzzer) deltas() (list []crdt.Delta) {
	seen := map[string]bool{}
	for range f.int("slots", 0, 4) {
		end, k := 10*f.int("end", 0, 20), rapid.SampledFrom([]string{"k", "l"}).Draw(f.rt, "key")
		if name := fmt.Sprint(end, k); !seen[name] {
			seen[name] = true
			list = append(list, crdt.Delta{Slot: crdt.Slot{Time: end, Key: keyOf(k)}, Cell: cellOf(f.t, f.job, make([]int64, f.int("n", 1, 3))...)})
		}
	}
	return sortedDeltas(list)
}

// point returns a point at an offset. Watermarks are a function of the offset; one in eight lies on another history.
func (f *fuzzer) point(s crdt.Source, offset int64) crdt.Point {
	history := ""
	if f.int("history", 0, 7) == 0 {
		history = "x"
	}
	return pointOf(s, history, offset, offset*10)
}

func (f *fuzzer) advance() {
	s := f.source()
	own := f.twin.points[s]
	from, to := own, f.point(s, own.Offset+f.int("records", 0, 3))
	if f.int("stale", 0, 3) == 0 {
		from = f.point(s, f.int("from", 0, own.Offset+1))
		to = f.point(s, from.Offset+f.int("records", 0, 3))
	}
	c := &Advance{crdt.Advance{Generation: f.id, Group: s.Region, Deltas: f.deltas(),
		Ranges: []crdt.Range{{Source: s, From: from.Mark(), To: to}}}}
	other := s
	other.Partition = 1 - s.Partition
	if f.int("both", 0, 2) == 0 {
		at := f.twin.points[other]
		c.Ranges = append(c.Ranges, crdt.Range{Source: other, From: at.Mark(), To: f.point(other, at.Offset+f.int("records", 0, 2))})
		slices.SortFunc(c.Ranges, func(a, b crdt.Range) int { return crdt.CompareSources(a.Source, b.Source) })
	}
	if _, err := Decode(Encode(c)); err != nil {
		return // a range that stands with two chains
	}
	if got, want := f.apply(c).Outcome, f.twin.advance(c); got != want {
		f.rt.Fatalf("Advance is %v, want %v: %+v", got, want, c.Ranges)
	}
}

func (f *fuzzer) horizon() {
	h := f.int("horizon", -10, 200)
	want := Duplicate
	if f.twin.raise(h) {
		want = Applied
	}
	if got := f.apply(&Horizon{f.id, h}).Outcome; got != want {
		f.rt.Fatalf("Horizon %d is %v, want %v", h, got, want)
	}
}

// install stages a copy of a group at points above the present ones and installs it, some steps left out now and then.
func (f *fuzzer) install() {
	group := rapid.SampledFrom([]crdt.RegionID{"a", "b"}).Draw(f.rt, "group")
	staged := f.apply(&StageBegin{f.id, group})
	c := &Install{Install: crdt.Install{Generation: f.id, Group: group, Copy: staged.Copy, To: crdt.Frontier{}, Horizon: f.int("horizon", -10, 60)}}
	var all []crdt.Delta
	for range f.int("chunks", 0, 2) {
		deltas := f.deltas()
		f.apply(&StageChunk{f.id, group, c.Copy, c.Chunks, deltas})
		c.Chunks++
		all = append(all, deltas...)
	}
	moves := int64(0)
	for p := range int32(2) {
		s := sourceOf(string(group), p)
		own, n := f.twin.points[s], f.int("records", 0, 3)
		moves += n
		c.To[s] = own
		if n > 0 {
			c.To[s] = pointOf(s, "", own.Offset+n, (own.Offset+n)*10)
			c.Confirmed = append(c.Confirmed, SourceMark{s, own.Mark()})
		}
	}
	want := Applied
	switch {
	case f.int("abandon", 0, 5) == 0:
		f.apply(&StageAbandon{f.id, group, c.Copy})
		want = Refused
	case len(c.Confirmed) > 0 && f.int("unconfirmed", 0, 5) == 0:
		c.Confirmed, want = c.Confirmed[1:], Refused
	case moves == 0 && c.Horizon <= f.twin.horizon:
		want = Duplicate
	}
	if got := f.apply(c).Outcome; got != want {
		f.rt.Fatalf("Install is %v, want %v", got, want)
	}
	if want == Applied {
		f.twin.install(group, c.To, all, c.Horizon)
	}
}

func (f *fuzzer) clock() {
	s := f.source()
	if f.int("what", 0, 1) == 0 {
		f.apply(&Idle{f.id, []SourceMark{{s, f.twin.points[s].Mark()}}, f.int("idle", 0, 1) == 0})
		return
	}
	c := &Reach{}
	if f.int("cut", 0, 1) == 0 {
		c.Unreachable = []crdt.RegionID{"b"}
		c.Excluded = []Exclusion{{f.id, c.Unreachable}}
	}
	before := f.m.State().Generation(f.id)
	f.apply(c)
	after := f.m.State().Generation(f.id)
	if after.Watermark < before.Watermark || after.Partial < before.Partial || after.Partial < after.Watermark {
		f.rt.Fatalf("watermarks went from %d, %d to %d, %d", before.Watermark, before.Partial, after.Watermark, after.Partial)
	}
}

func (f *fuzzer) outbox() {
	g := f.m.State().Generation(f.id)
	if o := g.Outbox; o.Open == nil {
		f.apply(&Plan{f.id, o.Last + 1, f.int("partial", 0, 2) == 0, f.int("to", 0, 120)})
		return
	}
	s, err := f.m.Snapshot()
	if err != nil {
		f.rt.Fatal(err)
	}
	defer s.Close()
	marks, err := s.DirtyMarks(g, 3)
	if err != nil {
		f.rt.Fatal(err)
	}
	if f.int("late", 0, 1) == 0 {
		f.advance()
	}
	f.apply(&Done{f.id, g.Outbox.Last, s.Index, marks})
}

// crash opens what a crash now would leave, replays the log, and goes on with it now and then.
func (f *fuzzer) crash(fs *vfs.MemFS) {
	if f.int("write", 0, 1) == 0 { // let something reach the disk
		if _, err := f.m.Checkpoint(fmt.Sprintf("checkpoint-%d", len(f.raw))); err != nil && !strings.Contains(err.Error(), "exist") {
			f.rt.Fatal(err)
		}
	}
	clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(f.int("kept", 0, 100)),
		RNG: rand.New(rand.NewPCG(uint64(f.int("seed", 0, 1<<30)), 1))})
	m := openMachine(f.t, twoRegions(), clone)
	defer closeMachine(f.t, m)
	for i := m.AppliedIndex(); i < uint64(len(f.raw)); i++ {
		if _, ok := m.Apply(i+1, f.raw[i]).(Result); !ok {
			f.rt.Fatalf("replay of command %d failed", i+1)
		}
	}
	if got, want := image(f.t, m), image(f.t, f.m); got != want {
		f.rt.Fatalf("after a crash and replay:\n%s\nwant:\n%s", got, want)
	}
}
