package shard

import (
	"bytes"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// MaxMarks bounds the dirty marks of a generation. One more, and the cursors go back below the oldest instead: what lies
// above them is sent again, which sinks bear.
const MaxMarks = 1 << 16

// Outbox is what a shard knows that it must still tell the sinks: cursors and marks, never rows (rules A15). It stands
// still where the region does not emit the job.
type Outbox struct {
	// Full is the cursor: windows that end at or below it were sent complete. Those that end above it, up to Partial,
	// were sent incomplete. Partial is never below Full.
	Full, Partial int64
	// Last is the number of the last plan; Open says that it was not done yet.
	Last uint64
	Open *OpenPlan

	marks *marks // shared by all versions of the generation: only the applying goroutine may look inside
	// Pending is the number of dirty marks, Oldest the least window end among them.
	Pending int
	Oldest  int64
}

// OpenPlan is a batch under way.
type OpenPlan struct {
	Partial bool
	To      int64
	Index   uint64 // of the Plan: its rows are made from a view at or above it
}

// Sent returns the window end up to which nothing is left to send: what the horizon waits for (rules A7).
func (o Outbox) Sent() int64 {
	if o.Pending > 0 {
		return min(o.Full, less(o.Oldest, 1))
	}
	return o.Full
}

// marks are the dirty marks of a generation: window end and key to the applied index of the last change.
type marks struct {
	index map[markKey]uint64
	ends  map[int64]int // marks of each window end
}

type markKey struct {
	end int64
	key string
}

func newMarks() *marks { return &marks{map[markKey]uint64{}, map[int64]int{}} }

func (m *marks) put(k markKey, index uint64) {
	if _, ok := m.index[k]; !ok {
		m.ends[k.end]++
	}
	m.index[k] = index
}

func (m *marks) delete(k markKey) {
	delete(m.index, k)
	if m.ends[k.end]--; m.ends[k.end] == 0 {
		delete(m.ends, k.end)
	}
}

// note brings the outbox's figures up to its marks.
func (o *Outbox) note() {
	o.Pending, o.Oldest = len(o.marks.index), 0
	if o.Pending > 0 {
		o.Oldest = slices.Min(slices.Collect(maps.Keys(o.marks.ends)))
	}
}

// emits reports whether this region sends the rows of a generation.
func (a *applier) emits(g *Generation) bool { return a.st.Emits(g) }

// Emits reports whether this region sends the rows of a generation to sinks.
func (s *State) Emits(g *Generation) bool {
	return (s.Owns() || g.Job.Emit.EveryRegion) && len(g.Job.Emit.Sinks) > 0 && g.Job.Window.Kind != keyspace.Session
}

// touch marks the windows that a changed slot serves and that were planned or sent already.
func (a *applier) touch(g *Generation, slot crdt.Slot) {
	if !a.emits(g) {
		return
	}
	planned := max(g.Outbox.Full, g.Outbox.Partial)
	if g.Outbox.Open != nil {
		planned = max(planned, g.Outbox.Open.To)
	}
	end, last := g.Job.Window.Windows(slot.Time, slot.Class)
	for step := g.Job.Window.Step(); end <= planned; end += step {
		if end > g.Horizon {
			a.mark(g, markKey{end, string(slot.Key)})
		}
		if step == 0 || end > last-step {
			return
		}
	}
}

func (a *applier) mark(g *Generation, k markKey) {
	o := &g.Outbox
	if _, ok := o.marks.index[k]; !ok && len(o.marks.index) >= MaxMarks {
		a.rewind(g, less(o.Oldest, 1))
		return
	}
	o.marks.put(k, a.index)
	a.w.set(dirtyKey(g.ID, k.end, k.key), appendUvarint(nil, a.index))
	if o.Pending == 0 || k.end < o.Oldest {
		o.Oldest = k.end
	}
	o.Pending = len(o.marks.index)
}

// rewind takes the cursors back to t, forgets all marks, and cancels the open plan: whatever ends above t is sent again.
func (a *applier) rewind(g *Generation, t int64) {
	o := &g.Outbox
	if o.Pending > 0 {
		a.w.clear(dirtyRange(g.ID, crdt.MinTime, crdt.MaxTime))
	}
	// Sets of this command stand after its clears: those of marks would survive.
	prefix := name(nameDirty, g.ID[:])
	a.w.Sets = slices.DeleteFunc(a.w.Sets, func(s Set) bool { return bytes.HasPrefix(s.Key, prefix) })
	o.Full, o.Partial, o.Open = min(o.Full, t), min(o.Partial, t), nil
	clear(o.marks.index)
	clear(o.marks.ends)
	o.note()
}

// forget removes the marks of windows that end at or below h.
func (a *applier) forget(g *Generation, h int64) {
	o := &g.Outbox
	if o.Pending == 0 || o.Oldest > h {
		return
	}
	a.w.clear(dirtyRange(g.ID, crdt.MinTime, h))
	for k := range o.marks.index {
		if k.end <= h {
			o.marks.delete(k)
		}
	}
	o.note()
}

func (a *applier) plan(c *Plan) {
	g := a.st.generations[c.Generation]
	if g == nil {
		a.unknown()
		return
	}
	o := g.Outbox
	cursor, limit := o.Full, g.Watermark
	if c.Partial {
		cursor, limit = max(o.Full, o.Partial), g.Partial
	}
	switch {
	case !a.emits(g):
		a.end(Refused, "this region does not emit the job")
	case o.Open != nil && c.N == o.Last && c.Partial == o.Open.Partial && c.To == o.Open.To:
		a.end(Duplicate, "")
	case o.Open != nil:
		a.end(Refused, "plan %d is open", o.Last)
	case c.N != o.Last+1:
		a.end(Refused, "the next plan is %d", o.Last+1)
	case c.To < cursor || c.To > limit:
		a.end(Refused, "it must end in [%d, %d]", cursor, limit)
	case c.To == cursor && o.Pending == 0:
		a.end(Refused, "nothing is left to send")
	default:
		g = a.edit(g.ID)
		g.Outbox.Last, g.Outbox.Open = c.N, &OpenPlan{c.Partial, c.To, a.index}
		a.end(Applied, "")
	}
}

func (a *applier) done(c *Done) {
	g := a.st.generations[c.Generation]
	if g == nil {
		a.unknown()
		return
	}
	open := g.Outbox.Open
	switch {
	case open == nil && c.N <= g.Outbox.Last:
		a.end(Duplicate, "plan %d is closed", c.N)
		return
	case open == nil || c.N != g.Outbox.Last:
		a.end(Refused, "plan %d is not open", c.N)
		return
	case c.Index < open.Index || c.Index >= a.index:
		a.end(Refused, "its rows must be of an index in [%d, %d)", open.Index, a.index)
		return
	}
	g = a.edit(g.ID)
	o := &g.Outbox
	if !open.Partial {
		o.Full = max(o.Full, open.To)
	}
	o.Partial, o.Open = max(o.Partial, open.To), nil
	for _, m := range c.Marks {
		k := markKey{m.End, string(m.Key)}
		if index, ok := o.marks.index[k]; ok && (index <= c.Index || mutant.On("done-clears-newer")) {
			o.marks.delete(k)
			a.w.set(dirtyKey(g.ID, k.end, k.key), nil)
		}
	}
	o.note()
	a.end(Applied, "")
}
