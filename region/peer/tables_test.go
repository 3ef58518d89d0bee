package peer_test

import (
	"errors"
	"testing"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	tabledef "github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/peer/peertest"
	"github.com/watershed-db/watershed/region/shard"
)

var tableLimits = table.Limits{MaxAhead: time.Hour.Milliseconds(), Open: 100, Gaps: 100}

func testTable(of table.Type) tabledef.ID { return tabledef.IDOf(1, uint64(of)) }

// beginTables has all regions know a table of each type, and write.
func beginTables(t *testing.T, w *peertest.World) {
	t.Helper()
	c := &shard.TellTables{At: testTable(table.TypeLWWSet)}
	for of := table.TypeCounter; of <= table.TypeLWWSet; of++ {
		c.Live = append(c.Live, shard.LiveTable{ID: testTable(of), Def: tabledef.Def{Name: of.String(), Type: tabledef.Type(of), MaxBytes: 1 << 16}})
	}
	for _, r := range w.Regions {
		r.Must(c, &shard.TableBegin{Actor: r.Shard.Member()})
	}
}

// session is a client's.
type session struct {
	id   table.SessionID
	next uint64
}

func newSession(nonce uint64) *session {
	return &session{id: table.SessionID{Born: time.Now().UnixMilli(), Nonce: nonce}}
}

func (s *session) op(kind table.Kind, data string) table.Op {
	s.next++
	o := table.Op{ID: table.ID{Session: s.id, Sequence: s.next}, Kind: kind}
	if kind == table.Increment {
		o.Amount = 1
	} else {
		o.Data = []byte(data)
	}
	return o
}

func write(r *peertest.Region, of table.Type, key string, o table.Op) *shard.TableWrite {
	return &shard.TableWrite{Actor: r.Shard.Member(), Table: testTable(of), Type: of, Key: crdt.Text(key).AppendKey(nil), Op: o,
		Now: time.Now().UnixMilli(), Limits: tableLimits}
}

func digest(t *testing.T, r *peertest.Region) crdt.Hash {
	t.Helper()
	s, err := r.Replica.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.TableDigest()
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return d
}

// awaitTables waits until all regions hold the same of tables, merging what they took as state.
func awaitTables(t *testing.T, w *peertest.World) {
	t.Helper()
	first := w.Regions[0]
	for _, r := range w.Regions[1:] {
		w.Await("regions to hold the same of tables", func() bool {
			a, b := first.Replica.State().Tables().Marks, r.Replica.State().Tables().Marks
			return a.Covers(b) && b.Covers(a) && digest(t, first) == digest(t, r)
		})
	}
	for _, r := range w.Regions {
		merge(t, r)
		if d := digest(t, r); d != digest(t, first) {
			t.Errorf("region %s holds something else when all is merged", r.Name)
		}
	}
}

func merge(t *testing.T, r *peertest.Region) {
	t.Helper()
	for {
		s, err := r.Replica.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.NextMerge(100)
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		if c == nil {
			return
		}
		r.Must(c)
	}
}

func total(t *testing.T, r *peertest.Region, key string) string {
	t.Helper()
	s, err := r.Replica.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.TableValue(testTable(table.TypeUpDown), table.TypeUpDown, crdt.Text(key).AppendKey(nil))
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return v.(*table.Counter).Total().String()
}

