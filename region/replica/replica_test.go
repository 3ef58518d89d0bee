package replica

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const jobFile = `name: count
sources:
  - topic: events
    format: json
    time: {field: ts, unit: ms}
    key: {k: k}
    aggregates: {n: count()}
window: {tumbling: 1s}
`

// alone opens a region of one node and one shard.
func alone(t *testing.T, dir string) *Replica {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	host, err := group.Open(group.Config{
		Dir: filepath.Join(dir, "raft"), Deployment: "d", Region: "a", NodeID: "n", Fatal: fatal, Listener: l,
		Members: []group.Member{{ID: "n", Address: l.Addr().String()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(Options{
		Shard: shard.Config{Self: "a", Regions: []crdt.RegionID{"a"}, Shards: 1, Owner: true},
		Dir:   filepath.Join(dir, "shard"), Host: host, Fatal: fatal,
		Found: []group.Seat{{Member: group.Member{ID: "n", Address: l.Addr().String()}, Voter: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), r.Close(), host.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// propose retries until the new group has a leader.
func propose(t *testing.T, r *Replica, c shard.Command) shard.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		res, err := r.Propose(ctx, c)
		if err == nil {
			return res
		}
		if !errors.Is(err, group.ErrNotLeader) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func add(t *testing.T) *shard.AddGeneration {
	t.Helper()
	j, err := job.Parse("job.yaml", []byte(jobFile))
	if err != nil {
		t.Fatal(err)
	}
	return &shard.AddGeneration{ID: crdt.GenerationID{15: 1}, Name: j.Name, File: j.File, Meaning: j.Meaning()}
}

func TestProposeAndReopen(t *testing.T) {
	dir := t.TempDir()
	c := add(t)
	t.Run("first life", func(t *testing.T) {
		r := alone(t, dir)
		changed := r.Changed()
		if res := propose(t, r, c); res.Outcome != shard.Applied {
			t.Fatalf("%+v", res)
		}
		<-changed
		if res := propose(t, r, c); res.Outcome != shard.Duplicate {
			t.Fatalf("%+v", res)
		}
		if _, _, ok := r.Points(c.ID); !ok || !r.Ready() {
			t.Fatal("the generation is not there")
		}
		var outcomes uint64
		r.Outcomes(func(k shard.Kind, o shard.Outcome, n uint64) { outcomes += n })
		if outcomes != 2 {
			t.Fatalf("%d outcomes were counted", outcomes)
		}
	})
	r := alone(t, dir)
	if res := propose(t, r, c); res.Outcome != shard.Duplicate {
		t.Fatalf("after a restart: %+v", res)
	}
}

func TestProposeRefusesWhatIsMalformed(t *testing.T) {
	r := alone(t, t.TempDir())
	propose(t, r, add(t))
	if _, err := r.ProposeEncoded(t.Context(), []byte{99, 1}); !errors.Is(err, shard.ErrCommand) {
		t.Fatal(err)
	}
	source := crdt.Source{Input: 9, Region: "a", Topic: "events"}
	_, err := r.Propose(t.Context(), &shard.AddSources{
		Generation: crdt.GenerationID{15: 1}, Group: "a",
		Sources: []shard.SourcePoint{{Source: source, Point: crdt.FirstPoint(source, 0)}},
	})
	if !errors.Is(err, shard.ErrInvalid) {
		t.Fatal(err)
	}
}

// A leader's task runs while it leads, and Close waits for it.
func TestLead(t *testing.T) {
	r := alone(t, t.TempDir())
	var ended atomic.Bool
	began := make(chan struct{})
	r.Lead(func(ctx context.Context) {
		close(began)
		<-ctx.Done()
		ended.Store(true)
	})
	<-began
	if !r.IsLeader() || r.Staleness() != 0 || r.Leader().ID != "n" {
		t.Fatal("a task runs where the replica does not lead")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if !ended.Load() {
		t.Fatal("Close did not wait for the task")
	}
	if _, err := r.Propose(t.Context(), &shard.Check{}); !errors.Is(err, group.ErrStopped) {
		t.Fatalf("a closed replica takes commands: %v", err)
	}
}

func TestObserve(t *testing.T) {
	r := alone(t, t.TempDir())
	c := add(t)
	propose(t, r, c)
	seen := make(chan shard.Change, 8)
	stop := r.Observe(func(c shard.Change) { seen <- c })
	propose(t, r, &shard.DropGeneration{ID: c.ID})
	if x := <-seen; x.Generation != c.ID || !x.Whole {
		t.Fatalf("%+v", x)
	}
	stop()
	propose(t, r, c)
	propose(t, r, &shard.DropGeneration{ID: c.ID})
	if len(seen) != 0 {
		t.Fatal("told after stop")
	}
}
