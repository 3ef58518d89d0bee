package owner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	maxWrites     = 1 << 12 // that wait for the next step
	maxWriteBytes = shard.MaxOwnBytes
	busyWait      = 50 * time.Millisecond
)

// errOutcome says that a write may stand, and may be taken back by another owner: only a retry can tell.
var errOutcome = fmt.Errorf("%w: the region ceased to own the shard before it was confirmed", group.ErrIndefinite)

// write is an entry that a client brings.
type write struct {
	entry  []byte
	quorum bool

	at     ownership.Position
	epoch  ownership.Epoch
	result []byte
	done   sync.Once
	ended  chan struct{}
	out    []byte
	err    error
}

func (w *write) finish(result []byte, err error) {
	w.done.Do(func() {
		w.out, w.err = result, err
		close(w.ended)
	})
}

// Write appends an entry to the owned log and returns what applying it came to: when the region's group holds it and the
// owner has a lease, or, with quorum, when enough regions hold it. It fails with *NotOwnerError where another region owns
// the shard; while the shard is being handed over it waits. Where it fails with group.ErrIndefinite the entry may stand or
// not. The entry must not be changed any more.
func (s *Shard) Write(ctx context.Context, entry []byte, quorum bool) ([]byte, error) {
	if len(entry) > shard.MaxOwnEntry {
		return nil, fmt.Errorf("%w: an entry of %d bytes, at most %d are allowed", group.ErrTooLarge, len(entry), shard.MaxOwnEntry)
	}
	l := s.current()
	if l == nil {
		return nil, s.notLeader()
	}
	w := &write{entry: entry, quorum: quorum, ended: make(chan struct{})}
	if err := l.add(w); err != nil {
		return nil, err
	}
	select {
	case <-w.ended:
		return w.out, w.err
	case <-ctx.Done():
		if l.withdraw(w) {
			return nil, fmt.Errorf("%w: %w", group.ErrUnavailable, context.Cause(ctx))
		}
		return nil, fmt.Errorf("%w: %w", group.ErrIndefinite, context.Cause(ctx))
	}
}

func (l *leading) add(w *write) error {
	l.in.Lock()
	defer l.in.Unlock()
	switch {
	case l.in.ended:
		return l.notLeader()
	case len(l.in.writes) >= maxWrites || l.in.bytes+len(w.entry) > 2*maxWriteBytes:
		return &limit.Exhausted{What: fmt.Sprintf("shard %d: too many writes wait for their turn", l.id), Wait: busyWait}
	}
	l.in.writes, l.in.bytes = append(l.in.writes, w), l.in.bytes+len(w.entry)
	l.signal()
	return nil
}

// withdraw takes back a write that waits for its turn; false where it is under way.
func (l *leading) withdraw(w *write) bool {
	l.in.Lock()
	defer l.in.Unlock()
	for i, x := range l.in.writes {
		if x == w {
			l.in.writes = append(l.in.writes[:i:i], l.in.writes[i+1:]...)
			l.in.bytes -= len(w.entry)
			return true
		}
	}
	return false
}

// takeWrites takes what one command may hold of the writes that wait.
func (l *leading) takeWrites() (list []*write, entries [][]byte) {
	l.in.Lock()
	defer l.in.Unlock()
	size := 0
	for len(list) < len(l.in.writes) {
		w := l.in.writes[len(list)]
		if size += len(w.entry); size > maxWriteBytes && len(list) > 0 {
			break
		}
		list, entries = append(list, w), append(entries, w.entry)
		l.in.bytes -= len(w.entry)
	}
	l.in.writes = l.in.writes[len(list):]
	if len(l.in.writes) > 0 {
		l.signal()
	}
	return list, entries
}

// propose appends what clients have brought since the last step.
func (l *leading) propose(ctx context.Context) error {
	if l.tail.bytes >= maxTail {
		return nil // until other regions have confirmed some of it
	}
	list, entries := l.takeWrites()
	if len(list) == 0 {
		return nil
	}
	out, results, err := l.stepFor(ctx, ownership.Propose{Entries: ownership.Position(len(list))}, l.o.Clock.Now(), entries)
	if err == nil && out.Refused == nil && len(results) == 0 {
		err = errors.New("a write was not logged")
	}
	if err != nil {
		for _, w := range list {
			w.finish(nil, fmt.Errorf("%w: %w", group.ErrIndefinite, err))
		}
		return err
	}
	if out.Refused != nil {
		err := l.refusal(out.Refused)
		for _, w := range list {
			w.finish(nil, err)
		}
		return nil
	}
	_, epoch := l.state.Owner()
	for i, w := range list {
		w.at, w.epoch = out.Wrote.From+ownership.Position(i), epoch
		l.tail.add(w.at, uint64(len(w.entry)))
		if all := results[0].Entries; i < len(all) {
			w.result = all[i]
		}
	}
	l.waiting = append(l.waiting, list...)
	l.acknowledge()
	return nil
}

// refusal is why a write was not taken up, as the caller is told it.
func (l *leading) refusal(err error) error {
	var other *ownership.NotOwnerError
	switch {
	case errors.As(err, &other):
		return l.notOwner()
	case errors.Is(err, ownership.ErrFull):
		return &limit.Exhausted{What: fmt.Sprintf("shard %d: %v", l.id, err), Wait: busyWait}
	}
	return fmt.Errorf("shard %d: %w: %w", l.id, group.ErrUnavailable, err)
}

// acknowledge answers the writes that may be answered by now.
func (l *leading) acknowledge() {
	l.tail.confirm(l.state.Confirmed())
	if len(l.waiting) == 0 {
		return
	}
	_, epoch := l.state.Owner()
	owning := l.state.Standing() == ownership.Owning
	serves := l.serves(&l.state)
	kept := l.waiting[:0]
	for _, w := range l.waiting {
		switch {
		case !owning || w.epoch != epoch:
			w.finish(nil, errOutcome)
		case w.at <= l.state.Confirmed() || !w.quorum && serves:
			w.finish(w.result, nil)
		default:
			kept = append(kept, w)
		}
	}
	clear(l.waiting[len(kept):])
	l.waiting = kept
}

// serves says whether the state may answer at this very instant.
func (s *Shard) serves(state *ownership.State) bool {
	return s.o.Clock.Trusted() && state.Serves(s.o.Clock.Now())
}

// Serve says whether this node may answer for the shard's owned tables: it is asked after the value was read, which
// Linearizable came before, and its nil counts for what was read up to then. It fails with *NotOwnerError, ErrNoLease, and
// where this node does not lead the shard.
func (s *Shard) Serve(context.Context) error {
	l := s.current()
	if l == nil {
		return s.notLeader()
	}
	state := l.shown.Load()
	if s.serves(state) {
		return nil
	}
	if state.Standing() != ownership.Owning {
		return s.notOwner()
	}
	if !s.o.Clock.Trusted() {
		return fmt.Errorf("shard %d: %w: %w", s.id, group.ErrUnavailable, ErrClock)
	}
	return fmt.Errorf("shard %d: %w: %w", s.id, group.ErrUnavailable, ErrNoLease)
}

func (s *Shard) notOwner() error {
	owner, epoch := s.o.Replica.State().Owner()
	return &NotOwnerError{s.id, owner, epoch}
}
