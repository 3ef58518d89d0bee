package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// Options says what a Replica runs on.
type Options struct {
	Shard shard.Config
	Dir   string        // of the shard's store; made when missing
	Host  *group.Host   // the node's
	Cache *pebble.Cache // shared by the stores of the node; nil for one of its own
	// TableBytes is how much the store gathers in memory; 0 for the store's default.
	TableBytes int64
	// Room, if set, is asked before a command that makes the state grow is proposed: what it returns is what its proposer
	// gets.
	Room func() error
	// Fatal is told of what the replica can't go on after. It must end the process; where it returns (tests), the replica
	// applies nothing more.
	Fatal  func(error)
	Logger hclog.Logger // default: none
}

// Replica is one shard on this node. Its methods are safe for any goroutine.
type Replica struct {
	id       keyspace.ShardID
	logger   hclog.Logger
	machine  *shard.Machine
	group    *group.Group
	log      *group.LogStore // the node's
	watchers watchers
	outcomes outcomes
	hasRoom  func() error // nil: always

	quit    chan struct{}
	closing sync.Once
	err     error // of closing
	tasks   sync.WaitGroup

	mu struct {
		sync.Mutex
		reign *reign // of this node, nil while another one leads
		// changed is closed when reign changes.
		changed chan struct{}
	}
}

// reign is one time of leading.
type reign struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// Open opens the shard's store and joins its group.
func Open(o Options) (*Replica, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	r := &Replica{id: o.Shard.Shard, logger: o.Logger.With("shard", o.Shard.Shard), hasRoom: o.Room, quit: make(chan struct{})}
	r.mu.changed = make(chan struct{})
	store, err := keyspace.Open(keyspace.Options{
		Dir: o.Dir, Fatal: o.Fatal, Cache: o.Cache, Logger: r.logger.Named("store"), TableBytes: o.TableBytes,
		FS: o.Host.WatchFS(vfs.Default),
	})
	if err != nil {
		return nil, fmt.Errorf("open shard %d: %w", r.id, err)
	}
	r.machine, err = shard.Open(shard.Options{Config: o.Shard, Store: store, Fatal: o.Fatal, Observe: r.watchers.tell})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if r.group, err = o.Host.Start(uint32(r.id), r.machine); err != nil {
		return nil, errors.Join(err, r.machine.Close())
	}
	r.log = o.Host.Log()
	r.group.OnLeader(r.lead)
	return r, nil
}

// Close ends the tasks, leaves the group, handing leadership on, and closes the store. Snapshots must be closed before.
// It may be called twice.
func (r *Replica) Close() error {
	r.closing.Do(func() {
		close(r.quit)
		err := r.group.Stop()
		r.lead(group.Leadership{})
		r.tasks.Wait()
		r.err = errors.Join(err, r.machine.Close())
	})
	return r.err
}

// Shard returns the shard's number.
func (r *Replica) Shard() keyspace.ShardID { return r.id }

// Config returns the shard's configuration, which is not to be changed.
func (r *Replica) Config() *shard.Config { return r.machine.Config() }

// Propose has a command applied and returns what that came to. It fails where this node does not lead
// (*group.NotLeaderError) and as group.Propose describes; with shard.ErrInvalid for a command whose content the shard
// can't hold. Every command may be proposed again after group.ErrIndefinite.
func (r *Replica) Propose(ctx context.Context, c shard.Command) (shard.Result, error) {
	return r.propose(ctx, c, shard.Encode(c))
}

// ProposeEncoded is Propose for a command as shard.Encode made it, which must not be changed any more. It fails with
// shard.ErrCommand for anything else.
func (r *Replica) ProposeEncoded(ctx context.Context, raw []byte) (shard.Result, error) {
	c, err := shard.Decode(raw)
	if err != nil {
		return shard.Result{}, err
	}
	return r.propose(ctx, c, raw)
}

