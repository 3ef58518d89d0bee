package ownership

import (
	"slices"
	"time"
)

// step is one Step under way.
type step struct {
	State
	now time.Duration
	out Effects
}

// Step takes an event at a time of the node's clock and returns the state behind it and what is to be done. The time may
// not go back, and counts on while the node sleeps. The state it was called on stays as it was.
func (s State) Step(e Event, now time.Duration) (State, Effects) {
	s.peers = slices.Clone(s.peers)
	x := &step{State: s, now: now}
	if x.standing == Out {
		x.outside(e)
		return x.State, x.out
	}
	switch e := e.(type) {
	case Tick:
		x.tick()
	case Receive:
		if e.Message.To == x.Record.Self {
			x.receive(e.Message)
		}
	case Propose:
		x.propose(e.Entries)
	case Flip:
		x.out.Refused = x.flipTo(e.To)
	case Force:
		x.out.Refused = x.force(e.Remove)
	case Add:
		x.out.Refused = x.add(e)
	case Remove:
		x.out.Refused = x.remove(e.Member)
	case Distrust:
		x.follow()
		x.standing = Out
		x.note(Note{Kind: NoteDistrusted})
	}
	return x.State, x.out
}

// outside is all that a member does that takes no part: what it holds stays durable and may be added to, since no clock
// has a part in that.
func (x *step) outside(e Event) {
	r, ok := e.(Receive)
	switch {
	case ok && r.Message.To == x.Record.Self && r.Message.Kind == Entries:
		x.entries(r.Message)
	case ok, e == Event(Tick{}):
	default:
		x.out.Refused = ErrOut
	}
}

func (x *step) note(n Note) { x.out.Notes = append(x.out.Notes, n) }

func (x *step) send(m Message) {
	m.From, m.Promised, m.Number = x.Record.Self, x.Record.Promised, x.config().Number
	if m.Kind == Grant && m.OK || m.Kind == Ack && !m.OK {
		x.out.Proved = append(x.out.Proved, m)
		return
	}
	x.out.Messages = append(x.out.Messages, m)
}

// command carries a command out, and has it logged if it was.
func (x *step) command(c Command) Outcome {
	r := x.Record
	out := x.Record.Apply(c)
	if out.Verdict != Applied {
		x.Record = r
		if out.Verdict == Broken {
			x.note(Note{Kind: NoteBroken, Epoch: c.Write.Epoch, Mark: r.LastMark()})
		}
		return out
	}
	if r.changed(&x.Record) {
		x.out.Commands = append(x.out.Commands, c)
	}
	return out
}

func (r Record) changed(to *Record) bool {
	return r.Promised != to.Promised || r.Last != to.Last || r.Confirmed != to.Confirmed || r.Base != to.Base ||
		r.LastMark() != to.LastMark() || len(r.Control) != len(to.Control) || r.Config().Number != to.Config().Number
}

func (x *step) tick() {
	switch {
	case x.standing == Owning:
		x.lead()
	case x.now >= x.claimAt && x.free(x.Record.Self, 0) && x.mayClaim():
		x.ask()
	}
}

func (x *step) receive(m Message) {
	x.seen = max(x.seen, m.Promised)
	if p := x.peer(m.From); p != nil {
		p.heard = x.now
	}
	if x.confirmedConfig().removed(m.From) && m.Kind != Removed {
		x.send(Message{Kind: Removed, To: m.From})
		return
	}
	switch m.Kind {
	case PreClaim, Claim:
		x.claimed(m)
	case PreVote, Vote:
		x.voted(m)
	case Entries:
		x.entries(m)
	case StateAt:
		x.installed(m)
	case Ack:
		x.acked(m)
	case Handover:
		x.takeOver(m)
	case Ask:
		x.asked(m)
	case Grant:
		x.granted(m)
	case Removed:
		x.removed(m)
	}
}

// removed takes the word of a member that this one is none any more. Where each has left out the other by force, the
// higher epoch stands.
func (x *step) removed(m Message) {
	c := x.Record.Config()
	both := slices.Contains(c.Gone, m.From)
	if both && m.Promised < x.Record.Promised || !both && m.Number <= c.Number {
		return
	}
	x.follow()
	x.standing = Out
	x.note(Note{Kind: NoteRemoved})
}

// follow makes the member one that waits for an owner.
func (x *step) follow() {
	if x.standing == Owning {
		x.note(Note{Kind: NoteEnded, Epoch: x.epoch})
	}
	x.standing, x.epoch, x.released, x.flip = Following, 0, 0, flip{}
	if x.forced != nil {
		x.forced = nil
		x.listen(x.now)
	}
}

// waitForOwner puts off this member's claim.
func (x *step) waitForOwner() {
	rank := x.config().rank(x.Record.Self, x.Record.Promised.Owner())
	x.claimAt = x.now + x.set.ClaimAfter + time.Duration(rank)*x.set.Stagger
}

// hear notes that the owner of the epoch promised lives.
func (x *step) hear() {
	if x.standing != Following {
		x.follow()
	}
	x.waitForOwner()
}
