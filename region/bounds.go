package region

import (
	"context"
	"net"
	"time"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
)

// connectionWait is what a client is told, in /metrics only: a connection too many is closed without a word.
const connectionWait = time.Second

// queueWait is what another region's leader is told while too much waits for others.
const queueWait = 500 * time.Millisecond

// openBounds makes what the node's bounds are shown by, and looks at the disk for the first time.
func (n *Node) openBounds() (err error) {
	c := n.o.Config
	n.bounds = limit.NewSet()
	n.env.Bounds = n.bounds
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

// room refuses what makes a shard's state grow where this node, which leads it, lacks room, or so many of its voters that
// the others are no majority.
func (n *Node) room(shard uint32) error {
	if err := n.disk.Room(); err != nil || n.prober == nil {
		return err
	}
	g, short := n.host.Group(shard), n.prober.Short()
	if g == nil || len(short) == 0 {
		return nil
	}
	var list []limit.Shortage
	for node, r := range short {
		list = append(list, limit.Shortage{Node: node, Free: r.Free, Floor: r.Floor})
	}
	return n.disk.Majority(g.Voters(), list)
}

// short says whether a node of the region, which may be this one, lacks room on its disk as far as this node knows.
func (n *Node) short(node string) bool {
	if node == n.o.Config.Node {
		_, _, short := n.disk.State()
		return short
	}
	_, short := n.prober.Short()[node]
	return short
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

// peerQueue bounds what waits for other regions.
func (n *Node) peerQueue() *limit.Limit {
	return n.bounds.Add(limit.New("peer_queue_bytes", "bytes", int64(n.o.Config.Limits.PeerQueue), queueWait))
}

// showBounds shows the bounds that the node's parts keep.
func (n *Node) showBounds() {
	c := n.o.Config
	n.bounds.Show("shard_proposal_bytes", func() int64 { return int64(c.Limits.UnderWay) },
		func() int64 { return n.fullest(func(x *replica.Replica) int64 { return x.UnderWay().Used() }) },
		func() uint64 { return n.total(func(x *replica.Replica) uint64 { return x.UnderWay().Refused() }) })
	n.bounds.Show("shard_backlog_bytes", func() int64 { return int64(c.Limits.Backlog) },
		func() int64 { return n.fullest(func(x *replica.Replica) int64 { return x.Backlog().Used() }) },
		func() uint64 { return n.total(func(x *replica.Replica) uint64 { return x.Backlog().Refused() }) })
	n.bounds.Show("shard_table_bytes", func() int64 { return keyspace.Tables * int64(c.Store.Table) },
		func() int64 { return n.fullest(func(x *replica.Replica) int64 { held, _ := x.Held(); return held }) },
		func() uint64 {
			return n.total(func(x *replica.Replica) uint64 { _, stalls := x.Held(); return stalls })
		})
	n.bounds.Show("raft_connections", n.host.MaxConnections, n.host.Connections, nil)
	n.bounds.Show("snapshot_transfers", func() int64 { return group.SendsAtOnce }, func() int64 { return n.host.Snapshots().Sending }, nil)
	n.bounds.Show("peer_window_bytes", func() int64 { return peer.Window }, n.peers.waiting, nil)
	n.bounds.Show("message_bytes", func() int64 { return router.MaxMessage }, func() int64 { return 0 }, nil)
	n.bounds.Show("block_cache_bytes", func() int64 { return int64(c.Store.Cache) },
		func() int64 { return n.cache.Metrics().Size }, nil)
}

// fullest returns what the shard has that has most.
func (n *Node) fullest(of func(*replica.Replica) int64) (most int64) {
	for _, r := range n.local.All() {
		most = max(most, of(r))
	}
	return most
}

// total returns what the shards that are here have together.
func (n *Node) total(of func(*replica.Replica) uint64) (sum uint64) {
	for _, r := range n.local.All() {
		sum += of(r)
	}
	return sum
}