func (r *Replica) propose(ctx context.Context, c shard.Command, raw []byte) (shard.Result, error) {
	if err := r.machine.Validate(c); err != nil {
		return shard.Result{}, err
	}
	if err := r.room(shard.KindOf(raw)); err != nil {
		return shard.Result{}, fmt.Errorf("shard %d: %w", r.id, err)
	}
	_, applied, err := r.group.Propose(ctx, raw)
	return r.result(shard.KindOf(raw), applied, err)
}

// State returns the state as this replica has it now.
func (r *Replica) State() *shard.State { return r.machine.State() }

// Snapshot returns state and slots as this replica has them now. It must be closed.
func (r *Replica) Snapshot() (*shard.Snapshot, error) { return r.machine.Snapshot() }

// Checkpoint writes the state as this replica has it into dir, which it makes, on the file system of the shard's store,
// and returns the index and the hash chain that it holds. The group does not notice: neither Raft's log nor its snapshots
// are touched, and commands go on being applied.
func (r *Replica) Checkpoint(dir string) (index uint64, chain []byte, err error) {
	index, hash, err := r.machine.Copy(dir)
	if err != nil {
		return 0, nil, fmt.Errorf("checkpoint of shard %d: %w", r.id, err)
	}
	return index, hash[:], nil
}

// Changed returns a channel that is closed when the next command has been applied. To miss none: take the channel, look
// at the state, then wait.
func (r *Replica) Changed() <-chan struct{} { return r.machine.Changed() }

// Linearizable returns when State and Snapshot reflect every command that was acknowledged before the call, by any
// leader. It fails where this node does not lead, see group.Linearizable.
func (r *Replica) Linearizable(ctx context.Context) error {
	if _, err := r.group.Linearizable(ctx); err != nil {
		return fmt.Errorf("shard %d: %w", r.id, err)
	}
	return nil
}

// WaitApplied returns when this replica has applied the command at index or one above it.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	return r.group.WaitApplied(ctx, index)
}

// ReadLog returns the encoded command at index, if it has been applied here and the log still holds it.
func (r *Replica) ReadLog(index uint64) (command []byte, ok bool, err error) {
	return r.group.ReadLog(index)
}

// LogBounds returns the first index that the log still holds and the last one that was applied here.
func (r *Replica) LogBounds() (first, applied uint64) { return r.group.LogBounds() }

// Status describes the replica's place in its group at this moment.
func (r *Replica) Status() group.Status { return r.group.Status() }

// Leader returns the member that leads the shard as far as this node knows, or the zero Member.
func (r *Replica) Leader() group.Member { return r.group.Leader() }

// IsLeader says whether this node believes that it leads the shard. Only Propose and Linearizable know.
func (r *Replica) IsLeader() bool { return r.group.IsLeader() }

// StepDown hands leadership to another node that is up, where this one leads.
func (r *Replica) StepDown() { r.group.StepDown() }

// Staleness returns how long ago this replica heard from its leader: 0 on the leader, and the greatest Duration where it
// never did.
func (r *Replica) Staleness() time.Duration { return r.group.Status().Staleness }

// Ready says whether the shard has a leader and this replica has applied what it knows to be committed.
func (r *Replica) Ready() bool {
	s := r.group.Status()
	return s.Leader.ID != "" && s.Staleness != math.MaxInt64 && s.Applied+readySlack >= s.Commit
}

// readySlack is how far the applied index may lie behind the commit index of a replica that is up to date: Raft's own
// entries never reach the machine, and a few commands are always under way.
const readySlack = 256

// Points returns where this replica stands in the sources of a generation; not ok for a generation that it does not
// know.
func (r *Replica) Points(id crdt.GenerationID) (points crdt.Frontier, index uint64, ok bool) {
	st := r.machine.State()
	g := st.Generation(id)
	if g == nil {
		return nil, st.Index, false
	}
	return g.Points(), st.Index, true
}
