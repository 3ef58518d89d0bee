package ownership

import "github.com/watershed-db/watershed/keyspace/mutant"

// mayClaim says whether the member may own: a copy that nothing confirmed can be missing from if it wins.
func (x *step) mayClaim() bool {
	return x.config().copies(x.Record.Self) && len(x.Record.Control) < MaxControl
}

// free says whether a promise to a candidate would break no lease: the one that this member granted, or, where it is the
// owner, its own. What the owner of an epoch has let go of binds nobody.
func (x *step) free(candidate MemberID, released Epoch) bool {
	if x.standing == Owning && candidate != x.Record.Self {
		if till, ok := x.Leased(); ok && x.now < till {
			return false
		}
	}
	return x.held <= released || x.held.Owner() == candidate || x.now >= x.heldTill
}

// ask finds out whether a claim would succeed. A claim that fails costs an epoch, and its claimant can't follow the owner
// that it failed against.
func (x *step) ask() {
	x.waitForOwner()
	x.released = 0
	x.canvass(Asking, max(x.Record.Promised, x.seen).Next(x.Record.Self), 0)
}

// canvass asks all voters for their votes, or whether they would give them.
func (x *step) canvass(as Standing, e Epoch, voted MemberID) {
	x.standing, x.epoch = as, e
	kind := PreClaim
	if as == Claiming {
		kind = Claim
		if x.command(Command{Kind: Promise, Epoch: e}).Verdict != Applied {
			x.follow()
			return
		}
	}
	for i := range x.peers {
		p := &x.peers[i]
		p.voted = p.id == voted
		if x.config().votes(p.id) && !p.voted {
			x.send(Message{Kind: kind, To: p.id, Epoch: e, Released: x.released, Mark: x.Record.LastMark()})
		}
	}
	x.count()
}

// count goes on if a majority of the voters have given their votes.
func (x *step) count() {
	c, votes := x.config(), 1
	for _, p := range x.peers {
		if p.voted && c.votes(p.id) {
			votes++
		}
	}
	switch {
	case votes < c.Majority():
	case x.standing == Asking:
		x.canvass(Claiming, x.epoch, 0)
	default:
		x.begin()
	}
}

// claimed answers a claim, or the question for one: by Raft's restriction, and only if no lease is broken.
func (x *step) claimed(m Message) {
	r := &x.Record
	last := !m.Mark.Less(r.LastMark()) || mutant.On("votes-for-a-shorter-log")
	ok := r.Last > 0 && m.Epoch > r.Promised && m.Epoch.Owner() == m.From && last &&
		m.Number >= x.confirmedConfig().Number && x.free(m.From, m.Released)
	reply := Message{Kind: PreVote, To: m.From, OK: ok, Epoch: m.Epoch}
	if m.Kind == Claim {
		reply.Kind = Vote
		if ok {
			x.follow()
			x.command(Command{Kind: Promise, Epoch: m.Epoch})
			x.waitForOwner()
		}
	}
	x.send(reply)
}

func (x *step) voted(m Message) {
	p := x.peer(m.From)
	match := x.standing == Asking && m.Kind == PreVote || x.standing == Claiming && m.Kind == Vote
	if p == nil || p.lost || !match || m.Epoch != x.epoch || !m.OK {
		return
	}
	p.voted = true
	x.count()
}

// begin makes the winner of a claim the owner: its first entry says who takes part.
func (x *step) begin() {
	last := x.Record.LastMark()
	first := Mark{x.epoch, last.Position + 1}
	x.standing, x.confirmed, x.first, x.flip = Owning, x.Record.Confirmed, first.Position, flip{}
	x.write(Write{Prev: last, Control: []Control{{first, x.config()}}, Last: first.Position})
	x.forced = nil
	x.listen(x.now)
	x.restart(first.Position)
	x.note(Note{Kind: NoteBegan, Epoch: x.epoch, Released: x.released, Mark: first})
	if x.released > 0 {
		x.note(Note{Kind: NoteFlipDone, Epoch: x.epoch, Released: x.released, Mark: first})
	}
	x.advance()
	x.broadcast()
	x.askLeases()
}

// overtaken gives the epoch up because a voter has promised a higher one, and asks at once for one above that.
func (x *step) overtaken() {
	x.follow()
	x.claimAt = x.now
}
