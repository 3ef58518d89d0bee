package group

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// readRounds lets reads that come at the same time share one check of leadership. A read joins the next round, never the
// one under way: what that one has asked, it asked before the read came.
type readRounds struct {
	mu      sync.Mutex
	next    *readRound // nil while no read waits for one
	running bool
	rounds  atomic.Uint64 // so far
}

// readRound is one check: commit and err count once done is closed.
type readRound struct {
	done   chan struct{}
	commit uint64
	err    error
}

// readIndex returns an index at or above every command that was acknowledged before the call, at which this node still
// led.
func (g *Group) readIndex(ctx context.Context) (uint64, error) {
	rs := &g.reads
	rs.mu.Lock()
	if rs.next == nil {
		rs.next = &readRound{done: make(chan struct{})}
	}
	r := rs.next
	if !rs.running {
		if !g.calls.begin() {
			rs.next = nil
			rs.mu.Unlock()
			return 0, ErrStopped
		}
		rs.running = true
		go g.runReadRounds()
	}
	rs.mu.Unlock()
	select {
	case <-r.done:
		return r.commit, r.err
	case <-ctx.Done():
		return 0, g.readError(context.Cause(ctx))
	}
}

// runReadRounds makes one round after the other, for as long as reads come.
func (g *Group) runReadRounds() {
	defer g.calls.end()
	rs := &g.reads
	for {
		rs.mu.Lock()
		r := rs.next
		rs.next = nil
		rs.running = r != nil
		rs.mu.Unlock()
		if r == nil {
			return
		}
		rs.rounds.Add(1)
		r.commit, r.err = g.readRound()
		close(r.done)
	}
}

// askAgain is how long a round waits for the answers to heartbeats that were sent after it began. The one that Raft's check
// asks for may be left out where another is just under way.
const askAgain = 20 * time.Millisecond

// readRound makes sure of the commit index: that of a leader that has applied something of its own term, and that a
// majority still followed after it was looked at, at the same term all the while.
func (g *Group) readRound() (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.host.cfg.ProposeTimeout)
	defer cancel()
	began := time.Now()
	term := g.raft.CurrentTerm()
	if err := g.barrier(ctx); err != nil {
		return 0, err
	}
	commit := g.raft.CommitIndex()
	if mutant.On("read-when-deposed") {
		return commit, nil
	}
	for {
		if err := g.readError(g.await(ctx, g.raft.VerifyLeader)); err != nil { // it has heartbeats sent at once
			return 0, err
		}
		if g.raft.CurrentTerm() != term {
			return 0, &NotLeaderError{Leader: g.Leader()}
		}
		followed, moved := g.followed(term, began)
		again := time.NewTimer(askAgain)
		for waiting := true; waiting && !followed; {
			select {
			case <-moved:
				followed, moved = g.followed(term, began)
			case <-again.C:
				waiting = false
			case <-ctx.Done():
				again.Stop()
				return 0, g.readError(context.Cause(ctx))
			}
		}
		again.Stop()
		if followed {
			return commit, nil
		}
	}
}

// followed says whether a majority, this node among them, has taken a heartbeat of a term that was sent after a time.
func (g *Group) followed(term uint64, after time.Time) (bool, <-chan struct{}) {
	followers, moved := g.transport.acks.since(term, after)
	votes, voters := 0, 0
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if followers[s.ID] || s.ID == raft.ServerID(g.host.cfg.NodeID) {
			votes++
		}
	}
	return votes > voters/2, moved
}
