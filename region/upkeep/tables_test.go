package upkeep

import (
	"testing"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	tabledef "github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/region/shard"
)

// tablesOf decides as member 1, with what is to be merged, and returns what of it is about tables.
func (b *bench) tablesOf() (list []shard.Command) {
	b.t.Helper()
	s := &Seen{Now: b.now, State: b.machine.State(), Peers: b.peers, Joining: b.joining, Member: 1}
	var err error
	if s.Merge, err = nextMerge(b); err != nil {
		b.t.Fatal(err)
	}
	list = b.d.tables(s)
	b.apply(list...)
	return list
}

func (b *bench) State() *shard.State                { return b.machine.State() }
func (b *bench) Snapshot() (*shard.Snapshot, error) { return b.machine.Snapshot() }

func told(of tabledef.Type) *shard.TellTables {
	d := tabledef.Def{Name: "t", Type: of, MaxBytes: 100}
	if of == tabledef.Owned {
		d.Durability = tabledef.Quorum
	}
	id := tabledef.IDOf(1, uint64(of))
	return &shard.TellTables{At: id, Live: []shard.LiveTable{{ID: id, Def: d}}}
}

func (b *bench) increment(born int64) *shard.TableWrite {
	return &shard.TableWrite{Actor: 1, Table: tabledef.IDOf(1, uint64(tabledef.Counter)), Type: table.TypeCounter,
		Key: crdt.Text("k").AppendKey(nil), Now: born, Limits: table.Limits{Open: 9},
		Op: table.Op{ID: table.ID{Session: table.SessionID{Born: born}, Sequence: 1}, Kind: table.Increment, Amount: 1}}
}

// A shard writes under the region's number as soon as there is a table for it, and sessions end when they are old, not more
// often than now and then.
func TestBeginsAndCloses(t *testing.T) {
	b := newBench(t)
	if list := b.tablesOf(); len(list) > 0 {
		t.Fatalf("without any table: %v", list)
	}
	b.apply(told(tabledef.Counter))
	if list := b.tablesOf(); len(list) > 0 {
		t.Fatalf("before all others have told of theirs: %v", list)
	}
	for i := range b.peers {
		b.peers[i].Standing = shard.TableStanding{Actor: table.Actor(i + 2), Marks: table.Marks{}}
	}
	if list := b.tablesOf(); len(list) != 1 || list[0].(*shard.TableBegin).Actor != 1 {
		t.Fatalf("with a table: %v", list)
	}
	if list := b.tablesOf(); len(list) > 0 {
		t.Fatalf("when it has begun, and nobody has written: %v", list)
	}
	b.now = time.UnixMilli(SessionLife.Milliseconds())
	b.apply(b.increment(b.now.UnixMilli()), b.increment(b.now.UnixMilli()+1))
	b.now = b.now.Add(SessionLife + time.Millisecond)
	if list := b.tablesOf(); len(list) != 1 || b.State().Tables().Open != 1 {
		t.Fatalf("when one of two sessions is old: %v, %d are open", list, b.State().Tables().Open)
	}
	b.now = b.now.Add(closeEvery - time.Millisecond)
	if list := b.tablesOf(); len(list) > 0 {
		t.Errorf("a moment later: %v", list)
	}
	b.now = b.now.Add(time.Millisecond)
	if list := b.tablesOf(); len(list) != 1 || b.State().Tables().Open != 0 {
		t.Errorf("when both are old: %v, %d are open", list, b.State().Tables().Open)
	}
	b.now = b.now.Add(time.Hour)
	if list := b.tablesOf(); len(list) > 0 {
		t.Errorf("when none is open: %v", list)
	}
	b.peers[0].Standing.Marks = table.Marks{2: {Position: 1, Closed: 1 << 47}}
	if list := b.tablesOf(); len(list) > 0 {
		t.Errorf("when one has yet to begin: %v", list)
	}
	b.peers[1].Standing.Marks = table.Marks{3: {Position: 0, Closed: 1 << 47}}
	b.apply(&shard.TableForward{Actor: 2, Mark: table.Mark{Position: 1}})
	if list := b.tablesOf(); len(list) != 1 || b.State().Tables().Kept != 0 {
		t.Errorf("when all have closed: %v, %d sessions are kept", list, b.State().Tables().Kept)
	}
}

func TestNothingBeginsForOwnedTables(t *testing.T) {
	b := newBench(t)
	b.apply(told(tabledef.Owned))
	if list := b.tablesOf(); len(list) > 0 {
		t.Fatalf("%v", list)
	}
}

// A copy of tables that nobody fills is given up after a while, and one that was adopted is merged.
func TestCopyOfTables(t *testing.T) {
	b := newBench(t)
	b.apply(&shard.TableStage{})
	b.joining = true
	b.tablesOf()
	b.joining, b.now = false, b.now.Add(time.Hour)
	if list := b.tablesOf(); len(list) > 0 {
		t.Fatalf("given up at once: %v", list)
	}
	b.now = b.now.Add(stageAfter)
	if list := b.tablesOf(); len(list) != 1 || b.State().Tables().Beside != nil {
		t.Fatalf("not given up: %v", list)
	}
	b.apply(&shard.TableStage{}, &shard.TableAdopt{Copy: 2, Marks: table.Marks{7: {Position: 1}}})
	if list := b.tablesOf(); len(list) != 1 || b.State().Tables().Beside != nil {
		t.Fatalf("not merged: %v", list)
	}
}
