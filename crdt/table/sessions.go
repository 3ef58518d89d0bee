package table

import (
	"fmt"
	"iter"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Limits bound what a shard takes from clients. What peers send has passed them elsewhere and is taken whatever it is.
// Replicas must decide alike, so limits come to them with the command, like the time.
type Limits struct {
	MaxAhead int64 // ms that births and stamps may lie ahead of the shard's time
	Open     int   // sessions that live
	Gaps     int   // operations of one session that are held beyond one that is missing
}

// Sessions are the operations that a copy of a shard holds, whatever their table and key: what tells a retry from an
// operation, and what lets values fold. A copy takes an operation's effect and its id in one write. The zero Sessions is
// empty. It is not safe for concurrent use.
type Sessions struct {
	ids    ids
	closed int64 // no operation of a session born before is taken from a client any more; not below the floor
	open   int   // sessions born at or after closed
}

// Floor returns the birth below which every session is complete: its operations, those of every region, are all held.
func (s *Sessions) Floor() int64 { return s.ids.floor }

// Prefix returns the sequence up to which all operations of a session are held.
func (s *Sessions) Prefix(id SessionID) uint64 {
	r, _ := s.ids.sessions.get(id)
	return r.prefix
}

// Closed returns the birth below which sessions take no more.
func (s *Sessions) Closed() int64 { return s.closed }

// Len returns how many sessions are kept: those that live, and those that have ended and are not yet complete everywhere.
func (s *Sessions) Len() int { return len(s.ids.sessions) }

// Open returns how many sessions live, of those that are kept.
func (s *Sessions) Open() int { return s.open }

// Beyond returns how many operations of a session are held beyond its prefix.
func (s *Sessions) Beyond(id SessionID) int {
	r, _ := s.ids.sessions.get(id)
	return len(r.above)
}

// All returns the sessions that are kept, in order. s must not change meanwhile.
func (s *Sessions) All() iter.Seq[SessionID] {
	return func(yield func(SessionID) bool) {
		for _, p := range s.ids.sessions {
			if !yield(p.key) {
				return
			}
		}
	}
}

// AppendOne appends the encoding of Sessions of floor 0 that hold of one session what s does. The session must be kept.
func (s *Sessions) AppendOne(b []byte, id SessionID) []byte {
	r, _ := s.ids.sessions.get(id)
	one := ids{sessions: list[SessionID, run]{{id, r}}}
	return one.appendTo(append(b, version, kindSessions))
}

// Load adds a session that AppendOne has written, above all that s has. It fails with crdt.ErrEncoding, also where the
// session is not above them.
func (s *Sessions) Load(b []byte) error {
	one, err := DecodeSessions(b)
	if err != nil {
		return err
	}
	n := len(s.ids.sessions)
	if one.Floor() > 0 || one.Len() != 1 {
		return fmt.Errorf("sessions: %w: not one session", crdt.ErrEncoding)
	}
	p := one.ids.sessions[0]
	if p.key.Born < s.ids.floor || n > 0 && s.ids.sessions[n-1].key.Compare(p.key) >= 0 {
		return fmt.Errorf("sessions: %w: session %s out of order", crdt.ErrEncoding, p.key)
	}
	if s.ids.sessions = append(s.ids.sessions, p); p.key.Born >= s.closed {
		s.open++
	}
	return nil
}

// Close ends the sessions born before a moment, for good, and reports whether it ended any that could have lived. It is
// a promise to the other regions (Mark), so it enters as a command: the leader's time less the life of a session.
func (s *Sessions) Close(born int64) bool {
	born = min(born, maxMillis)
	if born <= s.closed {
		return false
	}
	s.closed = born
	s.count()
	return true
}

func (s *Sessions) count() { s.open = len(s.ids.sessions) - bornBelow(s.ids.sessions, s.closed) }

// Admit says what to do with an operation of a client: held means that it was taken before, here or elsewhere, and is
// answered as done; without error it is to be taken. It fails with ErrOperation, ErrAhead, ErrExpired, ErrFull or ErrGaps. now is
// the shard's time, in ms.
func (s *Sessions) Admit(id ID, now int64, l Limits) (held bool, err error) {
	born := id.Session.Born
	switch {
	case !id.valid():
		return false, fmt.Errorf("%w: no operation is named %s", ErrOperation, id)
	case born >= s.ids.floor && s.ids.has(id):
		return true, nil
	case born < s.closed && !mutant.On("expired-session-taken"):
		return false, fmt.Errorf("%w: %s was born %d ms before those that live", ErrExpired, id.Session, s.closed-born)
	}
	if err := checkAhead(born, now, l.MaxAhead); err != nil {
		return false, fmt.Errorf("session %s: %w", id.Session, err)
	}
	r, known := s.ids.sessions.get(id.Session)
	if !known && s.open >= l.Open {
		return false, fmt.Errorf("%w: %d sessions are open", ErrFull, s.open)
	}
	if id.Sequence != r.prefix+1 && len(r.above) >= l.Gaps {
		return false, fmt.Errorf("%w: %s misses operation %d and holds %d beyond", ErrGaps, id.Session, r.prefix+1, len(r.above))
	}
	return false, nil
}

// Add takes an operation, and reports whether it was new.
func (s *Sessions) Add(id ID) bool {
	if s.ids.has(id) {
		return false
	}
	r, known := s.ids.sessions.get(id.Session)
	if !known && id.Session.Born >= s.closed {
		s.open++
	}
	if id.Sequence == r.prefix+1 {
		r.prefix++
		s.ids.sessions.set(id.Session, r.contiguous())
		return true
	}
	return s.ids.add(id)
}

// contiguous moves what follows the prefix without a gap into it.
func (r run) contiguous() run {
	n := 0
	for n < len(r.above) && r.above[n] == r.prefix+1 {
		r.prefix++
		n++
	}
	r.above = slices.Delete(r.above, 0, n)
	return r
}

// Join adds the operations of another copy, whose values are joined in the same write. It reports whether s changed; o
// stays as it is and shares nothing with s.
func (s *Sessions) Join(o *Sessions) bool {
	changed := s.ids.join(&o.ids)
	for i, p := range s.ids.sessions {
		s.ids.sessions[i].value = p.value.contiguous()
	}
	s.closed = max(s.closed, s.ids.floor)
	s.count()
	return changed
}

// Raise raises the floor: every session born before it is complete. Whoever calls it knows so: the copy's marks cover
// those that the floor was told with. It reports whether the floor rose.
func (s *Sessions) Raise(floor int64) bool {
	s.Close(floor)
	return s.ids.raise(min(floor, maxMillis))
}

// Append appends the encoding of the operations. What is closed is not in it: that stands in the copy's own Mark.
func (s *Sessions) Append(b []byte) []byte { return s.ids.appendTo(append(b, version, kindSessions)) }

// DecodeSessions decodes one whole Sessions, which keeps nothing of b. It fails with crdt.ErrEncoding.
func DecodeSessions(b []byte) (*Sessions, error) {
	r := open(b)
	r.head(version, kindSessions)
	s := &Sessions{ids: r.ids()}
	for _, p := range s.ids.sessions {
		if x := p.value; len(x.above) > 0 && x.above[0] == x.prefix+1 {
			r.Fail("session %s could have a longer prefix", p.key)
		}
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	s.closed = s.ids.floor
	s.count()
	return s, nil
}
