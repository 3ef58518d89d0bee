package group

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestDeposedLeaderDoesNotRead cuts a leader off whose lease is long: the others elect another one and write, while it still
// takes itself for the leader. It must not answer.
func TestDeposedLeaderDoesNotRead(t *testing.T) {
	const lease = 4 * time.Second
	c := newCluster(t, 3, func(cfg *Config) { cfg.HeartbeatTimeout, cfg.LeaderLeaseTimeout = lease, lease })
	c.nodes[0].group.Campaign()
	index := c.propose("before")
	old := c.leader()
	deposed := c.nodes[old].group
	// The others come back under addresses that it doesn't know, and know none of its.
	members := append([]Member(nil), c.configs[old].Members...)
	for i := range members {
		members[i].Address = "127.0.0.1:1"
	}
	configs, listeners := testConfigs(t, 3, nil)
	for i := range c.nodes {
		if i != old {
			c.await("what was written", func() bool { return c.nodes[i].group.position.get() >= index })
			c.kill(i)
			members[i].Address = configs[i].Members[i].Address
		}
	}
	listeners[old].Close()
	for i := range c.nodes {
		if i == old {
			continue
		}
		cfg := c.configs[i]
		cfg.Members, cfg.Listener = members, listeners[i]
		cfg.HeartbeatTimeout, cfg.LeaderLeaseTimeout, cfg.ElectionTimeout = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
		c.startWith(i, cfg)
	}
	after := func() bool {
		for i, n := range c.nodes {
			if i == old || !n.group.IsLeader() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, _, err := n.group.Propose(ctx, []byte("after"))
			cancel()
			return err == nil
		}
		return false
	}
	c.await("the others to write", after)
	if !deposed.IsLeader() {
		t.Skip("the deposed leader's lease ran out before the others had written")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if at, err := deposed.Linearizable(ctx); err == nil {
		t.Fatalf("a deposed leader reads at %d, with %d of what was written since", at, c.nodes[old].toy.count("after"))
	} else if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotLeader) {
		t.Fatal(err)
	}
}

// TestFollowerReadWaits: a replica that is asked for a state at an index has it when it says so.
func TestFollowerReadWaits(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.propose("first")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 50 {
		command := fmt.Sprint("c", i)
		index := c.propose(command)
		for _, n := range c.nodes {
			if err := n.group.WaitApplied(ctx, index); err != nil {
				t.Fatal(err)
			}
			if n.toy.count(command) == 0 {
				t.Fatalf("a replica that was to have %q at %d does not", command, index)
			}
		}
	}
}
