package replica

import (
	"context"
	"fmt"

	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// Submit proposes a command, given also as shard.Encode made it, and returns without waiting for what it comes to: wait
// does that, and fails as Propose. Commands that one goroutine submits are applied in that order, as far as they are.
func (r *Replica) Submit(ctx context.Context, c shard.Command, raw []byte) (wait func(context.Context) (shard.Result, error)) {
	refuse := func(err error) func(context.Context) (shard.Result, error) {
		return func(context.Context) (shard.Result, error) { return shard.Result{}, err }
	}
	if err := r.whole(); err != nil {
		return refuse(err)
	}
	l := r.life.Load()
	if err := l.machine.Validate(c); err != nil {
		return refuse(err)
	}
	if err := r.room(shard.KindOf(raw)); err != nil {
		return refuse(fmt.Errorf("shard %d: %w", r.id, err))
	}
	p := l.group.Submit(ctx, raw)
	return func(ctx context.Context) (shard.Result, error) {
		_, applied, err := p.Wait(ctx)
		return r.result(shard.KindOf(raw), applied, err)
	}
}

// result sorts what the group says of a proposal.
func (r *Replica) result(k shard.Kind, applied any, err error) (shard.Result, error) {
	if err != nil {
		return shard.Result{}, fmt.Errorf("shard %d: %w", r.id, err)
	}
	switch x := applied.(type) {
	case shard.Result:
		r.outcomes.count(k, x.Outcome)
		return x, nil
	case error:
		return shard.Result{}, fmt.Errorf("shard %d: %w: %w", r.id, group.ErrIndefinite, x)
	default:
		panic(fmt.Sprintf("replica: applying a command returned a %T", applied))
	}
}

// LatestOuts lists commands of the log that other regions want, see shard.Machine.LatestOuts.
func (r *Replica) LatestOuts(index uint64, limit int) (list []shard.Out, to uint64, ok bool) {
	return r.life.Load().machine.LatestOuts(index, limit)
}

// ReadOut returns the encoded command at an index that LatestOuts or a Snapshot's OutAfter named, if the log still holds
// it.
func (r *Replica) ReadOut(index uint64) (command []byte, ok bool, err error) {
	return r.log.Read(uint32(r.id), index)
}
