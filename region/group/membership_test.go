package group

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// enter starts a node more, which knows the others and waits to be added.
func (c *cluster) enter(id string) int {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	members := append([]Member{{ID: id, Address: l.Addr().String()}}, c.configs[0].Members...)
	cfg := testConfig(filepath.Join(c.t.TempDir(), id), id, members)
	c.configs, c.nodes = append(c.configs, cfg), append(c.nodes, nil)
	i := len(c.nodes) - 1
	cfg.Listener = l
	c.join(i, cfg)
	return i
}

func (c *cluster) join(i int, cfg Config) {
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
	if c.nodes[i].group, err = host.Join(testShard, toy); err != nil {
		c.t.Fatal(err)
	}
}

// alter has whoever leads make a change, for the configuration that it has.
func (c *cluster) alter(what Alter, i int) {
	c.t.Helper()
	id, address := c.configs[i].NodeID, ""
	for _, m := range c.configs[i].Members {
		if m.ID == id {
			address = m.Address
		}
	}
	c.await("a change of members", func() bool {
		g := c.nodes[c.leader()].group
		now, err := g.Membership()
		if err != nil {
			c.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()
		return g.Alter(ctx, what, id, address, now.Index) == nil
	})
}

func TestMembersComeAndGo(t *testing.T) {
	c := newCluster(t, 3, nil)
	last := c.propose("a")
	i := c.enter("n3")
	c.alter(AddNonvoter, i)
	c.await("the log at the new member", func() bool { return c.nodes[i].toy.AppliedIndex() >= last })
	if c.nodes[i].group.votes() {
		t.Fatal("a member without a vote has one")
	}
	c.alter(Promote, i)
	c.await("the vote", c.nodes[i].group.votes)
	leader := c.leader()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.nodes[leader].group.HandTo(ctx, "n3"); err != nil && c.leader() != i {
		t.Fatal(err)
	}
	c.await("its leadership", func() bool { return c.nodes[i].group.IsLeader() })
	for gone := range 2 {
		c.alter(Remove, gone)
	}
	c.kill(0)
	c.kill(1)
	c.propose("b") // with the two that are left
	now, err := c.nodes[c.leader()].group.Membership()
	if err != nil || len(now.Seats) != 2 {
		t.Fatal(now, err)
	}
	c.alter(Demote, 2)
	if seat, ok := must(c.nodes[i].group.Membership()).Seat("n2"); !ok || seat.Voter {
		t.Fatalf("%+v", seat)
	}
}

// TestAloneAndNotAloneAnyMore: the only voter leads at once, whatever the timeout is, and again when it comes back; when
// others have come it leads by the timeouts that they go by.
func TestAloneAndNotAloneAnyMore(t *testing.T) {
	const timeout = patience / 2
	start := time.Now()
	c := newCluster(t, 1, func(cfg *Config) { cfg.HeartbeatTimeout, cfg.LeaderLeaseTimeout = timeout, timeout })
	c.propose("a")
	c.kill(0)
	c.start(0)
	last := c.propose("b")
	if took := time.Since(start); took > timeout {
		t.Errorf("it led twice only after %v", took)
	}
	if d := testConfig(t.TempDir(), "n0", []Member{{ID: "n0", Address: "127.0.0.1:1"}}).withDefaults(); d.HeartbeatTimeout != 3*time.Second || d.ElectionTimeout != d.HeartbeatTimeout {
		t.Errorf("alone, the timeouts are %v and %v", d.HeartbeatTimeout, d.ElectionTimeout)
	}
	i := c.enter("n1")
	c.alter(AddNonvoter, i)
	c.await("the log at the new member", func() bool { return c.nodes[i].toy.AppliedIndex() >= last })
	if c.nodes[0].group.raft.State() != raft.Leader {
		t.Fatal("the first node does not lead")
	}
	c.alter(Promote, i)
	c.await("the vote", c.nodes[i].group.votes)
	if c.nodes[0].group.alone() || c.nodes[i].group.alone() {
		t.Fatal("one of two is alone")
	}
	term := c.nodes[0].group.raft.CurrentTerm()
	for range 20 {
		c.propose("c")
	}
	if now := c.nodes[0].group.raft.CurrentTerm(); now != term {
		t.Errorf("leadership changed from term %d to %d", term, now)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestChangesForAnotherConfigurationAreRefused(t *testing.T) {
	c := newCluster(t, 3, nil)
	leader := c.nodes[c.leader()].group
	now := must(leader.Membership())
	follower := (c.leader() + 1) % 3
	for _, x := range []struct {
		what  Alter
		id    string
		index uint64
	}{
		{AddNonvoter, "new", now.Index + 1}, {AddNonvoter, "new", 0}, {Promote, "new", now.Index},
		{AddNonvoter, c.configs[follower].NodeID, now.Index}, {Promote, c.configs[follower].NodeID, now.Index},
		{Remove, c.configs[c.leader()].NodeID, now.Index}, {99, "n0", now.Index},
	} {
		if err := leader.Alter(t.Context(), x.what, x.id, "127.0.0.1:1", x.index); !errors.Is(err, ErrConfiguration) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	if err := leader.HandTo(t.Context(), "new"); !errors.Is(err, ErrConfiguration) {
		t.Error(err)
	}
	if err := c.nodes[follower].group.Alter(t.Context(), Remove, "n0", "", now.Index); !errors.Is(err, ErrNotLeader) {
		t.Error(err)
	}
	if again := must(leader.Membership()); again.Index != now.Index || len(again.Seats) != 3 {
		t.Errorf("%+v", again)
	}
}

// TestMembershipSurvives has members come with a snapshot and with the log, and be the same after a restart.
func TestMembershipSurvives(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.TrailingEntries = 1 })
	i := c.enter("n3")
	c.alter(AddNonvoter, i)
	c.propose("a")
	for n := range 3 {
		c.await("a snapshot", func() bool { return c.nodes[n].group.Snapshot() == nil })
	}
	j := c.enter("n4")
	c.alter(AddNonvoter, j)
	last := c.propose("b")
	c.await("the state at the last one", func() bool { return c.nodes[j].toy.AppliedIndex() >= last })
	want := must(c.nodes[c.leader()].group.Membership())
	c.await("the members at the last one", func() bool { return must(c.nodes[j].group.Membership()).Index == want.Index })
	for n := range c.nodes {
		c.kill(n)
	}
	for n := range c.nodes {
		if cfg := c.configs[n]; n < 3 {
			c.startWith(n, cfg)
		} else {
			c.join(n, cfg)
		}
	}
	c.propose("c")
	got := must(c.nodes[c.leader()].group.Membership())
	if got.Index != want.Index || len(got.Seats) != 5 {
		t.Fatalf("%+v, wanted %+v", got, want)
	}
}

func TestARemovedNodeIsTurnedAway(t *testing.T) {
	expelled := make(chan struct{}, 3)
	c := newCluster(t, 3, func(cfg *Config) { cfg.Expelled = func() { expelled <- struct{}{} } })
	gone := (c.leader() + 1) % 3
	c.kill(gone) // so it doesn't hear of it
	c.alter(Remove, gone)
	for i, n := range c.nodes {
		if i != gone {
			n.host.Learn(nil, []string{c.configs[gone].NodeID})
		}
	}
	c.start(gone)
	// It may have learned meanwhile that it is no member, and would not dial by itself: others of its groups would.
	other := c.configs[(gone+1)%3].Members[(gone+1)%3]
	if _, err := c.nodes[gone].group.transport.stream.dial(other.Address, patience); err == nil {
		t.Fatal("a removed node is let in")
	}
	<-expelled
	refused := uint64(0)
	for i, n := range c.nodes {
		if i != gone {
			refused += n.host.Refused()[refusedNode.String()]
		}
	}
	if refused == 0 {
		t.Fatal("nobody counts it")
	}
	c.propose("x")
}

func TestDropLeavesTheVote(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.propose("a")
	gone := (c.leader() + 1) % 3
	c.alter(Remove, gone)
	n := c.nodes[gone]
	if err := n.host.Drop(testShard); err == nil {
		t.Fatal("a group that runs was dropped")
	}
	if err := n.group.Stop(); err != nil {
		t.Fatal(err)
	}
	stable := &shardStable{store: n.host.stable, shard: testShard}
	before := must(stable.GetUint64(raftStableTerm))
	for range 2 {
		if err := n.host.Drop(testShard); err != nil {
			t.Fatal(err)
		}
	}
	if after := must(stable.GetUint64(raftStableTerm)); after != before || before == 0 {
		t.Fatalf("term %d, before %d", after, before)
	}
	if last := must(must(n.host.logs.Shard(testShard)).LastIndex()); last != 0 {
		t.Fatalf("a log of %d entries is left", last)
	}
	c.kill(gone)
	cfg := c.configs[gone]
	cfg.Dir = filepath.Join(t.TempDir(), "elsewhere") // of the machine; the vote is kept in the host's folder
	c.join(gone, cfg)
	last := c.propose("b")
	c.alter(AddNonvoter, gone)
	c.await("the log", func() bool { return c.nodes[gone].toy.AppliedIndex() >= last })
	c.alter(Promote, gone)
}

// TestWhetherThereIsAnotherNode goes by who is in the region now, not by who founded it.
func TestWhetherThereIsAnotherNode(t *testing.T) {
	b := newBook([]Member{{ID: "a", Address: "a:1"}})
	if b.others("a") {
		t.Error("a founded the region alone")
	}
	b.learn([]Member{{ID: "b", Address: "b:1"}}, nil)
	if !b.others("a") {
		t.Error("b has come")
	}
	b.learn(nil, []string{"b"})
	if b.others("a") {
		t.Error("b was removed")
	}
}
