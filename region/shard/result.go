package shard

import (
	"fmt"

	"github.com/watershed-db/watershed/crdt"
)

// Outcome says what a command met when it was applied.
type Outcome uint8

// The outcomes. An Advance meets exactly one of Applied, Duplicate, Refused, Mismatch and Unknown (rules A3).
const (
	Applied   Outcome = iota + 1 // it changed the state
	Duplicate                    // all of it was there already; nothing changed
	Refused                      // it does not fit; Result.Points are where the shard stands
	Mismatch                     // Result.Sources stand on another history at the same offset
	Unknown                      // no such generation here; the registry has not told this shard of it
	Malformed                    // it contradicts itself or the configuration: its proposer's bug
	Elsewhere                    // another region owns the shard
)

// String returns the outcome's name.
func (o Outcome) String() string {
	if o < Applied || o > Elsewhere {
		return fmt.Sprintf("outcome %d", uint8(o))
	}
	return [...]string{"applied", "duplicate", "refused", "mismatch", "unknown", "malformed", "elsewhere"}[o-Applied]
}

// Result is what applying a command came to. It is the same on every replica.
type Result struct {
	Index      uint64 // of the command in the shard's log
	Outcome    Outcome
	Reason     string        // for people, where the outcome does not say all
	Points     []SourcePoint // Refused: where the named sources stand; sources that lack here are left out
	Sources    []crdt.Source // Mismatch: which sources
	Copy       uint32        // StageBegin: the number of the copy
	Generation crdt.GenerationID
	Entries    [][]byte // Own: what each entry that it added to the log is answered, in order
	Refusal    Refusal  // TableWrite refused: why
}
