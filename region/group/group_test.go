package group

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/watershed-db/watershed/region/limit"
)

func TestSingleNode(t *testing.T) {
	c := newCluster(t, 1, nil)
	first := c.propose("a")
	second := c.propose("b")
	if second <= first {
		t.Fatalf("indexes %d, %d", first, second)
	}
	c.kill(0)
	c.start(0)
	c.leader()
	if n := c.nodes[0].toy.count("a"); n != 1 {
		t.Fatalf("a was applied %d times", n)
	}
}

func TestLeaderKilled(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.propose("before")
	killed := c.leader()
	c.kill(killed)
	c.propose("after")
	c.start(killed)
	revived := c.nodes[killed]
	c.await("the revived node to catch up", func() bool { return revived.toy.count("after") > 0 })
	if n := revived.toy.count("before"); n != 1 {
		t.Fatalf("before was applied %d times", n)
	}
}

// TestFailoverBeforeHeartbeatTimeout kills the leader's process, so to say, where the timeout alone would take much longer.
func TestFailoverBeforeHeartbeatTimeout(t *testing.T) {
	const timeout = patience / 2
	c := newCluster(t, 3, func(cfg *Config) { cfg.HeartbeatTimeout, cfg.LeaderLeaseTimeout = timeout, timeout })
	c.nodes[0].group.Campaign()
	index := c.propose("before")
	killed := c.leader()
	c.await("all to follow", func() bool {
		for i, n := range c.nodes {
			if n.group.Leader().ID != c.configs[killed].NodeID || c.nodes[i].group.position.get() < index {
				return false
			}
		}
		return true
	})
	start := time.Now()
	c.kill(killed)
	c.propose("after")
	if took := time.Since(start); took >= timeout {
		t.Fatalf("failover took %v", took)
	}
}

func TestSurvivorsCampaignInTurn(t *testing.T) {
	members := []Member{{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}, {"e", ""}}
	for shard := range uint32(8) {
		for _, peer := range members {
			taken := make(map[int]string)
			for _, m := range members {
				if m == peer {
					continue
				}
				rank := rankOf(members, m.ID, peer.ID, shard)
				if rank < 0 || rank >= len(members)-1 || taken[rank] != "" {
					t.Fatalf("shard %d without %s: %s has rank %d, as %q", shard, peer.ID, m.ID, rank, taken[rank])
				}
				taken[rank] = m.ID
			}
		}
	}
}

func TestFollowerNamesTheLeader(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.await("a follower's word", func() bool {
		leader := c.leader()
		follower := c.nodes[(leader+1)%3].group
		_, _, proposed := follower.Propose(context.Background(), []byte("x"))
		_, read := follower.Linearizable(context.Background())
		for _, err := range []error{proposed, read} {
			var notLeader *NotLeaderError
			if !errors.As(err, &notLeader) || !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrIndefinite) ||
				notLeader.Leader != c.configs[leader].Members[leader] {
				return false
			}
		}
		return true
	})
}

func TestNoMajority(t *testing.T) {
	c := newCluster(t, 3, nil)
	leader := c.leader()
	group := c.nodes[leader].group
	c.kill((leader + 1) % 3)
	c.kill((leader + 2) % 3)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, _, err := group.Propose(ctx, []byte("x"))
	if !errors.Is(err, ErrIndefinite) && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotLeader) {
		t.Fatalf("got %v", err)
	}
	c.await("reads to be refused", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := group.Linearizable(ctx)
		return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotLeader)
	})
}

func TestPipelinedProposalsKeepOrder(t *testing.T) {
	c := newCluster(t, 3, nil)
	group := c.nodes[c.leader()].group
	const count = 200
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	proposals := make([]*Proposal, count)
	for i := range proposals {
		proposals[i] = group.Submit(ctx, fmt.Appendf(nil, "c%d", i))
	}
	var last uint64
	for i, p := range proposals {
		index, result, err := p.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("applied c%d", i); result != want || index <= last {
			t.Fatalf("proposal %d: %v at %d after %d", i, result, index, last)
		}
		last = index
	}
}

