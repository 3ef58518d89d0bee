package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// Options says what a Replica runs on.
type Options struct {
	Shard shard.Config
	Dir   string      // of the shard's store; made when missing
	Host  *group.Host // the node's
	// Found is the group's first configuration where it has never run anywhere, the same on all nodes; without one the
	// group was founded by others, and its leader adds this node.
	Found []group.Seat
	Cache *pebble.Cache // shared by the stores of the node; nil for one of its own
	// TableBytes is how much the store gathers in memory; 0 for the store's default.
	TableBytes int64
	// Room, if set, is asked before a command that makes the state grow is proposed: what it returns is what its proposer
	// gets.
	Room func() error
	// Fatal is told of what the process can't go on after. It must end it; where it returns (tests), the replica applies
	// nothing more. What only this replica can't go on after, damage, is not told.
	Fatal  func(error)
	Logger hclog.Logger // default: none
}

// Replica is one shard on this node. Its methods are safe for any goroutine.
type Replica struct {
	o        Options
	id       keyspace.ShardID
	logger   hclog.Logger
	life     atomic.Pointer[life]
	damage   atomic.Pointer[Damage] // nil while the replica is whole
	damages  atomic.Uint64          // ever found
	renewing sync.Mutex             // held while one life ends or the next begins
	log      *group.LogStore        // the node's
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

// Open opens the shard's store and joins its group. Where the store is damaged, or was when it was last open, the replica
// is there all the same, but out: see Damage.
func Open(o Options) (*Replica, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	r := &Replica{o: o, id: o.Shard.Shard, hasRoom: o.Room, logger: o.Logger.With("shard", o.Shard.Shard), quit: make(chan struct{})}
	r.mu.changed = make(chan struct{})
	r.log = o.Host.Log()
	if err := o.Host.ResumeRebuild(uint32(r.id), r.drop); err != nil {
		return nil, fmt.Errorf("open shard %d: %w", r.id, err)
	}
	found, err := readDamage(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open shard %d: %w", r.id, err)
	}
	if found == nil {
		err := r.begin()
		if err == nil {
			return r, nil
		}
		if !isDamage(err) {
			return nil, err
		}
		found = newDamage(o.Dir, err)
		if err := writeDamage(o.Dir, found); err != nil {
			r.logger.Warn("that the replica is damaged is not recorded", "error", err)
		}
	}
	r.tellDamage(found)
	return r, r.beginOut()
}

// Close ends the tasks, leaves the group, handing leadership on, and closes the store. Snapshots must be closed before.
// It may be called twice.
func (r *Replica) Close() error {
	r.closing.Do(func() {
		close(r.quit)
		r.renewing.Lock()
		defer r.renewing.Unlock()
		l := r.life.Load()
		err := l.stop()
		r.lead(group.Leadership{})
		r.tasks.Wait()
		if closed := l.machine.Close(); r.damage.Load() == nil {
			r.err = errors.Join(err, closed)
		}
	})
	return r.err
}

// Closed returns a channel that is closed when Close begins.
func (r *Replica) Closed() <-chan struct{} { return r.quit }

// Membership returns the last configuration of the group that this node knows to be committed, see group.Group.
func (r *Replica) Membership() (group.Membership, error) {
	g := r.life.Load().group
	if g == nil {
		return group.Membership{}, group.ErrStopped
	}
	return g.Membership()
}

// Alter makes one change to the members of the group that this node leads, see group.Group.
func (r *Replica) Alter(ctx context.Context, what group.Alter, node, address string, index uint64) error {
	g := r.life.Load().group
	if g == nil {
		return group.ErrStopped
	}
	return g.Alter(ctx, what, node, address, index)
}

// HandTo hands leadership to another voter, see group.Group.
func (r *Replica) HandTo(ctx context.Context, node string) error {
	g := r.life.Load().group
	if g == nil {
		return group.ErrStopped
	}
	return g.HandTo(ctx, node)
}

// Shard returns the shard's number.
func (r *Replica) Shard() keyspace.ShardID { return r.id }

// Config returns the shard's configuration, which is not to be changed.
func (r *Replica) Config() *shard.Config { return r.life.Load().machine.Config() }

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
	if err := r.whole(); err != nil {
		return shard.Result{}, err
	}
	l := r.life.Load()
	if err := l.machine.Validate(c); err != nil {
		return shard.Result{}, err
	}
	if err := r.room(shard.KindOf(raw)); err != nil {
		return shard.Result{}, fmt.Errorf("shard %d: %w", r.id, err)
	}
	_, applied, err := l.group.Propose(ctx, raw)
	return r.result(shard.KindOf(raw), applied, err)
}

