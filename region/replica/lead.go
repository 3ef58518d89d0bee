package replica

import (
	"context"
	"errors"
	"time"

	"github.com/watershed-db/watershed/region/group"
)

// confirmEvery is how long a new leader waits before it tries again to learn what its predecessors acknowledged.
const confirmEvery = 20 * time.Millisecond

// Lead has task run while this replica leads, from when its state holds all that earlier leaders acknowledged. Its ctx
// ends with the leadership (or what this node knows of it: what task proposes is checked by the group all the same) and
// with Close, which waits for task to return. A task that returns earlier is not started again in the same reign. There
// is one call of a task at a time.
func (r *Replica) Lead(task func(ctx context.Context)) {
	r.tasks.Go(func() {
		var last *reign
		for {
			now, ok := r.nextReign(last)
			if !ok {
				return
			}
			last = now
			if r.confirm(now.ctx) {
				task(now.ctx)
			}
			<-now.ctx.Done()
		}
	})
}

// nextReign waits for another reign than last; not ok when the replica is closing.
func (r *Replica) nextReign(last *reign) (*reign, bool) {
	for {
		r.mu.Lock()
		now, changed := r.mu.reign, r.mu.changed
		r.mu.Unlock()
		if now != nil && now != last {
			return now, true
		}
		select {
		case <-changed:
		case <-r.quit:
			return nil, false
		}
	}
}

// confirm returns true when the state is up to date, false when the reign is over.
func (r *Replica) confirm(ctx context.Context) bool {
	for {
		err := r.Linearizable(ctx)
		switch {
		case err == nil:
			return ctx.Err() == nil
		case errors.Is(err, group.ErrStopped), errors.Is(err, ErrDamaged):
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(confirmEvery):
		}
	}
}

// lead takes the group's word on leadership. It must not block.
func (r *Replica) lead(l group.Leadership) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.reign != nil {
		r.mu.reign.cancel()
		r.mu.reign = nil
	}
	if l.Leader {
		ctx, cancel := context.WithCancel(context.Background())
		r.mu.reign = &reign{ctx, cancel}
	}
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}
