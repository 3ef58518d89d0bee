package ownership

import "time"

// Kind says what a Message is.
type Kind uint8

// The kinds of messages between members.
const (
	PreClaim Kind = iota + 1 // would you promise me Epoch? Mark: my last entry
	PreVote                  // OK: I would
	Claim                    // promise me Epoch. Mark: my last entry
	Vote                     // OK: promised
	Entries                  // Write: the owner's log behind Write.Prev; the shell adds the payload
	Ack                      // OK: I hold Mark and all before it. Else I lack Write.Prev, and Mark is where we may agree
	StateAt                  // begin behind the state at Mark, which goes along. Write.Control holds who takes part there
	Handover                 // I have promised you Epoch, and am done with Released. Mark: my last entry, yours as well
	Ask                      // a lease of Epoch for Term, please. Stamp is my clock
	Grant                    // OK: I promise nobody else anything for Term. Stamp and Led as they were asked
	Removed                  // you are no member any more
)

// Message is what one member tells another about one shard. Members trust each other's words; what brings them must know
// who speaks. Any message may be lost, late or repeated. Entries go with their payload, but to witnesses; StateAt goes with
// the state, and while one is on its way to a member what brings it leaves further ones out.
type Message struct {
	Kind     Kind
	From, To MemberID
	OK       bool
	Epoch    Epoch
	Promised Epoch  // what the sender has promised
	Released Epoch  // with Claim and Handover: the owner of this epoch has given it up, so its leases bind nobody
	Number   uint64 // of the configuration that the sender goes by
	Mark     Mark
	Write    Write
	Stamp    time.Duration // of Ask and Entries, on the asker's clock. What answers has the same, and the same Led
	Term     time.Duration
	Led      uint64 // by which leadership of its region the asker goes: its successor has another clock
}
