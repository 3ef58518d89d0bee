package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/processor/job"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func jobFile(extra string) []byte {
	return []byte(`name: toy
sources:
  - topic: events
    format: json
    time: {field: ts, unit: ms}
    max_future: none
    key: {k: k}
    aggregates: {n: count()}
window: {tumbling: 1s}
` + extra)
}

// fakeShards are shards without Raft: a proposal is applied at once.
type fakeShards struct {
	mu       sync.Mutex
	machines []*shard.Machine
}

func (f *fakeShards) Shards() int { return len(f.machines) }

func (f *fakeShards) State(id keyspace.ShardID) *shard.State { return f.machines[id].State() }

func (f *fakeShards) Propose(ctx context.Context, id keyspace.ShardID, c shard.Command) (shard.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.machines[id]
	switch x := m.Apply(m.AppliedIndex()+1, shard.Encode(c)).(type) {
	case shard.Result:
		return x, ctx.Err()
	case error:
		return shard.Result{}, x
	}
	return shard.Result{}, errors.New("no result")
}

// fakeLogs is a log whose topics a test changes.
type fakeLogs struct {
	mu     sync.Mutex
	topics map[string]Topic
}

func (f *fakeLogs) set(name string, t Topic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.topics[name] = t
}

func (f *fakeLogs) Describe(context.Context, ...string) (map[string]Topic, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.topics), nil
}

func (f *fakeLogs) Starts(_ context.Context, topics ...string) (map[Partition]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[Partition]int64{}
	for _, t := range topics {
		for p := range f.topics[t].Partitions {
			out[Partition{t, p}] = int64(100 + p)
		}
	}
	return out, nil
}

type fixture struct {
	t      *testing.T
	shards *fakeShards
	logs   *fakeLogs
	c      *Coordinator
}

