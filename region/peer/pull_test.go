package peer_test

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/peer/peertest"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin starts a job in all regions, each declaring one source of its own.
func begin(t *testing.T, w *peertest.World, options ...string) *peertest.Job {
	t.Helper()
	j := peertest.NewJob(t, 1, peertest.File(options...))
	for _, r := range w.Regions {
		r.Must(j.Add, j.Sources(string(r.Name), 1))
	}
	return j
}

func TestTwoRegionsConverge(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b")
	j := begin(t, w)
	a, b := peertest.Source("a", 0), peertest.Source("b", 0)
	for i := range int64(20) {
		w.Region("a").Must(j.Step(a, "x", i, i+1, "k"))
		w.Region("b").Must(j.Step(b, "x", 2*i, 2*i+2, "l"))
	}
	w.Region("a").AwaitOffset(j, b, 40)
	w.Region("b").AwaitOffset(j, a, 20)
	t.Log(w.AwaitAlike(j))
}

// Two regions that cannot see each other converge through a third.
func TestThroughAThirdRegion(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b", "c")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	j := begin(t, w)
	a, b := peertest.Source("a", 0), peertest.Source("b", 0)
	for i := range int64(20) {
		w.Region("a").Must(j.Step(a, "x", i, i+1, "k"))
		w.Region("b").Must(j.Step(b, "x", i, i+1, "k"))
	}
	w.Region("a").AwaitOffset(j, b, 20)
	w.Region("b").AwaitOffset(j, a, 20)
	w.AwaitAlike(j)
	for _, r := range w.Regions {
		for _, v := range r.Shard.Peers() {
			if v.Joined > 0 {
				t.Errorf("region %s took state from %s where the log had all", r.Name, v.Region)
			}
		}
	}
}

// A cut that breaks connections, and one that swallows everything without a word, end without anything lost.
func TestCutAndHeal(t *testing.T) {
	for name, cut := range map[string]func(*peertest.Proxy){"broken": (*peertest.Proxy).Cut, "silent": (*peertest.Proxy).Silence} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := peertest.New(t, peertest.Options{}, "a", "b")
			j := begin(t, w)
			a, b := peertest.Source("a", 0), peertest.Source("b", 0)
			w.Region("a").Must(j.Step(a, "x", 0, 5, "k"))
			w.AwaitAlike(j)
			w.Between("a", "b", cut)
			w.Region("a").Must(j.Step(a, "x", 5, 10, "k"))
			w.Await("a silent stream to be given up", func() bool { return !w.Region("b").Shard.Peers()[0].Connected })
			w.Region("b").Must(j.Step(b, "x", 0, 7, "k"))
			if n := w.Region("b").Offset(j, a); n != 5 {
				t.Fatalf("offset %d came through a cut", n)
			}
			w.Between("a", "b", (*peertest.Proxy).Heal)
			w.Region("b").AwaitOffset(j, a, 10)
			w.Region("a").AwaitOffset(j, b, 7)
			w.AwaitAlike(j)
		})
	}
}

// What the log no longer holds comes as state: also a source that nothing is added to any more.
func TestTruncatedLog(t *testing.T) {
	w := peertest.New(t, peertest.Options{Group: func(c *group.Config) { c.TrailingEntries = 1 }}, "a", "b")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	j := begin(t, w)
	a := peertest.Source("a", 0)
	for i := range int64(200) {
		w.Region("a").Must(j.Step(a, "x", i, i+1, string(rune('a'+i%20))))
	}
	if err := w.Region("a").Host.Group(0).Snapshot(); err != nil {
		t.Fatal(err)
	}
	if first, _ := w.Region("a").Replica.LogBounds(); first < 50 {
		t.Fatalf("the log still begins at %d", first)
	}
	w.Between("a", "b", (*peertest.Proxy).Heal)
	w.Region("b").AwaitOffset(j, a, 200)
	w.AwaitAlike(j)
	if v := w.Region("b").Shard.Peers()[0]; v.Joined == 0 {
		t.Error("no state was taken")
	}
	w.Region("a").Must(j.Step(a, "x", 200, 201, "k"))
	w.Region("b").AwaitOffset(j, a, 201)
	w.AwaitAlike(j)
}

// A generation that a region learns of later does not hold up others, and misses nothing.
func TestUnknownGeneration(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b")
	j := begin(t, w)
	late := peertest.NewJob(t, 2, peertest.File())
	a := peertest.Source("a", 0)
	ra, rb := w.Region("a"), w.Region("b")
	ra.Must(late.Add, late.Sources("a", 1), late.Step(a, "x", 0, 5, "k"), j.Step(a, "x", 0, 9, "k"))
	rb.AwaitOffset(j, a, 9)
	rb.Must(late.Add, late.Sources("b", 1))
	rb.AwaitOffset(late, a, 5)
	w.AwaitAlike(late)
	if v := rb.Shard.Peers()[0]; v.Joined > 0 {
		t.Error("state was taken where the log had all")
	}
}

