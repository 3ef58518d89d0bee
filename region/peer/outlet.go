package peer

import (
	"fmt"
	"slices"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	maxScan    = 256     // markers looked at, at once
	maxHeld    = 1 << 12 // commands held back for one puller
	maxBatch   = 1 << 20 // bytes of entries in a message, give or take one entry
	entryExtra = 32      // what an entry costs beyond its command, in bytes of credit
	heldExtra  = 256     // what a command that is held back takes here, in bytes
	pointExtra = 128     // and each of its points
)

// outlet is the order in which one puller is told of the commands of a shard's log: those of the own region's sources at
// once, those that came from other regions when they have been held for a while. It has no goroutine and no clock.
type outlet struct {
	replica Replica
	self    crdt.RegionID
	forward time.Duration
	book    *book        // what the puller told
	queue   *limit.Limit // bytes that wait for pullers, of the whole node

	scanned uint64 // all markers up to here were looked at
	beyond  bool   // commands were wanted that the log no longer holds
	held    []heldOut
	ready   []readyOut // in order of sending
	taken   int64      // of queue
}

// heldOut is a command that waits for the puller to get it from elsewhere.
type heldOut struct {
	shard.Out
	since time.Time
	head  head
}

// readyOut is a command to be sent; raw is nil where it has yet to be read.
type readyOut struct {
	shard.Out
	raw []byte
}

// head is what an Advance or AddSources says of itself, without its cells.
type head struct {
	generation crdt.GenerationID
	group      crdt.RegionID
	to         []shard.SourcePoint
	sources    bool       // an AddSources
	mark       *shard.Out // of an entry of a table's history, where nothing above says anything
}

func headOf(c shard.Command) (head, bool) {
	switch c := c.(type) {
	case *shard.Advance:
		h := head{generation: c.Generation, group: c.Group}
		for _, x := range c.Ranges {
			h.to = append(h.to, shard.SourcePoint{Source: x.Source, Point: x.To})
		}
		return h, true
	case *shard.AddSources:
		return head{generation: c.Generation, group: c.Group, to: c.Sources, sources: true}, true
	}
	return head{}, false
}

// has reports whether the puller has told that a command would change nothing there. An Advance that leads to the same
// offset with another history is not had: the puller must see it.
func (b *book) has(h head) bool {
	if h.mark != nil {
		return b.marks[h.mark.Actor].Position >= h.mark.Mark.Position
	}
	s := b.told[h.generation]
	if s == nil || h.sources && !slices.Contains(s.Declared, h.group) {
		return false
	}
	for _, sp := range h.to {
		p, ok := s.Frontier[sp.Source]
		switch {
		case !ok || p.Offset < sp.Point.Offset:
			return false
		case p.Offset == sp.Point.Offset && p != sp.Point && !(h.sources && p.Chain == sp.Point.Chain):
			return false
		}
	}
	return true
}

// size is what a held command takes here, roughly.
func (h *heldOut) size() int64 { return heldExtra + pointExtra*int64(len(h.head.to)) }

// size is what a command to be sent takes here.
func (r *readyOut) size() int64 { return entryExtra + int64(len(r.raw)) }

// take counts bytes that wait here. It fails with *limit.Exhausted.
func (o *outlet) take(n int64) error {
	if mutant.On("peer-queue-unbounded") {
		return nil
	}
	if err := o.queue.Take(n); err != nil {
		return err
	}
	o.taken += n
	return nil
}

// give gives bytes back.
func (o *outlet) give(n int64) {
	if mutant.On("peer-queue-unbounded") {
		return
	}
	o.queue.Give(n)
	o.taken -= n
}

// close gives back all that waits here.
func (o *outlet) close() { o.give(o.taken) }

// makeRoom is called where there is no room for the command at an index, which is looked at again: first what is ready
// goes out, then what is held back. An outlet that holds nothing fails with what there was no room for.
func (o *outlet) makeRoom(index uint64, full error) (more bool, err error) {
	o.scanned = index - 1
	switch {
	case len(o.ready) > 0:
	case len(o.held) > 0:
		o.free()
	default:
		return false, full
	}
	return true, nil
}

// scan looks at the next markers. More is true where it left some. It fails with *limit.Exhausted where nothing waits
// here and there is no room for anything.
func (o *outlet) scan(now time.Time) (more bool, err error) {
	list, to, ok := o.replica.LatestOuts(o.scanned, maxScan)
	if !ok {
		if list, to, err = o.stored(); err != nil {
			return false, err
		}
	}
	size := 0
	for _, out := range list {
		if size >= maxBatch {
			o.scanned = out.Index - 1
			return true, nil
		}
		if out.Kind != shard.OutAdvance && out.Kind != shard.OutSources && out.Kind != shard.OutTable {
			continue // a horizon and an installed group show in the standings
		}
		raw, h, err := o.read(out)
		switch {
		case err != nil:
			return false, err
		case raw == nil || o.book.has(h):
		case h.group == o.self:
			r := readyOut{out, raw}
			if full := o.take(r.size()); full != nil {
				return o.makeRoom(out.Index, full)
			}
			o.ready = append(o.ready, r)
			size += len(raw)
		case !mutant.On("source-not-forwarded"):
			x := heldOut{out, now, h}
			if full := o.take(x.size()); full != nil {
				return o.makeRoom(out.Index, full)
			}
			o.hold(x)
		}
	}
	o.scanned = to
	return len(list) == maxScan, nil
}

