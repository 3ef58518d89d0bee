package ownership

import (
	"slices"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// write appends to the owner's own log.
func (x *step) write(w Write) {
	w.Epoch, w.Confirmed, w.Floor = x.epoch, x.confirmed, x.floor()
	x.command(Command{Kind: Append, Write: w})
}

// propose appends the entries of clients.
func (x *step) propose(n Position) {
	r := &x.Record
	switch {
	case x.standing != Owning:
		owner, epoch := x.Owner()
		x.out.Refused = &NotOwnerError{owner, epoch}
	case x.flip.to != 0:
		x.out.Refused = ErrFlipping
	case n == 0:
	case n > x.set.Unconfirmed || r.Last-x.confirmed > x.set.Unconfirmed-n:
		x.out.Refused = ErrFull
	default:
		x.out.Wrote = Range{r.Last + 1, r.Last + n}
		x.write(Write{Prev: r.LastMark(), Last: r.Last + n})
		x.advance()
		x.broadcast()
	}
}

// broadcast sends every peer what it hasn't been sent. Of one that hasn't said yet what it holds, the answer is awaited.
func (x *step) broadcast() {
	for i := range x.peers {
		if p := &x.peers[i]; !p.lost && p.next <= x.end(p.id) && (p.match > 0 || p.asked == 0) {
			x.sendEntries(p)
		}
	}
}

// again sends every peer what was lost on its way, and tells it what is confirmed by now.
func (x *step) again() {
	for i := range x.peers {
		p := &x.peers[i]
		end := x.end(p.id)
		confirmed := min(x.confirmed, end)
		switch {
		case p.lost:
		case (p.match < end || p.told < confirmed) && x.now-p.moved >= x.set.Resend:
			if p.match > 0 {
				p.next = p.match + 1
			}
			x.sendEntries(p)
		case p.match == end && p.sent < confirmed:
			x.sendEntries(p)
		}
	}
}

// end returns the last entry that a member holds if it holds all it should.
func (x *step) end(id MemberID) Position {
	if m, _ := x.config().Find(id); m.Role == Witness {
		return x.Record.Control[len(x.Record.Control)-1].Mark.Position
	}
	return x.Record.Last
}

// sendEntries sends a peer what comes next for it, or the state where the log doesn't reach back so far.
func (x *step) sendEntries(p *peer) {
	r := &x.Record
	member, _ := x.config().Find(p.id)
	witness := member.Role == Witness
	prev := r.markAt(p.next - 1)
	if c, ok := r.controlAt(p.next - 1); witness && ok {
		prev = c.Mark
	}
	p.asked, p.sent = x.now, x.confirmed
	if p.match == 0 || prev.Position <= p.match {
		p.moved = x.now
	}
	if prev.Position == 0 {
		at := r.markAt(x.confirmed)
		c, _ := r.controlAt(x.confirmed)
		if witness {
			at = c.Mark
		}
		x.send(Message{Kind: StateAt, To: p.id, Epoch: x.epoch, Mark: at, Write: Write{Control: []Control{c}}})
		p.next = at.Position + 1
		return
	}
	w := Write{Epoch: x.epoch, Prev: prev, Last: prev.Position, Confirmed: x.confirmed, Floor: x.floor()}
	last := x.end(p.id)
	if !witness {
		last = min(last, prev.Position+x.set.Batch)
		w.Last = last
	}
	for _, c := range r.Control {
		if c.Mark.Position > prev.Position && c.Mark.Position <= last {
			w.Control = append(w.Control, c)
			w.Last = max(w.Last, c.Mark.Position)
		}
	}
	if p.match > 0 { // else it is asked once more about the same entry
		p.next = w.Last + 1
	}
	x.send(Message{Kind: Entries, To: p.id, Epoch: x.epoch, Write: w, Stamp: x.now, Led: x.led})
}

// floor is the position up to which every member holds the log, so that nobody needs it; but no more is kept than Span.
func (x *step) floor() Position {
	f, r := x.confirmed, &x.Record
	for _, m := range x.config().Members {
		if m.Role == Data {
			f = min(f, x.match(m.ID))
		}
	}
	if c := x.config(); len(c.Gone) > 0 {
		f = min(f, c.Fork)
	}
	if r.Last > x.set.Span {
		f = max(f, min(x.confirmed, r.Last-x.set.Span))
	}
	return f
}

// entries takes what an owner sends.
func (x *step) entries(m Message) {
	if m.Epoch.Owner() != m.From || m.Write.Epoch != m.Epoch {
		return
	}
	r := &x.Record
	number := r.Config().Number
	ack := Message{Kind: Ack, To: m.From, Epoch: m.Epoch, Stamp: m.Stamp, Led: m.Led}
	switch x.command(Command{Kind: Append, Write: m.Write}).Verdict {
	case Refused:
		x.send(ack)
		return
	case Broken:
		return
	case Gap:
		if m.Epoch < r.Promised {
			x.send(ack)
			return
		}
		if m.Epoch > r.Promised {
			x.command(Command{Kind: Promise, Epoch: m.Epoch})
		}
		ack.Mark = r.agree(m.Write.Prev)
	case Applied:
		ack.OK, ack.Mark = true, r.markAt(max(m.Write.Last, r.Confirmed)) // what is confirmed, every owner holds
	}
	x.follows(number)
	ack.Write.Confirmed = r.Confirmed
	x.send(ack)
}

// follows notes that the epoch promised has an owner, which may have sent another configuration.
func (x *step) follows(number uint64) {
	if x.standing != Out {
		x.hear()
	}
	if c := x.Record.Config(); c.Number != number {
		x.listen(x.now)
		x.note(Note{Kind: NoteConfig})
	}
}

// installed takes a state that an owner has sent.
func (x *step) installed(m Message) {
	r := &x.Record
	if m.Epoch.Owner() != m.From || len(m.Write.Control) != 1 {
		return
	}
	number := r.Config().Number
	ack := Message{Kind: Ack, To: m.From, Epoch: m.Epoch}
	c := Command{Kind: Install, Epoch: m.Epoch, Control: m.Write.Control[0], Mark: m.Mark}
	if x.command(c).Verdict == Applied || m.Epoch >= r.Promised && m.Mark.Position <= r.Confirmed {
		ack.OK, ack.Mark = true, m.Mark
		ack.Write.Confirmed = r.Confirmed
		x.follows(number)
	}
	x.send(ack)
}

// agree returns the last entry at or below a position and of an epoch at or below one: where two logs may agree.
func (r *Record) agree(limit Mark) Mark {
	end := r.Last
	for i := len(r.Control) - 1; i >= 0; i-- {
		c := r.Control[i]
		first := max(c.Mark.Position, r.Base)
		if p := min(limit.Position, end); c.Mark.Epoch <= limit.Epoch && p >= first {
			return Mark{c.Mark.Epoch, p}
		}
		if c.Mark.Position == 0 {
			break
		}
		end = c.Mark.Position - 1
	}
	return Mark{}
}

// acked takes what a peer says it holds.
func (x *step) acked(m Message) {
	p := x.peer(m.From)
	if x.standing != Owning || m.Epoch != x.epoch || p == nil || p.lost {
		return
	}
	switch {
	case m.OK:
		if m.Mark.Position > p.match {
			p.match, p.moved, p.known = m.Mark.Position, x.now, x.now
		}
		p.told = max(p.told, m.Write.Confirmed)
		p.next = max(p.next, p.match+1)
		x.advance()
		x.broadcast()
		x.handOver()
	case m.Promised > x.epoch:
		if x.config().votes(m.From) {
			x.overtaken()
		}
	case m.Stamp == p.asked && m.Led == x.led: // else it is old
		p.next = x.Record.agree(m.Mark).Position + 1
		if p.match > 0 { // something was lost on the way
			p.next = p.match + 1
			p.lost = m.Mark.Position < p.match && m.Stamp > p.known
		}
		if p.lost { // asked after it had acknowledged more: it has forgotten what it promised, too
			x.note(Note{Kind: NoteLost, Epoch: x.epoch, Mark: m.Mark, Member: p.id})
			return
		}
		x.sendEntries(p)
	}
}

// advance moves the confirmed position on. An entry counts when the last control entry at or before it is of the owner's
// epoch and agreed on, and as many copies of that configuration hold it as it needs.
func (x *step) advance() {
	list := x.Record.Control
	end := x.Record.Last
	for i := len(list) - 1; i >= 0; i-- {
		c := list[i]
		if c.Mark.Epoch != x.epoch && !mutant.On("confirms-older-epochs") {
			return
		}
		if p := min(end, x.copied(c.Config)); p >= c.Mark.Position && x.agreed(i) {
			x.confirmed = max(x.confirmed, p)
			return
		}
		end = c.Mark.Position - 1
	}
}

// agreed says whether a majority of the voters holds a control entry, of those before it and of those it makes.
func (x *step) agreed(i int) bool {
	c := x.Record.Control[i]
	if mutant.On("alone-without-a-word") {
		return true
	}
	if i > 0 && !c.Config.Forced && !x.heldBy(x.Record.Control[i-1].Config, c.Mark.Position) {
		return false
	}
	return x.heldBy(c.Config, c.Mark.Position)
}

// heldBy says whether a majority of a configuration's voters hold the log up to a control entry.
func (x *step) heldBy(c Config, p Position) bool {
	n := 0
	for _, m := range c.Members {
		if m.votes() && x.match(m.ID) >= p {
			n++
		}
	}
	return n >= c.Majority()
}

// copied returns up to where as many copies of a configuration hold the log as it needs.
func (x *step) copied(c Config) Position {
	var room [MaxMembers]Position
	list := room[:0]
	for _, m := range c.Members {
		if m.copies() {
			list = append(list, x.match(m.ID))
		} else if m.Role == Witness && mutant.On("witness-counted-as-a-copy") && x.match(m.ID) == x.end(m.ID) {
			list = append(list, x.Record.Last)
		}
	}
	if len(list) < c.Need() {
		return 0
	}
	slices.Sort(list)
	return list[len(list)-c.Need()]
}
