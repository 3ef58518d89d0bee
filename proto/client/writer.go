package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

const (
	// laneWidth bounds how far the numbers of a session's operations on one shard, of which one is under way, lie apart.
	laneWidth = 64
	// maxKnownTables bounds the tables that a Client remembers; beyond it, it forgets one of the others.
	maxKnownTables = 256
	// maxAhead bounds how far a session's clock follows what was read, in ms. The region has a bound of its own.
	maxAhead = 3_600_000
	// writeTries is how often a write is begun under another number, where it certainly was not taken under the last.
	writeTries = 3
)

// writer is what a Client knows to write tables.
type writer struct {
	mu      sync.Mutex
	tables  map[string]tableInfo
	session *writeSession // nil: to be opened
}

// tableInfo is what a client must know of a table to number what it writes to it.
type tableInfo struct {
	id     [16]byte
	kind   string
	shards int
}

func (i tableInfo) owned() bool   { return i.kind == "owned" }
func (i tableInfo) stamped() bool { return i.kind == "register" || i.kind == "lww-set" }
func (i tableInfo) set() bool     { return i.kind == "set" || i.kind == "lww-set" }

// writeSession numbers operations. When one of its numbers was not used, or another region answers, it is retired: what is
// under way goes on under it, and the next write opens another one.
type writeSession struct {
	id      table.SessionID
	region  string
	began   time.Time
	life    time.Duration
	retired bool // under writer.mu

	mu    sync.Mutex
	clock table.Clock
	lanes map[laneKey]*lane
}

// laneKey names operations that are numbered together.
type laneKey struct {
	shard uint32
	owned bool
}

type lane struct {
	last    uint64          // number that was given
	pending map[uint64]bool // under way
	fewer   chan struct{}   // closed when one of them is done
}

// open asks a node for a session and for what there is to know of a table.
func (c *Client) open(ctx context.Context, name string) (tableInfo, *writeSession, error) {
	var out *watershedv1.OpenSessionResponse
	began := time.Now()
	err := c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		began = time.Now()
		out, err = watershedv1.NewStateServiceClient(cc).OpenSession(ctx, &watershedv1.OpenSessionRequest{Table: name})
		return err
	})
	if err != nil {
		return tableInfo{}, nil, err
	}
	info := tableInfo{kind: out.GetType(), shards: int(out.GetShards())}
	if copy(info.id[:], out.GetTableId()) != len(info.id) || info.shards < 1 {
		return tableInfo{}, nil, status.Error(codes.Internal, "the node's answer names no table")
	}
	s := &writeSession{
		id:     table.SessionID{Born: out.GetSession().GetBornMs(), Nonce: out.GetSession().GetNonce()},
		region: out.GetRegion(), began: began, life: time.Duration(out.GetLifeMs()) * time.Millisecond,
		lanes: map[laneKey]*lane{}, clock: table.Clock{MaxAhead: maxAhead},
	}
	return info, s, nil
}