// State returns the state as this replica has it now; as it had it last where it is damaged, which may be empty.
func (r *Replica) State() *shard.State { return r.life.Load().machine.State() }

// Snapshot returns state and slots as this replica has them now. It must be closed. A damaged replica fails with ErrDamaged.
func (r *Replica) Snapshot() (*shard.Snapshot, error) {
	if err := r.whole(); err != nil {
		return nil, err
	}
	return r.life.Load().machine.Snapshot()
}

// Checkpoint writes the state as this replica has it into dir, which it makes, on the file system of the shard's store,
// and returns the index and the hash chain that it holds. The group does not notice: neither Raft's log nor its snapshots
// are touched, and commands go on being applied.
func (r *Replica) Checkpoint(dir string) (index uint64, chain []byte, err error) {
	if err := r.whole(); err != nil {
		return 0, nil, err
	}
	index, hash, err := r.life.Load().machine.Copy(dir)
	if err != nil {
		return 0, nil, fmt.Errorf("checkpoint of shard %d: %w", r.id, err)
	}
	return index, hash[:], nil
}

// Changed returns a channel that is closed when the next command has been applied. To miss none: take the channel, look
// at the state, then wait.
func (r *Replica) Changed() <-chan struct{} { return r.life.Load().machine.Changed() }

// Linearizable returns when State and Snapshot reflect every command that was acknowledged before the call, by any
// leader. It fails where this node does not lead, see group.Linearizable.
func (r *Replica) Linearizable(ctx context.Context) error {
	if err := r.whole(); err != nil {
		return err
	}
	if _, err := r.life.Load().group.Linearizable(ctx); err != nil {
		return fmt.Errorf("shard %d: %w", r.id, err)
	}
	return r.whole() // what is applied after the damage is not
}

// WaitApplied returns when this replica has applied the command at index or one above it.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	if err := r.whole(); err != nil {
		return err
	}
	if err := r.life.Load().group.WaitApplied(ctx, index); err != nil {
		return err
	}
	return r.whole()
}

// ReadLog returns the encoded command at index, if it has been applied here and the log still holds it.
func (r *Replica) ReadLog(index uint64) (command []byte, ok bool, err error) {
	if err := r.whole(); err != nil {
		return nil, false, err
	}
	return r.life.Load().group.ReadLog(index)
}

// LogBounds returns the first index that the log still holds and the last one that was applied here.
func (r *Replica) LogBounds() (first, applied uint64) {
	if g := r.life.Load().group; g != nil {
		return g.LogBounds()
	}
	return 0, 0
}

// Status describes the replica's place in its group at this moment.
func (r *Replica) Status() group.Status {
	if g := r.life.Load().group; g != nil && r.damage.Load() == nil {
		return g.Status()
	}
	return group.Status{Shard: uint32(r.id), Role: "Damaged", Applied: r.State().Index, Staleness: math.MaxInt64}
}

// Leader returns the member that leads the shard as far as this node knows, or the zero Member.
func (r *Replica) Leader() group.Member {
	if g := r.life.Load().group; g != nil && r.damage.Load() == nil {
		return g.Leader()
	}
	return group.Member{}
}

// IsLeader says whether this node believes that it leads the shard. Only Propose and Linearizable know.
func (r *Replica) IsLeader() bool {
	g := r.life.Load().group
	return g != nil && r.damage.Load() == nil && g.IsLeader()
}

// StepDown hands leadership to another node that is up, where this one leads.
func (r *Replica) StepDown() {
	if g := r.life.Load().group; g != nil {
		g.StepDown()
	}
}

// Staleness returns how long ago this replica heard from its leader: 0 on the leader, and the greatest Duration where it
// never did.
func (r *Replica) Staleness() time.Duration { return r.Status().Staleness }

// Ready says whether the shard has a leader and this replica has applied what it knows to be committed.
func (r *Replica) Ready() bool {
	s := r.Status()
	return s.Leader.ID != "" && s.Staleness != math.MaxInt64 && s.Applied+readySlack >= s.Commit
}

// readySlack is how far the applied index may lie behind the commit index of a replica that is up to date: Raft's own
// entries never reach the machine, and a few commands are always under way.
const readySlack = 256

// Points returns where this replica stands in the sources of a generation; not ok for a generation that it does not
// know.
func (r *Replica) Points(id crdt.GenerationID) (points crdt.Frontier, index uint64, ok bool) {
	st := r.State()
	g := st.Generation(id)
	if g == nil {
		return nil, st.Index, false
	}
	return g.Points(), st.Index, true
}
