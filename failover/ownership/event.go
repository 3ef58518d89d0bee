package ownership

import (
	"errors"
	"fmt"
	"time"
)

// Event is what a State is told.
type Event interface{ event() }

// The events.
type (
	// Tick tells the time alone. It comes at least a few times per Settings.Lease.
	Tick struct{}
	// Receive is a message from another member.
	Receive struct{ Message Message }
	// Propose is so many entries to append, all that clients have brought since the last step.
	Propose struct{ Entries Position }
	// Flip is an operator's word that another member should own the shard.
	Flip struct{ To MemberID }
	// Force is an operator's word that some members are lost and no longer count.
	Force struct{ Remove []MemberID }
	// Add takes a new member in: Effects.Member is its number, once the entry at Effects.Wrote is confirmed. If another
	// owner cuts that entry off, the number is given again.
	Add struct {
		Role Role
		// Region is the one that the new member is of.
		Region string
		// Instead is the number that the same region had when it was left out by force, if it was: from now on what this
		// side has done since stands.
		Instead MemberID
	}
	// Remove leaves a member out.
	Remove struct{ Member MemberID }
	// Distrust says that the node's clock can't be trusted. Its region should choose another leader.
	Distrust struct{}
)

func (Tick) event()     {}
func (Receive) event()  {}
func (Propose) event()  {}
func (Flip) event()     {}
func (Force) event()    {}
func (Add) event()      {}
func (Remove) event()   {}
func (Distrust) event() {}

// Why an event was not taken up.
var (
	// ErrFlipping says that a planned flip is under way.
	ErrFlipping = errors.New("ownership is being handed over")
	// ErrFull says that too many entries wait to be confirmed.
	ErrFull = errors.New("too many entries wait for other regions")
	// ErrBusy says that a change of members, or the epoch itself, isn't recorded yet.
	ErrBusy = errors.New("a change of members is under way")
	// ErrNoMember says that the member named is none, or has no part that allows it.
	ErrNoMember = errors.New("no such member")
	// ErrIsOwner says that the member named owns the shard.
	ErrIsOwner = errors.New("the member owns the shard")
	// ErrBehind says that the member named lacks too much.
	ErrBehind = errors.New("the member is behind")
	// ErrUnreachable says that nothing was heard of the member named lately.
	ErrUnreachable = errors.New("the member was not heard of lately")
	// ErrOwnerLives says that a lease is or may be in force that only a lost owner lets run out.
	ErrOwnerLives = errors.New("the owner may be alive")
	// ErrOut says that this member takes no part.
	ErrOut = errors.New("this member takes no part")
	// ErrLastCopy says that no copy would be left.
	ErrLastCopy = errors.New("no copy would be left")
)

// NotOwnerError says that only the owner can do it, and who that is.
type NotOwnerError struct {
	Owner MemberID // 0 where nobody is known
	Epoch Epoch
}

// Error names the owner.
func (e *NotOwnerError) Error() string {
	return fmt.Sprintf("not the owner: member %d owns it with epoch %v", e.Owner, e.Epoch)
}

// Effects is what is to be done, in this order. A step is over, and the next one may begin, when its commands are applied;
// if they can't be, the State is thrown away.
type Effects struct {
	// Refused is why the event of a client or an operator was not taken up; nil if it was.
	Refused error
	// Commands are appended to the log of the region's Raft group, and have changed State.Record as they will change the
	// record there.
	Commands []Command
	// Messages leave when the commands are applied.
	Messages []Message
	// Proved are messages that leave when, besides, the node has proved that it still leads its region's group: a deposed
	// leader's grant binds nobody, and what it lacks its region may hold.
	Proved []Message
	// Wrote is where the entries of Propose went, or that of Add.
	Wrote Range
	// Member is the number given by Add.
	Member MemberID
	// Notes are for logs, metrics and operators.
	Notes []Note
}

// NoteKind says what happened.
type NoteKind uint8

// What happens to a member.
const (
	NoteBegan      NoteKind = iota + 1 // wrote the first entry of Epoch, at Mark
	NoteEnded                          // is no longer the owner of Epoch
	NoteHandedOver                     // has given Epoch up at Mark, for Member
	NoteFlipDone                       // owns Epoch by a planned flip, from Mark on: all that Released acknowledged is held
	NoteFlipBack                       // could not hand over to Member, and goes on
	NoteConfig                         // the configuration is now State.Record.Config
	NoteRemoved                        // was removed
	NoteDistrusted                     // takes no part because of its clock
	NoteBroken                         // refused to cut off what is confirmed
	NoteLost                           // Member holds the log to Mark alone, though it had more: its disks are not its own
)

// String returns the kind in a word.
func (k NoteKind) String() string {
	return [...]string{"", "began", "ended", "handed-over", "flip-done", "flip-back", "config", "removed", "distrusted", "broken",
		"lost"}[k]
}

// Note is something that happened.
type Note struct {
	Kind     NoteKind
	Epoch    Epoch
	Released Epoch
	Mark     Mark
	Member   MemberID
}

// Cost is what an operator's force may cost, as far as the member knows.
type Cost struct {
	Unknown   bool     // whether the members left out may have confirmed writes that those left lack
	Last      Mark     // what this member holds: what the owner acknowledged behind it goes to the ledger
	Confirmed Position // what is certain to stay
	Wait      time.Duration
}
