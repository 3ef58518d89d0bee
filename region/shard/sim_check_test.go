package shard

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
)

// The oracle: what a prefix of a log contributes, straight from the definitions and without what the rest uses.

// simWindow is a window by its bounds; of a session only the record's own.
type simWindow struct{ start, end int64 }

// keptRec is a record that is in at least one window.
type keptRec struct {
	simRec
	source  crdt.Source
	windows []simWindow
}

// naive judges a prefix.
func (w *world) naive(src crdt.Source, log simLog) (watermark int64, counts crdt.Counts, kept []keptRec) {
	watermark = crdt.MinTime
	for _, r := range log {
		before := watermark
		absurd := r.et-r.lts > w.job.maxFut
		if r.bad != 1 && !absurd && r.et-w.job.bound > watermark {
			watermark = r.et - w.job.bound
		}
		switch {
		case r.bad == 1:
			counts[crdt.Invalid]++
		case absurd:
			counts[crdt.Implausible]++
		case r.val < 0:
			counts[crdt.Filtered]++
		case r.bad == 2:
			counts[crdt.Invalid]++
		default:
			if in := w.naiveWindows(r.et, before); len(in) > 0 {
				counts[crdt.Counted]++
				kept = append(kept, keptRec{r, src, in})
			} else {
				counts[crdt.Late]++
			}
		}
	}
	return watermark, counts, kept
}

// naiveWindows lists the windows that a record at et is not late for.
func (w *world) naiveWindows(et, watermark int64) (list []simWindow) {
	size, step := w.job.Window.Size, w.job.Window.Size
	if w.job.Window.Kind == keyspace.Hopping {
		step = w.job.Window.Every
	}
	if w.job.Window.Kind == keyspace.Session {
		list = []simWindow{{et, et + size}}
	} else {
		for start := int64(-1200); start <= et; start += step {
			if et < start+size {
				list = append(list, simWindow{start, start + size})
			}
		}
	}
	return slices.DeleteFunc(list, func(x simWindow) bool { return x.end+w.job.Lateness <= watermark })
}

// naiveRows makes windows straight from their definition.
func (w *world) naiveRows(kept []keptRec, horizon int64) map[simRow]simValue {
	sums, out := map[simRow][2]int64{}, map[simRow]simValue{}
	add := func(id simRow, n, sum int64) { sums[id] = [2]int64{sums[id][0] + n, sums[id][1] + sum} }
	gap := w.job.Window.Size
	if w.job.Window.Kind != keyspace.Session {
		for _, r := range kept {
			for _, x := range r.windows {
				if x.end > horizon {
					add(simRow{x.start, x.end, string(w.key(r.key))}, 1, r.val)
				}
			}
		}
	} else {
		byTime := slices.SortedFunc(slices.Values(kept), func(a, b keptRec) int {
			return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.et, b.et))
		})
		for i := 0; i < len(byTime); {
			j, sum := i+1, byTime[i].val
			for ; j < len(byTime) && byTime[j].key == byTime[i].key && byTime[j].et < byTime[j-1].et+gap; j++ {
				sum += byTime[j].val
			}
			first, last := byTime[i], byTime[j-1]
			if (floorDiv(first.et, gap)+1)*gap > horizon {
				add(simRow{first.et, last.et + gap, string(w.key(first.key))}, int64(j-i), sum)
			}
			i = j
		}
	}
	for id, v := range sums {
		out[id] = simValue{revision: uint64(v[0]), sum: fmt.Sprint(v[1])}
	}
	return out
}

func floorDiv(a, b int64) int64 {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}

// naiveSlots puts the records where they must lie: by group, the horizon at which the slot goes, class and key.
func (w *world) naiveSlots(kept []keptRec, horizon int64) map[string][]byte {
	cells := map[crdt.RegionID]simCells{}
	for _, r := range kept {
		s := simSlot{key: r.key}
		switch size := w.job.Window.Size; w.job.Window.Kind {
		case keyspace.Session:
			s.time = (floorDiv(r.et, size) + 2) * size
		case keyspace.Hopping:
			s.time = floorDiv(r.et, w.job.Window.Every)*w.job.Window.Every + size
			s.class = uint16(size/w.job.Window.Every) - uint16(len(r.windows))
		default:
			s.time = (floorDiv(r.et, size) + 1) * size
		}
		if s.time <= horizon {
			continue
		}
		if cells[r.source.Region] == nil {
			cells[r.source.Region] = simCells{}
		}
		cells[r.source.Region].add(w, s, r.simRec)
	}
	out := map[string][]byte{}
	for group, c := range cells {
		for s, cell := range c {
			out[fmt.Sprintf("%s %d/%d %x", group, s.time, s.class, w.key(s.key))] = cell.AppendTo(nil)
		}
	}
	return out
}

