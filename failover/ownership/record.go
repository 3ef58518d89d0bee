package ownership

import (
	"slices"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Control is an entry that decides who takes part: the first of an epoch, or a change of configuration. Witnesses hold
// these alone.
type Control struct {
	Mark   Mark
	Config Config
}

// Record is what a member has promised and holds: all of a State that must outlive its node. It is part of the state of
// the region's Raft group for the shard and changes by Apply alone. The zero Record holds nothing; see Found.
type Record struct {
	Self     MemberID
	Promised Epoch // appends and claims of lower epochs are refused
	// Control holds the control entries, ascending, from the last one at or below Base on. Never changed in place.
	Control []Control
	Base    Position // entries up to it are gone from the log; the state holds what they did
	Last    Position // of a witness: of its last control entry
	// Confirmed is the position up to which a quorum is known to hold the log. Nothing at or below it is cut off.
	Confirmed Position
}

// Found returns the record that every member of a new deployment begins with.
func Found(self MemberID, c Config) Record {
	return Record{Self: self, Control: []Control{{Mark{0, 1}, c}}, Base: 1, Last: 1, Confirmed: 1}
}

// FoundOwned returns the record that every member of a new deployment begins with whose first owner is agreed on beforehand:
// all hold the first entry of the owner's epoch, of counter 1.
func FoundOwned(self MemberID, c Config, owner MemberID) Record {
	r := Found(self, c)
	r.Promised = EpochOf(1, owner)
	r.Control[0].Mark.Epoch = r.Promised
	return r
}

// Owns says whether the member owns the shard as far as it has promised and holds: it has written the first entry of the
// highest epoch that it promised. Whether it may serve is State.Serves's to say.
func (r Record) Owns() bool {
	return r.Promised.Owner() == r.Self && r.Self > 0 && r.LastMark().Epoch == r.Promised
}

// Rejoin returns the record under which a region that was removed, or whose state was restored from anything but its own
// Raft group, comes back: a new member, without promises, that takes for unconfirmed whatever it holds. What its log has
// that the owner's has not is cut off as it catches up.
func (r Record) Rejoin(as MemberID) Record {
	r.Self, r.Promised, r.Confirmed = as, 0, 0
	return r
}

// Config returns the configuration in force: that of the last control entry held.
func (r Record) Config() Config {
	if len(r.Control) == 0 {
		return Config{}
	}
	return r.Control[len(r.Control)-1].Config
}

// controlAt returns the last control entry at or below a position.
func (r Record) controlAt(p Position) (Control, bool) {
	for i := len(r.Control) - 1; i >= 0; i-- {
		if r.Control[i].Mark.Position <= p {
			return r.Control[i], true
		}
	}
	return Control{}, false
}

// markAt returns the entry at a position; 0 where that isn't known any more, or not yet.
func (r Record) markAt(p Position) Mark {
	c, ok := r.controlAt(p)
	if !ok || p > r.Last || p < r.Base {
		return Mark{}
	}
	return Mark{c.Mark.Epoch, p}
}

// LastMark returns the last entry held.
func (r Record) LastMark() Mark { return r.markAt(r.Last) }

// Holds says whether the log has this very entry, and so all before it, as far back as it is kept.
func (r Record) Holds(m Mark) bool { return r.holds(m) }

// holds says whether the log has this very entry, and so all before it.
func (r Record) holds(m Mark) bool { return m.Position > 0 && r.markAt(m.Position) == m }

// witness says whether the member holds control entries alone.
func (r Record) witness() bool {
	m, _ := r.Config().Find(r.Self)
	return m.Role == Witness
}

// Write is entries of the log as one owner holds them, or what it knows of who holds them.
type Write struct {
	Epoch   Epoch     // of the owner that sends or writes it
	Prev    Mark      // the entry before
	Control []Control // the control entries among them, ascending
	Last    Position  // the last of them, Prev's where there are none
	// Confirmed is the position up to which a quorum holds the log, and Floor that up to which nobody needs it any more.
	Confirmed, Floor Position
}

// Command is one change of a Record, as the region's Raft group logs it. The payload of entries goes beside it.
type Command struct {
	Kind    CommandKind
	Epoch   Epoch   // of a promise
	Write   Write   // of a write
	Control Control // of an install: the last control entry at or below Mark
	Mark    Mark    // of an install: the entry that the installed state reflects last
}

// CommandKind says what a Command does.
type CommandKind uint8

// The kinds of commands.
const (
	Promise CommandKind = iota + 1 // take no part in any lower epoch
	Append                         // append entries, or note that they are confirmed
	Install                        // begin the log anew behind a state that was sent
)

// Verdict is what became of a Command.
type Verdict uint8

// The verdicts.
const (
	Applied Verdict = iota
	Refused         // the member has promised a higher epoch, or this one already
	Gap             // the entry before is not held
	Broken          // it would cut off what is confirmed: a rule was broken somewhere, and the member says so
)

// Outcome is what a Command did.
type Outcome struct {
	Verdict Verdict
	// Cut holds the entries that the log had and has no more: their effects are rolled back and they go to the divergence
	// ledger with the same command. After an Install, entries may be among them that the standing history holds as well.
	Cut Range
	// Aside says that the state which an Install replaces may hold, below what Cut lists, what the standing history does
	// not: the region rejoined, and its log no longer reaches back to where they parted. The state is kept for the ledger.
	Aside bool
}

// Apply carries a command out, or refuses it and leaves the record as it was. It depends on nothing else, so that all
// replicas of the region come to the same, whatever their leader believed.
func (r *Record) Apply(c Command) Outcome {
	switch c.Kind {
	case Promise:
		if c.Epoch <= r.Promised {
			return Outcome{Verdict: Refused}
		}
		r.Promised = c.Epoch
		return Outcome{}
	case Append:
		return r.append(c.Write)
	case Install:
		return r.install(c)
	}
	return Outcome{Verdict: Refused}
}

func (r *Record) append(w Write) Outcome {
	if w.Epoch < r.Promised && !mutant.On("append-below-the-promise") {
		return Outcome{Verdict: Refused}
	}
	if w.Prev.Position < r.Confirmed {
		if !r.shares(w) {
			return Outcome{Verdict: Broken}
		}
		w = w.behind(r.markAt(r.Confirmed))
	}
	if !r.holds(w.Prev) {
		return Outcome{Verdict: Gap}
	}
	own, _ := slices.BinarySearchFunc(r.Control, w.Prev.Position+1, byPosition) // from here on, logs may differ
	i, at := own, Position(0)
	for _, c := range w.Control {
		if i < len(r.Control) && r.Control[i].Mark == c.Mark {
			i++
			continue
		}
		at = c.Mark.Position
		break
	}
	if i < len(r.Control) && (at == 0 && r.Control[i].Mark.Position <= w.Last || at > r.Control[i].Mark.Position) {
		at = r.Control[i].Mark.Position
	}
	out := Outcome{}
	if at > 0 && at <= r.Last {
		if at <= r.Confirmed {
			return Outcome{Verdict: Broken}
		}
		out.Cut = Range{at, r.Last}
		if mutant.On("ledger-misses-the-last") {
			out.Cut.To--
		}
		r.Last = at - 1
	}
	if at > 0 || w.Last > r.Last {
		r.Control = append(r.Control[:own:own], w.Control...)
		r.Last = w.Last
	}
	r.Promised = max(r.Promised, w.Epoch)
	r.Confirmed = max(r.Confirmed, min(w.Confirmed, w.Last))
	r.drop(w.Floor)
	return out
}

// shares says whether the entries that are confirmed here are the same as an owner's, as every owner's are.
func (r *Record) shares(w Write) bool {
	if w.Prev.Position >= r.Base && !r.holds(w.Prev) {
		return false
	}
	for _, c := range w.Control {
		if c.Mark.Position > r.Base && c.Mark.Position <= r.Confirmed && !r.holds(c.Mark) {
			return false
		}
	}
	return true
}

// behind leaves out what comes before an entry that both sides hold.
func (w Write) behind(m Mark) Write {
	i, _ := slices.BinarySearchFunc(w.Control, m.Position+1, byPosition)
	w.Prev, w.Control, w.Last = m, w.Control[i:], max(w.Last, m.Position)
	return w
}

func byPosition(c Control, p Position) int {
	switch {
	case c.Mark.Position < p:
		return -1
	case c.Mark.Position > p:
		return 1
	}
	return 0
}

// drop forgets the log up to a position that nobody needs any more.
func (r *Record) drop(floor Position) {
	floor = min(floor, r.Confirmed)
	if floor <= r.Base {
		return
	}
	r.Base = floor
	for len(r.Control) > 1 && r.Control[1].Mark.Position <= floor {
		r.Control = r.Control[1:]
	}
}

func (r *Record) install(c Command) Outcome {
	switch {
	case c.Epoch < r.Promised || c.Mark.Position <= r.Confirmed:
		return Outcome{Verdict: Refused}
	case r.holds(c.Mark):
		r.Promised, r.Confirmed = max(r.Promised, c.Epoch), c.Mark.Position
		return Outcome{}
	}
	out := Outcome{Aside: r.Base > r.Confirmed}
	if first := max(r.Base, r.Confirmed) + 1; first <= r.Last {
		out.Cut = Range{first, r.Last}
	}
	r.Promised, r.Control = max(r.Promised, c.Epoch), []Control{c.Control}
	r.Base, r.Last, r.Confirmed = c.Mark.Position, c.Mark.Position, c.Mark.Position
	return out
}
