package upkeep_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	tabledef "github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/region/peer/peertest"
	"github.com/watershed-db/watershed/region/shard"
	"github.com/watershed-db/watershed/region/upkeep"
)

func newWorld(t *testing.T, names ...string) *peertest.World {
	t.Helper()
	return peertest.New(t, peertest.Options{Lead: func(ctx context.Context, r *peertest.Region) {
		upkeep.Run(ctx, upkeep.Options{Replica: r.Replica, Peers: r.Shard, UnreachableAfter: 500 * time.Millisecond,
			Every: 20 * time.Millisecond})
	}}, names...)
}

// Regions agree on a horizon, hold it while one of them is away, and on idle sources only while their region is there.
func TestRegionsUpkeep(t *testing.T) {
	w := newWorld(t, "a", "b")
	j := peertest.NewJob(t, 1, peertest.File("retention: 1s"))
	for _, r := range w.Regions {
		r.Must(j.Add, j.Sources(string(r.Name), 1))
	}
	ra, rb := w.Region("a"), w.Region("b")
	a, b := peertest.Source("a", 0), peertest.Source("b", 0)
	ra.Must(j.Step(a, "x", 0, 50, "k"))
	rb.Must(j.Step(b, "x", 0, 50, "k"))
	horizon := func(r *peertest.Region) int64 { return r.Replica.State().Generation(j.ID).Horizon }
	w.Await("the horizon to move", func() bool { return horizon(ra) == 4000 && horizon(rb) == 4000 })
	w.AwaitAlike(j)

	idle := shard.SourceMark{Source: b, Mark: peertest.Point(b, "x", 50).Mark()}
	rb.Must(&shard.Idle{Generation: j.ID, Sources: []shard.SourceMark{idle}, Idle: true})
	watermark := func(r *peertest.Region) int64 { return r.Replica.State().Generation(j.ID).Watermark }
	ra.Must(j.Step(a, "x", 50, 60, "k"))
	w.Await("the idle source to let the watermark pass", func() bool { return watermark(ra) == 6000 })

	w.Between("a", "b", (*peertest.Proxy).Cut)
	w.Await("the cut to be seen", func() bool { return len(ra.Replica.State().Unreachable) == 1 })
	rb.Must(j.Step(b, "x", 50, 55, "k"))
	ra.Must(j.Step(a, "x", 60, 90, "k"))
	if got := watermark(ra); got != 6000 {
		t.Errorf("watermark %d without b, want 6000", got)
	}
	w.Between("a", "b", (*peertest.Proxy).Heal)
	w.Await("the heal to be seen", func() bool { return len(ra.Replica.State().Unreachable) == 0 })
	ra.AwaitOffset(j, b, 55)
	if got := watermark(ra); got != 6000 {
		t.Errorf("watermark %d, want 6000: b woke and stands at 5500", got)
	}
	rb.Must(j.Step(b, "x", 55, 90, "k"))
	w.Await("the watermark to go on", func() bool { return watermark(ra) == 9000 && watermark(rb) == 9000 })
	w.AwaitAlike(j)
}

// Regions begin to write tables by themselves, and forget sessions once all of them have ended those.
func TestRegionsForgetSessions(t *testing.T) {
	var later atomic.Int64
	w := peertest.New(t, peertest.Options{Lead: func(ctx context.Context, r *peertest.Region) {
		upkeep.Run(ctx, upkeep.Options{Replica: r.Replica, Peers: r.Shard, Every: 20 * time.Millisecond,
			Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	}}, "a", "b")
	id := tabledef.IDOf(1, 1)
	for _, r := range w.Regions {
		r.Must(&shard.TellTables{At: id, Live: []shard.LiveTable{{ID: id, Def: tabledef.Def{Name: "t", Type: tabledef.Counter, MaxBytes: 100}}}})
	}
	for i, r := range w.Regions {
		w.Await("a region to write", func() bool { return r.Replica.State().Tables().Begun })
		session := table.SessionID{Born: time.Now().UnixMilli(), Nonce: uint64(i)}
		r.Must(&shard.TableWrite{Actor: r.Shard.Member(), Table: id, Type: table.TypeCounter, Key: crdt.Text("k").AppendKey(nil),
			Op:  table.Op{ID: table.ID{Session: session, Sequence: 1}, Kind: table.Increment, Amount: 1},
			Now: session.Born, Limits: table.Limits{Open: 2}})
	}
	for _, r := range w.Regions {
		w.Await("both sessions", func() bool { return r.Replica.State().Tables().Open == 2 })
	}
	later.Store(int64(upkeep.SessionLife + time.Hour))
	for _, r := range w.Regions {
		w.Await("the sessions to be forgotten", func() bool { x := r.Replica.State().Tables(); return x.Kept == 0 && x.Floor > 0 })
	}
}
