package region

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/keyspace"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/carrier"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/replica"
)

// ErrRemoved says that the node was removed from its region.
var ErrRemoved = errors.New("was removed from the region: its data serves no purpose any more, and a machine comes back under a new node id")

const (
	// lookEvery is how often a node looks at the placement table at most: it does when shard 0 changes. Where it doesn't,
	// there is still something to see to now and then.
	lookEvery, lookAnyway = 50 * time.Millisecond, 500 * time.Millisecond
	// aloneAfter is for how long nothing is heard from shard 0's leader before the other nodes are asked, and how often.
	aloneAfter = 2 * time.Second
	askEvery   = time.Second
	// goneFor is for how long a group must be known to be without this node before its replica is deleted.
	goneFor = time.Second
	// retryAfter is between tries of what failed.
	retryAfter = 2 * time.Second
)

// membership keeps a node's replicas to what the placement table says.
type membership struct {
	*Node
	revision uint64            // of the table that was taken up
	gone     map[int]departure // groups without this node whose replicas are still here
	retry    time.Time         // nothing is opened before
	dropping []atomic.Bool     // by shard: it is being deleted
	asked    time.Time         // when the other nodes were asked last
	told     time.Time         // when it was last logged that the node waits
}

// departure is what the leader of a group said that this node is no longer in.
type departure struct {
	index uint64
	since time.Time
}

// keep runs until ctx ends, or the node is removed from its region.
func (n *Node) keep(ctx context.Context) error {
	m := &membership{Node: n, gone: map[int]departure{}, dropping: make([]atomic.Bool, n.o.Config.Shards)}
	removed := fmt.Errorf("node %s of %s %w", n.o.Config.Node, n.o.Config.Region, ErrRemoved)
	anyway := time.NewTicker(lookAnyway)
	defer anyway.Stop()
	for {
		changed := n.local.Get(0).Changed()
		table, revision, err := n.carrier.Table()
		if err != nil {
			return err
		}
		if table != nil && revision != m.revision {
			n.learn(table)
			m.revision = revision
		}
		if table == nil || n.local.Get(0).Staleness() > aloneAfter {
			if asked := m.ask(ctx); asked != nil {
				n.learn(asked)
				if self, ok := asked.Node(n.o.Config.Node); ok && self.State == placement.Removed {
					return removed
				}
			}
		}
		if table != nil {
			if self, ok := table.Node(n.o.Config.Node); ok && self.State == placement.Removed {
				return removed
			}
			m.settle(ctx, table)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.expelled:
			return removed
		case <-anyway.C:
			continue
		case <-changed:
		}
		select { // commands may come by the hundred
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}

// learn takes up who is where.
func (n *Node) learn(t *placement.Table) {
	var members []group.Member
	for _, x := range t.Present() {
		members = append(members, group.Member{ID: x.ID, Address: x.Raft})
	}
	n.host.Learn(members, carrier.Removed(t))
	n.env.Router.Learn(carrier.LayoutOf(t))
}

// ask returns the newest table of the other nodes, nil where none has one. It asks seldom.
func (m *membership) ask(ctx context.Context) *placement.Table {
	if time.Since(m.asked) < askEvery {
		return nil
	}
	m.asked = time.Now()
	c := m.o.Config
	addresses := map[string]bool{}
	for _, x := range m.env.Router.Nodes() {
		addresses[x.GRPC] = x.ID != c.Node
	}
	for _, x := range c.Nodes {
		addresses[x.GRPC] = x.ID != c.Node
	}
	var newest *placement.Table
	for address, other := range addresses {
		if !other || ctx.Err() != nil {
			continue
		}
		if t, err := carrier.Ask(ctx, m.env.Conns, c.Deployment, address); err == nil && t != nil && (newest == nil || t.Plan >= newest.Plan) {
			newest = t
		}
	}
	if newest == nil {
		return nil
	}
	if _, known := newest.Node(c.Node); !known && time.Since(m.told) > time.Minute {
		m.told = time.Now()
		m.o.Logger.Warn("the region does not know this node: it waits for `watershed node add`", "node", c.Node)
	}
	return newest
}

// settle opens the replicas that the node is to hold, and deletes those of groups that it is no longer in.
func (m *membership) settle(ctx context.Context, t *placement.Table) {
	if time.Now().Before(m.retry) {
		return
	}
	for i := range t.Shards {
		holds, here := t.Holds(m.o.Config.Node, i), m.local.Get(keyspace.ShardID(i))
		var err error
		switch {
		case m.dropping[i].Load():
		case holds && here == nil:
			if err = m.openReplica(i, nil); err == nil {
				m.attach(m.local.Get(keyspace.ShardID(i)))
				m.o.Logger.Info("replica begun", "shard", i)
			}
		case !holds && here != nil && i != 0 && m.left(ctx, i):
			m.drop(i)
		}
		if err != nil {
			m.o.Logger.Error("a replica can't be begun; trying again", "shard", i, "error", err)
			m.retry = time.Now().Add(retryAfter)
			return
		}
	}
}

// drop deletes a replica beside all else: whoever reads from it now is not interrupted.
func (m *membership) drop(id int) {
	delete(m.gone, id)
	m.dropping[id].Store(true)
	m.keeping.Go(func() {
		defer m.dropping[id].Store(false)
		if err := m.dropReplica(id); err != nil {
			m.o.Logger.Error("a replica can't be deleted; that is done at the next start", "shard", id, "error", err)
			return
		}
		m.o.Logger.Info("replica deleted", "shard", id)
	})
}

// left says whether a group's leader has said for a while, of one and the same configuration, that this node is not in it.
func (m *membership) left(ctx context.Context, id int) bool {
	was, known := m.gone[id]
	if known && time.Since(was.since) < goneFor {
		return false
	}
	index, out := m.isOut(ctx, id)
	if !out {
		delete(m.gone, id)
		return false
	}
	if known && was.index == index {
		return true
	}
	m.gone[id] = departure{index, time.Now()}
	return false
}

// isOut asks a group's leader whether this node is out of it, by a configuration that is committed.
func (m *membership) isOut(ctx context.Context, id int) (index uint64, out bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := m.env.Router.AtLeader(ctx, keyspace.ShardID(id), func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) error {
		if here != nil {
			return nil
		}
		shards := regionv1.NewShardServiceClient(there)
		deployment := m.o.Config.Deployment
		view, err := shards.Observe(ctx, &regionv1.ObserveRequest{Deployment: deployment})
		if err != nil {
			return err
		}
		// That it led until after it said so: a deposed leader may know an old configuration.
		if _, err := shards.Points(ctx, &regionv1.PointsRequest{Deployment: deployment, Shard: uint32(id), Generation: make([]byte, 16)}); err != nil {
			return err
		}
		for _, g := range view.GetGroups() {
			if int(g.GetShard()) != id || !g.GetLeads() || g.GetIndex() == 0 {
				continue
			}
			index, out = g.GetIndex(), true
			for _, s := range g.GetSeats() {
				out = out && s.GetNode() != m.o.Config.Node
			}
		}
		return nil
	})
	return index, out && err == nil
}