var errNotLeader = status.Error(codes.Unavailable, "not the leader")

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, shards: &fakeShards{}, logs: &fakeLogs{topics: map[string]Topic{}}}
	for i := range 3 {
		store, err := keyspace.Open(keyspace.Options{Dir: "s", FS: vfs.NewMem(), Fatal: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		m, err := shard.Open(shard.Options{
			Config: shard.Config{Self: "a", Regions: []crdt.RegionID{"a"}, Shard: keyspace.ShardID(i), Shards: 3, Owner: true},
			Store:  store, Fatal: func(err error) { t.Error(err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		f.shards.machines = append(f.shards.machines, m)
	}
	f.c = New(Options{
		Deployment: "d", Region: "a", Nodes: func() []string { return []string{"w1", "w2"} }, Shards: f.shards, Logs: f.logs,
		Changed: f.shards.machines[0].Changed, NotLeader: func() error { return errNotLeader },
		Tick: 10 * time.Millisecond, Look: 10 * time.Millisecond, Grace: 50 * time.Millisecond, Lease: 300 * time.Millisecond,
	})
	return f
}

// run has the coordinator lead until the test ends or the returned function is called.
func (f *fixture) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.c.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) propose(c shard.Command) shard.Result {
	f.t.Helper()
	res, err := f.shards.Propose(context.Background(), 0, c)
	if err != nil {
		f.t.Fatal(err)
	}
	return res
}

func (f *fixture) apply(extra string) crdt.GenerationID {
	f.t.Helper()
	j, err := job.Parse("job.yaml", jobFile(extra))
	if err != nil {
		f.t.Fatal(err)
	}
	res := f.propose(&shard.JobApply{Epoch: 1<<16 | 1, Name: j.Name, File: j.File, Meaning: j.Meaning()})
	if res.Outcome != shard.Applied {
		f.t.Fatalf("%+v", res)
	}
	return res.Generation
}

func (f *fixture) await(what string, done func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			f.t.Fatalf("never: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// sources returns how many sources of a generation every shard has; -1 where they differ or the group is not declared.
func (f *fixture) sources(id crdt.GenerationID) int {
	n := -1
	for i, m := range f.shards.machines {
		g := m.State().Generation(id)
		if g == nil || !g.Declared("a") || i > 0 && len(g.Standings("a")) != n {
			return -1
		}
		n = len(g.Standings("a"))
	}
	return n
}

func (f *fixture) settled() bool {
	var states []*shard.State
	for _, m := range f.shards.machines {
		states = append(states, m.State())
	}
	r := states[0].Registry()
	return Settled(r, states) == r.Position()
}

func TestShardsAreBroughtUpToTheRegistry(t *testing.T) {
	f := newFixture(t)
	f.logs.set("events", Topic{ID: "one", Partitions: 2})
	id := f.apply("")
	if f.settled() {
		t.Fatal("settled before any shard was told")
	}
	f.run()
	f.await("sources on all shards", func() bool { return f.sources(id) == 2 && f.settled() })
	d := f.shards.State(0).Registry().Decided(id)[1]
	if d.Point.Offset != 101 || d.TopicID != "one" || d.Point != crdt.FirstPoint(d.Source, 101) {
		t.Fatalf("%+v", d)
	}
	if again := f.apply("retention: 2h\n"); again != id {
		t.Fatal("a change in place made a generation")
	}
	f.await("the new file everywhere", f.settled)
	f.propose(&shard.RegisterTable{Epoch: 1<<16 | 1, Def: table.Def{Name: "t", Type: table.Set, MaxBytes: 1}})
	if f.settled() {
		t.Fatal("settled before any shard was told of the table")
	}
	f.await("the table everywhere", func() bool { return f.settled() && len(f.shards.State(2).Told().Live()) == 1 })
	f.propose(&shard.UnregisterTable{Epoch: 1<<16 | 1, Name: "t"})
	f.await("no table anywhere", func() bool { return f.settled() && len(f.shards.State(2).Told().Live()) == 0 })
	f.propose(&shard.JobDelete{Epoch: 1<<16 | 1, Name: "toy"})
	f.await("nothing anywhere", func() bool { return f.settled() && f.shards.State(2).Generation(id) == nil })
	if f.apply("") == id {
		t.Fatal("a generation was used twice")
	}
	f.await("the next generation", f.settled)
}

// What an older copy of the registry does not know yet is not dropped.
func TestLackingDropsOnlyWhatIsDeleted(t *testing.T) {
	f := newFixture(t)
	old := f.shards.State(0).Registry()
	id := f.apply("")
	f.propose(&shard.RegisterTable{Epoch: 1<<16 | 1, Def: table.Def{Name: "t", Type: table.Set, MaxBytes: 1}})
	now := f.shards.State(0).Registry()
	for _, c := range Lacking(now, f.shards.State(1), "a") {
		if _, err := f.shards.Propose(t.Context(), 1, c); err != nil {
			t.Fatal(err)
		}
	}
	state := f.shards.State(1)
	if state.Generation(id) == nil || len(state.Told().Live()) != 1 {
		t.Fatal("not added")
	}
	if todo := append(Lacking(old, state, "a"), Lacking(now, state, "a")...); len(todo) > 0 {
		t.Fatalf("%T", todo[0])
	}
}

func TestTopicsThatCannotBeRead(t *testing.T) {
	f := newFixture(t)
	id := f.apply("")
	f.run()
	warned := func(part string) func() bool {
		return func() bool { return strings.Contains(strings.Join(f.c.Warnings(id), "\n"), part) }
	}
	f.await("a warning of the missing topic", warned("does not exist"))
	f.logs.set("events", Topic{ID: "one", Partitions: 1, Compacted: true})
	f.await("a warning of the compacted topic", warned("compacted"))
	if f.sources(id) != -1 {
		t.Fatal("a group was declared without its topic")
	}
	j, err := job.Parse("job.yaml", jobFile(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.c.Check(t.Context(), j); err == nil {
		t.Fatal("a compacted topic is taken for a source")
	}
	f.logs.set("events", Topic{ID: "one", Partitions: 1})
	f.await("one source", func() bool { return f.sources(id) == 1 && len(f.c.Warnings(id)) == 0 })
	f.logs.set("events", Topic{ID: "one", Partitions: 4})
	f.await("new partitions", func() bool { return f.sources(id) == 4 })
	f.logs.set("events", Topic{ID: "two", Partitions: 6})
	f.await("a warning of the new topic", warned("made again"))
	if f.sources(id) != 4 {
		t.Fatal("partitions of another topic joined those of the first")
	}
}

// fakeSession is a worker's stream, without a connection.
type fakeSession struct {
	grpc.ServerStream
	ctx     context.Context
	hangUp  context.CancelFunc
	reports chan *regionv1.WorkerReport
	got     chan *regionv1.Assignment
	ended   chan error
}

func (s *fakeSession) Context() context.Context { return s.ctx }

func (s *fakeSession) Send(a *regionv1.Assignment) error {
	select {
	case s.got <- a:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *fakeSession) Recv() (*regionv1.WorkerReport, error) {
	select {
	case r := <-s.reports:
		return r, nil
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

func (f *fixture) work(name, deployment string, sources ...*regionv1.SourceReport) *fakeSession {
	ctx, cancel := context.WithCancel(context.Background())
	s := &fakeSession{
		ctx: ctx, hangUp: cancel, reports: make(chan *regionv1.WorkerReport, 4), got: make(chan *regionv1.Assignment),
		ended: make(chan error, 1),
	}
	f.t.Cleanup(cancel)
	s.reports <- &regionv1.WorkerReport{Deployment: deployment, Worker: name, Sources: sources}
	go func() { s.ended <- f.c.Work(s) }()
	return s
}

// awaitSources takes assignments until one has as many sources as wanted, and returns those.
func (s *fakeSession) awaitSources(t *testing.T, want int) []string {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case a := <-s.got:
			var out []string
			for _, j := range a.Jobs {
				for _, x := range j.Sources {
					source, _, err := crdt.CutSource(x.Source)
					if err != nil || x.TopicId != "one" {
						t.Fatal(err, x)
					}
					out = append(out, source.String())
				}
			}
			if len(out) == want {
				return out
			}
		case err := <-s.ended:
			t.Fatalf("the session ended: %v", err)
		case <-timeout:
			t.Fatalf("never %d sources", want)
		}
	}
}

func TestWork(t *testing.T) {
	f := newFixture(t)
	f.logs.set("events", Topic{ID: "one", Partitions: 4})
	id := f.apply("")
	if err := <-f.work("w1", "d").ended; err != errNotLeader {
		t.Fatalf("without leadership: %v", err)
	}
	stop := f.run()
	if err := <-f.work("w1", "other").ended; status.Code(err) != codes.PermissionDenied {
		t.Fatalf("another deployment: %v", err)
	}
	f.await("sources", func() bool { return f.sources(id) == 4 })
	one, two := f.work("w1", "d"), f.work("w2", "d")
	first := one.awaitSources(t, 2)
	second := two.awaitSources(t, 2)
	if all := append(slices.Clone(first), second...); len(slices.Compact(slices.Sorted(slices.Values(all)))) != 4 {
		t.Fatalf("%v and %v", first, second)
	}
	two.hangUp()
	if got := one.awaitSources(t, 4); fmt.Sprint(got) == "" {
		t.Fatal("nothing moved")
	}
	source := crdt.Source{Region: "a", Topic: "events", Partition: 3}
	one.reports <- &regionv1.WorkerReport{Deployment: "d", Worker: "w1", Sources: []*regionv1.SourceReport{{
		Generation: id[:], Source: crdt.AppendSource(nil, source), LogEnd: 500, Stopped: "records are gone",
	}}}
	one.awaitSources(t, 3)
	stopped := f.shards.State(0).Registry().Stopped(id)
	if len(stopped) != 1 || stopped[0].Source != source || stopped[0].Reason != "records are gone" {
		t.Fatalf("%+v", stopped)
	}
	// A new session of a worker replaces the one it had.
	again := f.work("w1", "d")
	if err := <-drained(one); status.Code(err) != codes.Aborted {
		t.Fatalf("the old session: %v", err)
	}
	again.awaitSources(t, 3)
	stop()
	if err := <-drained(again); err != errNotLeader {
		t.Fatalf("after the leadership: %v", err)
	}
}

// drained returns what a session ends with; what it is sent meanwhile is dropped.
func drained(s *fakeSession) <-chan error {
	out := make(chan error, 1)
	go func() {
		for {
			select {
			case <-s.got:
			case err := <-s.ended:
				s.hangUp()
				out <- err
				return
			}
		}
	}()
	return out
}

// A new coordinator leaves sources where its workers say they are.
func TestWorkersKeepTheirSources(t *testing.T) {
	f := newFixture(t)
	f.logs.set("events", Topic{ID: "one", Partitions: 2})
	id := f.apply("")
	stop := f.run()
	f.await("sources", func() bool { return f.sources(id) == 2 })
	stop()
	f.c.o.Grace = patience
	f.run()
	f.await("leading", f.c.Leading)
	holds := func(p int32) *regionv1.SourceReport {
		s := crdt.Source{Region: "a", Topic: "events", Partition: p}
		return &regionv1.SourceReport{Generation: id[:], Source: crdt.AppendSource(nil, s), LogEnd: 7, Offset: 5}
	}
	one, two := f.work("w1", "d", holds(1)), f.work("w2", "d", holds(0))
	if got := one.awaitSources(t, 1); got[0] != "a/events/1" {
		t.Fatalf("%v", got)
	}
	if got := two.awaitSources(t, 1); got[0] != "a/events/0" {
		t.Fatalf("%v", got)
	}
	at := f.c.Status(Task{id, crdt.Source{Region: "a", Topic: "events", Partition: 1}})
	if at.Worker != "w1" || at.LogEnd != 7 || at.Offset != 5 {
		t.Fatalf("%+v", at)
	}
}

// The sources of a node that is not heard of any more move when its session falls silent too, long before others would,
// and not while its worker still says something.
func TestSourcesOfADeadNodeMove(t *testing.T) {
	f := newFixture(t)
	f.logs.set("events", Topic{ID: "one", Partitions: 2})
	f.apply("")
	f.c.o.Grace = 200 * time.Millisecond
	var dead atomic.Pointer[string]
	dead.Store(new(string))
	f.c.o.Dead = func(node string) bool { return node == *dead.Load() }
	f.run()
	f.await("leading", f.c.Leading)
	one, two := f.work("w1", "d"), f.work("w2", "d")
	one.awaitSources(t, 1)
	two.awaitSources(t, 1)
	two.awaitSources(t, 1) // told again, however long w1 says nothing
	name := "w1"
	dead.Store(&name)
	two.awaitSources(t, 2)
}

// The sources of a node that was removed from the region move as soon as its session ends: it does not come back.
func TestSourcesOfARemovedNodeMove(t *testing.T) {
	f := newFixture(t)
	f.logs.set("events", Topic{ID: "one", Partitions: 2})
	f.apply("")
	f.c.o.Grace = 10 * patience
	var nodes atomic.Pointer[[]string]
	nodes.Store(&[]string{"w1", "w2"})
	f.c.o.Nodes = func() []string { return *nodes.Load() }
	f.run()
	f.await("leading", f.c.Leading)
	one, two := f.work("w1", "d"), f.work("w2", "d")
	one.awaitSources(t, 1)
	two.awaitSources(t, 1)
	nodes.Store(&[]string{"w2"})
	one.hangUp()
	two.awaitSources(t, 2)
}
