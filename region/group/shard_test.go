package group

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/shard"
)

var _ Machine = (*shard.Machine)(nil)

// shardNode is a node with the real machine over its real store.
type shardNode struct {
	host    *Host
	group   *Group
	machine *shard.Machine
}

func startShard(t *testing.T, cfg Config) *shardNode {
	t.Helper()
	store, err := keyspace.Open(keyspace.Options{Dir: filepath.Join(cfg.Dir, "store"), Fatal: cfg.Fatal})
	if err != nil {
		t.Fatal(err)
	}
	machine, err := shard.Open(shard.Options{
		Config: shard.Config{Shard: testShard, Shards: 16, Self: "a", Regions: []crdt.RegionID{"a"}},
		Store:  store, Fatal: cfg.Fatal,
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &shardNode{machine: machine}
	if n.host, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	if n.group, err = n.host.Start(testShard, machine); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *shardNode) stop() error { return errors.Join(n.host.close(false), n.machine.Close()) }

// TestShardMachine runs three replicas of a shard, with a snapshot that one of them lacks, and compares their chains.
func TestShardMachine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	configs, listeners := testConfigs(t, 3, func(cfg *Config) { cfg.TrailingEntries = 1 })
	nodes := make([]*shardNode, 3)
	for i, cfg := range configs {
		cfg.Listener = listeners[i]
		nodes[i] = startShard(t, cfg)
	}
	defer func() {
		for _, n := range nodes {
			if err := n.stop(); err != nil {
				t.Error(err)
			}
		}
	}()
	var last uint64
	propose := func(skip int) {
		t.Helper()
		// A Check of an index that nobody remembers changes nothing but the chain.
		command := shard.Encode(&shard.Check{Index: 1 << 40, Chain: crdt.Hash{byte(last)}})
		awaitCondition(t, "a proposal", func() bool {
			for i, n := range nodes {
				if i == skip || !n.group.IsLeader() {
					continue
				}
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				index, result, err := n.group.Propose(ctx, command)
				cancel()
				if err == nil {
					if r, ok := result.(shard.Result); !ok || r.Outcome != shard.Applied {
						t.Fatalf("result %+v", result)
					}
					last = index
					return true
				}
			}
			return false
		})
	}
	propose(-1)
	const behind = 1
	if err := nodes[behind].stop(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		propose(behind)
	}
	for i, n := range nodes {
		if i == behind {
			continue
		}
		awaitCondition(t, "followers", func() bool { return n.machine.AppliedIndex() >= last })
		if err := n.group.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	nodes[behind] = startShard(t, configs[behind])
	propose(-1)
	propose(-1)
	for i, n := range nodes {
		awaitCondition(t, "all replicas", func() bool { return n.machine.AppliedIndex() == last })
		if got, want := *n.machine.NewCheck(), *nodes[0].machine.NewCheck(); got != want {
			t.Fatalf("replica %d is at %+v, the first at %+v", i, got, want)
		}
	}
	if first, _ := nodes[behind].group.LogBounds(); first < 5 {
		t.Fatalf("the replica that was behind has a log from %d: no snapshot was installed", first)
	}
}
