package job

import (
	"cmp"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt"
)

// hops puts hopping windows together from slices. The slots come by time, so the windows that a slice can still feed
// are those that end no more than a window's length before it.
type hops struct {
	*maker
	open []*hop // by end
}

// hop is a hopping window that more slices may come for.
type hop struct {
	end   int64
	cells map[string]*crdt.Cell
}

func (b *hops) add(slot crdt.Slot, cell []byte) error {
	w := b.job.Window
	// A window reads slices up to its last one, whose slot time is this much above its end.
	reach := w.Size - w.Every
	for len(b.open) > 0 && b.open[0].end < slot.Time-reach {
		if err := b.shut(); err != nil {
			return err
		}
	}
	first, last := w.Windows(slot.Time, slot.Class)
	for end := first; end <= last; end += w.Every {
		if !b.wanted(end) {
			continue
		}
		cells := b.at(end).cells
		into, ok := cells[string(slot.Key)]
		if !ok {
			into = crdt.NewCell(b.schema)
			cells[string(slot.Key)] = into
		}
		if err := b.fold(into, cell); err != nil {
			return err
		}
	}
	return nil
}

// at returns the open window that ends at end.
func (b *hops) at(end int64) *hop {
	i, ok := slices.BinarySearchFunc(b.open, end, func(h *hop, end int64) int { return cmp.Compare(h.end, end) })
	if !ok {
		b.open = slices.Insert(b.open, i, &hop{end, make(map[string]*crdt.Cell)})
	}
	return b.open[i]
}

// shut makes the rows of the oldest open window.
func (b *hops) shut() error {
	h := b.open[0]
	b.open[0] = nil
	b.open = b.open[1:]
	start := b.job.Window.Start(h.end)
	for _, key := range slices.Sorted(maps.Keys(h.cells)) {
		if err := b.make(start, h.end, []byte(key), h.cells[key]); err != nil {
			return err
		}
	}
	return nil
}

func (b *hops) close() error {
	for len(b.open) > 0 {
		if err := b.shut(); err != nil {
			return err
		}
	}
	return nil
}

// sessions puts sessions together from cells: runs of neighbouring cells whose events are closer than the gap. The
// slots come by time, so a run can be continued from the cell before the present one alone.
type sessions struct {
	*maker
	time   int64           // of the present cell's slot
	key    []byte          // of the present cell
	cell   *crdt.Cell      // merged over groups; nil before the first
	older  map[string]*run // runs whose last cell is of the time before; too far for a gap if cells lie between
	newer  map[string]*run // runs whose last cell is the present one
	closed []*run          // not made into rows yet
}

// run is a session: as much of it as was seen.
type run struct {
	key   string
	head  int64 // start of its first cell
	start int64 // its first event
	last  int64 // its last event
	cell  *crdt.Cell
}

func (b *sessions) add(slot crdt.Slot, cell []byte) error {
	if b.cell != nil && (slot.Time != b.time || string(slot.Key) != string(b.key)) {
		b.join()
	}
	if b.cell == nil || slot.Time != b.time {
		if err := b.step(slot.Time); err != nil {
			return err
		}
	}
	if b.cell == nil {
		b.cell, b.key = crdt.NewCell(b.schema), append(b.key[:0], slot.Key...)
	}
	return b.fold(b.cell, cell)
}

// join gives the present cell, which is whole, to the run that it continues, or begins one with it.
func (b *sessions) join() {
	c := b.cell
	b.cell = nil
	if c.Records == 0 {
		return
	}
	gap := b.job.Window.Size
	if r, ok := b.older[string(b.key)]; ok && c.First-r.last < gap {
		delete(b.older, r.key)
		r.last = c.Last
		r.cell.Merge(c)
		b.newer[r.key] = r
		return
	}
	key := string(b.key)
	b.newer[key] = &run{key, b.job.Window.SlotStart(b.time), c.First, c.Last, c}
}

// step goes on to the cells at time. Runs that they can't continue are closed; those that end before these cells begin
// come before whatever is still to be closed.
func (b *sessions) step(time int64) error {
	if time == b.time {
		return nil
	}
	b.retire(b.older)
	b.older, b.newer = b.newer, b.older
	b.time = time
	return b.flush(b.job.Window.SlotStart(time))
}

func (b *sessions) retire(runs map[string]*run) {
	for _, r := range runs {
		b.closed = append(b.closed, r)
	}
	clear(runs)
}

// flush makes rows of the closed runs that end before a time.
func (b *sessions) flush(before int64) error {
	gap := b.job.Window.Size
	slices.SortFunc(b.closed, func(x, y *run) int {
		return cmp.Or(cmp.Compare(x.last, y.last), cmp.Compare(x.start, y.start), cmp.Compare(x.key, y.key))
	})
	n := 0
	for ; n < len(b.closed) && b.closed[n].last+gap < before; n++ {
		r := b.closed[n]
		b.closed[n] = nil
		if !b.wanted(r.last+gap) || b.job.Window.HeadLost(r.head, b.span.Horizon) {
			continue
		}
		if err := b.make(r.start, r.last+gap, []byte(r.key), r.cell); err != nil {
			return err
		}
	}
	b.closed = b.closed[n:]
	return nil
}

func (b *sessions) close() error {
	if b.cell != nil {
		b.join()
	}
	b.retire(b.older)
	b.retire(b.newer)
	return b.flush(crdt.MaxTime)
}
