package ownership

import "github.com/watershed-db/watershed/keyspace/mutant"

// lead is what an owner does at every tick.
func (x *step) lead() {
	if x.flip.to != 0 && x.now >= x.flip.deadline {
		x.note(Note{Kind: NoteFlipBack, Epoch: x.epoch, Member: x.flip.to})
		x.flip = flip{}
	}
	r := &x.Record
	if x.confirmed > r.Confirmed || x.floor() > r.Base {
		x.write(Write{Prev: r.LastMark(), Last: r.Last})
	}
	x.again()
	x.reconfigure()
	for _, id := range x.config().Gone {
		x.send(Message{Kind: Removed, To: id})
	}
	x.askLeases()
}

// askLeases asks all voters for a lease. What carries messages puts the asks of all shards between two regions into one:
// see Leases.
func (x *step) askLeases() {
	for i := range x.peers {
		if id := x.peers[i].id; x.config().votes(id) {
			x.send(Message{Kind: Ask, To: id, Epoch: x.epoch, Stamp: x.now, Term: x.set.Lease, Led: x.led})
		}
	}
}

// asked grants a lease: until it runs out this member promises no other member's epoch. Nothing is written down for it;
// that the node led its region's group when the request had come is proved before the grant leaves, and a later leader
// waits.
func (x *step) asked(m Message) {
	ok := m.Epoch == x.Record.Promised && m.Epoch.Owner() == m.From && m.Term <= x.set.Longest
	if ok {
		x.hear()
		if x.held != m.Epoch || x.heldTill < x.now+m.Term {
			x.held, x.heldTill = m.Epoch, x.now+m.Term
		}
	}
	x.send(Message{Kind: Grant, To: m.From, OK: ok, Epoch: m.Epoch, Stamp: m.Stamp, Term: m.Term, Led: m.Led})
}

// granted counts a lease from before it was asked for, on the clock that this very leader asked by.
func (x *step) granted(m Message) {
	p := x.peer(m.From)
	if x.standing != Owning || m.Epoch != x.epoch || p == nil {
		return
	}
	switch {
	case m.OK && m.Term == x.set.Lease && m.Stamp <= x.now && (m.Led == x.led || mutant.On("grant-to-its-predecessor")):
		stamp := m.Stamp
		if mutant.On("lease-from-the-answer") {
			stamp = x.now
		}
		if !p.leased || p.stamp < stamp {
			p.leased, p.stamp = true, stamp
		}
	case !m.OK && m.Promised > x.epoch && x.config().votes(m.From):
		x.overtaken()
	}
}

// flipTo begins a planned flip: no more writes are taken until it is over.
func (x *step) flipTo(to MemberID) error {
	owner, epoch := x.Owner()
	member, ok := x.config().Find(to)
	p := x.peer(to)
	switch {
	case x.standing != Owning:
		return &NotOwnerError{owner, epoch}
	case x.flip.to != 0:
		return ErrFlipping
	case to == x.Record.Self:
		return ErrIsOwner
	case !ok || member.Role != Data || p == nil:
		return ErrNoMember
	case !x.begun() || !x.settled():
		return ErrBusy
	case !x.lives(to):
		return ErrUnreachable
	case !member.copies() || p.match+x.set.Lag < x.Record.Last:
		return ErrBehind
	}
	x.flip = flip{to, x.now + x.set.Flip}
	x.handOver()
	return nil
}

// handOver gives the epoch up once the other holds all of it. The owner's promise for the other's epoch is durable before
// it is told, so nobody that leads this region's group later owns the old epoch again.
func (x *step) handOver() {
	r := &x.Record
	to := x.flip.to
	if to == 0 {
		return
	}
	if (x.match(to) < r.Last || x.confirmed < r.Last) && !mutant.On("flip-before-the-drain-ends") {
		return
	}
	given, last := x.epoch, r.markAt(x.match(to))
	x.follow()
	x.command(Command{Kind: Promise, Epoch: max(r.Promised, x.seen).Next(to)})
	x.note(Note{Kind: NoteHandedOver, Epoch: given, Mark: last, Member: to})
	x.waitForOwner()
	x.send(Message{Kind: Handover, To: to, Epoch: r.Promised, Released: given, Mark: last})
}

// takeOver claims what the owner hands over. Its promise is the first vote.
func (x *step) takeOver(m Message) {
	r := &x.Record
	if m.Epoch.Owner() != r.Self || m.Epoch <= r.Promised || m.Released.Owner() != m.From || m.Mark != r.LastMark() ||
		!x.mayClaim() || !x.free(r.Self, m.Released) {
		return
	}
	x.follow()
	x.released = m.Released
	x.waitForOwner()
	x.canvass(Claiming, m.Epoch, m.From)
}
