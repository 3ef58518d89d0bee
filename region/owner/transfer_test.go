package owner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// solo is a shard's only replica in its region: it leads, and a command is logged when it is applied.
type solo struct {
	*shard.Machine
	mu sync.Mutex
}

func (r *solo) Submit(_ context.Context, _ shard.Command, raw []byte) func(context.Context) (shard.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	res, ok := r.Apply(r.AppliedIndex()+1, raw).(shard.Result)
	return func(context.Context) (shard.Result, error) {
		if !ok {
			return res, errors.New("the replica has failed")
		}
		return res, nil
	}
}

func (r *solo) Linearizable(context.Context) error { return nil }
func (r *solo) Status() group.Status               { return group.Status{Term: 1} }
func (r *solo) Leader() group.Member               { return group.Member{} }
func (r *solo) StepDown()                          {}

// threeRegions are the owned logs of one shard in regions a, b and c, of which those that are not cut off hear each other.
type threeRegions struct {
	t       *testing.T
	names   []crdt.RegionID
	shards  map[crdt.RegionID]*Shard
	replica map[crdt.RegionID]*solo
	mu      sync.Mutex
	cut     map[crdt.RegionID]bool
}

func startThree(t *testing.T, set ownership.Settings, life time.Duration) *threeRegions {
	w := &threeRegions{t: t, names: []crdt.RegionID{"a", "b", "c"}, shards: map[crdt.RegionID]*Shard{}, replica: map[crdt.RegionID]*solo{},
		cut: map[crdt.RegionID]bool{}}
	for i, name := range w.names {
		st, err := keyspace.Open(keyspace.Options{Dir: "store", FS: vfs.NewMem(), Fatal: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		m, err := shard.Open(shard.Options{Config: shard.Config{Self: name, Regions: w.names, Shards: 1, Owner: i == 0}, Store: st,
			Fatal: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		w.replica[name] = &solo{Machine: m}
		t.Cleanup(func() { _ = m.Close() })
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i, name := range w.names {
		w.shards[name] = New(Options{Replica: w.replica[name], Incarnation: ownership.MemberID(i + 1), Settings: set, Tick: 5 * time.Millisecond,
			Clock: NewClock(time.Minute), Now: time.Now, SessionLife: life,
			Send: func(to crdt.RegionID, m ownership.Message, entries [][]byte) { w.send(name, to, m, entries) },
			State: func(ctx context.Context, from crdt.RegionID, at ownership.Mark, take func(owned.Digest, []byte) error) error {
				return w.shards[from].State(ctx, at, take)
			},
		})
	}
	for _, s := range w.shards {
		running.Go(func() { s.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func (w *threeRegions) send(from, to crdt.RegionID, m ownership.Message, entries [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut[from] && !w.cut[to] {
		w.shards[to].Offer(from, m, entries)
	}
}

func (w *threeRegions) setCut(region crdt.RegionID, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[region] = cut
}

// write writes at the first region that takes it, again and again.
func (w *threeRegions) write(op owned.Op) owned.Result {
	w.t.Helper()
	var last error
	for range 2000 {
		for _, name := range w.names {
			raw, err := w.shards[name].Write(w.t.Context(), op.Append(nil), true)
			if err == nil {
				res, err := owned.DecodeResult(raw)
				if err != nil {
					w.t.Fatal(err)
				}
				return res
			}
			last = err
		}
		if rest(w.t.Context(), 5*time.Millisecond) != nil {
			break
		}
	}
	w.t.Fatalf("no region takes a write: %v", last)
	return owned.Result{}
}

// see returns what a region holds, and whether that is what it should be.
func (w *threeRegions) see(region crdt.RegionID, f func(s *shard.Snapshot, r *owned.Reader) bool) bool {
	w.t.Helper()
	s, err := w.replica[region].Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Owned()
	if err != nil {
		w.t.Fatal(err)
	}
	return f(s, r)
}

func (w *threeRegions) await(what string, region crdt.RegionID, f func(s *shard.Snapshot, r *owned.Reader) bool) {
	w.t.Helper()
	for range 4000 {
		if w.see(region, f) {
			return
		}
		if rest(w.t.Context(), 5*time.Millisecond) != nil {
			break
		}
	}
	w.t.Fatalf("region %s: %s does not happen: %+v", region, what, w.replica[region].State().Ownership().Record)
}

// quick are settings with which a member that is away is soon sent the state instead of the log.
func quick() ownership.Settings {
	s := ownership.Default()
	s.Unconfirmed, s.Span, s.Lag = 64, 65, 64
	s.Resend, s.Alone = 50*time.Millisecond, 200*time.Millisecond
	return s
}

func session(n uint64) owned.Session { return owned.Session{Born: time.Now().UnixMilli(), Nonce: n} }

// TestAStateIsTakenOver: a region that was cut off while the owner's log forgot what it lacks is sent the state, and goes on
// with the log behind it.
func TestAStateIsTakenOver(t *testing.T) {
	w := startThree(t, quick(), time.Hour)
	who := session(1)
	put := func(n int) {
		op := owned.Op{Kind: owned.Put, Table: owned.TableID{0xff}, Key: fmt.Appendf(nil, "k%d", n%50), Value: make([]byte, 20<<10),
			ID: owned.ID{Session: who, Sequence: uint64(n)}}
		if res := w.write(op); res.Verdict != owned.Applied {
			t.Fatalf("write %d: %+v", n, res)
		}
	}
	put(1)
	w.setCut("c", true)
	for n := 2; n <= 200; n++ {
		put(n)
	}
	w.await("the log forgets what c lacks", "a", func(s *shard.Snapshot, _ *owned.Reader) bool {
		return s.Ownership().Record.Base > w.replica["c"].State().Ownership().Record.Last
	})
	w.setCut("c", false)
	put(201)
	at := func(r *owned.Reader) owned.Digest {
		v, err := r.At(r.Held())
		if err != nil {
			t.Fatal(err)
		}
		return v.Head().Digest()
	}
	w.await("c holds what a holds", "c", func(_ *shard.Snapshot, c *owned.Reader) bool {
		same := false
		w.see("a", func(_ *shard.Snapshot, a *owned.Reader) bool {
			same = a.Held() == c.Held() && at(a) == at(c)
			return same
		})
		return same
	})
	w.see("c", func(s *shard.Snapshot, r *owned.Reader) bool {
		res, ok, err := r.Outcome(owned.ID{Session: who, Sequence: 200})
		if err != nil || !ok || res.Verdict != owned.Applied {
			t.Errorf("c does not know what became of write 200: %+v %v %v", res, ok, err)
		}
		return true
	})
}

// TestAnOwnerSweeps: what has expired is removed in all regions, and what is left of sessions when their life is over.
func TestAnOwnerSweeps(t *testing.T) {
	w := startThree(t, ownership.Default(), 100*time.Millisecond)
	w.write(owned.Op{Kind: owned.Put, Time: time.Now().UnixMilli(), Table: owned.TableID{0xff}, Key: []byte("k"), TTL: 50, ID: owned.ID{Session: session(1), Sequence: 1}})
	for _, name := range w.names {
		w.await("it is swept", name, func(_ *shard.Snapshot, r *owned.Reader) bool {
			v, err := r.At(r.Held())
			if err != nil {
				t.Fatal(err)
			}
			h := v.Head()
			return h.Time > 0 && h.Rows == 0 && h.Sessions == 0
		})
	}
	if s := session(2); w.write(owned.Op{Kind: owned.Put, Key: []byte("k"), ID: owned.ID{Session: owned.Session{Born: s.Born - 1000}, Sequence: 1}}).
		Verdict != owned.Expired {
		t.Error("a session that has ended is taken")
	}
}

// TestNoStateOfAnotherHistory: a mark that is not in the log is not handed out.
func TestNoStateOfAnotherHistory(t *testing.T) {
	w := startThree(t, ownership.Default(), time.Hour)
	err := w.shards["a"].State(t.Context(), ownership.Mark{Epoch: ownership.EpochOf(9, 2), Position: 1},
		func(owned.Digest, []byte) error { return nil })
	if !errors.Is(err, ErrNoState) {
		t.Errorf("%v", err)
	}
}
