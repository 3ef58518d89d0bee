package group

import (
	"fmt"
	"path/filepath"
	"testing"
)

// TestSeed: a group that was given a checkpoint to begin with goes on from it, on every member, also after restarts; one
// that has run is left alone.
func TestSeed(t *testing.T) {
	old := newCluster(t, 1, nil)
	for i := range 20 {
		old.propose(fmt.Sprintf("old%d", i))
	}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	index, err := old.nodes[0].toy.Checkpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	configs, listeners := testConfigs(t, 3, nil)
	c := &cluster{t: t, configs: configs, nodes: make([]*node, 3)}
	t.Cleanup(c.close)
	for i, cfg := range configs {
		seedNode(t, cfg, dir, index)
		seedNode(t, cfg, dir, index) // as after a crash
		cfg.Listener = listeners[i]
		c.startWith(i, cfg)
	}
	if at := c.propose("new"); at <= index {
		t.Fatalf("the first command is at %d, the state at %d", at, index)
	}
	for round := range 2 {
		for i, n := range c.nodes {
			c.await("the state of both", func() bool { return n.toy.count("old19") == 1 && n.toy.count("new") == 1 })
			if n.toy.mu.Count["old0"] != 1 {
				t.Errorf("round %d: node %d lacks what it began with", round, i)
			}
		}
		for i := range c.nodes {
			c.kill(i)
		}
		for i, cfg := range c.configs {
			seedNode(t, cfg, dir, index) // has run: no change
			c.start(i)
		}
	}
}

func seedNode(t *testing.T, cfg Config, dir string, index uint64) {
	cfg.Listen = "127.0.0.1:0" // its own address is taken
	t.Helper()
	host, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Seed(testShard, dir, index, nil); err != nil {
		t.Error(err)
	}
	if err := host.Close(); err != nil {
		t.Error(err)
	}
}
