package ownership

import (
	"fmt"
	"time"
)

// checks is what a run must keep to, and what is needed to see it:
//
//   - at most one region would answer a read or acknowledge a `region` write, at any time (I8)
//   - an epoch begins once, in one region; logs that share an entry share all before it
//   - what one owner confirmed, every later one begins with, and nobody cuts off
//   - an owner that serves knows all that was acknowledged with `quorum`
//   - who owns by a planned flip has all that its predecessor acknowledged, `region` writes too
//   - what was acknowledged and is in nobody's log is in a ledger (I10)
//   - what a region's group applies is what its leader expected
//   - once faults end, an owner confirms writes again
type checks struct {
	committed []simEntry // confirmed by any owner
	confirms  []Mark     // which epoch's owner confirmed how far
	quorum    Position   // the highest position acknowledged with `quorum`
	acks      []simAck
	began     map[Epoch]int
	tops      map[Epoch]simAck // the highest `region` acknowledgement of each epoch
	restored  bool
	forced    bool
	lost      map[int]bool // acknowledged with `region`, on disks that are gone
	serving   *simRegion
}

type simAck struct {
	id    int
	mark  Mark
	chain uint64
}

func (c *checks) begin(w *world) {
	c.committed, c.began, c.tops, c.lost = w.regions[0].log, map[Epoch]int{}, map[Epoch]simAck{}, map[int]bool{}
}

func (w *world) broken(format string, args ...any) { panic(violation(fmt.Sprintf(format, args...))) }

// check looks at all nodes that believe that they own the shard.
func (w *world) check() {
	var serving *simRegion
	for _, r := range w.regions {
		w.settle(r)
		n := r.leader
		if n == nil || n.state.standing != Owning {
			continue
		}
		w.confirmed(r, &n.state)
		if !n.state.Serves(n.clock(w.now)) {
			continue
		}
		if serving != nil {
			w.broken("regions %d and %d serve at once, epochs %v and %v", serving.index, r.index,
				serving.leader.state.epoch, n.state.epoch)
		}
		serving = r
		if n.state.Confirmed() < w.quorum {
			w.broken("region %d reads up to %d, and %d was acknowledged", r.index, n.state.Confirmed(), w.quorum)
		}
	}
	if serving != nil && serving != w.serving {
		w.stats["served"]++
		w.serving = serving
	}
}

// confirmed notes how far an owner calls its log confirmed.
func (w *world) confirmed(r *simRegion, s *State) {
	p := s.Confirmed()
	if int(p) > len(r.log) {
		w.broken("region %d confirms %d of %d entries", r.index, p, len(r.log))
	}
	at := min(int(p), len(w.committed)) - 1
	if r.log[at] != w.committed[at] {
		w.broken("region %d confirms another entry at %d than was confirmed", r.index, at+1)
	}
	if int(p) > len(w.committed) {
		w.committed = r.log[:p:p]
		w.confirms = append(w.confirms, Mark{s.epoch, p})
	}
}

// contains says whether the region's log holds what owners of lower epochs than its own have confirmed.
func (w *world) contains(r *simRegion, e Epoch) bool {
	last := 0
	for _, m := range w.confirms {
		if m.Epoch < e {
			last = int(m.Position) - 1
		}
	}
	return last < len(r.log) && r.log[last] == w.committed[last]
}

// written looks at a log that was just written to.
func (w *world) written(r *simRegion, c Command, src []simEntry) {
	if c.Kind != Append {
		return
	}
	last := int(c.Write.Last)
	if src != nil && c.Write.Epoch.Owner() != r.record.Self && r.log[last-1] != src[last-1] {
		w.broken("region %d holds another log up to %v than its owner", r.index, c.Write.Last)
	}
	if m := r.record.LastMark(); int(m.Position) != len(r.log) || r.log[m.Position-1].epoch != m.Epoch {
		w.broken("region %d ends at %v, its log has %d entries", r.index, m, len(r.log))
	}
}

// cutOff looks at an entry that is about to be cut off.
func (w *world) cutOff(r *simRegion, c Command, p int) {
	if c.Kind == Append && p <= len(w.committed) && w.committed[p-1] == r.log[p-1] {
		w.broken("region %d cuts off %d, which is confirmed", r.index, p)
	}
}

// recordsAgree compares what a leader expects its region to hold with what it holds.
func (w *world) recordsAgree(r *simRegion, s *State) {
	if r.record.changed(&s.Record) {
		w.broken("region %d holds %+v, its leader expects %+v", r.index, r.record, s.Record)
	}
}

