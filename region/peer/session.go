package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// Window is the credit that a peer has: the bytes of entries that may be on their way or wait here, give or take a message.
const Window = 8 << 20

// maxQueue bounds the messages with entries that wait here; a peer that keeps to its credit sends fewer.
const maxQueue = 1 << 12

// sayEvery is how often a puller says something at least.
const sayEvery = time.Second

// session is one Pull stream of a puller, from its begin to its end.
type session struct {
	*puller
	conn   *link
	stream grpc.BidiStreamingClient[peerv1.PullRequest, peerv1.PullResponse]
	silent atomic.Bool // it was given up for its silence
	book   *book       // of this stream; by puller.mu
	news   uint64      // how often the peer told standings; by puller.mu

	last     map[crdt.GenerationID]*Standing // own standings, as told
	marks    table.Marks                     // own, as told
	owed     uint64                          // credit to be given back
	granted  atomic.Uint64                   // bytes of entries that the peer was allowed
	received uint64                          // bytes of entries that it sent; of receive
	saidAt   time.Time
	looked   sight // what look last looked at
	even     bool  // whether that left nothing to be taken

	queue struct {
		sync.Mutex
		items []item
		err   error // what ended the stream
	}
	wake chan struct{} // has a value when the queue has changed
}

var errSilent = errors.New("nothing was heard from the peer for too long")

// sight is what there is to be compared: the own state, what the peer told, and what of it was taken.
type sight struct{ index, news, cursor uint64 }

// item is a message that waits to be worked on, without its standings.
type item struct {
	entries  []*peerv1.Entry
	registry [][]byte
	applied  uint64
}

// run pulls until the stream breaks or ctx ends. Worked says that the peer has answered.
func (s *session) run(ctx context.Context) (worked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel()
	s.wake, s.book, s.last = make(chan struct{}, 1), newBook(), map[crdt.GenerationID]*Standing{}
	watch := time.AfterFunc(s.timing.Silence, func() {
		s.silent.Store(true)
		cancel()
	})
	defer watch.Stop()
	if s.stream, err = peerv1.NewPeerServiceClient(s.conn).Pull(ctx); err != nil {
		return false, fmt.Errorf("pull: %w", err)
	}
	first := &peerv1.PullRequest{Hello: s.shard.o.Hello(s.replica.Config().Shard), Cursor: s.cursor, Credit: Window,
		Registry: s.replica.State().Registry().Position()}
	s.granted.Store(Window)
	if err := s.say(first); err != nil {
		return false, err
	}
	receiving.Go(func() { s.receive(watch) })
	return s.work(ctx)
}

// say sends a request with what has changed of the standings.
func (s *session) say(m *peerv1.PullRequest) error {
	list, _, err := s.shard.teller.tell()
	if err != nil {
		return err
	}
	m.Standings = appendChanged(nil, s.last, list)
	clear(s.last)
	for _, st := range list {
		s.last[st.Generation] = st
	}
	if marks := s.replica.State().Tables().Marks; !maps.Equal(marks, s.marks) {
		s.marks, m.Marks = marks, marks.Append(nil)
	}
	now := time.Now()
	if m.Hello == nil && m.Credit == 0 && len(m.Standings) == 0 && m.Marks == nil && now.Sub(s.saidAt) < sayEvery {
		return nil
	}
	s.saidAt = now
	if err := s.stream.Send(m); err != nil {
		// What ended the stream is what receiving finds.
		return fmt.Errorf("pull: %w", err)
	}
	return nil
}

// keepSaying has the peer hear of this puller while the goroutine that works is at something long: a peer that hears
// nothing ends the stream. That goroutine must call stop before it says anything itself.
func (s *session) keepSaying(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var saying sync.WaitGroup
	saying.Go(func() {
		for rest(ctx, sayEvery) == nil {
			if s.say(&peerv1.PullRequest{}) != nil {
				return // what ended the stream is what receiving finds
			}
		}
	})
	return func() {
		cancel()
		saying.Wait()
	}
}

