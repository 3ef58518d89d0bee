package carrier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 30 * time.Second
	shards   = 2
)

// fleet is a region of a few nodes in this process, the first three of which found it. No carrier runs by itself.
type fleet struct {
	t     *testing.T
	table *placement.Table // the founding one
	nodes []*fleetNode
}

// fleetNode serves what carriers ask of a node.
type fleetNode struct {
	regionv1.UnimplementedShardServiceServer
	f       *fleet
	id      string
	host    *group.Host
	local   *router.Local
	router  *router.Router
	conns   *router.Conns
	carrier *Carrier
	short   func(node string) bool
}

func newFleet(t *testing.T, size int) *fleet {
	t.Helper()
	f := &fleet{t: t}
	var all []placement.Node
	var members []group.Member
	var rafts, grpcs []net.Listener
	for i := range size {
		raft, api := listen(t), listen(t)
		n := placement.Node{ID: fmt.Sprint("n", i), Raft: raft.Addr().String(), GRPC: api.Addr().String(), HTTP: fmt.Sprint("h:", i+1), Weight: 1}
		all, rafts, grpcs = append(all, n), append(rafts, raft), append(grpcs, api)
		members = append(members, group.Member{ID: n.ID, Address: n.Raft})
	}
	var err error
	if f.table, err = placement.Found(all[:3], shards, 3); err != nil {
		t.Fatal(err)
	}
	layout := LayoutOf(f.table)
	for _, n := range all[3:] {
		layout.Nodes = append(layout.Nodes, router.Node{ID: n.ID, GRPC: n.GRPC, Raft: n.Raft})
	}
	for i, n := range all {
		f.start(i, n, members, layout, rafts[i], grpcs[i])
	}
	return f
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (f *fleet) start(i int, self placement.Node, members []group.Member, layout router.Layout, raft, api net.Listener) {
	t := f.t
	t.Helper()
	fatal := func(err error) { t.Errorf("fatal on %s: %v", self.ID, err) }
	dir := t.TempDir()
	host, err := group.Open(group.Config{
		Dir: filepath.Join(dir, "raft"), Deployment: "test", Region: "a", NodeID: self.ID, Members: members, Listener: raft, Fatal: fatal,
		HeartbeatTimeout: 400 * time.Millisecond, LeaderLeaseTimeout: 400 * time.Millisecond, CommitTimeout: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &fleetNode{f: f, id: self.ID, host: host, local: router.NewLocal(shards), conns: router.NewConns()}
	n.router = router.New(router.Options{Deployment: "test", Self: n.id, Layout: layout, Local: n.local, Conns: n.conns})
	founding := f.table
	if i >= 3 {
		founding = nil
	}
	n.carrier = New(Options{Deployment: "test", Self: n.id, Router: n.router, Conns: n.conns, Founding: founding,
		Short: func(node string) bool { return n.short != nil && n.short(node) }})
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	regionv1.RegisterShardServiceServer(server, n)
	for id := range shards {
		var first []group.Seat
		if i < 3 {
			for _, m := range members[:3] {
				first = append(first, group.Seat{Member: m, Voter: true})
			}
		}
		r, err := replica.Open(replica.Options{
			Shard: shard.Config{Self: "a", Regions: []crdt.RegionID{"a"}, Shard: keyspace.ShardID(id), Shards: shards, Owner: true},
			Dir:   filepath.Join(dir, fmt.Sprint("shard", id)), Host: host, Found: first, Fatal: fatal,
		})
		if err != nil {
			t.Fatal(err)
		}
		n.local.Set(keyspace.ShardID(id), r)
	}
	f.nodes = append(f.nodes, n)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(api); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
		for _, r := range n.local.All() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(n.conns.Close(), host.Close()); err != nil {
			t.Error(err)
		}
	})
}

func (n *fleetNode) Observe(context.Context, *regionv1.ObserveRequest) (*regionv1.ObserveResponse, error) {
	return &regionv1.ObserveResponse{Groups: View(n.local)}, nil
}

func (n *fleetNode) Alter(ctx context.Context, in *regionv1.AlterRequest) (*regionv1.AlterResponse, error) {
	s := placement.Step{Shard: int(in.GetShard()), Op: placement.Op(in.GetOp()), Node: in.GetNode(), Index: in.GetIndex()}
	err := Alter(ctx, n.local, s, in.GetAddress())
	if errors.Is(err, group.ErrConfiguration) {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &regionv1.AlterResponse{}, n.router.Status(err)
}

func (n *fleetNode) Propose(ctx context.Context, in *regionv1.ProposeRequest) (*regionv1.ProposeResponse, error) {
	res, err := n.local.Get(keyspace.ShardID(in.GetShard())).ProposeEncoded(ctx, in.GetCommand())
	if err != nil {
		return nil, n.router.Status(err)
	}
	return &regionv1.ProposeResponse{Result: router.EncodeResult(res)}, nil
}

func (n *fleetNode) Placement(context.Context, *regionv1.PlacementRequest) (*regionv1.PlacementResponse, error) {
	return &regionv1.PlacementResponse{Table: n.router.State(0).Note(Note).Value}, nil
}

// await waits until a condition holds.
func (f *fleet) await(what string, holds func() bool) {
	f.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			f.t.Fatalf("waited %v in vain for %s", patience, what)
		case <-tick.C:
		}
	}
}

// leader waits for a node that leads a shard, and can prove it.
func (f *fleet) leader(id keyspace.ShardID) (n *fleetNode) {
	f.t.Helper()
	f.await("a leader", func() bool {
		for _, n = range f.nodes {
			r := n.local.Get(id)
			if ctx, cancel := context.WithTimeout(f.t.Context(), time.Second); r.IsLeader() && r.Linearizable(ctx) == nil {
				cancel()
				return true
			} else {
				cancel()
			}
		}
		return false
	})
	return n
}

// depose has another voter lead shard 0 than this node.
func (f *fleet) depose(old *fleetNode) {
	f.t.Helper()
	f.await("another leader", func() bool {
		lead := f.leader(0)
		if lead != old {
			return true
		}
		for _, s := range f.membership(0).Seats {
			if s.Voter && s.ID != old.id {
				ctx, cancel := context.WithTimeout(f.t.Context(), patience)
				_ = old.local.Get(0).HandTo(ctx, s.ID) // or the next one, or once more
				cancel()
			}
		}
		return false
	})
}

// settle has the carrier of whoever leads shard 0 look, until the region is as its table says.
func (f *fleet) settle() *placement.Table {
	f.t.Helper()
	var table *placement.Table
	f.await("the plan to be done", func() bool {
		c := f.leader(0).carrier
		_, err := c.look(f.t.Context())
		if table, _, _ = c.Table(); err != nil || table == nil || table.Done < table.Plan {
			return false
		}
		return table.Moving(c.Observe(f.t.Context(), table)) == 0 && table.Turn(c.Observe(f.t.Context(), table)) == nil
	})
	return table
}

// membership returns what a shard's leader says of its group.
func (f *fleet) membership(id keyspace.ShardID) group.Membership {
	f.t.Helper()
	m, err := f.leader(id).local.Get(id).Membership()
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}
