package region

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/service"
)

func unpaced(context.Context, int) error { return nil }

// flip changes one byte of the largest file that a pattern finds.
func flip(t *testing.T, pattern string, at func(size int) int) {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	size := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	path := slices.MaxFunc(found, func(a, b string) int { return int(size(a) - size(b)) })
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at(len(b))] ^= 0x20
	if err := os.Remove(path); err != nil { // a snapshot may be linked to the same bytes
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// rebuild has a node's damaged replicas rebuilt: that of shard 0.
func (c *cluster) rebuild(through, node int) {
	c.t.Helper()
	until(c.t, "rebuild", func(ctx context.Context) error {
		out, err := watershedv1.NewClusterServiceClient(c.conn(through)).Rebuild(ctx, &watershedv1.RebuildRequest{
			Node: c.config.Nodes[node].ID,
		})
		if err == nil && !slices.Equal(out.GetShards(), []uint32{0}) {
			err = fmt.Errorf("rebuilt %v", out.GetShards())
		}
		return err
	})
}

// TestADamagedReplicaTakesItselfOut flips one byte of each kind of file of a replica's store while its node is down: the
// replica must take itself out, say so wherever people look, leave the others serving, and come back by one command.
func TestADamagedReplicaTakesItselfOut(t *testing.T) {
	c := newCluster(t, 3, 2)
	applied := c.apply(1, toyJob)
	f := c.feed(applied.Job.Generation, 0)
	f.send(0, 500, "x", "y", "z")
	f.send(2, 2500, "y")
	want := []string{
		"1000 x n=1 s=2 r=1 false", "1000 y n=1 s=2 r=1 false", "1000 z n=1 s=2 r=1 false", "3000 y n=1 s=2 r=1 false",
	}
	linearizable, local := toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL)
	c.expect(0, linearizable, want)
	const node = 2
	data := filepath.Join(c.dir, c.config.Nodes[node].ID, shardsFolder, "0000")
	for _, test := range []struct {
		place, file string
		at          func(size int) int
	}{
		{"the first block of a table", "data-*/*.sst", func(int) int { return 10 }},
		{"the middle of a table", "data-*/*.sst", func(size int) int { return size / 2 }},
		{"the footer of a table", "data-*/*.sst", func(size int) int { return size - 20 }},
		{"the manifest", "data-*/MANIFEST-*", func(size int) int { return 9 }},
		{"the pointer", "CURRENT", func(int) int { return 7 }},
	} {
		c.expect(node, local, want)
		c.stop(node)
		flip(t, filepath.Join(data, test.file), test.at)
		c.start(node, Listeners{})
		r := c.nodes[node].node.local.Get(0)
		if err := r.Verify(t.Context(), unpaced); err == nil || r.Damage() == nil {
			t.Fatalf("%s: not found: %v", test.place, err)
		}
		if damage := r.Damage(); !strings.HasPrefix(damage.File, data) {
			t.Fatalf("%s: found in %q", test.place, damage.File)
		}
		c.checkOut(node, test.place)
		c.expect(node, linearizable, want) // by way of the others
		if _, err := os.Stat(filepath.Join(data, "DAMAGED")); err != nil {
			until(t, "mark", func(context.Context) error { _, err := os.Stat(filepath.Join(data, "DAMAGED")); return err })
		}
		c.stop(node)
		c.start(node, Listeners{}) // it stays out
		c.checkOut(node, test.place)
		c.rebuild(0, node)
		c.expect(node, local, want)
		if r := c.nodes[node].node.local.Get(0); r.Damage() != nil || r.Verify(t.Context(), unpaced) != nil {
			t.Fatalf("%s: still damaged: %+v", test.place, r.Damage())
		}
	}
	c.stop(0)
	f.send(1, 2700, "x") // the rebuilt one counts for the majority
	c.expect(node, linearizable, append(want[:3:3], "3000 x n=1 s=2 r=1 false", want[3]))
}

// checkOut sees to it that the replica of shard 0 is out, and that people are told.
func (c *cluster) checkOut(node int, place string) {
	c.t.Helper()
	until(c.t, place, func(ctx context.Context) error {
		top, err := watershedv1.NewClusterServiceClient(c.conn(0)).Topology(ctx, &watershedv1.TopologyRequest{})
		if err != nil {
			return err
		}
		for _, n := range top.GetRegions()[0].GetNodes() {
			if n.GetId() == c.config.Nodes[node].ID && len(n.GetDamaged()) == 1 && n.GetDamaged()[0].GetFile() != "" {
				return nil
			}
		}
		return errors.New("topology doesn't tell")
	})
	n := c.nodes[node].node
	if status := n.local.Get(0).Status(); status.Role != "Damaged" || n.local.Get(0).IsLeader() {
		c.t.Fatalf("%s: %+v", place, status)
	}
	if _, err := n.local.Get(0).Snapshot(); !errors.Is(err, replica.ErrDamaged) {
		c.t.Fatalf("%s: a snapshot: %v", place, err)
	}
	if _, _, err := c.scan(node, toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL)); err == nil {
		c.t.Fatalf("%s: a local read is answered", place)
	}
	if n.local.Get(1).Damage() != nil {
		c.t.Fatalf("%s: the other shard is out, too", place)
	}
	if why := service.NotReady(n.env.Router); !strings.Contains(why, "damaged, to be rebuilt: shard 0") {
		c.t.Fatalf("%s: ready page says %q", place, why)
	}
	metrics, err := n.registry.Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range metrics {
		if m.GetName() == "watershed_replica_damaged" && m.GetMetric()[0].GetGauge().GetValue() == 1 {
			return
		}
	}
	c.t.Fatalf("%s: metrics don't tell", place)
}

// TestRebuildIsRefused where it would lose something.
func TestRebuildIsRefused(t *testing.T) {
	c := newCluster(t, 2, 1)
	c.apply(0, toyJob)
	try := func(in *watershedv1.RebuildRequest) error {
		_, err := watershedv1.NewClusterServiceClient(c.conn(0)).Rebuild(t.Context(), in)
		return err
	}
	if err := try(&watershedv1.RebuildRequest{Shards: []uint32{0}}); err == nil || !strings.Contains(err.Error(), "is not damaged") {
		t.Error(err)
	}
	if err := try(&watershedv1.RebuildRequest{Shards: []uint32{9}}); err == nil {
		t.Error("rebuilt a shard that isn't there")
	}
	if err := try(&watershedv1.RebuildRequest{Node: "nobody"}); err == nil {
		t.Error("rebuilt nobody's replicas")
	}
	c.stop(1)
	err := try(&watershedv1.RebuildRequest{Shards: []uint32{0}, Whole: true})
	if err == nil || !strings.Contains(err.Error(), "no other node leads") {
		t.Error(err)
	}
	if c.nodes[0].node.local.Get(0).Damage() != nil {
		t.Error("what was refused took the replica out")
	}
}
