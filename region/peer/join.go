package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// joining is one state join on its way.
type joining struct {
	*puller
	key    groupKey
	head   *peerv1.StateHead
	to     crdt.Frontier
	copy   uint32
	chunks uint32
}

// receiveWithin takes the next message of a stream, which it ends where none comes for a while.
func receiveWithin(stream grpc.ServerStreamingClient[peerv1.StateChunk], cancel func(), within time.Duration) (*peerv1.StateChunk, error) {
	patience := time.AfterFunc(within, cancel)
	defer patience.Stop()
	return stream.Recv()
}

// check reads the head, and fails where the state is not to be taken.
func (j *joining) check(have crdt.Frontier) (err error) {
	if j.head == nil {
		return fmt.Errorf("%w: a state without a head", ErrProtocol)
	}
	if j.to, err = crdt.DecodeFrontier(j.head.Frontier); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if n := len(j.head.Unconfirmed); n > 0 {
		src, rest, err := crdt.CutSource(j.head.Unconfirmed[0])
		if err != nil || len(rest) > 0 {
			return fmt.Errorf("%w: an unconfirmed source that is none", ErrProtocol)
		}
		return fmt.Errorf("%w: %v at offset %d (%d sources)", errUnconfirmed, src, have[src].Offset, n)
	}
	for src := range j.to {
		if src.Region != j.key.group {
			return fmt.Errorf("%w: a state of group %s with source %v", ErrProtocol, j.key.group, src)
		}
	}
	return nil
}

// stage writes the cells into a new copy of the group. Where it fails, the copy is given up.
func (j *joining) stage(ctx context.Context, next func() (*peerv1.StateChunk, error)) (err error) {
	res, err := j.replica.Propose(ctx, &shard.StageBegin{Generation: j.key.generation, Group: j.key.group})
	if err != nil {
		return err
	}
	if res.Outcome != shard.Applied {
		return fmt.Errorf("begin a copy: %v %s", res.Outcome, res.Reason)
	}
	j.copy = res.Copy
	defer func() {
		if err != nil {
			j.abandon(context.WithoutCancel(ctx))
		}
	}()
	for {
		m, err := next()
		if err != nil {
			return fmt.Errorf("take state: %w", err)
		}
		if m.End {
			return nil
		}
		if err := j.chunk(ctx, m.Cells); err != nil {
			return err
		}
	}
}

// chunk proposes one chunk, and rests about as long as that took.
func (j *joining) chunk(ctx context.Context, cells []byte) error {
	x, err := crdt.DecodeAdvance(cells)
	if err != nil || x.Generation != j.key.generation || x.Group != j.key.group || len(x.Ranges) > 0 {
		return errors.Join(fmt.Errorf("%w: a chunk of state that is none", ErrProtocol), err)
	}
	start := time.Now()
	res, err := j.replica.Propose(ctx, &shard.StageChunk{
		Generation: j.key.generation, Group: j.key.group, Copy: j.copy, Number: j.chunks, Deltas: x.Deltas,
	})
	switch {
	case err != nil:
		return err
	case res.Outcome != shard.Applied && res.Outcome != shard.Duplicate:
		return fmt.Errorf("stage chunk %d: %v %s", j.chunks, res.Outcome, res.Reason)
	}
	j.chunks++
	j.joined.Add(uint64(len(cells)))
	return rest(ctx, min(time.Since(start), j.timing.JoinRest))
}

// install switches to the copy.
func (j *joining) install(ctx context.Context, have crdt.Frontier) error {
	c := &shard.Install{Chunks: j.chunks, Install: crdt.Install{
		Generation: j.key.generation, Group: j.key.group, Copy: j.copy, To: j.to, Horizon: j.head.Horizon}}
	for _, src := range have.Sources() {
		c.Confirmed = append(c.Confirmed, shard.SourceMark{Source: src, Mark: have[src].Mark()})
	}
	res, err := j.replica.Propose(ctx, c)
	if err == nil && res.Outcome != shard.Applied && res.Outcome != shard.Duplicate {
		err = fmt.Errorf("install: %v %s", res.Outcome, res.Reason)
	}
	if err != nil {
		j.abandon(context.WithoutCancel(ctx))
		return err
	}
	j.logger.Info("took a group's state", "generation", fmt.Sprintf("%x", j.key.generation), "group", j.key.group,
		"chunks", j.chunks, "index", j.head.AppliedIndex)
	return nil
}

// abandon gives the copy up. Where that fails too, the next one that is begun drops it, or the next leader.
func (j *joining) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := j.replica.Propose(ctx, &shard.StageAbandon{Generation: j.key.generation, Group: j.key.group, Copy: j.copy})
	if err != nil {
		j.logger.Debug("a copy was not given up", "error", err)
	}
}

// rest waits, but no longer than ctx.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
