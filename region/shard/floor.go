package shard

import (
	"errors"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Floor returns the horizon that this region would bear for a generation (rules A7, A9): what it tells its peers. A
// horizon is proposed no higher than the least floor of all regions; it may lie below the present horizon.
func (s *Snapshot) Floor(g *Generation) (int64, error) {
	base := s.cfg.floorBase(g, s.Unreachable, s.Emits(g))
	if base == crdt.MaxTime {
		return g.Horizon, nil // an infinite watermark fires windows and never moves the horizon
	}
	h := g.Job.Window.HorizonAt(base, g.Job.Retention)
	if g.Job.Window.Kind != keyspace.Session || h <= g.Horizon {
		return h, nil
	}
	open, err := s.oldestOpen(g, base, h)
	if err != nil {
		return 0, err
	}
	return min(h, max(open, less(g.Watermark, g.Job.MaxSession))), nil
}

// floorBase returns the event time up to which nothing here is needed any more, before retention.
func (c *Config) floorBase(g *Generation, unreachable []crdt.RegionID, emits bool) int64 {
	if g.Watermark == crdt.MaxTime {
		return crdt.MaxTime
	}
	base := g.Watermark
	if mutant.On("retention-drops-open") {
		base = g.Partial
	}
	if emits && !mutant.On("outbox-ignored") {
		base = min(base, g.Outbox.Sent())
	}
	if mutant.On("retention-ignores-unreachable") {
		return base
	}
	for _, region := range unreachable {
		if slices.Contains(c.Regions, region) && !g.Declared(region) {
			return crdt.MinTime
		}
		for _, st := range g.Standings(region) {
			base = min(base, st.Point.Watermark)
		}
	}
	return base
}

// oldestOpen returns the greatest horizon below h that leaves every session whole that is not final at the event time
// base: one below (first cell + gap) of the oldest, else h.
func (s *Snapshot) oldestOpen(g *Generation, base, h int64) (oldest int64, err error) {
	w := g.Job.Window
	var cells []*cellCursor
	defer func() {
		for _, c := range cells {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, region := range g.Groups() {
		it, err := s.view.Iter(g.current(region), crdt.MinTime, crdt.MaxTime)
		if err != nil {
			return 0, err
		}
		c := &cellCursor{Iter: it}
		c.next()
		cells = append(cells, c)
	}
	// A session that begins in a cell of time t, its end + gap, is cut by a horizon from t - gap on.
	runs := map[string]run{}
	for {
		time, ok := leastTime(cells)
		if !ok || len(runs) == 0 && less(time, w.Size) > h {
			return h, nil
		}
		level, err := s.level(cells, time)
		if err != nil {
			return 0, err
		}
		next := map[string]run{}
		for key, span := range level {
			r, ok := runs[key]
			if !ok || r.time != less(time, w.Size) || span.first-r.last >= w.Size {
				if less(time, w.Size) > h {
					continue
				}
				r = run{begin: time, lost: w.HeadLost(w.SlotStart(time), g.Horizon)}
			}
			r.time, r.last = time, span.last
			if !r.lost && w.FinalAt(r.last+w.Size, g.Job.Lateness) > base {
				h = min(h, less(r.begin, w.Size+1))
				continue
			}
			next[key] = r
		}
		runs = next
	}
}

// run is a session being put together: the times of its first and last cell, and its last event. One that may have lost
// its head is followed, so that its rest is not taken for a session, and holds nothing.
type run struct {
	begin, time, last int64
	lost              bool
}

// span is the least and the greatest event time of a cell over all groups.
type span struct{ first, last int64 }

// cellCursor is an iterator that stands at a slot, or has ended.
type cellCursor struct {
	*keyspace.Iter
	ended bool
}

func (c *cellCursor) next() { c.ended = !c.Next() }

func leastTime(cells []*cellCursor) (least int64, ok bool) {
	for _, c := range cells {
		if !c.ended && (!ok || c.Slot().Time < least) {
			least, ok = c.Slot().Time, true
		}
	}
	return least, ok
}

// level takes all cells of one time off the cursors, by key.
func (s *Snapshot) level(cells []*cellCursor, time int64) (map[string]span, error) {
	level := map[string]span{}
	for _, c := range cells {
		for ; !c.ended && c.Slot().Time == time; c.next() {
			cell, err := crdt.DecodeCell(c.Cell())
			if err != nil {
				return nil, err
			}
			x, ok := level[string(c.Slot().Key)]
			if !ok {
				x = span{cell.First, cell.Last}
			}
			level[string(c.Slot().Key)] = span{min(x.first, cell.First), max(x.last, cell.Last)}
		}
		if err := c.Err(); err != nil {
			return nil, err
		}
	}
	return level, nil
}
