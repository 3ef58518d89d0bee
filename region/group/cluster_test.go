package group

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

const patience = 20 * time.Second

// cluster is a few nodes of one region in this process, with one shard, over loopback TCP and the real file system.
type cluster struct {
	t       testing.TB
	configs []Config
	nodes   []*node
}

type node struct {
	host  *Host
	group *Group
	toy   *toy
}

const testShard = 7

// testLevel is what the tests' nodes log: nothing, unless the environment names a level.
var testLevel = cmp.Or(os.Getenv("GROUP_TEST_LOG"), "off")

func newCluster(t testing.TB, size int, adjust func(*Config)) *cluster {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	configs, listeners := testConfigs(t, size, adjust)
	c := &cluster{t: t, configs: configs, nodes: make([]*node, size)}
	t.Cleanup(c.close)
	for i, cfg := range configs {
		cfg.Listener = listeners[i]
		c.startWith(i, cfg)
	}
	return c
}

// testConfigs are the configurations of the nodes of a region, and a listener on each one's address.
func testConfigs(t testing.TB, size int, adjust func(*Config)) ([]Config, []net.Listener) {
	t.Helper()
	listeners := make([]net.Listener, size)
	var members []Member
	for i := range size {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
		members = append(members, Member{ID: fmt.Sprintf("n%d", i), Address: l.Addr().String()})
	}
	dir := t.TempDir()
	var configs []Config
	for i := range size {
		cfg := testConfig(filepath.Join(dir, members[i].ID), members[i].ID, members)
		if adjust != nil {
			adjust(&cfg)
		}
		configs = append(configs, cfg)
	}
	return configs, listeners
}

func testConfig(dir, id string, members []Member) Config {
	cfg := Config{
		Dir: dir, Deployment: "test", Region: "here", NodeID: id, Members: members,
		Logger:        hclog.New(&hclog.LoggerOptions{Name: id, Level: hclog.LevelFromString(testLevel)}),
		Fatal:         func(err error) { panic(err) },
		CommitTimeout: 20 * time.Millisecond, TransportTimeout: 2 * time.Second,
	}
	if len(members) > 1 {
		cfg.HeartbeatTimeout, cfg.LeaderLeaseTimeout = 400*time.Millisecond, 400*time.Millisecond
	}
	return cfg
}

func (c *cluster) startWith(i int, cfg Config) {
	c.t.Helper()
	toy, err := openToy(filepath.Join(cfg.Dir, "toy"))
	if err != nil {
		c.t.Fatal(err)
	}
	host, err := Open(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = &node{host: host, toy: toy}
	if c.nodes[i].group, err = host.Start(testShard, toy); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) start(i int) {
	c.t.Helper()
	c.startWith(i, c.configs[i])
}

// kill stops a node as a crash would: leadership is not handed on, and the machine isn't flushed.
func (c *cluster) kill(i int) {
	c.t.Helper()
	if err := c.nodes[i].host.close(false); err != nil {
		c.t.Error(err)
	}
	c.nodes[i] = nil
}

func (c *cluster) close() {
	for i, n := range c.nodes {
		if n != nil {
			c.kill(i)
		}
	}
}

// leader waits until a node leads and can serve reads.
func (c *cluster) leader() int {
	c.t.Helper()
	found := -1
	c.await("a leader", func() bool {
		for i, n := range c.nodes {
			if n == nil || !n.group.IsLeader() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := n.group.Linearizable(ctx)
			cancel()
			if err == nil {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

// propose proposes command to whoever leads until it is acknowledged. It may be applied more than once.
func (c *cluster) propose(command string) uint64 {
	c.t.Helper()
	var index uint64
	c.await("proposal of "+command, func() bool {
		for _, n := range c.nodes {
			if n == nil || !n.group.IsLeader() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			i, result, err := n.group.Propose(ctx, []byte(command))
			cancel()
			if err == nil {
				if result != "applied "+command {
					c.t.Fatalf("result of %q is %v", command, result)
				}
				index = i
				return true
			}
		}
		return false
	})
	return index
}

func (c *cluster) await(what string, condition func() bool) {
	c.t.Helper()
	awaitCondition(c.t, what, condition)
}

func awaitCondition(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %v in vain for %s", patience, what)
		case <-tick.C:
		}
	}
}