// A source whose history differs is stopped, loudly, and the others go on.
func TestMismatch(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b", "c")
	j := begin(t, w)
	a, c := peertest.Source("a", 0), peertest.Source("c", 0)
	rb := w.Region("b")
	rb.AwaitOffset(j, a, 0)
	rb.AwaitOffset(j, c, 0)
	for _, name := range []string{"b", "c"} {
		w.Between("a", name, (*peertest.Proxy).Cut)
	}
	rb.Must(j.Step(a, "y", 0, 5, "k"))
	w.Region("a").Must(j.Step(a, "x", 0, 5, "k"))
	for _, name := range []string{"b", "c"} {
		w.Between("a", name, (*peertest.Proxy).Heal)
	}
	if s := <-rb.Stopped; s.Source != a || s.Generation != j.ID {
		t.Errorf("stopped %+v", s)
	}
	w.Region("c").Must(j.Step(c, "x", 0, 5, "k"))
	rb.AwaitOffset(j, c, 5)
	if v := rb.Shard.Peers()[0]; len(v.Stopped) != 1 || v.Stopped[0] != a {
		t.Errorf("the view shows %v", v.Stopped)
	}
}

// Another history at a higher offset is not taken as state either.
func TestUnconfirmedStateIsNotTaken(t *testing.T) {
	w := peertest.New(t, peertest.Options{Group: func(c *group.Config) { c.TrailingEntries = 1 },
		Timing: peer.Timing{Again: 50 * time.Millisecond}}, "a", "b")
	j := begin(t, w)
	a, b := peertest.Source("a", 0), peertest.Source("b", 0)
	w.AwaitAlike(j)
	w.Between("a", "b", (*peertest.Proxy).Cut)
	w.Region("b").Must(j.Step(a, "y", 0, 5, "k"))
	w.Region("a").Must(j.Step(a, "x", 0, 7, "k"))
	if err := w.Region("a").Host.Group(0).Snapshot(); err != nil {
		t.Fatal(err)
	}
	w.Between("a", "b", (*peertest.Proxy).Heal)
	w.Region("a").Must(j.Step(b, "x", 0, 3, "k")) // by another hand; it shows that the stream goes on
	w.Region("b").AwaitOffset(j, b, 3)
	before := w.Region("b").Dump(j)
	w.Await("a few tries", func() bool { return w.Region("b").Shard.Peers()[0].Refusals >= 3 })
	if after := w.Region("b").Dump(j); after != before {
		t.Errorf("history replaced:\n%s\nbefore:\n%s", after, before)
	}
}

// The registry travels from its owner through any region to all others.
func TestRegistryThroughAThirdRegion(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b", "c")
	w.Between("a", "c", (*peertest.Proxy).Cut)
	j := peertest.NewJob(t, 1, peertest.File())
	apply := func(name string) {
		w.Region("a").Must(&shard.JobApply{Epoch: 1<<16 | 1, Name: name, File: j.Add.File, Meaning: j.Add.Meaning})
	}
	apply("one")
	position := func(r *peertest.Region) uint64 { return r.Replica.State().Registry().Position() }
	w.Await("the registry in c", func() bool { return position(w.Region("c")) == 1 })
	apply("two")
	w.Region("a").Must(&shard.JobDelete{Epoch: 1<<16 | 1, Name: "one"})
	for _, name := range []string{"b", "c"} {
		r := w.Region(name)
		w.Await("the registry in "+name, func() bool { return position(r) == 3 })
		if jobs := r.Replica.State().Registry().Jobs(); len(jobs) != 1 || jobs[0].Name != "two" {
			t.Errorf("%s has %v", name, jobs)
		}
	}
}

// follower is a replica that does not lead.
type follower struct{ peer.Replica }

func (follower) IsLeader() bool { return false }

func (follower) Leader() group.Member { return group.Member{ID: "leader"} }

