package router

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// bound is how long a call waits for a leader where its context does not say.
	bound = 10 * time.Second
	// firstPause and lastPause are between the tries of a call.
	firstPause = 10 * time.Millisecond
	lastPause  = 160 * time.Millisecond
	// attempt bounds one try at a node that may be gone without a word.
	attempt = 3 * time.Second
	// attemptDead bounds one at a node that the others don't hear of: not nothing, since it may be the probes that are lost.
	attemptDead = 300 * time.Millisecond
)

// Node is a node of this region: its Raft name, and where it serves gRPC and Raft.
type Node struct{ ID, GRPC, Raft string }

// Options says what a Router reaches.
type Options struct {
	Deployment string
	Self       string // this node's id
	Layout     Layout // what is known of the region at first, see Learn
	Local      *Local // this node's replicas
	Conns      *Conns // shared, not closed by the Router
	// Dead says whether a node is not heard of any more: it is not waited for as long. Default: all are heard of.
	Dead func(node string) bool
}

// Router reaches the leaders of this region's shards. It is safe for any goroutine.
type Router struct {
	o       Options
	layout  atomic.Pointer[Layout]
	leaders []atomic.Pointer[group.Member] // who led a shard that is not here, when it was last called
}

// New returns a Router.
func New(o Options) *Router {
	r := &Router{o: o, leaders: make([]atomic.Pointer[group.Member], o.Local.Shards())}
	r.Learn(o.Layout)
	return r
}

// Shards returns how many shards there are.
func (r *Router) Shards() int { return r.o.Local.Shards() }

// Local returns this node's replicas.
func (r *Router) Local() *Local { return r.o.Local }

// Replica returns this node's replica of a shard, nil where it has none. Of shard 0 every node has one.
func (r *Router) Replica(id keyspace.ShardID) *replica.Replica { return r.o.Local.Get(id) }

// State returns a shard's state as this node has it, nil where it has none.
func (r *Router) State(id keyspace.ShardID) *shard.State {
	if here := r.Replica(id); here != nil {
		return here.State()
	}
	return nil
}

// Address returns where a node of the region serves gRPC, "" for an unknown one.
func (r *Router) Address(node string) string {
	for _, n := range r.Nodes() {
		if n.ID == node {
			return n.GRPC
		}
	}
	return ""
}

func (r *Router) member(address string) group.Member {
	for _, n := range r.Nodes() {
		if n.GRPC == address {
			return group.Member{ID: n.ID}
		}
	}
	return group.Member{}
}

// Leader returns the node that leads a shard as far as this one knows; not ok while none is known.
func (r *Router) Leader(id keyspace.ShardID) (Node, bool) {
	var m group.Member
	if here := r.Replica(id); here != nil {
		m = here.Leader()
	} else {
		m = r.guess(id, 0)
	}
	return Node{ID: m.ID, GRPC: r.Address(m.ID)}, m.ID != ""
}

// leader returns who leads a shard, as far as this node can tell, the zero Member where it can't.
func (r *Router) leader(id keyspace.ShardID, turn int) group.Member {
	if here := r.Replica(id); here != nil {
		if m := here.Leader(); m.ID != "" { // one that was taken out of the group hears of none
			return m
		}
	}
	return r.guess(id, turn)
}

// Elsewhere is the error of a call for a shard that this node has no replica of.
func (r *Router) Elsewhere(id keyspace.ShardID) error {
	return fmt.Errorf("shard %d is not on node %s: %w", id, r.o.Self, &group.NotLeaderError{Leader: r.leader(id, 0)})
}

// Status returns err as a gRPC status that names leaders by their address.
func (r *Router) Status(err error) error { return Status(err, r.Address) }

// Propose has a command applied by a shard, wherever that is led, and returns what it came to. It tries again while there
// is no leader, until ctx ends, or for 10 s. Where it fails with group.ErrIndefinite the command may yet apply; that it is
// proposed again after an unknown outcome is why commands must bear it.
func (r *Router) Propose(ctx context.Context, id keyspace.ShardID, c shard.Command) (shard.Result, error) {
	return r.ProposeEncoded(ctx, id, shard.Encode(c))
}