func (sh *simShard) slots(s *Snapshot) map[string][]byte {
	out, g := map[string][]byte{}, s.Generation(sh.w.gen)
	for _, group := range g.Groups() {
		err := s.Slots(g, group, crdt.MinTime, crdt.MaxTime, func(slot crdt.Slot, cell []byte) bool {
			out[fmt.Sprintf("%s %d/%d %x", group, slot.Time, slot.Class, slot.Key)] = slices.Clone(cell)
			return true
		})
		sh.w.need(err == nil, "slots: %v", err)
	}
	return out
}

// rows is what a read sees, without completeness.
func (sh *simShard) rows(s *Snapshot) map[simRow]simValue {
	out := map[simRow]simValue{}
	err := s.Rows(s.Generation(sh.w.gen), job.Everything(), func(r *job.Row) error {
		id, v := rowOf(r)
		v.complete = false
		out[id] = v
		return nil
	})
	sh.w.need(err == nil, "rows: %v", err)
	return out
}

// kept lists what the logs' prefixes at a shard's points contribute to it, and demands that the points are right.
func (w *world) kept(sh *simShard, g *Generation) (kept []keptRec) {
	for _, src := range w.all {
		st, ok := g.Standing(src)
		if !ok {
			continue
		}
		log, known := w.history[src][st.Point.Chain]
		w.need(known, "%s: the point %+v of %v is no prefix of any log", sh.name(), st.Point, src)
		watermark, counts, mine := w.naive(src, log)
		w.need(st.Point.Watermark == watermark && st.Point.Counts == counts && st.Point.Offset == log.end(),
			"%s: the point of %v is %+v, want watermark %d, counts %v", sh.name(), src, st.Point, watermark, counts)
		for _, r := range mine {
			if w.shardOf(r.key) == sh.shard {
				kept = append(kept, r)
			}
		}
	}
	return kept
}

// check holds a shard's content against the logs' prefixes at its own points.
func (w *world) check(sh *simShard) []keptRec {
	s := sh.snapshot()
	defer s.Close()
	g := s.Generation(w.gen)
	kept := w.kept(sh, g)
	w.need(maps.EqualFunc(sh.slots(s), w.naiveSlots(kept, g.Horizon), bytes.Equal),
		"%s: slots differ from the logs at horizon %d:\ngot  %x\nwant %x", sh.name(), g.Horizon, sh.slots(s), w.naiveSlots(kept, g.Horizon))
	got, want := sh.rows(s), w.naiveRows(kept, g.Horizon)
	w.need(maps.Equal(got, want), "%s: rows differ from their definition at horizon %d:\ngot  %v\nwant %v", sh.name(), g.Horizon, got, want)
	return kept
}

// checkPair demands equal content at equal points and horizon, and equal final windows whatever the points.
func (w *world) checkPair(x, y *simShard) {
	a, b := x.snapshot(), y.snapshot()
	defer a.Close()
	defer b.Close()
	g, h := a.Generation(w.gen), b.Generation(w.gen)
	if maps.Equal(g.Points(), h.Points()) && g.Horizon == h.Horizon {
		w.need(maps.EqualFunc(x.slots(a), y.slots(b), bytes.Equal), "%s and %s: equal points, unequal content", x.name(), y.name())
	}
	if w.wasUnclean || len(g.Points()) != len(w.all) || len(h.Points()) != len(w.all) {
		return
	}
	least := crdt.MaxTime
	for _, points := range []crdt.Frontier{g.Points(), h.Points()} {
		for _, p := range points {
			least = min(least, p.Watermark)
		}
	}
	horizon := max(g.Horizon, h.Horizon)
	final := func(rows map[simRow]simValue) map[simRow]simValue {
		maps.DeleteFunc(rows, func(id simRow, _ simValue) bool {
			hidden := id.end <= horizon
			if w.job.Window.Kind == keyspace.Session {
				hidden = (floorDiv(id.start, w.job.Window.Size)+1)*w.job.Window.Size <= horizon
			}
			return hidden || w.job.Window.FinalAt(id.end, w.job.Lateness) > least
		})
		return rows
	}
	p, q := final(x.rows(a)), final(y.rows(b))
	w.need(maps.Equal(p, q), "%s and %s: final windows differ:\n%v\n%v", x.name(), y.name(), p, q)
}

