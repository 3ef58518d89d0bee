package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/group"
)

const (
	maxCredit     = 64 << 20 // bytes that a puller may be owed
	pullerSilence = 10 * time.Second
	maxRegistry   = 4 << 20 // bytes of registry entries in a message, give or take one entry
)

// feed serves one Pull stream.
type feed struct {
	server   *Server
	shard    *Shard
	stream   grpc.BidiStreamingServer[peerv1.PullRequest, peerv1.PullResponse]
	in       *intake
	out      *outlet
	credit   int64
	registry uint64 // position of the last registry entry sent

	last    map[crdt.GenerationID]*Standing // as sent
	marks   table.Marks                     // as sent; nil for not yet
	floor   int64                           // of tables, as sent
	lastAt  time.Time                       // when standings were last looked at
	sentAt  time.Time                       // when anything was last sent
	heardAt time.Time
}

func (f *feed) run(ctx context.Context) error {
	replica, timing := f.shard.o.Replica, f.shard.o.Timing
	defer f.out.close()
	f.heardAt = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := replica.Changed()
		if !replica.IsLeader() {
			return &group.NotLeaderError{Leader: replica.Leader()}
		}
		if err := f.listen(); err != nil {
			return err
		}
		more, err := f.step(time.Now())
		if err != nil {
			return err
		}
		if more {
			continue
		}
		wait := timing.Heartbeat - time.Since(f.sentAt)
		if due := f.out.due(); !due.IsZero() {
			wait = min(wait, time.Until(due))
		}
		timer.Reset(max(wait, time.Millisecond))
		if f.credit <= 0 {
			changed = nil // nothing can be sent before the puller speaks
		}
		select {
		case <-changed:
		case <-f.in.wake:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-f.server.quit:
			return status.Error(codes.Unavailable, "the node is stopping")
		}
	}
}

// listen takes in what the puller has said.
func (f *feed) listen() error {
	list, err := f.in.take()
	if now := time.Now(); len(list) > 0 {
		f.heardAt = now
	} else if now.Sub(f.heardAt) >= pullerSilence && err == nil {
		err = status.Error(codes.DeadlineExceeded, "nothing was heard from the puller for too long")
	}
	for _, m := range list {
		if m.Credit > maxCredit || f.credit+int64(m.Credit) > maxCredit {
			return fmt.Errorf("%w: a credit of %d bytes on top of %d", ErrProtocol, m.Credit, f.credit)
		}
		f.credit += int64(m.Credit)
		if err := errors.Join(f.out.book.take(m.Standings, 0), f.out.book.takeMarks(m.Marks, 0, 0)); err != nil {
			return err
		}
	}
	return err
}

// step sends what there is to be sent, in one message. More is true where there is more of it.
func (f *feed) step(now time.Time) (more bool, err error) {
	m := &peerv1.PullResponse{}
	f.out.release(now)
	scanned := true
	if f.credit > 0 {
		if len(f.out.ready) == 0 {
			if more, err = f.out.scan(now); err != nil {
				return false, err
			}
		}
		var cost int64
		if m.Entries, cost, err = f.out.batch(f.credit); err != nil {
			return false, err
		}
		if f.credit -= cost; f.credit <= 0 {
			f.out.unload()
		}
		more = (more || len(f.out.ready) > 0) && f.credit > 0
		f.server.entries.Add(uint64(len(m.Entries)))
		f.server.bytes.Add(uint64(cost))
		scanned = !more
	}
	m.Applied, m.BeyondLog = f.out.told(), f.out.beyond
	m.Registry = f.entriesOfRegistry()
	if scanned && now.Sub(f.lastAt) >= f.shard.o.Timing.Standings {
		list, index, err := f.shard.teller.tell()
		if err != nil {
			return false, err
		}
		m.Standings, m.StandingsIndex = appendChanged(nil, f.last, list), index
		clear(f.last)
		for _, s := range list {
			f.last[s.Generation] = s
		}
		f.lastAt = now
		st := f.shard.o.Replica.State()
		if t := st.Tables(); f.marks == nil || !maps.Equal(t.Marks, f.marks) || t.Floor != f.floor {
			f.marks, f.floor = table.Marks{}, t.Floor
			f.marks.Join(t.Marks)
			m.Marks, m.MarksIndex, m.Floor = f.marks.Append(nil), st.Index, t.Floor
		}
	}
	if len(m.Entries) == 0 && len(m.Standings) == 0 && len(m.Registry) == 0 && m.Marks == nil && now.Sub(f.sentAt) < f.shard.o.Timing.Heartbeat {
		return more, nil
	}
	f.out.beyond = false
	f.sentAt = now
	return more, f.stream.Send(m)
}

// entriesOfRegistry returns the next registry entries to send, on shard 0.
func (f *feed) entriesOfRegistry() (list [][]byte) {
	size := 0
	for _, e := range f.shard.o.Replica.State().Registry().After(f.registry) {
		if size >= maxRegistry {
			break
		}
		b := e.AppendTo(nil)
		list, size, f.registry = append(list, b), size+len(b), e.Position
	}
	return list
}
