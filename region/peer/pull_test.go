package peer_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/peer/peertest"
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
