package upkeep

import (
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/peer/peertest"
	"github.com/watershed-db/watershed/region/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a shard in region a of a, b and c, a Decider, and what they see.
type bench struct {
	t       *testing.T
	machine *shard.Machine
	index   uint64
	d       Decider
	job     *peertest.Job
	now     time.Time
	peers   []peer.View // b, c
	floor   int64
	joining bool
}

func newBench(t *testing.T, options ...string) *bench {
	t.Helper()
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	store, err := keyspace.Open(keyspace.Options{Dir: "store", FS: vfs.NewMem(), Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	m, err := shard.Open(shard.Options{Store: store, Fatal: fatal,
		Config: shard.Config{Self: "a", Regions: []crdt.RegionID{"a", "b", "c"}, Shards: 1, Owner: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{t: t, machine: m, now: time.Unix(1000, 0), floor: crdt.MinTime, d: Decider{UnreachableAfter: time.Second}}
	b.job = peertest.NewJob(t, 1, peertest.File(options...))
	b.apply(b.job.Add, b.job.Sources("a", 1), b.job.Sources("b", 1), b.job.Sources("c", 1))
	for _, region := range []crdt.RegionID{"b", "c"} {
		b.peers = append(b.peers, peer.View{Region: region, Heard: b.now, Connected: true,
			Told: map[crdt.GenerationID]*peer.Standing{b.job.ID: {Frontier: crdt.Frontier{}, Floor: crdt.MinTime}}})
	}
	return b
}

func (b *bench) apply(list ...shard.Command) {
	b.t.Helper()
	for _, c := range list {
		b.index++
		if res, ok := b.machine.Apply(b.index, shard.Encode(c)).(shard.Result); !ok || res.Outcome != shard.Applied {
			b.t.Fatalf("%T: %+v", c, res)
		}
	}
}

func (b *bench) decide() []shard.Command {
	return b.d.Decide(&Seen{Now: b.now, State: b.machine.State(), Peers: b.peers, Joining: b.joining,
		Floors: map[crdt.GenerationID]int64{b.job.ID: b.floor}})
}

// settle applies what is decided until nothing is, and returns it.
func (b *bench) settle() (all []shard.Command) {
	b.t.Helper()
	for range 10 {
		list := b.decide()
		if len(list) == 0 {
			return all
		}
		b.apply(list...)
		all = append(all, list...)
	}
	b.t.Fatal("there is always something to decide")
	return nil
}

// tell has a peer tell that its source stands after n records.
func (b *bench) tell(i int, n int64, idle bool) {
	s := peertest.Source(string(b.peers[i].Region), 0)
	told := *b.peers[i].Told[b.job.ID]
	told.Frontier = crdt.Frontier{s: peertest.Point(s, "x", n)}
	if told.Idle = nil; idle {
		told.Idle = []crdt.Source{s}
	}
	b.peers[i].Told = map[crdt.GenerationID]*peer.Standing{b.job.ID: &told}
}

func (b *bench) generation() *shard.Generation { return b.machine.State().Generation(b.job.ID) }

func (b *bench) flagged(region string) bool {
	st, _ := b.generation().Standing(peertest.Source(region, 0))
	return st.Idle
}

// pass lets time go by, with or without the peers being heard.
func (b *bench) pass(d time.Duration, heard ...int) {
	b.now = b.now.Add(d)
	for _, i := range heard {
		b.peers[i].Heard = b.now
	}
}

func TestReach(t *testing.T) {
	b := newBench(t)
	if list := b.decide(); len(list) > 0 {
		t.Fatalf("at first: %v", list)
	}
	b.pass(900*time.Millisecond, 0)
	b.settle()
	if got := b.machine.State().Unreachable; len(got) > 0 {
		t.Fatalf("too early: %v", got)
	}
	b.pass(200*time.Millisecond, 0)
	b.settle()
	if got := b.machine.State().Unreachable; !slices.Equal(got, []crdt.RegionID{"c"}) {
		t.Fatalf("unreachable %v, want c", got)
	}
	if g := b.generation(); len(g.Excluded) > 0 {
		t.Errorf("a job that waits leaves out %v", g.Excluded)
	}
	b.peers[1].Connected = false // something was heard, but not yet where it stands
	b.pass(0, 0, 1)
	b.settle()
	if got := b.machine.State().Unreachable; len(got) != 1 {
		t.Fatalf("reachable without its standings: %v", got)
	}
	b.peers[1].Connected = true
	b.settle()
	if got := b.machine.State().Unreachable; len(got) > 0 {
		t.Errorf("still unreachable: %v", got)
	}
}

// A new leader counts a region as its predecessor left it until it knows better.
func TestReachOfANewLeader(t *testing.T) {
	b := newBench(t)
	b.apply(&shard.Reach{Unreachable: []crdt.RegionID{"c"}})
	b.peers[1].Connected = false
	if list := b.decide(); len(list) > 0 {
		t.Errorf("decided %v", list)
	}
}

func TestPartialFiring(t *testing.T) {
	b := newBench(t, "emit: {sinks: [{kafka: {topic: out}}], unreachable: {partial: 5s}}")
	b.pass(2*time.Second, 0)
	b.settle()
	if g := b.generation(); len(g.Excluded) > 0 {
		t.Fatalf("left out too early: %v", g.Excluded)
	}
	b.pass(3*time.Second, 0)
	b.settle()
	if g := b.generation(); !slices.Equal(g.Excluded, []crdt.RegionID{"c"}) {
		t.Fatalf("leaves out %v, want c", g.Excluded)
	}
	b.pass(0, 0, 1)
	b.settle()
	if g := b.generation(); len(g.Excluded) > 0 {
		t.Errorf("still leaves out %v", g.Excluded)
	}
}

func TestIdleFlagsAreCarriedOver(t *testing.T) {
	b := newBench(t)
	source := peertest.Source("b", 0)
	b.tell(0, 3, true)
	if b.settle(); b.flagged("b") {
		t.Fatal("flagged at a point that the region has not told of")
	}
	b.apply(b.job.Step(source, "x", 0, 3, "k"))
	if b.settle(); !b.flagged("b") {
		t.Fatal("not flagged")
	}
	b.tell(0, 2, false) // told before
	if b.settle(); !b.flagged("b") {
		t.Fatal("an earlier word took the flag away")
	}
	b.tell(0, 3, false)
	if b.settle(); b.flagged("b") {
		t.Fatal("still flagged though it woke")
	}
	b.tell(0, 3, true)
	b.peers[0].Connected = false
	if b.settle(); b.flagged("b") {
		t.Fatal("flagged by an old word")
	}
}

// A region that can be reached again is not found with flags from before: events that were written meanwhile would find
// their windows gone.
func TestIdleFlagsFromBeforeACut(t *testing.T) {
	b := newBench(t)
	a := peertest.Source("a", 0)
	b.apply(b.job.Step(a, "x", 0, 50, "k"))
	for i, region := range []string{"b", "c"} {
		b.apply(b.job.Step(peertest.Source(region, 0), "x", 0, 1, "k"))
		b.tell(i, 1, true)
	}
	b.settle()
	if g := b.generation(); g.Watermark != 5000 || !b.flagged("b") {
		t.Fatalf("watermark %d", g.Watermark)
	}
	b.pass(2*time.Second, 1)
	b.settle()
	b.apply(b.job.Step(a, "x", 50, 60, "k"))
	if g := b.generation(); g.Watermark != 5000 {
		t.Fatalf("the flags of a region that can't be reached let the watermark pass to %d", g.Watermark)
	}
	b.pass(0, 0, 1)
	b.tell(0, 9, false) // it was written to
	if b.settle(); len(b.machine.State().Unreachable) > 0 {
		t.Fatal("still unreachable")
	}
	if g := b.generation(); g.Watermark != 5000 || b.flagged("b") {
		t.Errorf("the watermark went to %d with a flag from before the cut", g.Watermark)
	}
}

func TestHorizonIsWhatEveryRegionBears(t *testing.T) {
	b := newBench(t)
	floor := func(i int, h int64) { b.peers[i].Told[b.job.ID].Floor = h }
	at := func(want int64) {
		t.Helper()
		b.settle()
		if got := b.generation().Horizon; got != want {
			t.Fatalf("horizon %d, want %d", got, want)
		}
	}
	b.floor = 3000
	at(crdt.MinTime)
	floor(0, 2000)
	at(crdt.MinTime)
	floor(1, 4000)
	at(2000)
	floor(0, 5000)
	at(2000) // too soon
	b.pass(horizonEvery, 0, 1)
	at(3000)
	delete(b.peers[1].Told, b.job.ID)
	b.floor = 4000
	b.pass(horizonEvery, 0, 1)
	at(3000)
}

func TestAbandonedCopies(t *testing.T) {
	b := newBench(t)
	b.apply(&shard.StageBegin{Generation: b.job.ID, Group: "b"})
	b.joining = true
	b.settle()
	b.pass(time.Hour, 0, 1)
	b.settle()
	open := func() bool { _, _, ok := b.generation().Staged("b"); return ok }
	if !open() {
		t.Fatal("a copy was given up while it was being filled")
	}
	b.joining = false
	if b.settle(); !open() {
		t.Fatal("a copy was given up at once")
	}
	b.pass(stageAfter, 0, 1)
	if b.settle(); open() {
		t.Fatal("the copy is still open")
	}
}

func TestReplicasAreCompared(t *testing.T) {
	b := newBench(t)
	compared := func() (n int) {
		for _, c := range b.settle() {
			if _, ok := c.(*shard.Check); ok {
				n++
			}
		}
		return n
	}
	if n := compared(); n != 0 {
		t.Fatalf("%d checks at first", n)
	}
	b.pass(checkEvery, 0, 1)
	if n := compared(); n != 1 {
		t.Fatalf("%d checks after a while", n)
	}
	b.pass(checkEvery, 0, 1)
	if n := compared(); n != 0 {
		t.Fatalf("%d checks with nothing new", n)
	}
}