// ProposeEncoded is Propose for a command as shard.Encode made it, which must not be changed any more.
func (r *Router) ProposeEncoded(ctx context.Context, id keyspace.ShardID, raw []byte) (res shard.Result, err error) {
	err = r.AtLeader(ctx, id, func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) error {
		if here != nil {
			res, err = here.ProposeEncoded(ctx, raw)
			return err
		}
		answer, err := regionv1.NewShardServiceClient(there).Propose(ctx, &regionv1.ProposeRequest{
			Deployment: r.o.Deployment, Shard: uint32(id), Command: raw,
		})
		if err != nil {
			return err
		}
		res, err = DecodeResult(answer.GetResult())
		return err
	})
	return res, err
}

// Points returns where a shard stands in a generation, according to its leader; not ok where it does not know the
// generation. It reflects every command acknowledged before the call.
func (r *Router) Points(ctx context.Context, id keyspace.ShardID, generation crdt.GenerationID) (
	points crdt.Frontier, index uint64, ok bool, err error,
) {
	err = r.AtLeader(ctx, id, func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) error {
		if here != nil {
			if err := here.Linearizable(ctx); err != nil {
				return err
			}
			points, index, ok = here.Points(generation)
			return nil
		}
		answer, err := regionv1.NewShardServiceClient(there).Points(ctx, &regionv1.PointsRequest{
			Deployment: r.o.Deployment, Shard: uint32(id), Generation: generation[:],
		})
		if err != nil {
			return err
		}
		if points, err = crdt.DecodeFrontier(answer.GetFrontier()); err != nil {
			return fmt.Errorf("points of shard %d: %w", id, err)
		}
		index, ok = answer.GetAppliedIndex(), answer.GetKnown()
		return nil
	})
	return points, index, ok, err
}

// AtLeader calls call with this node's replica where it leads the shard, else with a connection to the node that does,
// and calls it again, elsewhere if need be, when it fails for want of a leader: until ctx ends, or for 10 s. A status that
// call returns is turned into the error that stands behind it. The last error is returned; without any it is
// group.ErrUnavailable.
func (r *Router) AtLeader(ctx context.Context, id keyspace.ShardID,
	call func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) error,
) error {
	if int(id) >= r.Shards() {
		return fmt.Errorf("%w: there is no shard %d of %d", shard.ErrInvalid, id, r.Shards())
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	var hint group.Member
	pause := firstPause
	for turn := 0; ; turn++ {
		leader := r.leader(id, turn)
		if hint.ID != "" {
			leader, hint = hint, group.Member{}
		}
		err := r.try(ctx, r.Replica(id), leader, call)
		if err == nil || !retriable(err) {
			if leader.ID != "" {
				r.leaders[id].Store(&leader)
			}
			return err
		}
		var elsewhere *group.NotLeaderError
		if errors.As(err, &elsewhere) && elsewhere.Leader.ID != leader.ID {
			hint = elsewhere.Leader
		}
		select {
		case <-ctx.Done():
			if errors.Is(err, group.ErrUnavailable) || errors.Is(err, group.ErrIndefinite) {
				return fmt.Errorf("shard %d: %w", id, err)
			}
			return fmt.Errorf("shard %d: %w: %w", id, group.ErrUnavailable, err)
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

func (r *Router) try(ctx context.Context, local *replica.Replica, leader group.Member,
	call func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) error,
) error {
	if local != nil && local.IsLeader() {
		return call(ctx, local, nil)
	}
	address := r.Address(leader.ID)
	if address == "" {
		return fmt.Errorf("%w: no leader is known", group.ErrUnavailable)
	}
	conn, err := r.o.Conns.To(address)
	if err != nil {
		return fmt.Errorf("%w: %w", group.ErrUnavailable, err)
	}
	within := attempt
	if r.o.Dead != nil && r.o.Dead(leader.ID) {
		within = attemptDead
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return fromStatus(call(ctx, nil, conn), r.member)
}

// retriable says whether another try, here or elsewhere, can help.
func retriable(err error) bool {
	return errors.Is(err, group.ErrNotLeader) || errors.Is(err, group.ErrUnavailable) ||
		errors.Is(err, group.ErrIndefinite) || errors.Is(err, group.ErrStopped) || errors.Is(err, replica.ErrDamaged)
}
