package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// busyWait is what a proposer is told while too much is under way: a few rounds of replication.
const busyWait = 100 * time.Millisecond

// Proposal is a command on its way through the log.
type Proposal struct {
	group  *Group
	done   chan struct{}
	index  uint64
	result any
	err    error
}

// Propose has command replicated and applied, and returns its index and what the machine's Apply returned on this node. It
// takes no longer than ctx and Config.ProposeTimeout allow. The command must not be changed any more.
//
// An error is one of *NotLeaderError, ErrUnavailable, ErrStopped, ErrTooLarge and, while Config.MaxUnderWay or Config.MaxBacklog is used
// up, *limit.Exhausted; where it is ErrIndefinite as well, the command may yet apply, and where it isn't, it will not.
func (g *Group) Propose(ctx context.Context, command []byte) (index uint64, result any, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.host.cfg.ProposeTimeout)
	defer cancel()
	return g.Submit(ctx, command).Wait(ctx)
}

// Submit proposes command and returns without waiting for its outcome. Commands that one goroutine submits to a leader
// stand in the log in that order, as far as they come to stand there.
func (g *Group) Submit(ctx context.Context, command []byte) *Proposal {
	p := &Proposal{group: g, done: make(chan struct{})}
	timeout := g.host.cfg.ProposeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	switch {
	case len(command) > g.host.cfg.MaxCommand:
		p.err = fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(command), g.host.cfg.MaxCommand)
	case timeout <= 0 || ctx.Err() != nil:
		p.err = fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
	if p.err == nil && g.host.Stalled() {
		p.err = &NotLeaderError{Leader: g.Leader()}
	}
	if p.err == nil {
		p.err = g.backlog.room(g.raft.CommitIndex())
	}
	size := int64(len(command))
	if p.err == nil {
		p.err = g.underWay.Take(size)
	}
	if p.err == nil && !g.calls.begin() {
		g.underWay.Give(size)
		p.err = ErrStopped
	}
	if p.err != nil {
		close(p.done)
		return p
	}
	future := g.raft.ApplyLog(raft.Log{Data: command, Extensions: appendChecksum(nil, command)}, timeout)
	go func() {
		defer g.calls.end()
		defer close(p.done)
		defer g.underWay.Give(size)
		if err := future.Error(); err != nil {
			p.err = g.proposeError(err)
			return
		}
		p.index, p.result = future.Index(), future.Response()
		if p.result == errSkipped {
			p.result, p.err = nil, fmt.Errorf("%w: %w", ErrIndefinite, errSkipped)
		}
	}()
	return p
}

// Wait waits for the outcome, which Propose describes. It may be called more than once.
func (p *Proposal) Wait(ctx context.Context) (index uint64, result any, err error) {
	for {
		stalled, changed := p.group.host.guard.stall()
		select {
		case <-p.done:
			return p.index, p.result, p.err
		default:
		}
		if stalled {
			return 0, nil, fmt.Errorf("%w: %w", ErrIndefinite, errStalled)
		}
		select {
		case <-changed:
		case <-p.done:
		case <-p.group.ended:
			select {
			case <-p.done:
				return p.index, p.result, p.err
			default:
				return 0, nil, fmt.Errorf("%w: %w", ErrStopped, ErrIndefinite)
			}
		case <-ctx.Done():
			err := context.Cause(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				err = ErrUnavailable
			}
			return 0, nil, fmt.Errorf("%w: %w", ErrIndefinite, err)
		}
	}
}
