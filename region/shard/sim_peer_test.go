package shard

import (
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
)

// snapshot is the shard's present state, for reading.
func (sh *simShard) snapshot() *Snapshot {
	s, err := sh.m.Snapshot()
	sh.w.need(err == nil, "snapshot: %v", err)
	return s
}

func (sh *simShard) floor() int64 {
	s := sh.snapshot()
	defer s.Close()
	h, err := s.Floor(s.Generation(sh.w.gen))
	sh.w.need(err == nil, "floor: %v", err)
	return h
}

// confirms reports whether a region knows a mark of a source as its own past: from kept marks, or its copy of the log.
func (sh *simShard) confirms(s *Snapshot, sm SourceMark) bool {
	if sh.w.chance(0.7) {
		ok, err := s.Stood(s.Generation(sh.w.gen), sm)
		sh.w.need(err == nil, "stood: %v", err)
		if ok {
			return true
		}
	}
	log := sh.w.copies[sh.region][sm.Source]
	i := log.find(sm.Mark.Offset)
	return sh.w.chain(sm.Source, log[:i]) == sm.Mark.Chain
}

// stateJoin takes a group's state from y, if y's copy dominates. It reports whether it was installed.
func (sh *simShard) stateJoin(y *simShard, group crdt.RegionID, now bool) bool {
	w := sh.w
	if _, _, staged := sh.generation().Staged(group); staged && !now && w.chance(0.9) {
		return false // one is under way
	}
	theirs := y.snapshot()
	defer theirs.Close()
	g := theirs.Generation(w.gen)
	if !g.Declared(group) {
		return false
	}
	c := &Install{Install: crdt.Install{Generation: w.gen, Group: group, To: crdt.Frontier{}, Horizon: g.Horizon}}
	for _, st := range g.Standings(group) {
		c.To[st.Source] = st.Point
	}
	for _, st := range sh.generation().Standings(group) {
		sm := SourceMark{st.Source, st.Point.Mark()}
		if to, ok := c.To[st.Source]; !ok || !atOrBelow(st.Point, to) || to != st.Point && !y.confirms(theirs, sm) {
			return false
		} else if to != st.Point {
			c.Confirmed = append(c.Confirmed, sm)
		}
	}
	var all []crdt.Delta
	err := theirs.Slots(g, group, crdt.MinTime, crdt.MaxTime, func(slot crdt.Slot, cell []byte) bool {
		slot.Key = slices.Clone(slot.Key)
		all = append(all, crdt.Delta{Slot: slot, Cell: slices.Clone(cell)})
		return true
	})
	w.need(err == nil, "slots: %v", err)
	c.Copy = sh.submit(&StageBegin{w.gen, group}).Copy
	for len(all) > 0 {
		n := w.rng.IntN(len(all)) + 1
		sh.submit(&StageChunk{w.gen, group, c.Copy, c.Chunks, all[:n]})
		all, c.Chunks = all[n:], c.Chunks+1
	}
	w.stats["state join"]++
	if now {
		return sh.submit(c).Outcome == Applied
	}
	w.net = append(w.net, simMessage{sh, c, nil}) // comes later, and is judged then
	return false
}

// level reads the region's own copies of the logs up to the points `to`, where the shard lags: one Advance a source.
func (sh *simShard) level(group crdt.RegionID, to []SourcePoint) bool {
	w := sh.w
	for _, sp := range to {
		st, ok := sh.generation().Standing(sp.Source)
		if !ok {
			return false
		}
		at, cells := st.Point, simCells{}
		for at.Offset < sp.Point.Offset {
			r, ok := w.nextRecord(sh.region, sp.Source, at)
			if !ok {
				return false
			}
			p, judged := w.judge(sp.Source, at, r)
			if judged.outcome == crdt.Counted && w.shardOf(r.key) == sh.shard {
				cells.add(w, simSlot{judged.time, judged.class, r.key}, r)
			}
			at = p
		}
		if at.Offset == sp.Point.Offset && at != sp.Point {
			w.stop(sh.region, sp.Source) // the peer's log and ours are two logs
			return false
		}
		if at != st.Point {
			c := &Advance{crdt.Advance{Generation: w.gen, Group: group, Deltas: cells.deltas(w),
				Ranges: []crdt.Range{{Source: sp.Source, From: st.Point.Mark(), To: at}}}}
			w.stats["levelled from own log"]++
			w.need(sh.submit(c).Outcome == Applied, "%s: an Advance of its own is not taken", sh.name())
		}
	}
	return true
}

