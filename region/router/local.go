package router

import (
	"slices"
	"sync/atomic"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/replica"
)

// Local is this node's replicas by shard. They come and go while the node runs; it is safe for any goroutine.
type Local struct {
	shards []atomic.Pointer[replica.Replica]
}

// NewLocal returns an empty set for so many shards.
func NewLocal(shards int) *Local { return &Local{make([]atomic.Pointer[replica.Replica], shards)} }

// LocalOf returns a set of replicas by shard number.
func LocalOf(replicas ...*replica.Replica) *Local {
	l := NewLocal(len(replicas))
	for i, r := range replicas {
		l.shards[i].Store(r)
	}
	return l
}

// Shards returns how many shards there are, held here or not.
func (l *Local) Shards() int { return len(l.shards) }

// Get returns the replica of a shard, nil where this node has none.
func (l *Local) Get(id keyspace.ShardID) *replica.Replica {
	if int(id) >= len(l.shards) {
		return nil
	}
	return l.shards[id].Load()
}

// Set replaces the replica of a shard; nil takes it away.
func (l *Local) Set(id keyspace.ShardID, r *replica.Replica) { l.shards[id].Store(r) }

// All lists the replicas that are here, in order of shards.
func (l *Local) All() []*replica.Replica {
	var out []*replica.Replica
	for i := range l.shards {
		if r := l.shards[i].Load(); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// Layout is what a node knows of its region: who is where, and which nodes are to hold which shard.
type Layout struct {
	Nodes   []Node
	Holders [][]string // ids by shard; the first is most likely to lead
}

// Learn replaces what the router knows of the region.
func (r *Router) Learn(l Layout) { r.layout.Store(&l) }

// Nodes lists the region's nodes.
func (r *Router) Nodes() []Node { return r.layout.Load().Nodes }

// Holders lists the nodes that are to hold a shard, but this one.
func (r *Router) Holders(id keyspace.ShardID) []Node {
	l := r.layout.Load()
	if int(id) >= len(l.Holders) {
		return nil
	}
	var out []Node
	for _, holder := range l.Holders[id] {
		if i := slices.IndexFunc(l.Nodes, func(n Node) bool { return n.ID == holder && n.ID != r.o.Self }); i >= 0 {
			out = append(out, l.Nodes[i])
		}
	}
	return out
}

// guess returns who may lead a shard that this node has no replica of: who did last, or the turn-th of its holders.
func (r *Router) guess(id keyspace.ShardID, turn int) group.Member {
	holders := r.Holders(id)
	last := r.leaders[id].Load()
	if last != nil && turn == 0 && slices.ContainsFunc(holders, func(n Node) bool { return n.ID == last.ID }) {
		return *last
	}
	if len(holders) == 0 {
		return group.Member{}
	}
	return group.Member{ID: holders[turn%len(holders)].ID}
}
