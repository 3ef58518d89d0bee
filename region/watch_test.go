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
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/group"
)

// TestReplicasThatDifferAreFound changes what a replica holds in memory behind its back, of a follower and then of the
// leader: the others go on, it takes itself out, and comes back when it is rebuilt.
func TestReplicasThatDifferAreFound(t *testing.T) {
	c := newClustersWith(t, 3, 1, func(o *Options) { o.CheckEvery = 100 * time.Millisecond }, "a")[0]
	applied := c.apply(0, toyJob)
	f := c.feed(applied.Job.Generation, 0)
	f.send(0, 500, "x")
	for round, who := range []string{"a follower", "the leader"} {
		leader, _ := c.leader()
		bad := leader
		if round == 0 {
			bad = (leader + 1) % len(c.nodes)
		}
		c.settle()
		r := c.nodes[bad].node.local.Get(0)
		r.State().Chain[3] ^= 0x10
		f.send((bad+1)%len(c.nodes), 500, "x") // from here on its chain differs
		until(t, who+" to be out", func(context.Context) error {
			if r.Damage() == nil {
				return errors.New("it is not")
			}
			return nil
		})
		if d := r.Damage(); !strings.Contains(d.What, "chain") {
			t.Errorf("%s is out because %s", who, d.What)
		}
		want := []string{fmt.Sprintf("1000 x n=%d s=%d r=%d false", round+2, 2*(round+2), round+2)}
		for i, n := range c.nodes {
			if i != bad && n.node.local.Get(0).Damage() != nil {
				t.Fatalf("node %d is out, too: %s", i, n.node.local.Get(0).Damage().What)
			}
		}
		c.expect((bad+1)%len(c.nodes), toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
		c.rebuild((bad+1)%len(c.nodes), bad)
		c.expect(bad, toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL), want)
	}
}

// TestColdTablesAreRead: a byte that is flipped where nobody reads is found by the passes over all tables: in a shard's
// store and in a snapshot.
func TestColdTablesAreRead(t *testing.T) {
	c := newClustersWith(t, 3, 1, func(o *Options) { o.ScrubEvery = 50 * time.Millisecond }, "a")[0]
	applied := c.apply(0, toyJob)
	f := c.feed(applied.Job.Generation, 0)
	f.send(0, 500, "x", "y", "z")
	c.settle()
	const node = 2
	c.stop(node) // which leaves tables
	c.start(node, Listeners{})
	data := filepath.Join(c.dir, c.config.Nodes[node].ID)
	r := c.nodes[node].node.local.Get(0)
	until(t, "node", r.AwaitReady)
	out := func(where string) {
		t.Helper()
		until(t, where, func(context.Context) error {
			if r.Damage() == nil {
				return errors.New("it is not found")
			}
			return nil
		})
		if d := r.Damage(); !strings.HasPrefix(d.File, where) {
			t.Errorf("found in %s, flipped in %s", d.File, where)
		}
		until(t, "mark", func(context.Context) error {
			_, err := os.Stat(filepath.Join(data, shardsFolder, "0000", "DAMAGED"))
			return err
		})
	}
	store := filepath.Join(data, shardsFolder, "0000")
	flip(t, filepath.Join(store, "data-*", "*.sst"), func(size int) int { return 20 })
	out(store)
	c.rebuild(0, node)
	until(t, "node", r.AwaitReady)

	snapshots := filepath.Join(data, raftFolder, "groups", "0", "snapshots")
	f.send(0, 500, "x")
	until(t, "a snapshot", func(context.Context) error {
		err := c.nodes[node].node.host.Group(0).Snapshot()
		if found, _ := filepath.Glob(filepath.Join(snapshots, "*", "state", "*.sst")); err == nil && len(found) == 0 {
			err = errors.New("nothing new")
		}
		return err
	})
	flip(t, filepath.Join(snapshots, "*", "state", "*.sst"), func(size int) int { return 20 })
	out(snapshots)
	c.rebuild(0, node)
	until(t, "node", r.AwaitReady)
}

// TestColdLogTablesAreRead: the same of the Raft log, which all replicas of a node share: the process ends.
func TestColdLogTablesAreRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var fatal error
	open := func() *group.LogStore {
		s, err := group.OpenLogStore(dir, group.LogStoreConfig{Fatal: func(err error) { fatal = err }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	log := open()
	shard, err := log.Shard(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := shard.StoreLog(&raft.Log{Index: 1, Term: 1, Data: make([]byte, 1000)}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil { // which leaves a table
		t.Fatal(err)
	}
	log = open()
	defer log.Close()
	s := newScrubber(prometheus.NewRegistry(), nil, time.Hour)
	if err := s.readLog(t.Context(), log); err != nil || fatal != nil {
		t.Fatal(err, fatal)
	}
	flip(t, filepath.Join(dir, "*.sst"), func(int) int { return 20 })
	if err := s.readLog(t.Context(), log); err == nil {
		t.Error("not found")
	}
	if !errors.Is(fatal, group.ErrLogDamaged) || !strings.Contains(fatal.Error(), dir) {
		t.Errorf("fatal: %v", fatal)
	}
}

// settle waits until every replica of shard 0 has applied the same.
func (c *cluster) settle() {
	c.t.Helper()
	until(c.t, "the replicas", func(context.Context) error {
		first := c.nodes[0].node.local.Get(0).State().Index
		for i, n := range c.nodes {
			if at := n.node.local.Get(0).State().Index; at != first {
				return fmt.Errorf("node %d is at %d, node 0 at %d", i, at, first)
			}
		}
		return nil
	})
}

// leader returns the node that leads shard 0, when all of them know it.
func (c *cluster) leader() (node int, id string) {
	c.t.Helper()
	until(c.t, "a leader", func(context.Context) error {
		id = ""
		for i, n := range c.nodes {
			r := n.node.local.Get(0)
			now := r.Leader().ID
			if now == "" || id != "" && id != now || !r.Ready() {
				return fmt.Errorf("node %d knows leader %q, another one %q", i, now, id)
			}
			id = now
		}
		return nil
	})
	node = slices.IndexFunc(c.nodes, func(r *running) bool { return r.node.o.Config.Node == id })
	return node, id
}
