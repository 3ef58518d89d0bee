package group

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Linearizable returns when this node is known to lead and its machine holds every command that was acknowledged, by any
// leader, before the call. It returns an index at or above theirs, which the machine has reached. It takes no longer than
// ctx and Config.ProposeTimeout allow. Errors are *NotLeaderError, ErrUnavailable and ErrStopped.
func (g *Group) Linearizable(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, g.host.cfg.ProposeTimeout)
	defer cancel()
	if !g.IsLeader() {
		return 0, &NotLeaderError{Leader: g.Leader()}
	}
	commit, err := g.readIndex(ctx)
	if err != nil {
		return 0, err
	}
	index, err := g.lastCommand(commit)
	if err != nil {
		return 0, err
	}
	return index, g.WaitApplied(ctx, index)
}

// WaitApplied returns when the machine has applied the command at index, or one above it.
func (g *Group) WaitApplied(ctx context.Context, index uint64) error {
	if mutant.On("read-without-waiting") {
		return nil
	}
	err := g.position.wait(ctx, index, g.stopped)
	if err != nil && !errors.Is(err, ErrStopped) {
		return fmt.Errorf("%w: state is at index %d, not at %d: %w", ErrUnavailable, g.position.get(), index, err)
	}
	return err
}

// barrier has all that earlier leaders committed applied here, once a term: before that a new leader doesn't know its
// commit index.
func (g *Group) barrier(ctx context.Context) error {
	term := g.raft.CurrentTerm()
	g.mu.Lock()
	done := g.mu.barrier == term
	g.mu.Unlock()
	if done {
		return nil
	}
	timeout := g.host.cfg.ProposeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	if err := g.readError(g.await(ctx, func() raft.Future { return g.raft.Barrier(timeout) })); err != nil {
		return err
	}
	// A term that changed under way leaves the barrier to the next read.
	if g.raft.CurrentTerm() == term {
		g.mu.Lock()
		g.mu.barrier = max(g.mu.barrier, term)
		g.mu.Unlock()
		return nil
	}
	return &NotLeaderError{Leader: g.Leader()}
}

// await asks and waits for the answer, but no longer than ctx.
func (g *Group) await(ctx context.Context, ask func() raft.Future) error {
	if !g.calls.begin() {
		return ErrStopped
	}
	future, done := ask(), make(chan error, 1)
	go func() {
		defer g.calls.end()
		done <- future.Error()
	}()
	for {
		stalled, changed := g.host.guard.stall()
		if stalled {
			return errStalled
		}
		select {
		case err := <-done:
			return err
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lastCommand returns the index of the last command at or below index: Raft's own entries never reach the machine.
func (g *Group) lastCommand(index uint64) (uint64, error) {
	for applied := g.position.get(); index > applied; index-- {
		var entry raft.Log
		err := g.log.GetLog(index, &entry)
		if errors.Is(err, raft.ErrLogNotFound) {
			break // behind a snapshot, which the state is not
		}
		if err != nil {
			return 0, err
		}
		if entry.Type == raft.LogCommand {
			return index, nil
		}
	}
	return min(index, g.position.get()), nil
}

// ReadLog returns the command at index, if it has been applied here and the log still holds it. It is not ok for
// indexes of Raft's own entries either: LogBounds tells those apart.
func (g *Group) ReadLog(index uint64) (command []byte, ok bool, err error) {
	if index > g.position.get() {
		return nil, false, nil
	}
	return g.host.logs.Read(g.shard, index)
}

// LogBounds returns the first index that the log still holds and the last one that the machine has applied.
func (g *Group) LogBounds() (first, applied uint64) {
	first, _ = g.log.FirstIndex()
	return first, g.position.get()
}

// Status is what a group can say of itself without asking others.
type Status struct {
	Shard    uint32
	Role     string // Leader, Follower, Candidate or Shutdown
	Leader   Member // zero where unknown
	Term     uint64
	Commit   uint64 // as far as this node knows
	Applied  uint64 // last command that the machine has applied
	FirstLog uint64 // first entry still held, 0 when the log is empty
	LastLog  uint64
	// Staleness is how long ago this node heard from its leader, whose commit index it knows since: 0 on the leader
	// itself, within its lease, and the greatest Duration when it never did.
	Staleness time.Duration
}

// Status describes the group at this moment.
func (g *Group) Status() Status {
	role := g.raft.State()
	s := Status{
		Shard: g.shard, Role: role.String(), Leader: g.Leader(), Term: g.raft.CurrentTerm(), Commit: g.raft.CommitIndex(),
		LastLog: g.raft.LastIndex(), Staleness: math.MaxInt64,
	}
	s.FirstLog, s.Applied = g.LogBounds()
	switch contact := g.raft.LastContact(); {
	case role == raft.Leader:
		s.Staleness = 0
	case !contact.IsZero():
		s.Staleness = time.Since(contact)
	}
	return s
}
