package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// ErrActor marks an actor that has written already: its number can't be given to another history.
var ErrActor = errors.New("actor has a history")

// Actor is a region's member number (rules A12): one life of a region, from its first write to its removal, or to the
// moment at which it is restored or rebuilt from anything but its own live Raft groups. It is never given twice.
type Actor uint16

// Mark says how far an actor's history is held: all that it took from its clients, up to Position.
type Mark struct {
	Position uint64 // what the actor took is numbered from 1, which is its beginning
	Closed   int64  // beyond Position the actor takes nothing of sessions born before
}

// Marks say what a copy of a shard holds: of each actor all up to its mark. They are stored in one write with the values
// and Sessions that they speak of.
type Marks map[Actor]Mark

// Begin starts the history of a new actor on a copy: its first entry closes what lies below the copy's floor. It fails with
// ErrActor where the actor has a mark already, as a region's own number has in every copy that it could be restored from.
func (m Marks) Begin(a Actor, floor int64) (Mark, error) {
	if _, used := m[a]; used && !mutant.On("actor-used-twice") {
		return Mark{}, fmt.Errorf("begin as actor %d: %w", a, ErrActor)
	}
	return m.Take(a, floor), nil
}

// Take numbers one more thing of the actor's own: an operation, or a closing of sessions born before closed, where that is
// not below the last.
func (m Marks) Take(a Actor, closed int64) Mark {
	next := Mark{m[a].Position + 1, max(m[a].Closed, closed)}
	m[a] = next
	return next
}

// Follow moves an actor's mark over what it has taken, as it was forwarded. It reports false, and nothing moves, where that
// is not the next in the actor's history: held already, or behind a gap.
func (m Marks) Follow(a Actor, to Mark) bool {
	if to.Position != m[a].Position+1 {
		return false
	}
	m[a] = to
	return true
}

// Join takes the marks of a copy whose values and Sessions are joined in the same write.
func (m Marks) Join(o Marks) {
	for a, theirs := range o {
		ours := m[a]
		m[a] = Mark{max(ours.Position, theirs.Position), max(ours.Closed, theirs.Closed)}
	}
}

// Covers reports whether a copy with marks m holds all that one with marks o holds.
func (m Marks) Covers(o Marks) bool {
	for a, theirs := range o {
		if m[a].Position < theirs.Position {
			return false
		}
	}
	return true
}

// Floor returns the floor that the members' own marks allow: the least of what they have closed. A copy may raise its
// floor to it once its marks cover m. m holds each member's own mark, and of every actor that has left, the furthest that
// a member holds, beyond which nothing of it is taken any more. A member without a mark allows none.
func (m Marks) Floor(members []Actor) int64 {
	floor := int64(maxMillis)
	for _, a := range members {
		floor = min(floor, m[a].Closed)
		if mutant.On("floor-of-one-member") {
			return floor
		}
	}
	if len(members) == 0 {
		return 0
	}
	return floor
}

// Append appends m's encoding: number of actors, then of each in order: difference of its number, position, closed.
func (m Marks) Append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, version, kindMarks), uint64(len(m)))
	last := Actor(0)
	for _, a := range slices.Sorted(maps.Keys(m)) {
		b = binary.AppendUvarint(b, uint64(a-last))
		b = binary.AppendUvarint(b, m[a].Position)
		b = binary.AppendUvarint(b, uint64(m[a].Closed))
		last = a
	}
	return b
}

// DecodeMarks decodes whole Marks, which are never nil. It fails with crdt.ErrEncoding.
func DecodeMarks(b []byte) (Marks, error) {
	r := open(b)
	r.head(version, kindMarks)
	n := r.Size()
	m := make(Marks, min(n, 1024))
	last := uint64(0)
	for i := 0; i < n && !r.Failed(); i++ {
		step := r.Uvarint()
		if i > 0 && step == 0 || step > 1<<16-1-last {
			r.Fail("actors out of order")
			break
		}
		last += step
		m[Actor(last)] = Mark{r.Uvarint(), r.millis(0)}
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("marks: %w", err)
	}
	return m, nil
}