// Regions that write one key at once come to the same, and a retry in another region is no second operation: also where
// it got there first, and where the two see each other through a third only.
func TestTablesConverge(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b", "c")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	beginTables(t, w)
	ra, rb := w.Region("a"), w.Region("b")
	one, two := newSession(1), newSession(2)
	for range 50 {
		x, y := one.op(table.Increment, ""), two.op(table.Increment, "")
		ra.Must(write(ra, table.TypeUpDown, "k", x))
		if res := rb.Propose(write(rb, table.TypeUpDown, "k", x)); res.Outcome != shard.Applied && res.Outcome != shard.Duplicate {
			t.Fatalf("a retry is %v: %s", res.Outcome, res.Reason)
		}
		rb.Must(write(rb, table.TypeUpDown, "k", y))
	}
	set := two.op(table.Insert, "e")
	rb.Must(write(rb, table.TypeSet, "k", set))
	w.Await("the insert to arrive", func() bool { return ra.Replica.State().Tables().Marks.Covers(rb.Replica.State().Tables().Marks) })
	remove := one.op(table.Remove, "e")
	remove.Observed = []table.ID{set.ID}
	ra.Must(write(ra, table.TypeSet, "k", remove))
	awaitTables(t, w)
	for _, r := range w.Regions {
		if n := total(t, r, "k"); n != "100" {
			t.Errorf("region %s counts %s", r.Name, n)
		}
		for _, v := range r.Shard.Peers() {
			if v.Joined > 0 {
				t.Errorf("region %s took state from %s where the log had all", r.Name, v.Region)
			}
		}
	}
	if res := rb.Propose(write(rb, table.TypeUpDown, "k", table.Op{ID: table.ID{Session: one.id, Sequence: 50}, Kind: table.Increment, Amount: 1})); res.Outcome != shard.Duplicate {
		t.Errorf("a retry of what another region took is %v", res.Outcome)
	}
}

// What the log no longer holds of tables comes as state, beside what the region has taken itself meanwhile.
func TestTablesOfATruncatedLog(t *testing.T) {
	w := peertest.New(t, peertest.Options{Group: func(c *group.Config) { c.TrailingEntries = 1 }}, "a", "b")
	beginTables(t, w)
	awaitTables(t, w)
	w.Between("a", "b", (*peertest.Proxy).Cut)
	ra, rb := w.Region("a"), w.Region("b")
	one, two := newSession(1), newSession(2)
	for i := range 200 {
		x := one.op(table.Increment, "")
		ra.Must(write(ra, table.TypeUpDown, string(rune('a'+i%20)), x))
		if i%10 == 0 {
			rb.Must(write(rb, table.TypeUpDown, string(rune('a'+i%20)), x)) // a retry elsewhere
		}
		rb.Must(write(rb, table.TypeUpDown, "a", two.op(table.Increment, "")))
	}
	for _, r := range w.Regions {
		if err := r.Host.Group(0).Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	if first, _ := ra.Replica.LogBounds(); first < 50 {
		t.Fatalf("the log still begins at %d", first)
	}
	w.Between("a", "b", (*peertest.Proxy).Heal)
	awaitTables(t, w)
	if v := rb.Shard.Peers()[0]; v.Joined == 0 {
		t.Error("no state was taken")
	}
	for _, r := range w.Regions {
		if a, b := total(t, r, "a"), total(t, r, "b"); a != "210" || b != "10" {
			t.Errorf("region %s counts %s and %s", r.Name, a, b)
		}
	}
	rb.Must(write(rb, table.TypeUpDown, "a", two.op(table.Increment, "")))
	awaitTables(t, w)
}

// An operation whose stamp lies too far ahead waits until it does not any more, and so does what comes behind it.
func TestTablesFarAhead(t *testing.T) {
	w := peertest.New(t, peertest.Options{}, "a", "b")
	beginTables(t, w)
	ra, rb := w.Region("a"), w.Region("b")
	one := newSession(1)
	far := one.op(table.Assign, "x")
	due := time.Now().Add(4 * time.Second)
	far.Time = table.TimeAt(due.Add(peer.MaxAhead).UnixMilli())
	ra.Must(write(ra, table.TypeRegister, "k", far), write(ra, table.TypeUpDown, "k", one.op(table.Increment, "")))
	w.Await("the operation to wait", func() bool { return rb.Shard.Peers()[0].Early == 1 })
	if n := total(t, rb, "k"); n != "0" && time.Now().Before(due) {
		t.Errorf("%s was counted ahead of what waits", n)
	}
	awaitTables(t, w)
	if time.Now().Before(due) {
		t.Error("what lay too far ahead was taken at once")
	}
	if v := rb.Shard.Peers()[0]; v.Joined > 0 {
		t.Error("what was to wait came as state")
	}
}