// drain ends all faults. Each region works its own sources; the rest comes by pulling alone.
func (w *world) drain() bool {
	w.down = -1
	clear(w.cuts)
	w.tellReach()
	for range 40 {
		for x := range w.names {
			for _, src := range w.all {
				w.mirror(x, src, 1<<20)
			}
		}
		w.deliverAll()
		for x := range w.names {
			w.workOwn(x)
		}
		w.deliverAll()
		quiet := true
		w.eachShard(func(sh *simShard) {
			for y := range w.names {
				for y != sh.region && sh.pull(w.shards[y][sh.shard], true) {
					quiet = false
					w.need(len(sh.raft) < 8000, "regions echo Advances for ever")
				}
			}
		})
		if quiet && w.atEnd() {
			return true
		}
	}
	return false
}

func (w *world) deliverAll() {
	for len(w.net) > 0 {
		w.deliver(0)
	}
}

func (w *world) workOwn(x int) {
	var own []crdt.Source
	var shards []int
	for _, src := range w.all {
		if w.region(src) == x {
			own = append(own, src)
		}
	}
	for s := range w.shards[x] {
		shards = append(shards, s)
	}
	k := w.newWorker(x, own, shards)
	for _, src := range own {
		for k.read(src) {
		}
	}
	for _, s := range shards {
		k.flush(s, false)
	}
}

func (w *world) atEnd() bool {
	end := true
	w.eachShard(func(sh *simShard) {
		for _, src := range w.all {
			st, ok := sh.generation().Standing(src)
			end = end && ok && st.Point.Offset == w.copies[w.region(src)][src].end()
		}
	})
	return end
}

// finish drains and demands that all regions hold what the logs say, and that the sinks hold it too.
func (w *world) finish() {
	done := w.drain()
	if w.wasUnclean {
		w.need(done || len(w.stopped) > 0, "a log lost its end, nothing converges and nobody says so")
		w.eachShard(func(sh *simShard) { w.check(sh) })
		return
	}
	w.need(done, "does not converge")
	w.eachShard(func(sh *simShard) {
		kept := w.check(sh)
		first := w.shards[0][sh.shard]
		w.checkPair(sh, first)
		w.need(sh.generation().Horizon == first.generation().Horizon, "%s: the horizons differ after the drain", sh.name())
		for sh.emit() {
		}
		w.checkSink(sh, kept)
	})
	for x := range w.names {
		w.checkBalance(x)
	}
}

// checkSink demands that the sink holds every row that has fired as it is, and every row that expired as it was last.
func (w *world) checkSink(sh *simShard, kept []keptRec) {
	g := sh.generation()
	if len(g.Job.Emit.Sinks) == 0 {
		return
	}
	for id, v := range w.naiveRows(kept, crdt.MinTime) {
		old := sh.emitted[id]
		switch {
		case id.end > g.Watermark:
		case id.end > g.Horizon:
			v.complete = true
			w.need(old == v, "%s: the sink holds %v of %v, not %v", sh.name(), old, id, v)
		case !w.idleOn:
			old.complete = false
			w.need(old == v, "%s never emitted the whole of %v: %v, not %v, at horizon %d", sh.name(), id, old, v, g.Horizon)
		}
	}
}

// checkBalance demands that the shards' slots and what the horizon took add up to what the points count.
func (w *world) checkBalance(x int) {
	counted, kept := uint64(0), 0
	for _, p := range w.shards[x][0].generation().Points() {
		counted += p.Counts[crdt.Counted]
	}
	for _, sh := range w.shards[x] {
		kept += len(w.kept(sh, sh.generation()))
	}
	w.need(counted == uint64(kept), "region %d: the points count %d records, its shards hold %d", x, counted, kept)
}