// ready returns what is known of a table, and a session that takes more.
func (c *Client) ready(ctx context.Context, name string) (tableInfo, *writeSession, error) {
	w := &c.writer
	w.mu.Lock()
	info, known := w.tables[name]
	s := w.session
	if s != nil && (s.retired || time.Since(s.began) > s.life/2) {
		s = nil
	}
	w.mu.Unlock()
	if known && s != nil {
		return info, s, nil
	}
	info, opened, err := c.open(ctx, name)
	if err != nil {
		return info, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tables == nil {
		w.tables = map[string]tableInfo{}
	}
	for other := range w.tables {
		if len(w.tables) < maxKnownTables {
			break
		}
		delete(w.tables, other)
	}
	w.tables[name] = info
	if s == nil || s.retired {
		s, w.session = opened, opened
	}
	return info, s, nil
}

// retire has the next write open another session, and ask for the table anew.
func (w *writer) retire(s *writeSession, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.retired = true
	delete(w.tables, name)
}

// next gives a number, when those under way on the lane are near enough.
func (s *writeSession) next(ctx context.Context, k laneKey) (uint64, error) {
	for {
		s.mu.Lock()
		l := s.lanes[k]
		if l == nil {
			l = &lane{pending: map[uint64]bool{}, fewer: make(chan struct{})}
			s.lanes[k] = l
		}
		oldest := l.last + 1
		for n := range l.pending {
			oldest = min(oldest, n)
		}
		if l.last+1-oldest < laneWidth {
			l.last++
			l.pending[l.last] = true
			s.mu.Unlock()
			return l.last, nil
		}
		fewer := l.fewer
		s.mu.Unlock()
		select {
		case <-fewer:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (s *writeSession) done(k laneKey, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[k]
	delete(l.pending, n)
	close(l.fewer)
	l.fewer = make(chan struct{})
}

// stamp returns a time above one that was read, by the region's clock at the session's birth and the time since.
func (s *writeSession) stamp(read uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.id.Born + time.Since(s.began).Milliseconds()
	if err := s.clock.Observe(table.Time(read), now); err != nil {
		return 0, status.Errorf(codes.FailedPrecondition, "what was read was written by a clock that is ahead: %v", err)
	}
	t, err := s.clock.Next(now)
	return uint64(t), err
}

// write carries out an operation, whose request is filled in here.
func (t *Table) write(ctx context.Context, key string, element []byte, in *watershedv1.WriteRequest) (*watershedv1.Version, error) {
	in.Table, in.Key = t.name, textKey(key)
	ctx, cancel := context.WithTimeout(ctx, t.c.o.patience)
	defer cancel()
	for try := 1; ; try++ {
		out, err := t.once(ctx, in, element)
		if errors.Is(err, errBeginAgain) && try < writeTries {
			continue
		}
		if out.GetFailed() {
			return out.GetVersion(), ErrCompare
		}
		return out.GetVersion(), err
	}
}

// errBeginAgain marks an error after which a write may be begun under another number.
var errBeginAgain = errors.New("to be begun again")

// once carries out an operation under one number.
func (t *Table) once(ctx context.Context, in *watershedv1.WriteRequest, element []byte) (*watershedv1.WriteResponse, error) {
	info, s, err := t.c.ready(ctx, t.name)
	if err != nil {
		return nil, err
	}
	if in.TableId = info.id[:]; info.stamped() || info.set() {
		ask := &watershedv1.GetValueRequest{Table: t.name, Key: in.GetKey()}
		if info.set() {
			ask.Element = element
			if element == nil {
				ask.Element = []byte{}
			}
		}
		read, err := t.c.getValue(ctx, ask)
		if err != nil {
			return nil, err
		}
		in.Observed = read.GetObserved()
		if info.stamped() {
			if in.Time, err = s.stamp(read.GetTime()); err != nil {
				return nil, err
			}
		}
	}
	k := laneKey{table.ShardOf(info.id, crdt.Text(in.GetKey().GetText()).AppendKey(nil), info.shards), info.owned()}
	if in.Sequence, err = s.next(ctx, k); err != nil {
		return nil, err
	}
	defer s.done(k, in.GetSequence())
	in.Session = &watershedv1.WriteSession{BornMs: s.id.Born, Nonce: s.id.Nonce}
	out, err := t.send(ctx, in)
	if err != nil || !info.owned() && out.GetRegion() != s.region { // operations on owned tables are numbered for all regions
		t.c.writer.retire(s, t.name)
	}
	return out, err
}

// send sends an operation until it is answered, the same in every try.
func (t *Table) send(ctx context.Context, in *watershedv1.WriteRequest) (out *watershedv1.WriteResponse, err error) {
	maybe := false
	err = t.c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		var at peer.Peer
		out, err = watershedv1.NewStateServiceClient(cc).Write(ctx, in, grpc.Peer(&at))
		if at.Addr != nil && !untaken(err) {
			maybe = true
		}
		return err
	})
	switch {
	case err == nil:
		return out, nil
	case maybe:
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	case status.Code(err) == codes.Aborted, Detail(err).GetReason() == "another table":
		return nil, fmt.Errorf("%w: %w", errBeginAgain, err)
	}
	return nil, err
}

// untaken reports whether a node's error says that it has not taken an operation and will not.
func untaken(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		reason := Detail(err).GetReason()
		return reason == "not the leader" || reason == "damaged" || reason == "not begun"
	case codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
		return false
	}
	return true
}
