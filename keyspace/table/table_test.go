package table

import (
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
)

func TestCheck(t *testing.T) {
	for _, bad := range []Def{
		{}, {"a", Owned, 0, 0, 1}, {"a", Owned, 3, 0, 1}, {"a", Set, Quorum, 0, 1}, {"a", Set, 0, 1000, 1}, {"a", 6, 0, 0, 1},
		{"a", Owned, Quorum, 999, 1}, {"a", Owned, Quorum, maxTTL + 1, 1}, {"a", Set, 0, 0, 0}, {"a", Set, 0, 0, MaxValueBytes + 1},
		{"A", Set, 0, 0, 1}, {"", Set, 0, 0, 1},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v", bad)
		}
	}
	if _, ok := Owned.CRDT(); ok {
		t.Error("an owned table is none that every region writes")
	}
}

// Equal keys of two tables, and of one that was made again, lie where each table's id says; the spread is even.
func TestShardOf(t *testing.T) {
	const shards = 8
	var counts [shards]int
	moved := 0
	for i := range int64(8000) {
		key := crdt.Int(i).AppendKey(nil)
		a, b := ShardOf(IDOf(1<<16|1, 1), key, shards), ShardOf(IDOf(1<<16|1, 2), key, shards)
		counts[a]++
		id := IDOf(1<<16|1, 1)
		if want := keyspace.ShardOf(append(id[:], key...), shards); a != want {
			t.Fatalf("key %d is on shard %d, keyspace says %d", i, a, want)
		}
		if a != b {
			moved++
		}
	}
	for i, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("shard %d has %d of 8000 keys", i, n)
		}
	}
	if moved < 6000 {
		t.Errorf("%d keys lie elsewhere in the other table", moved)
	}
	if id := IDOf(3, 9); id.String() != "3.9" || id.Position() != 9 {
		t.Errorf("%s %d", id, id.Position())
	}
}
