package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// life is a machine and its group, from one rebuilding of the replica to the next. It does not change once begun.
type life struct {
	machine *shard.Machine
	group   *group.Group  // nil where the store could not be opened: the machine is an empty one in memory then
	begun   chan struct{} // closed when both are there, or never will be
	ended   atomic.Bool
}

// stop leaves the group.
func (l *life) stop() error {
	l.ended.Store(true)
	if l.group == nil {
		return nil
	}
	return l.group.Stop()
}

// machine is the shard's machine as its group drives it.
type machine struct {
	*shard.Machine
	damaged func(error)
}

// Damaged implements group.Damageable.
func (m machine) Damaged(err error) { m.damaged(err) }

// begin opens the store and joins the group.
func (r *Replica) begin() error {
	l := &life{begun: make(chan struct{})}
	defer close(l.begun)
	fail := func(err error) { r.fail(l, err) }
	store, err := keyspace.Open(keyspace.Options{
		Dir: r.o.Dir, Fatal: fail, Cache: r.o.Cache, Logger: r.logger.Named("store"), TableBytes: r.o.TableBytes,
		FS: r.o.Host.WatchFS(vfs.Default),
	})
	if err != nil {
		l.ended.Store(true)
		return fmt.Errorf("open shard %d: %w", r.id, err)
	}
	l.machine, err = shard.Open(shard.Options{Config: r.o.Shard, Store: store, Fatal: fail, Observe: r.watchers.tell})
	if err != nil {
		l.ended.Store(true)
		return errors.Join(err, store.Close())
	}
	if len(r.o.Found) > 0 {
		l.group, err = r.o.Host.Found(uint32(r.id), machine{l.machine, fail}, r.o.Found)
	} else {
		l.group, err = r.o.Host.Join(uint32(r.id), machine{l.machine, fail})
	}
	if err != nil {
		l.ended.Store(true)
		return errors.Join(err, l.machine.Close())
	}
	r.life.Store(l)
	l.group.OnLeader(r.lead)
	return nil
}

// beginOut has a replica that is out hold an empty state in memory, so that everything else finds something.
func (r *Replica) beginOut() error {
	store, err := keyspace.Open(keyspace.Options{Dir: "out", FS: vfs.NewMem(), Fatal: r.o.Fatal})
	if err != nil {
		return fmt.Errorf("open shard %d: %w", r.id, err)
	}
	m, err := shard.Open(shard.Options{Config: r.o.Shard, Store: store, Fatal: r.o.Fatal})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	l := &life{machine: m, begun: make(chan struct{})}
	close(l.begun)
	r.life.Store(l)
	return nil
}

// drop removes the store.
func (r *Replica) drop() error { return os.RemoveAll(r.o.Dir) }

// Rebuild drops what this node holds of the shard and takes it anew from the leader: it returns when that has begun, and
// Ready says when it is done. Another node must lead the shard, and go on doing so. Where it fails, the replica is out.
func (r *Replica) Rebuild() error {
	r.renewing.Lock()
	defer r.renewing.Unlock()
	select {
	case <-r.quit:
		return group.ErrStopped
	default:
	}
	old := r.life.Load()
	by := &Damage{Version: damageVersion, Time: time.Now().UTC(), File: r.o.Dir, What: "it is being rebuilt"}
	r.damage.CompareAndSwap(nil, by) // so that nobody reads on
	err := old.stop()
	r.lead(group.Leadership{})
	if err != nil {
		return fmt.Errorf("rebuild shard %d: %w", r.id, err)
	}
	if err := old.machine.Close(); err != nil && r.damage.Load() == by {
		r.logger.Warn("the store did not close well", "error", err)
	}
	if err := r.o.Host.Rebuild(uint32(r.id), r.drop); err != nil {
		return err
	}
	was := r.damage.Swap(nil)
	if err := r.begin(); err != nil {
		r.damage.Store(newDamage(r.o.Dir, err))
		return err
	}
	r.watchers.tell(shard.Change{Whole: true})
	old.machine.Wake() // those that wait look at the new one
	r.logger.Info("the replica was dropped and is taken anew from the leader", "because", was.What)
	return nil
}

// AwaitReady returns when the replica is Ready, or fails when ctx ends.
func (r *Replica) AwaitReady(ctx context.Context) error {
	const look = 20 * time.Millisecond
	for !r.Ready() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("shard %d: not caught up: %w", r.id, context.Cause(ctx))
		case <-time.After(look):
		}
	}
	return nil
}