func TestStopAnswersWhatIsUnderWay(t *testing.T) {
	c := newCluster(t, 1, nil)
	group := c.nodes[c.leader()].group
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var proposals []*Proposal
	stopped := make(chan error, 1)
	for last := false; !last; { // more than Raft's queues hold, while it stops
		if len(proposals) == 2000 {
			go func() { stopped <- group.Stop() }()
		}
		p := group.Submit(ctx, []byte("c"))
		proposals = append(proposals, p)
		select {
		case <-p.done:
			last = errors.Is(p.err, ErrStopped)
		default:
		}
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	for i, p := range proposals {
		if _, _, err := p.Wait(ctx); err != nil && !errors.Is(err, ErrStopped) {
			t.Fatalf("proposal %d of %d: %v", i, len(proposals), err)
		}
	}
	if _, _, err := proposals[len(proposals)-1].Wait(ctx); errors.Is(err, ErrIndefinite) {
		t.Fatalf("proposed to a group that had stopped: %v", err)
	}
	if _, err := group.Linearizable(ctx); err == nil {
		t.Fatal("a group that had stopped served a read")
	}
}

func TestTooLarge(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.MaxCommand = 10 })
	_, _, err := c.nodes[c.leader()].group.Propose(context.Background(), make([]byte, 11))
	if !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrIndefinite) {
		t.Fatalf("got %v", err)
	}
}

// What is under way is bounded: more is refused with a time to wait, nothing of it is proposed, and it fits later.
func TestProposalsUnderWayAreBounded(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.MaxUnderWay = 100 })
	group := c.nodes[c.leader()].group
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var let []*Proposal
	for refused := 0; refused == 0; {
		p := group.Submit(ctx, make([]byte, 40))
		var busy *limit.Exhausted
		select {
		case <-p.done:
			if errors.As(p.err, &busy) && !errors.Is(p.err, ErrIndefinite) && busy.Wait > 0 {
				refused++
				continue
			}
		default:
		}
		let = append(let, p)
	}
	for _, p := range let {
		if _, _, err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if used := group.UnderWay().Used(); used != 0 {
		t.Errorf("%d bytes are under way, and nothing is", used)
	}
	c.propose("later")
}

func TestReplayStartsAfterAppliedIndex(t *testing.T) {
	c := newCluster(t, 1, nil)
	for i := range 5 {
		c.propose(fmt.Sprintf("flushed %d", i))
	}
	if err := c.nodes[0].toy.flush(); err != nil {
		t.Fatal(err)
	}
	held := c.nodes[0].toy.AppliedIndex()
	c.propose("lost with the crash")
	c.kill(0)
	c.start(0)
	c.leader()
	toy := c.nodes[0].toy
	toy.mu.Lock()
	defer toy.mu.Unlock()
	if len(toy.mu.replayed) != 1 || toy.mu.replayed[0] <= held {
		t.Fatalf("replayed %v, held %d", toy.mu.replayed, held)
	}
	for command, n := range toy.mu.Count {
		if n != 1 {
			t.Errorf("%q was applied %d times", command, n)
		}
	}
}

func TestRestartFromSnapshot(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.TrailingEntries = 1 })
	for i := range 10 {
		c.propose(fmt.Sprintf("c%d", i))
	}
	if err := c.nodes[0].group.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if first, _ := c.nodes[0].group.LogBounds(); first < 5 {
		t.Fatalf("log still starts at %d", first)
	}
	c.propose("later")
	c.kill(0)
	c.start(0)
	c.leader()
	if n := c.nodes[0].toy.count("later"); n != 1 {
		t.Fatalf("later was applied %d times", n)
	}
	if err := c.nodes[0].group.Snapshot(); err != nil { // held is behind the snapshot: nothing to replay
		t.Fatal(err)
	}
}

func TestSnapshotInstalled(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.TrailingEntries = 1 })
	c.propose("first")
	behind := (c.leader() + 1) % 3
	c.kill(behind)
	for i := range 20 {
		c.propose(fmt.Sprintf("c%d", i))
	}
	for _, n := range c.nodes {
		if n != nil {
			if err := n.group.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.start(behind)
	n := c.nodes[behind]
	c.await("the snapshot", func() bool { return n.toy.count("c19") == 1 })
	last := c.propose("last")
	c.await("entries after the snapshot", func() bool { return n.group.position.get() >= last })
	n.toy.mu.Lock()
	restored, replayed := n.toy.mu.restored, slices.Clone(n.toy.mu.replayed)
	n.toy.mu.Unlock()
	if restored == 0 {
		t.Fatal("the node caught up without a snapshot")
	}
	c.kill(behind) // and comes back with what it got
	c.start(behind)
	n = c.nodes[behind]
	c.await("replay", func() bool { return n.toy.count("last") == 1 })
	if n.toy.count("first") != 1 || n.toy.count("c0") != 1 {
		t.Fatalf("state after restart lacks commands; replayed before it: %v", replayed)
	}
}

func TestSnapshotTriggered(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.SnapshotEntries, cfg.TrailingEntries = 10, 2 })
	for i := range 25 {
		c.propose(fmt.Sprintf("c%d", i))
	}
	group := c.nodes[0].group
	c.await("the log to be truncated", func() bool { first, _ := group.LogBounds(); return first > 5 })
	metas, err := group.snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(metas) == 0 || len(metas) > 2 {
		t.Fatalf("%d snapshots", len(metas))
	}
}

