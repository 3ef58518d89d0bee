package ownership

import (
	"slices"
	"time"
)

// settled says whether a change of members may be begun: the last control entry is of the owner's epoch and agreed on.
func (x *step) settled() bool {
	last := len(x.Record.Control) - 1
	return x.standing == Owning && x.Record.Control[last].Mark.Epoch == x.epoch && x.agreed(last)
}

// lives says whether a member was heard of lately.
func (x *step) lives(id MemberID) bool {
	p := x.peer(id)
	return id == x.Record.Self || p != nil && !p.lost && x.now-p.heard <= x.set.Alone
}

// reconfigure makes the change that is due without an operator's word, if any: a member that has caught up counts again,
// and where too few copies are left to confirm anything, those left record with the voters that they go on alone.
func (x *step) reconfigure() {
	if x.changeable() != nil {
		return
	}
	c := x.config()
	var voters, copies int
	var silent *Member
	for i, m := range c.Members {
		lives := x.lives(m.ID)
		if (m.Joining || m.Behind) && lives && x.begun() && x.match(m.ID) >= min(x.confirmed, x.end(m.ID)) {
			m.Joining, m.Behind = false, false
			x.change(c.with(m))
			return
		}
		switch {
		case m.votes() && lives:
			voters++
		case m.copies() && silent == nil:
			silent = &c.Members[i]
		}
		if m.copies() && lives {
			copies++
		}
	}
	if silent != nil && copies < c.Need() && voters >= c.Majority() {
		m := *silent
		m.Behind = true
		x.change(c.with(m))
	}
}

// change writes the next configuration.
func (x *step) change(c Config) {
	r := &x.Record
	at := Mark{x.epoch, r.Last + 1}
	x.write(Write{Prev: r.LastMark(), Control: []Control{{at, c}}, Last: at.Position})
	x.listen(x.now)
	x.note(Note{Kind: NoteConfig})
	x.advance()
	x.broadcast()
}

// changeable says why no change of members can be begun now.
func (x *step) changeable() error {
	owner, epoch := x.Owner()
	switch {
	case x.standing != Owning:
		return &NotOwnerError{owner, epoch}
	case x.flip.to != 0:
		return ErrFlipping
	case !x.settled() || len(x.Record.Control) >= MaxControl:
		return ErrBusy
	}
	return nil
}

// add takes a new member in. It counts when it has caught up.
func (x *step) add(e Add) error {
	if err := x.changeable(); err != nil {
		return err
	}
	c := x.config()
	if len(c.Members) >= MaxMembers || c.Highest == 1<<16-1 {
		return ErrFull
	}
	x.out.Member, x.out.Wrote = c.Highest+1, Range{x.Record.Last + 1, x.Record.Last + 1}
	x.change(c.with(Member{ID: x.out.Member, Role: e.Role, Region: e.Region, Joining: true}).found(e.Instead))
	return nil
}

// remove leaves a member out, under the old quorum and the new one. What only it had goes to its ledger when it rejoins.
func (x *step) remove(id MemberID) error {
	if err := x.changeable(); err != nil {
		return err
	}
	if id == x.Record.Self {
		return ErrIsOwner
	}
	if _, ok := x.config().Find(id); !ok {
		return ErrNoMember
	}
	x.change(x.config().without(id))
	return nil
}

// force leaves members out on an operator's word and claims among those that are left. A lease that may be in force is
// waited for: nobody needs to force while the owner lives.
func (x *step) force(ids []MemberID) error {
	c, err := x.left(ids)
	if err != nil {
		return err
	}
	if till, ok := x.Leased(); ok && x.now < till || !x.free(x.Record.Self, 0) {
		return ErrOwnerLives
	}
	x.follow()
	x.forced = &c
	x.listen(x.now)
	x.waitForOwner()
	x.released = 0
	x.canvass(Claiming, max(x.Record.Promised, x.seen).Next(x.Record.Self), 0)
	return nil
}

// left returns the configuration without some members, in which this one counts.
func (s *State) left(ids []MemberID) (Config, error) {
	c := s.Record.Config()
	for _, id := range ids {
		if _, ok := c.Find(id); !ok || id == s.Record.Self {
			return Config{}, ErrNoMember
		}
	}
	self, ok := c.Find(s.Record.Self)
	if !ok || self.Role != Data || self.Joining || len(ids) == 0 {
		return Config{}, ErrNoMember
	}
	self.Behind = false
	next := c.without(ids...).with(self)
	next.Number, next.Forced = c.Number+1, true
	next.Gone = append(slices.Clip(c.Gone), ids...)
	next.Gone = next.Gone[max(0, len(next.Gone)-MaxMembers):]
	if len(c.Gone) == 0 {
		next.Fork = s.Record.Last
	}
	return next, nil
}

// Cost returns what a force would cost that leaves the given members out.
func (s *State) Cost(ids []MemberID, now time.Duration) (Cost, error) {
	if _, err := s.left(ids); err != nil {
		return Cost{}, err
	}
	c := s.Record.Config()
	gone := 0
	for _, m := range c.Members {
		if m.copies() && slices.Contains(ids, m.ID) {
			gone++
		}
	}
	self, _ := c.Find(s.Record.Self)
	unsure := self.Behind || s.confirmedConfig().Number != c.Number
	return Cost{Unknown: gone >= c.Need() || unsure, Last: s.Record.LastMark(), Confirmed: s.Confirmed(),
		Wait: max(0, s.heldTill-now)}, nil
}