// serveFollower serves a region's shard from a node that does not lead it, and names address as the leader's.
func serveFollower(t *testing.T, r *peertest.Region, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sh := peer.New(peer.Options{Identity: r.ID, Replica: follower{r.Replica}})
	s := peer.NewServer(r.ID, func(uint32) (*peer.Shard, group.Member) { return sh, group.Member{} }, func(node string) string { return map[string]string{"leader": address}[node] }, nil, nil)
	g := grpc.NewServer(grpc.WaitForHandlers(true))
	peerv1.RegisterPeerServiceServer(g, s)
	serving := make(chan error, 1)
	go func() { serving <- g.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		g.Stop()
		if err := <-serving; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// A puller finds the leader among the peer's nodes, and dials no address that it was not configured with.
func TestTheLeaderIsFollowed(t *testing.T) {
	r, j := lonely(t, peer.Timing{})
	r.Must(j.Step(peertest.Source("a", 0), "x", 0, 3, "k"))
	for name, c := range map[string]struct{ named string }{"named": {r.Address}, "unknown": {"192.0.2.1:1"}, "none": {""}} {
		t.Run(name, func(t *testing.T) {
			f := serveFollower(t, r, c.named)
			if _, err := ask(t, &peertest.Region{Address: f}, &peerv1.PullRequest{Hello: hello()}).Recv(); status.Code(err) != codes.Unavailable ||
				router.Detail(err).GetLeader() != c.named {
				t.Fatalf("a follower answers %v", err)
			}
			b := r.World.Region("b")
			id := b.ID
			id.Members = slices.Clone(id.Members)
			id.Members[0].Addresses = []string{f, f, r.Address}
			links := peer.NewLinks()
			defer links.Close()
			sh := peer.New(peer.Options{Identity: id, Replica: b.Replica, Links: links})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { sh.Run(ctx) })
			defer running.Wait()
			defer cancel()
			peertest.Await(t, "the leader to be found", func() bool { return sh.Peers()[0].Connected })
		})
	}
}

// However ways are cut and logs truncated, all regions end alike, and with every record once.
func TestRandomCuts(t *testing.T) {
	w := peertest.New(t, peertest.Options{Group: func(c *group.Config) { c.TrailingEntries = 1 },
		Timing: peer.Timing{Again: 100 * time.Millisecond, Patience: 200 * time.Millisecond}}, "a", "b", "c")
	j := begin(t, w)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	offsets := map[string]int64{}
	pairs := [][2]string{{"a", "b"}, {"a", "c"}, {"b", "c"}}
	for range 300 {
		name := []string{"a", "b", "c"}[rng.IntN(3)]
		pair := pairs[rng.IntN(3)]
		switch x := rng.IntN(20); {
		case x < 15:
			n := int64(1 + rng.IntN(3))
			s := peertest.Source(name, 0)
			w.Region(name).Must(j.Step(s, "x", offsets[name], offsets[name]+n, string(rune('a'+rng.IntN(5)))))
			offsets[name] += n
		case x < 17:
			w.Between(pair[0], pair[1], (*peertest.Proxy).Cut)
		case x < 19:
			w.Between(pair[0], pair[1], (*peertest.Proxy).Heal)
		default:
			if err := w.Region(name).Host.Group(0).Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, pair := range pairs {
		w.Between(pair[0], pair[1], (*peertest.Proxy).Heal)
	}
	for _, r := range w.Regions {
		for name, n := range offsets {
			r.AwaitOffset(j, peertest.Source(name, 0), n)
		}
	}
	w.AwaitAlike(j)
	total := int64(0)
	for _, n := range offsets {
		total += n
	}
	if n := w.Region("a").Records(j); n != total {
		t.Errorf("%d records are counted, %d were taken", n, total)
	}
}

// Sources and the records that follow them come in one batch: all of them fit.
func TestSourcesAndTheirFirstRecords(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	j := peertest.NewJob(t, 1, peertest.File())
	for _, r := range w.Regions {
		r.Must(j.Add, j.Sources(string(r.Name), 3))
	}
	for n := range int64(5) {
		for p := range int32(3) {
			w.Region("a").Must(j.Step(peertest.Source("a", p), "x", n, n+1, "k"))
		}
	}
	w.Between("a", "b", (*peertest.Proxy).Heal)
	w.AwaitAlike(j)
	if v := w.Region("b").Shard.Peers()[0]; v.Gaps > 0 || v.Joined > 0 {
		t.Errorf("%d gaps, %d bytes of state", v.Gaps, v.Joined)
	}
}

// State is taken also while the peer goes on: what it tells then moves faster than what it has told of its log.
func TestStateUnderTraffic(t *testing.T) {
	w := peertest.New(t, peertest.Options{Group: func(c *group.Config) { c.TrailingEntries = 1 }}, "a", "b")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	j := peertest.NewJob(t, 1, peertest.File())
	for _, r := range w.Regions {
		r.Must(j.Add, j.Sources(string(r.Name), 2))
	}
	still := peertest.Source("a", 1)
	for i := range int64(100) {
		w.Region("a").Must(j.Step(still, "x", i, i+1, "k"))
	}
	if err := w.Region("a").Host.Group(0).Snapshot(); err != nil {
		t.Fatal(err)
	}
	var traffic sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer traffic.Wait()
	defer stop()
	for _, name := range []string{"a", "b"} {
		traffic.Go(func() {
			for i := int64(0); ctx.Err() == nil; i++ {
				if res := w.Region(name).Propose(j.Step(peertest.Source(name, 0), "y", i, i+1, "l")); res.Outcome != shard.Applied {
					t.Errorf("step %d in %s: %v", i, name, res.Outcome)
					return
				}
			}
		})
	}
	w.Between("a", "b", (*peertest.Proxy).Heal)
	w.Region("b").AwaitOffset(j, still, 100)
	stop()
	traffic.Wait()
	w.AwaitAlike(j)
}