func TestGracefulStopHandsOnLeadership(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.propose("x")
	leader := c.leader()
	var mu sync.Mutex
	var told []Leadership
	c.nodes[leader].group.OnLeader(func(l Leadership) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, l)
	})
	c.await("word of leadership", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) > 0 })
	if err := c.nodes[leader].host.Close(); err != nil {
		t.Fatal(err)
	}
	c.nodes[leader] = nil
	c.propose("y")
	mu.Lock()
	defer mu.Unlock()
	for i, l := range told {
		if l.Leader != (i%2 == 0) {
			t.Fatalf("told %v", told)
		}
	}
	if len(told)%2 != 0 {
		t.Fatalf("told %v: the end of leading is missing", told)
	}
}

func TestReadLog(t *testing.T) {
	c := newCluster(t, 1, nil)
	index := c.propose("x")
	group := c.nodes[0].group
	command, ok, err := group.ReadLog(index)
	if err != nil || !ok || string(command) != "x" {
		t.Fatalf("got %q, %v, %v", command, ok, err)
	}
	if _, ok, err := group.ReadLog(1); ok || err != nil { // the configuration
		t.Fatalf("got %v, %v", ok, err)
	}
	if _, ok, err := group.ReadLog(index + 1); ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
}

func TestStatus(t *testing.T) {
	c := newCluster(t, 3, nil)
	index := c.propose("x")
	c.await("statuses that tell", func() bool {
		leader := c.leader()
		self := c.configs[leader].Members[leader]
		l, f := c.nodes[leader].group.Status(), c.nodes[(leader+1)%3].group.Status()
		return l.Role == "Leader" && l.Staleness == 0 && l.Leader == self && l.Applied >= index && l.Commit >= index &&
			l.Shard == testShard && l.FirstLog == 1 && l.LastLog >= index &&
			f.Role == "Follower" && f.Staleness < patience && f.Leader == self && f.Applied >= index && f.Term == l.Term
	})
}

func TestStateAndLogMustFit(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.TrailingEntries = 1 })
	for i := range 5 {
		c.propose(fmt.Sprintf("c%d", i))
	}
	if err := c.nodes[0].group.Snapshot(); err != nil {
		t.Fatal(err)
	}
	group, host := c.nodes[0].group, c.nodes[0].host
	if err := group.Stop(); err != nil {
		t.Fatal(err)
	}
	ahead := &toy{dir: t.TempDir()}
	ahead.mu.Index = 1 << 20
	if _, err := host.Start(testShard, ahead); !errors.Is(err, ErrStateAhead) {
		t.Fatalf("got %v", err)
	}
	empty, err := openToy(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	revived, err := host.Start(testShard, empty) // restored from the snapshot
	if err != nil {
		t.Fatal(err)
	}
	if empty.count("c0") != 1 {
		t.Fatal("state was not restored")
	}
	if err := revived.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(host.groupDir(testShard)); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Start(testShard, ahead); !errors.Is(err, ErrStateBehind) {
		t.Fatalf("got %v", err)
	}
}

// TestADeadHeirIsTriedLast: leadership is handed to those first that answer; a member that is down would hold them up for an
// election timeout.
func TestADeadHeirIsTriedLast(t *testing.T) {
	c := newCluster(t, 3, nil)
	leader := c.leader()
	group := c.nodes[leader].group
	var followers []int
	for i := range c.nodes {
		if i != leader {
			followers = append(followers, i)
		}
	}
	dead, alive := followers[0], followers[1]
	c.kill(dead)
	c.await("the one that lives to come first", func() bool {
		heirs := group.heirs()
		return len(heirs) == 2 && heirs[0].ID == c.configs[alive].NodeID && heirs[1].ID == c.configs[dead].NodeID
	})
}
