package ownership

import (
	"slices"
	"time"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// crash ends the region's leader; another node leads some time later. The old one may go on for a while.
func (w *world) crash(r *simRegion) {
	if r.leader == nil {
		return
	}
	old := r.leader
	r.leader, r.zombie = nil, nil
	if w.pick(3) {
		r.zombie = old
		if w.pick(2) {
			old.paused = max(old.paused, w.now+w.within(100*time.Millisecond))
		}
	}
	w.trace("region %d crashes, zombie %v", r.index, r.zombie != nil)
	if w.pick(6) {
		w.later(w.within(400*time.Millisecond), r)
		return
	}
	w.later(w.within(30*time.Millisecond), r)
}

// later starts the region's next leader after a while.
func (w *world) later(d time.Duration, r *simRegion) {
	w.push(simEvent{at: w.now + d, kind: 's', to: r.index})
}

func (w *world) region() *simRegion { return w.regions[w.rng.IntN(len(w.regions))] }

// fault does something to the system.
func (w *world) fault() {
	r := w.region()
	switch w.rng.IntN(14) {
	case 0, 1: // one pair, one way or both
		o := w.region()
		w.cut[r.index][o.index] = true
		w.cut[o.index][r.index] = w.cut[o.index][r.index] || w.pick(2)
		w.trace("cut %d %d", r.index, o.index)
	case 2: // one region from all others
		for i := range w.regions {
			w.cut[i][r.index], w.cut[r.index][i] = i != r.index, i != r.index
		}
		w.trace("cut %d", r.index)
	case 3, 4, 5:
		w.cut = [5][5]bool{}
		w.trace("heal")
	case 6:
		w.crash(r)
	case 7:
		if n := r.leader; n != nil {
			n.paused = w.now + w.within(250*time.Millisecond)
			w.trace("pause %d until %v", r.index, n.paused)
		}
	case 8, 9:
		if n := w.owner(); n != nil {
			w.order(n, Flip{w.region().record.Self})
		}
	case 10:
		w.force(r)
	case 11:
		w.leave(r)
	case 12:
		if r.homeless {
			w.comeBack(r)
		} else if n := r.leader; n != nil && w.pick(4) {
			w.order(n, Distrust{})
			w.crash(r)
		}
	case 13:
		w.image(r)
	}
}

// owner returns a node that believes that it owns the shard.
func (w *world) owner() *simNode {
	var list []*simNode
	for _, r := range w.regions {
		if n := r.leader; n != nil && n.state.standing == Owning && n.paused <= w.now {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[w.rng.IntN(len(list))]
}

func (w *world) order(n *simNode, e Event) Effects {
	out := w.step(n, e, nil)
	if out.Refused == nil {
		w.stats["ordered"]++
	}
	return out
}

// force leaves the other of two regions out: the one case in which nothing confirmed can be lost.
func (w *world) force(r *simRegion) {
	n := r.leader
	if n == nil || n.paused > w.now || r.homeless {
		return
	}
	c := r.record.Config()
	voters, copies := c.count()
	if len(w.regions) != 2 || w.forced || voters != 2 || copies != 2 || len(c.Members) != 2 || !c.copies(r.record.Self) {
		return
	}
	if out := w.order(n, Force{[]MemberID{c.Members[0].ID + c.Members[1].ID - r.record.Self}}); out.Refused == nil {
		w.stats["force"]++
		w.forced = true // a second time might be on the other side
	}
}

// leave removes a region.
func (w *world) leave(r *simRegion) {
	n := w.owner()
	if n == nil || r.homeless || !w.pick(3) {
		return
	}
	if c := n.state.config(); len(c.Members) <= 2 || c.copies(r.record.Self) && !w.enough(c, r) {
		return
	}
	w.order(n, Remove{r.record.Self})
}

// enough says whether removing a region leaves two copies, so that what is confirmed stays in two regions.
func (w *world) enough(c Config, r *simRegion) bool {
	_, copies := c.count()
	return copies > 2
}

// comeBack gives a homeless region a new number: asked of an owner, and taken once it is confirmed.
func (w *world) comeBack(r *simRegion) {
	n := w.owner()
	if n == nil || r.adding != nil {
		return
	}
	c := n.state.config()
	if _, member := c.Find(r.record.Self); member {
		if len(c.Members) > 2 {
			w.order(n, Remove{r.record.Self})
		}
		return
	}
	role := Data
	if r.record.witness() {
		role = Witness
	}
	if out := w.order(n, Add{Role: role}); out.Member != 0 && n.alive() {
		r.adding = &simAdd{out.Member, n, Mark{n.state.epoch, out.Wrote.From}}
	}
}

// settle looks whether a number that was asked for is confirmed, or cut off.
func (w *world) settle(r *simRegion) {
	a := r.adding
	switch {
	case a == nil:
	case !a.owner.alive() || a.owner.state.epoch != a.at.Epoch:
		r.adding = nil // perhaps it was given: a number more or less does no harm
	case a.owner.state.Confirmed() >= a.at.Position:
		w.trace("region %d is member %d", r.index, a.member)
		r.adding, r.homeless = nil, false
		r.record = r.record.Rejoin(a.member)
		w.stats["rejoined"]++
		if r.leader == nil && !w.starting(r) {
			w.start(r)
		}
	}
}

func (w *world) starting(r *simRegion) bool {
	return slices.ContainsFunc(w.queue, func(e simEvent) bool { return e.kind == 's' && e.to == r.index })
}

// image keeps what a region's disks hold, or restores it from what they held: then it has lost its place.
func (w *world) image(r *simRegion) {
	if r.homeless || r.record.witness() && !mutant.On("restored-under-its-old-number") {
		return
	}
	if r.old == nil {
		r.old = &simImage{r.record, r.log}
		return
	}
	if w.restored || r.old.record.Self != r.record.Self || w.exposed(r) {
		return
	}
	w.trace("region %d is restored from an old image", r.index)
	w.restored = true
	w.lose(r)
	r.record, r.log = r.old.record, r.old.log
	w.crash(r)
	r.zombie = nil
	if !mutant.On("restored-under-its-old-number") {
		r.homeless = true
	}
	w.stats["restored"]++
}

// exposed says whether the region may be the only copy of something confirmed.
func (w *world) exposed(r *simRegion) bool {
	for _, o := range w.regions {
		c := o.record.Config()
		if m, ok := c.Find(r.record.Self); ok && (m.Behind || c.Forced) {
			return true
		}
		if _, copies := c.count(); copies < 2 {
			return true
		}
	}
	return false
}

// clients write, and are answered.
func (w *world) clients(n *simNode) {
	if n.state.standing != Owning || !n.alive() {
		return
	}
	if w.pick(2) {
		count := Position(w.rng.IntN(3) + 1)
		epoch := n.state.epoch
		out := w.step(n, Propose{count}, nil)
		for p := out.Wrote.From; out.Refused == nil && p > 0 && p <= out.Wrote.To && n.alive(); p++ {
			n.writes = append(n.writes, simWrite{n.region.log[p-1].id, Mark{epoch, p}, w.pick(2)})
		}
	}
	if w.pick(3) && !w.calm && n.alive() { // stopped between the write and the answer
		n.paused = w.now + w.within(120*time.Millisecond)
		return
	}
	w.answer(n)
}

// answer acknowledges what may be acknowledged now.
func (w *world) answer(n *simNode) {
	s := &n.state
	if s.standing != Owning || n.region.leader != n {
		n.writes = nil
		return
	}
	serves := s.Serves(n.clock(w.now)) || mutant.On("lease-not-rechecked")
	n.writes = slices.DeleteFunc(n.writes, func(x simWrite) bool {
		switch {
		case x.mark.Epoch != s.epoch:
			return true
		case x.quorum && s.Confirmed() >= x.mark.Position, !x.quorum && serves:
			w.acknowledge(n, x)
			return true
		}
		return false
	})
}