func (w *world) notes(n *simNode, list []Note) {
	r := n.region
	for _, note := range list {
		w.stats[note.Kind.String()]++
		switch note.Kind {
		case NoteBegan:
			if other, ok := w.began[note.Epoch]; ok {
				w.broken("epoch %v begins in region %d, and began in %d", note.Epoch, r.index, other)
			}
			w.began[note.Epoch] = r.index
			if !w.contains(r, note.Epoch) && !w.forced { // one who was left out may begin, and confirms nothing
				w.broken("region %d begins epoch %v without what was confirmed up to %d", r.index, note.Epoch, len(w.committed))
			}
		case NoteFlipDone:
			top, ok := w.tops[note.Released]
			if ok && (int(top.mark.Position) > len(r.log) || r.log[top.mark.Position-1].chain != top.chain) {
				w.broken("region %d takes over from epoch %v without %v, which was acknowledged", r.index, note.Released, top.mark)
			}
		case NoteRemoved:
			r.homeless, r.leader, r.zombie = true, nil, nil
		case NoteBroken:
			w.broken("region %d was asked to cut off what is confirmed", r.index)
		}
	}
}

// acknowledge answers a client's write.
func (w *world) acknowledge(n *simNode, x simWrite) {
	a := simAck{x.id, x.mark, n.region.log[x.mark.Position-1].chain}
	w.acks = append(w.acks, a)
	if x.quorum {
		w.stats["quorum"]++
		w.quorum = max(w.quorum, x.mark.Position)
		w.confirmed(n.region, &n.state)
		return
	}
	w.stats["region"]++
	if !n.state.Serves(n.clock(w.now)) {
		w.broken("region %d acknowledges a write without a lease", n.region.index)
	}
	if top, ok := w.tops[x.mark.Epoch]; !ok || top.mark.Less(x.mark) {
		w.tops[x.mark.Epoch] = a
	}
}

// lose notes what is lost with a region's disks: `region` writes that it alone held.
func (w *world) lose(r *simRegion) {
	for _, a := range w.acks {
		if !w.somewhere(a, r) {
			w.lost[a.id] = true
			delete(w.tops, a.mark.Epoch)
		}
	}
}

// somewhere says whether an acknowledged write is in a log or a ledger, but for those of one region.
func (w *world) somewhere(a simAck, but *simRegion) bool {
	for _, r := range w.regions {
		if r == but {
			continue
		}
		if p := int(a.mark.Position); p <= len(r.log) && r.log[p-1].id == a.id {
			return true
		}
		for _, e := range r.ledger {
			if e.id == a.id {
				return true
			}
		}
	}
	return false
}

// finish ends all faults, and looks for what was acknowledged. live: an owner must confirm writes again.
func (w *world) finish(live bool) {
	for _, a := range w.acks {
		if !w.lost[a.id] && !w.somewhere(a, nil) {
			w.broken("write %d, acknowledged at %v, is in no log and no ledger", a.id, a.mark)
		}
	}
	if !live {
		return
	}
	w.calm, w.cut = true, [5][5]bool{}
	w.trace("all faults end")
	voices := 0
	for _, r := range w.regions {
		if r.leader != nil {
			r.leader.paused = 0
		} else if !r.homeless {
			w.start(r)
		}
		r.zombie = nil
		if !r.homeless {
			voices++
		}
	}
	if voices < len(w.regions) {
		return // a majority may be gone
	}
	before := len(w.committed)
	for end := w.now + 4*time.Second; w.now < end && len(w.committed) < before+40; {
		w.event()
	}
	if len(w.committed) < before+40 {
		w.broken("%d entries are confirmed in 4 s without a fault", len(w.committed)-before)
	}
	w.stats["recovered"]++
}

func (w *world) traceStep(n *simNode, e Event, out Effects) {
	who := fmt.Sprintf("region %d (%d, %v)", n.region.index, n.region.record.Self, n.state.standing)
	if n.region.leader != n {
		who += " zombie"
	}
	if r, ok := e.(Receive); ok {
		w.trace("%s takes %+v", who, r.Message)
	} else if e != Event(Tick{}) || len(out.Commands)+len(out.Notes) > 0 {
		w.trace("%s %T%+v", who, e, e)
	}
	if out.Refused != nil {
		w.trace("    refused: %v", out.Refused)
	}
	for _, c := range out.Commands {
		w.trace("    command %+v", c)
	}
	for _, n := range out.Notes {
		w.trace("    note %v %+v", n.Kind, n)
	}
}