// receive takes the peer's messages in until the stream ends. It never waits for the work on them: credit bounds the
// entries, and messages without are joined.
func (s *session) receive(watch *time.Timer) {
	for {
		m, err := s.stream.Recv()
		if err == nil {
			watch.Reset(s.timing.Silence)
			s.conn.hear()
			err = s.takeStandings(m)
		}
		if err == nil {
			err = s.charge(m)
		}
		s.queue.Lock()
		if err != nil {
			s.queue.err = err
		} else {
			s.enqueue(item{m.Entries, m.Registry, m.Applied})
		}
		s.queue.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (s *session) takeStandings(m *peerv1.PullResponse) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.heard = now
	if err := s.book.take(m.Standings, m.StandingsIndex); err != nil {
		return err
	}
	if err := s.book.takeMarks(m.Marks, m.MarksIndex, m.Floor); err != nil {
		return err
	}
	if len(m.Standings) > 0 || m.Marks != nil {
		s.news++
	}
	if len(s.book.told) > 0 || m.StandingsIndex > 0 {
		s.in.book, s.in.connected = s.book, true
	}
	return nil
}

// charge counts what the peer sent against its credit, and fails where it had none left.
func (s *session) charge(m *peerv1.PullResponse) error {
	for _, e := range m.Entries {
		s.received += uint64(len(e.Command)) + entryExtra
		s.waiting.Add(int64(len(e.Command)) + entryExtra)
	}
	if granted := s.granted.Load(); s.received > granted+maxBatch+router.MaxMessage {
		return fmt.Errorf("%w: %d bytes of entries for a credit of %d", ErrProtocol, s.received, granted)
	}
	s.queue.Lock()
	defer s.queue.Unlock()
	if len(s.queue.items) > maxQueue {
		return fmt.Errorf("%w: %d messages wait", ErrProtocol, len(s.queue.items))
	}
	return nil
}

// enqueue appends an item, or joins it with the last, so that all that waits is proposed together and pays for one
// commit. The queue is locked.
func (s *session) enqueue(x item) {
	if n := len(s.queue.items); n > 0 && len(x.registry) == 0 {
		last := &s.queue.items[n-1]
		last.entries, last.applied = append(last.entries, x.entries...), x.applied
		return
	}
	s.queue.items = append(s.queue.items, x)
}

// dequeue returns what waits, and what ended the stream once nothing does.
func (s *session) dequeue() ([]item, error) {
	s.queue.Lock()
	defer s.queue.Unlock()
	items := s.queue.items
	if s.queue.items = nil; len(items) > 0 {
		return items, nil
	}
	return nil, s.queue.err
}

// work takes what comes, and tells the peer where the shard stands.
func (s *session) work(ctx context.Context) (worked bool, err error) {
	ticker := time.NewTicker(s.timing.Standings)
	defer ticker.Stop()
	for {
		items, err := s.dequeue()
		if err != nil {
			if s.silent.Load() {
				err = errSilent
			}
			return worked, err
		}
		for _, x := range items {
			worked = true
			if err := s.take(ctx, x); err != nil {
				return true, err
			}
		}
		if s.owed >= Window/4 {
			s.granted.Add(s.owed)
			if err := s.say(&peerv1.PullRequest{Credit: s.owed}); err != nil {
				return worked, s.ended(err)
			}
			s.owed = 0
		}
		if len(items) > 0 {
			select {
			case <-ticker.C: // however much comes
				if err := s.tick(ctx); err != nil {
					return worked, err
				}
			default:
			}
			continue
		}
		select {
		case <-s.wake:
		case <-ticker.C:
			if err := s.tick(ctx); err != nil {
				return worked, err
			}
		case <-ctx.Done():
			if s.silent.Load() {
				return worked, errSilent
			}
			return worked, context.Cause(ctx)
		}
	}
}

// tick tells the peer where the shard stands, and looks at where the peer does.
func (s *session) tick(ctx context.Context) error {
	if err := s.say(&peerv1.PullRequest{}); err != nil {
		return s.ended(err)
	}
	return s.look(ctx)
}

// ended returns what ended the stream where that is known, else err.
func (s *session) ended(err error) error {
	s.queue.Lock()
	defer s.queue.Unlock()
	if s.queue.err != nil {
		return s.queue.err
	}
	return err
}

// take works on one message.
func (s *session) take(ctx context.Context, x item) error {
	if err := s.takeRegistry(ctx, x.registry); err != nil {
		return err
	}
	for rest := x.entries; len(rest) > 0; {
		n, err := s.takeEntries(ctx, rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	s.cursor = max(s.cursor, x.applied)
	return nil
}

// takeRegistry proposes registry entries, on shard 0 of a region that does not own them.
func (s *session) takeRegistry(ctx context.Context, list [][]byte) error {
	cfg := s.replica.Config()
	if len(list) == 0 || cfg.Shard != 0 || s.replica.State().Owns() {
		return nil
	}
	c := &shard.RegistryCopy{}
	for _, b := range list {
		e, err := shard.DecodeEntry(b)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if e.Position > s.replica.State().Registry().Position() { // another stream may have brought it
			c.Entries = append(c.Entries, e)
		}
	}
	if len(c.Entries) == 0 {
		return nil
	}
	res, err := s.replica.Propose(ctx, c)
	switch {
	case err != nil:
		return err
	case res.Outcome == shard.Refused: // another stream was ahead, or behind: ask anew
		return fmt.Errorf("registry: %s", res.Reason)
	}
	return nil
}