func (sh *simShard) behind(to []SourcePoint) bool {
	g := sh.generation()
	return slices.ContainsFunc(to, func(sp SourcePoint) bool {
		st, ok := g.Standing(sp.Source)
		return !ok || !atOrBelow(sp.Point, st.Point)
	})
}

// bring is for when no delta of y fits: the own log, or y's state where it dominates. False: wait.
func (sh *simShard) bring(y *simShard, group crdt.RegionID, to []SourcePoint, now bool) bool {
	if !sh.behind(to) {
		return true
	}
	steps := []func() bool{
		func() bool { return sh.level(group, to) },
		func() bool { return sh.stateJoin(y, group, now) },
	}
	if sh.w.chance(0.5) {
		slices.Reverse(steps)
	}
	return (steps[0]() || steps[1]()) && !sh.behind(to)
}

func (sh *simShard) joinHorizon(h int64) {
	if h > sh.generation().Horizon {
		sh.submit(&Horizon{sh.w.gen, h})
	}
}

// pull takes the next of what y's shard applied, in y's order, several Advances joined into one now and then.
func (sh *simShard) pull(y *simShard, now bool) bool {
	w := sh.w
	if !w.up(sh.region, y.region) {
		return false
	}
	sh.told[y.region] = y.floor()
	theirs := y.snapshot()
	defer theirs.Close()
	if sh.cursor[y.region] < y.base {
		return sh.pullState(y, theirs, now)
	}
	list, complete, err := theirs.OutAfter(sh.cursor[y.region], 8)
	w.need(err == nil && complete, "out: %v", err)
	if len(list) == 0 {
		return false
	}
	c, err := Decode(y.raft[list[0].Index-1])
	w.need(err == nil, "decode: %v", err)
	last := list[0].Index
	switch c := c.(type) {
	case *Horizon:
		sh.joinHorizon(c.H)
	case *AddSources:
		sh.submit(c)
	case *Install:
		if !sh.bring(y, c.Group, sortedPoints(c.To), now) {
			return false
		}
	case *Advance:
		for _, o := range list[1:] {
			next, ok := w.joined(c, y.raft[o.Index-1])
			if !ok || w.chance(0.6) {
				break
			}
			c, last = next, o.Index
		}
		if res := sh.submit(c); res.Outcome == Refused || res.Outcome == Mismatch {
			to := []SourcePoint{}
			for _, x := range c.Ranges {
				to = append(to, SourcePoint{x.Source, x.To})
			}
			if !sh.bring(y, c.Group, to, now) {
				w.stats["waits"]++
				return false
			}
		}
	}
	sh.cursor[y.region] = last
	return true
}

// joined merges an Advance with a command behind it, if that is one that goes on from it.
func (w *world) joined(c *Advance, raw []byte) (*Advance, bool) {
	next, err := Decode(raw)
	w.need(err == nil, "decode: %v", err)
	b, ok := next.(*Advance)
	if !ok {
		return nil, false
	}
	m, ok := crdt.MergeAdvances(&c.Advance, &b.Advance)
	if !ok {
		return nil, false
	}
	return &Advance{*m}, true
}

// pullState takes what y's log no longer holds: group by group, then on from y's end.
func (sh *simShard) pullState(y *simShard, theirs *Snapshot, now bool) bool {
	g := theirs.Generation(sh.w.gen)
	for _, group := range g.Groups() {
		var to []SourcePoint
		for _, st := range g.Standings(group) {
			to = append(to, SourcePoint{st.Source, st.Point})
		}
		if !sh.bring(y, group, to, now) {
			return false
		}
	}
	sh.joinHorizon(g.Horizon)
	sh.cursor[y.region] = theirs.Index
	return true
}

func (w *world) pullSome(x int, sh *simShard) {
	y := w.shards[(x+1+w.rng.IntN(len(w.names)-1))%len(w.names)][sh.shard]
	for range w.rng.IntN(4) + 1 {
		sh.pull(y, false)
	}
	w.checkPair(sh, y)
}

