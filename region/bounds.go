package region

import (
	"context"
	"net"
	"time"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/router"
)

// connectionWait is what a client is told, in /metrics only: a connection too many is closed without a word.
const connectionWait = time.Second

// openBounds makes what the node's bounds are shown by, and looks at the disk for the first time.
func (n *Node) openBounds() (err error) {
	c := n.o.Config
	n.bounds = limit.NewSet()
	n.registry.MustRegister(n.bounds)
	stat := n.o.StatFS
	if stat == nil {
		stat = limit.StatFS
	}
	if n.disk, err = limit.NewDisk(c.Data, uint64(c.Store.MinFree), stat, n.o.Logger.Named("disk")); err != nil {
		return err
	}
	n.bounds.Show("disk_free_bytes", n.disk.Floor, n.disk.Free, n.disk.Refused)
	return nil
}

// watchDisk looks at the disk until ctx ends.
func (n *Node) watchDisk(ctx context.Context) error {
	n.disk.Run(ctx)
	return nil
}

// bounded bounds the connections of a listener.
func (n *Node) bounded(name string, l net.Listener, most int) net.Listener {
	return limit.Listener(l, n.bounds.Add(limit.New(name, "connections", int64(most), connectionWait)))
}

// showBounds shows the bounds that the node's parts keep.
func (n *Node) showBounds() {
	c := n.o.Config
	n.bounds.Show("shard_proposal_bytes", func() int64 { return int64(c.Limits.UnderWay) },
		func() int64 { return fullest(n.env.Router) }, func() uint64 { return refusedProposals(n.env.Router) })
	n.bounds.Show("raft_connections", n.host.MaxConnections, n.host.Connections, nil)
	n.bounds.Show("message_bytes", func() int64 { return router.MaxMessage }, func() int64 { return 0 }, nil)
	n.bounds.Show("block_cache_bytes", func() int64 { return int64(c.Store.Cache) },
		func() int64 { return n.cache.Metrics().Size }, nil)
}

// fullest returns the bytes under way of the shard that has most.
func fullest(r *router.Router) (most int64) {
	for i := range r.Shards() {
		if x := r.Replica(keyspace.ShardID(i)); x != nil {
			most = max(most, x.UnderWay().Used())
		}
	}
	return most
}

func refusedProposals(r *router.Router) (n uint64) {
	for i := range r.Shards() {
		if x := r.Replica(keyspace.ShardID(i)); x != nil {
			n += x.UnderWay().Refused()
		}
	}
	return n
}
