package carrier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/watershed-db/watershed/keyspace"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/router"
)

const (
	// askWithin bounds the question how a node stands.
	askWithin = 500 * time.Millisecond
	// slack is how many entries a member may be behind its leader and count as caught up: what a busy group has under way.
	slack = 256
)

// View tells how this node sees the groups that it is a member of.
func View(local *router.Local) []*regionv1.GroupView {
	var out []*regionv1.GroupView
	for _, r := range local.All() {
		st := r.Status()
		v := &regionv1.GroupView{Shard: uint32(r.Shard()), Leads: r.IsLeader(), Term: st.Term, Commit: st.Commit, Last: st.LastLog}
		if now, err := r.Membership(); err == nil {
			v.Index = now.Index
			for _, s := range now.Seats {
				v.Seats = append(v.Seats, &regionv1.Seat{Node: s.ID, Voter: s.Voter})
			}
		}
		out = append(out, v)
	}
	return out
}

// Observe asks all nodes how the region stands.
func (c *Carrier) Observe(ctx context.Context, t *placement.Table) placement.Observed {
	nodes := t.Present()
	views := make([][]*regionv1.GroupView, len(nodes))
	up := make([]bool, len(nodes))
	var asking sync.WaitGroup
	for i, n := range nodes {
		if n.ID == c.o.Self {
			views[i], up[i] = View(c.o.Router.Local()), true
			continue
		}
		asking.Go(func() { views[i], up[i] = c.ask(ctx, n.GRPC) })
	}
	asking.Wait()
	o := placement.Observed{Groups: make([]placement.Group, len(t.Shards)), Up: map[string]bool{}, Short: map[string]bool{}}
	leading := make([]*regionv1.GroupView, len(t.Shards))
	seen := make([]map[string]*regionv1.GroupView, len(t.Shards))
	for i, n := range nodes {
		o.Up[n.ID] = up[i]
		o.Short[n.ID] = c.o.Short != nil && c.o.Short(n.ID)
		for _, v := range views[i] {
			s := int(v.GetShard())
			if s >= len(t.Shards) {
				continue
			}
			if seen[s] == nil {
				seen[s] = map[string]*regionv1.GroupView{}
			}
			seen[s][n.ID] = v
			if v.GetLeads() && (leading[s] == nil || v.GetTerm() > leading[s].GetTerm()) {
				leading[s], o.Groups[s].Leader = v, n.ID
			}
		}
	}
	for s, lead := range leading {
		if lead == nil {
			continue
		}
		g := &o.Groups[s]
		g.Index = lead.GetIndex()
		for _, seat := range lead.GetSeats() {
			v := seen[s][seat.GetNode()]
			caught := v != nil && v.GetTerm() == lead.GetTerm() && min(v.GetLast(), v.GetCommit())+slack >= lead.GetCommit() &&
				v.GetIndex() > 0
			g.Members = append(g.Members, placement.Member{ID: seat.GetNode(), Voter: seat.GetVoter(), Caught: caught})
		}
	}
	return o
}

func (c *Carrier) ask(ctx context.Context, address string) ([]*regionv1.GroupView, bool) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := c.o.Conns.To(address)
	if err != nil {
		return nil, false
	}
	answer, err := regionv1.NewShardServiceClient(conn).Observe(ctx, &regionv1.ObserveRequest{Deployment: c.o.Deployment})
	return answer.GetGroups(), err == nil
}

func (c *Carrier) alterAt(ctx context.Context, address string, s placement.Step, raft string) error {
	conn, err := c.o.Conns.To(address)
	if err != nil {
		return err
	}
	_, err = regionv1.NewShardServiceClient(conn).Alter(ctx, &regionv1.AlterRequest{
		Deployment: c.o.Deployment, Shard: uint32(s.Shard), Op: uint32(s.Op), Node: s.Node, Address: raft, Index: s.Index,
	})
	return err
}

// Alter makes a step on this node, which must lead the group. address is the Raft address of a node that is added.
func Alter(ctx context.Context, local *router.Local, s placement.Step, address string) error {
	r := local.Get(keyspace.ShardID(s.Shard))
	if r == nil {
		return &group.NotLeaderError{}
	}
	switch s.Op {
	case placement.AddNonvoter:
		return r.Alter(ctx, group.AddNonvoter, s.Node, address, s.Index)
	case placement.Promote:
		return r.Alter(ctx, group.Promote, s.Node, "", s.Index)
	case placement.Demote:
		return r.Alter(ctx, group.Demote, s.Node, "", s.Index)
	case placement.Remove:
		return r.Alter(ctx, group.Remove, s.Node, "", s.Index)
	case placement.Transfer:
		return r.HandTo(ctx, s.Node)
	}
	return fmt.Errorf("%w: step %d", errStep, s.Op)
}

var errStep = errors.New("unknown placement step")

// Ask returns the table of the node at an address, nil where that has none.
func Ask(ctx context.Context, conns *router.Conns, deployment, address string) (*placement.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := conns.To(address)
	if err != nil {
		return nil, err
	}
	answer, err := regionv1.NewShardServiceClient(conn).Placement(ctx, &regionv1.PlacementRequest{Deployment: deployment})
	if err != nil || len(answer.GetTable()) == 0 {
		return nil, err
	}
	return placement.Decode(answer.GetTable())
}
