// Package peertest runs a few regions in one process, each of one node and one shard, with ways between them that can be
// cut. It is for tests.
package peertest

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

// Patience is how long tests wait for anything.
const Patience = 30 * time.Second

// World is a deployment. The first region owns it.
type World struct {
	t       testing.TB
	Regions []*Region
	ways    map[[2]string]*Proxy
}

// Options adjusts a World.
type Options struct {
	Timing peer.Timing
	// Group adjusts the nodes' Raft configuration.
	Group func(*group.Config)
	// Queue bounds what waits for pullers in every region, see peer.NewServer.
	Queue *limit.Limit
	// Lead runs beside the pulling while a region leads its shard.
	Lead   func(ctx context.Context, r *Region)
	Logger hclog.Logger
}

// Region is one region of a World.
type Region struct {
	World   *World
	Name    crdt.RegionID
	ID      peer.Identity
	Replica *replica.Replica
	Shard   *peer.Shard
	Server  *peer.Server
	Address string // of its gRPC server, without a proxy
	Host    *group.Host
	Stopped chan *shard.SourceStopped
}

// New starts regions of these names, in sorted order, and links each to all others.
func New(t testing.TB, o Options, names ...string) *World {
	t.Helper()
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	w := &World{t: t, ways: map[[2]string]*Proxy{}}
	listeners := map[string]net.Listener{}
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[name] = l
	}
	for _, from := range names {
		for _, to := range names {
			if from != to {
				w.ways[[2]string{from, to}] = newProxy(t, listeners[to].Addr().String())
			}
		}
	}
	for _, name := range names {
		w.Regions = append(w.Regions, w.start(name, names, listeners[name], o))
	}
	return w
}

func (w *World) start(name string, names []string, l net.Listener, o Options) *Region {
	w.t.Helper()
	r := &Region{World: w, Name: crdt.RegionID(name), Address: l.Addr().String(), Stopped: make(chan *shard.SourceStopped, 16)}
	r.ID = peer.Identity{Deployment: "test", Self: r.Name, Shards: 1}
	var members []crdt.RegionID
	for i, other := range names {
		m := peer.Member{Region: crdt.RegionID(other), Number: uint16(i + 1)}
		if other != name {
			m.Addresses = []string{w.ways[[2]string{name, other}].address()}
		}
		r.ID.Members = append(r.ID.Members, m)
		members = append(members, m.Region)
	}
	slices.Sort(members)
	r.open(shard.Config{Self: r.Name, Regions: members, Shards: 1, Owner: name == names[0]}, o)
	links := peer.NewLinks()
	r.Shard = peer.New(peer.Options{Identity: r.ID, Replica: r.Replica, Links: links, Timing: o.Timing,
		Logger: o.Logger.Named(name), Stopped: func(_ context.Context, s *shard.SourceStopped) { r.Stopped <- s }})
	r.Replica.Lead(r.Shard.Run)
	if o.Lead != nil {
		r.Replica.Lead(func(ctx context.Context) { o.Lead(ctx, r) })
	}
	r.Server = peer.NewServer(r.ID, func(uint32) (*peer.Shard, group.Member) { return r.Shard, group.Member{} }, func(string) string { return r.Address }, o.Queue,
		o.Logger.Named(name))
	g := grpc.NewServer(grpc.WaitForHandlers(true))
	peerv1.RegisterPeerServiceServer(g, r.Server)
	serving := make(chan error, 1)
	go func() { serving <- g.Serve(l) }()
	w.t.Cleanup(func() {
		r.Server.Close()
		g.Stop()
		r.Server.Wait()
		if err := errors.Join(<-serving, links.Close(), r.Replica.Close(), r.Host.Close()); err != nil {
			w.t.Errorf("stop region %s: %v", name, err)
		}
	})
	return r
}

func (r *Region) open(cfg shard.Config, o Options) {
	t := r.World.t
	t.Helper()
	dir := t.TempDir()
	fatal := func(err error) { t.Errorf("fatal in region %s: %v", r.Name, err) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gc := group.Config{Dir: filepath.Join(dir, "raft"), Deployment: "test", Region: string(r.Name), NodeID: "n", Fatal: fatal,
		Listener: l, Members: []group.Member{{ID: "n", Address: l.Addr().String()}}, CommitTimeout: 10 * time.Millisecond}
	if o.Group != nil {
		o.Group(&gc)
	}
	if r.Host, err = group.Open(gc); err != nil {
		t.Fatal(err)
	}
	r.Replica, err = replica.Open(replica.Options{Shard: cfg, Dir: filepath.Join(dir, "shard"), Host: r.Host, Fatal: fatal,
		Found: []group.Seat{{Member: gc.Members[0], Voter: true}}})
	if err != nil {
		t.Fatal(err)
	}
}

// Region returns a region by its name.
func (w *World) Region(name string) *Region {
	for _, r := range w.Regions {
		if string(r.Name) == name {
			return r
		}
	}
	w.t.Fatalf("no region %s", name)
	return nil
}

// Between calls do for both ways between two regions.
func (w *World) Between(a, b string, do func(*Proxy)) {
	do(w.ways[[2]string{a, b}])
	do(w.ways[[2]string{b, a}])
}

// Await waits until a condition holds.
func (w *World) Await(what string, condition func() bool) {
	w.t.Helper()
	Await(w.t, what, condition)
}

// Await waits until a condition holds.
func Await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %v in vain for %s", Patience, what)
		case <-tick.C:
		}
	}
}

// Propose has a command applied, once the region leads its shard, and returns the result.
func (r *Region) Propose(c shard.Command) (res shard.Result) {
	t := r.World.t
	t.Helper()
	Await(t, "a leader in "+string(r.Name), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		var err error
		res, err = r.Replica.Propose(ctx, c)
		if err != nil && !errors.Is(err, group.ErrNotLeader) {
			t.Fatalf("propose %T in %s: %v", c, r.Name, err)
		}
		return err == nil
	})
	return res
}

// Must is Propose of what must be applied.
func (r *Region) Must(commands ...shard.Command) {
	r.World.t.Helper()
	for _, c := range commands {
		if res := r.Propose(c); res.Outcome != shard.Applied {
			r.World.t.Fatalf("%T in %s: %v %s", c, r.Name, res.Outcome, res.Reason)
		}
	}
}