// moveHorizon proposes the least floor that any region has told.
func (sh *simShard) moveHorizon() {
	for sh.w.chance(0.9) && sh.emit() {
	}
	h := sh.floor()
	for y := range sh.w.names {
		if y == sh.region {
			continue
		}
		if sh.w.up(sh.region, y) && sh.w.chance(0.7) {
			sh.told[y] = sh.w.shards[y][sh.shard].floor()
		}
		told, ok := sh.told[y]
		if !ok {
			return
		}
		h = min(h, told)
	}
	sh.joinHorizon(h)
}

// setIdle flags sources that stand at the end of their origin's log.
func (sh *simShard) setIdle() {
	w, g := sh.w, sh.generation()
	for _, src := range w.all {
		x := w.region(src)
		st, ok := g.Standing(src)
		if ok && w.up(sh.region, x) && st.Point.Offset == w.copies[x][src].end() && w.chance(0.5) {
			sh.submit(&Idle{w.gen, []SourceMark{{src, st.Point.Mark()}}, true})
		}
	}
}

// simRow names a row, simValue is what a sink holds of it.
type simRow struct {
	start, end int64
	key        string
}

type simValue struct {
	revision uint64
	complete bool
	sum      string
}

// simBatch is a batch of the outbox under way: rows and marks of one view.
type simBatch struct {
	n, index uint64
	rows     map[simRow]simValue
	marks    []DirtyMark
}

func rowOf(r *job.Row) (simRow, simValue) {
	return simRow{r.Start, r.End, string(r.Key)}, simValue{r.Revision, r.Complete, string(r.Values[1].AppendJSON(nil))}
}

// emit takes the outbox one step further: plan, view, send and done. It reports whether there was something to do.
func (sh *simShard) emit() bool {
	w, g := sh.w, sh.generation()
	if len(g.Job.Emit.Sinks) == 0 {
		return false
	}
	o := g.Outbox
	switch {
	case o.Open == nil:
		sh.view = nil
		c := &Plan{Generation: w.gen, N: o.Last + 1, To: g.Watermark}
		if g.Partial > max(o.Full, o.Partial) && w.chance(0.5) {
			c.Partial, c.To = true, g.Partial
		}
		if c.To <= o.Full && o.Pending == 0 {
			return false
		}
		w.need(sh.submit(c).Outcome == Applied, "%s: plan %+v is refused, outbox %+v", sh.name(), c, o)
	case sh.view == nil || sh.view.n != o.Last:
		sh.view = sh.gather()
	default:
		for id, v := range sh.view.rows {
			sh.send(id, v)
		}
		w.need(sh.submit(&Done{w.gen, sh.view.n, sh.view.index, sh.view.marks}).Outcome == Applied, "%s: done is refused", sh.name())
		sh.view = nil
	}
	return true
}

// gather makes the rows of the open plan, and some of the marks, from one view.
func (sh *simShard) gather() *simBatch {
	w, s := sh.w, sh.snapshot()
	defer s.Close()
	g := s.Generation(w.gen)
	o := g.Outbox
	from := o.Full
	if o.Open.Partial {
		from = max(o.Full, o.Partial)
	}
	marks, err := s.DirtyMarks(g, w.rng.IntN(5)+1)
	w.need(err == nil, "dirty marks: %v", err)
	b := &simBatch{n: o.Last, index: s.Index, rows: map[simRow]simValue{}, marks: marks}
	err = s.Rows(g, job.Everything(), func(r *job.Row) error {
		id, v := rowOf(r)
		if r.End > from && r.End <= o.Open.To || slices.ContainsFunc(marks, func(m DirtyMark) bool {
			return m.End == r.End && string(m.Key) == id.key
		}) {
			b.rows[id] = v
		}
		return nil
	})
	w.need(err == nil, "rows: %v", err)
	return b
}

// send writes a row to the sink, which takes what ranks above.
func (sh *simShard) send(id simRow, v simValue) {
	old, ok := sh.emitted[id]
	switch {
	case !ok || v.revision > old.revision || v.revision == old.revision && v.complete && !old.complete:
		sh.emitted[id] = v
	case v.revision == old.revision && v.complete == old.complete:
		sh.w.need(v == old, "%s: one revision of %v, two contents: %v, %v", sh.name(), id, old, v)
	default:
		sh.w.need(false, "%s: a revision of %v went back: %v, %v", sh.name(), id, old, v)
	}
}
