package owner

import (
	"context"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// stateBytes is about how large the chunks of a state are that is sent.
const stateBytes = 1 << 20

// StateSource has the state of a shard at a mark brought from another region, chunk by chunk: each comes with the digest of
// the whole.
type StateSource func(ctx context.Context, from crdt.RegionID, at ownership.Mark, take func(digest owned.Digest, rows []byte) error) error

// ErrNoState says that a state at the mark asked for can't be handed out: the log is of another history, or does not reach
// back so far any more.
var ErrNoState = errors.New("no state at that mark is known")

// State hands out the state of the shard's owned tables at a mark, with the digest of the whole beside each chunk. It reads
// what this node's replica holds.
func (s *Shard) State(ctx context.Context, at ownership.Mark, send func(digest owned.Digest, rows []byte) error) (err error) {
	snap, err := s.o.Replica.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	r, err := snap.Owned()
	if err != nil {
		return err
	}
	if !snap.Ownership().Record.Holds(at) || at.Position < r.Begins() {
		return fmt.Errorf("shard %d: %w: %v", s.id, ErrNoState, at)
	}
	x, err := r.Export(at.Position)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		rows, err := x.Next(stateBytes)
		if err != nil || rows == nil {
			return err
		}
		if err := send(x.Digest(), rows); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// held says whether the state that a message speaks of stands here, or need not. Else it is brought, one at a time, and the
// message comes again when it is there; what another one asks for meanwhile its sender asks for again.
func (l *leading) held(x incoming) (bool, error) {
	at, rec := x.message.Mark, l.state.Record
	if l.witness() || l.o.State == nil || rec.Holds(at) || at.Position <= rec.Confirmed || x.message.Epoch < rec.Promised {
		return true, nil
	}
	ok, err := l.staged(at)
	if ok || err != nil || !l.fetching.CompareAndSwap(false, true) {
		return ok, err
	}
	l.prover.Go(func() {
		defer l.fetching.Store(false)
		if err := l.fetch(x.from, at); err != nil {
			if l.ctx.Err() == nil {
				l.logger.Warn("the state of the owned tables could not be taken over", "from", x.from, "at", at, "error", err)
			}
			return
		}
		l.logger.Info("the state of the owned tables was taken over", "from", x.from, "at", at)
		l.offer(x)
	})
	return false, nil
}

func (l *leading) staged(at ownership.Mark) (ok bool, err error) {
	snap, err := l.o.Replica.Snapshot()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	r, err := snap.Owned()
	if err != nil {
		return false, err
	}
	return r.Staged(at), nil
}

// fetch brings a state into a copy beside the one in force.
func (l *leading) fetch(from crdt.RegionID, at ownership.Mark) (err error) {
	number, chunks := uint32(0), uint32(0)
	propose := func(c shard.Command) (shard.Result, error) {
		ctx, cancel := context.WithTimeout(l.ctx, stepWithin)
		defer cancel()
		res, err := l.o.Replica.Submit(ctx, c, shard.Encode(c))(ctx)
		if err == nil && res.Outcome != shard.Applied {
			err = fmt.Errorf("%w: %v: %s", group.ErrUnavailable, res.Outcome, res.Reason)
		}
		return res, err
	}
	defer func() {
		if err != nil && number > 0 && l.ctx.Err() == nil {
			_, e := propose(&shard.OwnUnstage{Copy: number})
			err = errors.Join(err, e)
		}
	}()
	err = l.o.State(l.ctx, from, at, func(digest owned.Digest, rows []byte) error {
		if number == 0 {
			res, err := propose(&shard.OwnStage{Mark: at, Digest: digest})
			if err != nil {
				return err
			}
			number = res.Copy
		}
		_, err := propose(&shard.OwnChunk{Copy: number, Number: chunks, Rows: rows})
		chunks++
		return err
	})
	if err != nil {
		return err
	}
	if ok, err := l.staged(at); !ok {
		return errors.Join(errors.New("what came is not the state whose digest was told"), err)
	}
	return nil
}
