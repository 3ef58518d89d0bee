package region

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/config"
)

// enter starts a node more, which the region does not know yet.
func (c *cluster) enter() (i int, n config.Node) {
	c.t.Helper()
	l := Listeners{listen(c.t, "127.0.0.1:0"), listen(c.t, "127.0.0.1:0"), listen(c.t, "127.0.0.1:0")}
	at := func(l net.Listener) string { return l.Addr().String() }
	i = len(c.nodes)
	n = config.Node{ID: fmt.Sprintf("n%d", i), Raft: at(l.Raft), GRPC: at(l.GRPC), HTTP: at(l.HTTP)}
	c.config.Nodes, c.nodes = append(c.config.Nodes, n), append(c.nodes, nil)
	c.config.Join = true
	c.start(i, l)
	return i, n
}

func (c *cluster) admit(at int, n config.Node) {
	c.t.Helper()
	until(c.t, "add "+n.ID, func(ctx context.Context) error {
		_, err := watershedv1.NewClusterServiceClient(c.conn(at)).AddNode(ctx, &watershedv1.AddNodeRequest{
			Id: n.ID, Raft: n.Raft, Grpc: n.GRPC, Http: n.HTTP,
		})
		return err
	})
}

// carried waits until every plan of the region is carried out, with so many active nodes.
func (c *cluster) carried(at, active int) *watershedv1.Region {
	c.t.Helper()
	var out *watershedv1.Region
	until(c.t, fmt.Sprintf("plans to be carried out, with %d nodes", active), func(ctx context.Context) error {
		t, err := watershedv1.NewClusterServiceClient(c.conn(at)).Topology(ctx, &watershedv1.TopologyRequest{})
		if err != nil {
			return err
		}
		out = t.Regions[0]
		n := 0
		for _, x := range out.Nodes {
			if x.State == "active" {
				n++
			}
		}
		if p := out.Placement; n != active || len(out.Nodes) != active || p.GetDone() != p.GetPlan() {
			return fmt.Errorf("%v", out)
		}
		return nil
	})
	return out
}

func TestNodesComeAndGo(t *testing.T) {
	c := newCluster(t, 3, 4)
	applied := c.apply(0, toyJob)
	f := c.feed(applied.Job.Generation, 0)
	f.send(0, 500, "x", "y", "z")
	c.carried(0, 3)
	a, n3 := c.enter()
	b, n4 := c.enter()
	c.admit(0, n3)
	c.admit(1, n4)
	for _, sh := range c.carried(0, 5).Shards {
		if len(sh.Voters) != 3 || sh.Leader == "" {
			t.Fatalf("%v", sh)
		}
	}
	f.send(a, 600, "x", "z")
	want := []string{"1000 x n=2 s=4 r=2 false", "1000 y n=1 s=2 r=1 false", "1000 z n=2 s=4 r=2 false"}
	for _, k := range [...]watershedv1.Consistency{watershedv1.Consistency_CONSISTENCY_LINEARIZABLE, watershedv1.Consistency_CONSISTENCY_LOCAL} {
		for i := range c.nodes {
			c.expect(i, toyScan(k), want)
		}
	}
	d, n5 := c.enter()
	c.admit(a, n5)
	c.carried(a, 6)
	for gone := range 3 {
		id := fmt.Sprintf("n%d", gone)
		until(t, "remove "+id, func(ctx context.Context) error {
			_, err := watershedv1.NewClusterServiceClient(c.conn(b)).RemoveNode(ctx, &watershedv1.RemoveNodeRequest{Id: id})
			return err
		})
		c.carried(b, 5-gone)
		f.send(b, 700, "y")
		r := c.nodes[gone]
		if err := <-r.done; !errors.Is(err, ErrRemoved) || !strings.Contains(err.Error(), id) {
			t.Fatalf("node %s ended with %v", id, err)
		}
		c.nodes[gone] = nil
	}
	want[1] = "1000 y n=4 s=8 r=4 false"
	for _, i := range []int{a, b, d} {
		c.expect(i, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
	}
	cluster := watershedv1.NewClusterServiceClient(c.conn(b))
	if _, err := cluster.DrainNode(t.Context(), &watershedv1.DrainNodeRequest{Id: "n4"}); status.Code(err) != codes.FailedPrecondition ||
		!strings.Contains(err.Error(), "shard 0, 1, 2, 3") {
		t.Errorf("drain with nowhere to go: %v", err)
	}
	_, err := cluster.AddNode(t.Context(), &watershedv1.AddNodeRequest{Id: "n0", Raft: "h:1", Grpc: "h:2", Http: "h:3"})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("an id again: %v", err)
	}
	// One that comes back is turned away by name.
	o := Options{Config: c.config, Parts: Parts{Logs: c.logs}, Fatal: func(err error) { t.Error(err) }, Logger: testLogger()}
	o.Config.Node, o.Config.Data, o.Config.Join = "n0", filepath.Join(c.dir, "n0"), false
	o.Config.Nodes = slices.Clone(c.config.Nodes[:5])
	o.Config = o.Config.Defaults()
	back, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Run(t.Context()); !errors.Is(err, ErrRemoved) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a removed node comes back: %v", err)
	}
}
