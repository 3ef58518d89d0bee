package owner

import (
	"errors"
	"time"

	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
)

// maxTail bounds the payload, in bytes, of the entries that are not confirmed: past it writes wait their turn. It bounds what
// a takeover may cost, and what rolling it back takes.
const maxTail = 64 << 20

// tail counts the bytes of the entries that are logged and not confirmed. It is the driving goroutine's.
type tail struct {
	bytes   uint64
	entries []tailEntry
}

type tailEntry struct {
	at    ownership.Position
	bytes uint64
}

func (t *tail) add(at ownership.Position, bytes uint64) {
	t.entries = append(t.entries, tailEntry{at, bytes})
	t.bytes += bytes
}

// confirm forgets entries up to a position.
func (t *tail) confirm(upto ownership.Position) {
	n := 0
	for n < len(t.entries) && t.entries[n].at <= upto {
		t.bytes -= t.entries[n].bytes
		n++
	}
	t.entries = append(t.entries[:0], t.entries[n:]...)
}

const (
	// maxLog is about how much payload is kept for regions that lack it, in bytes. Past it they are sent the state.
	maxLog = 1 << 30
	// weighEvery is how often it is looked how much that is.
	weighEvery = time.Second
)

// span returns how many entries are to be kept, given what is.
func span(s owned.Sizes, most ownership.Position) ownership.Position {
	if s.Kept <= maxLog {
		return most
	}
	return min(most, ownership.Position(s.Entries/(s.Kept/maxLog+1)))
}

// weigh bounds the bytes of the log by the number of its entries.
func (l *leading) weigh(now time.Duration) {
	if now < l.weighed {
		return
	}
	l.weighed = now + weighEvery
	if sizes, err := l.Sizes(); err == nil {
		l.state = l.state.Keep(span(sizes, l.o.Settings.Span))
	}
}

// Sizes returns what this node's copy of the owned log and its ledger keep.
func (s *Shard) Sizes() (sizes owned.Sizes, err error) {
	snap, err := s.o.Replica.Snapshot()
	if err != nil {
		return sizes, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	r, err := snap.Owned()
	if err != nil {
		return sizes, err
	}
	return r.Sizes(snap.Ownership().Record.Confirmed)
}