// stored is LatestOuts of what only the store still knows.
func (o *outlet) stored() ([]shard.Out, uint64, error) {
	snap, err := o.replica.Snapshot()
	if err != nil {
		return nil, 0, err
	}
	defer snap.Close()
	if first, _ := o.replica.LogBounds(); o.scanned+1 < first {
		o.scanned, o.beyond = first-1, true
	}
	list, complete, err := snap.OutAfter(o.scanned, maxScan)
	switch {
	case err != nil:
		return nil, 0, err
	case !complete:
		o.beyond = true
		return nil, snap.Index - min(snap.Index, shard.KeptOut), nil
	case len(list) == maxScan:
		return list, list[maxScan-1].Index, nil
	}
	return list, snap.Index, nil
}

// hold keeps a command back. Where too many are, the first of them goes.
func (o *outlet) hold(h heldOut) {
	if len(o.held) == maxHeld {
		o.free()
	}
	o.held = append(o.held, h)
}

// free makes the first command that is held ready, if it is still wanted.
func (o *outlet) free() {
	h := o.held[0]
	left := h.size()
	if !o.book.has(h.head) {
		r := readyOut{Out: h.Out}
		left -= r.size()
		o.ready = append(o.ready, r)
	}
	o.give(left)
	o.held = o.held[1:]
}

// unload lets go of the commands that are ready: they are read again when they are sent. A puller that takes its time
// must not keep others waiting.
func (o *outlet) unload() {
	for i := range o.ready {
		o.give(int64(len(o.ready[i].raw)))
		o.ready[i].raw = nil
	}
}

// read returns what a puller is sent of a command of the log, with its head, nil where the log no longer holds it.
func (o *outlet) read(out shard.Out) ([]byte, head, error) {
	raw, ok, err := o.replica.ReadOut(out.Index)
	switch {
	case err != nil:
		return nil, head{}, err
	case !ok:
		o.beyond = true
		return nil, head{}, nil
	}
	c, err := shard.Decode(raw)
	if err != nil {
		return nil, head{}, fmt.Errorf("log entry %d: %w", out.Index, err)
	}
	if f := shard.Forward(c, out); f != nil && out.Kind == shard.OutTable {
		h := head{mark: &out}
		if t := o.replica.State().Tables(); t.Begun && t.Actor == out.Actor {
			h.group = o.self
		}
		return shard.Encode(f), h, nil
	}
	h, ok := headOf(c)
	if !ok {
		return nil, head{}, fmt.Errorf("log entry %d: a %T has the marker of another command", out.Index, c)
	}
	return raw, h, nil
}

// release makes ready what has been held long enough and is still wanted.
func (o *outlet) release(now time.Time) {
	for len(o.held) > 0 && now.Sub(o.held[0].since) >= o.forward {
		o.free()
	}
}

// due returns when the next held command is to be released, the zero time for none.
func (o *outlet) due() time.Time {
	if len(o.held) == 0 {
		return time.Time{}
	}
	return o.held[0].since.Add(o.forward)
}

// told returns the index up to which nothing is left to be told.
func (o *outlet) told() uint64 {
	to := o.scanned
	if len(o.held) > 0 {
		to = min(to, o.held[0].Index-1)
	}
	for _, r := range o.ready {
		to = min(to, r.Index-1)
	}
	return to
}

// batch takes the next entries to send, within credit: at least one where there is any credit and anything ready. It
// returns their cost.
func (o *outlet) batch(credit int64) (list []*peerv1.Entry, cost int64, err error) {
	for len(o.ready) > 0 && cost < min(credit, maxBatch) {
		r := o.ready[0]
		o.ready = o.ready[1:]
		o.give(r.size())
		raw := r.raw
		if raw == nil {
			if raw, _, err = o.read(r.Out); err != nil {
				return nil, 0, err
			}
		}
		if raw == nil {
			continue
		}
		if mutant.On("forward-cut") {
			raw = o.cut(raw)
		}
		list = append(list, &peerv1.Entry{Index: r.Index, Command: raw})
		cost += int64(len(raw)) + entryExtra
	}
	return list, cost, nil
}

// cut is a seeded bug: it takes out of an Advance what the own horizon has passed (rules A6 forbids it).
func (o *outlet) cut(raw []byte) []byte {
	c, err := shard.Decode(raw)
	x, ok := c.(*shard.Advance)
	if err != nil || !ok {
		return raw
	}
	if g := o.replica.State().Generation(x.Generation); g != nil {
		x.Deltas = slices.DeleteFunc(x.Deltas, func(d crdt.Delta) bool { return d.Slot.Time <= g.Horizon })
	}
	return shard.Encode(x)
}
