package shard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/table"
)

func TestTablesHaveABound(t *testing.T) {
	cfg := &Config{Self: "a", Regions: []crdt.RegionID{"a"}, Shards: 1, Owner: true}
	st := newState()
	st.own = cfg.founding()
	do := func(c Command) Result {
		next, _, res, _ := apply(cfg, st, nil, st.Index+1, Encode(c), c)
		st = next
		return res
	}
	add := func(i int) Result {
		return do(&RegisterTable{Epoch: 1, Def: table.Def{Name: fmt.Sprint("t", i), Type: table.Set, MaxBytes: 1}})
	}
	for i := range MaxTables {
		if res := add(i); res.Outcome != Applied {
			t.Fatalf("table %d: %+v", i, res)
		}
	}
	if res := add(MaxTables); res.Outcome != Refused || !strings.Contains(res.Reason, "1024") {
		t.Errorf("one more: %+v", res)
	}
	if res := add(0); res.Outcome != Duplicate {
		t.Errorf("the same again: %+v", res)
	}
	tell := st.Registry().TellTables()
	if c, err := Decode(Encode(tell)); err != nil || len(c.(*TellTables).Live) != MaxTables {
		t.Fatal(err)
	}
	do(&UnregisterTable{Epoch: 1, Name: "t0"})
	if res := add(MaxTables); res.Outcome != Applied {
		t.Errorf("where one went: %+v", res)
	}
}

// Of each id a shard knows whether the table is live, was dropped, or is one that it has yet to be told of.
func TestWhatAShardKnowsOfTables(t *testing.T) {
	cfg := &Config{Self: "a", Regions: []crdt.RegionID{"a"}, Shard: 1, Shards: 2}
	d := table.Def{Name: "a", Type: table.Set, MaxBytes: 1}
	c := &TellTables{At: table.IDOf(1, 4), Live: []LiveTable{{table.IDOf(1, 3), d}}}
	st, _, _, _ := apply(cfg, newState(), nil, 1, Encode(c), c)
	for position, want := range map[uint64]string{2: "false true", 3: "true false", 4: "false true", 5: "false false"} {
		id := table.IDOf(1, position)
		_, live := st.Told().Get(id)
		if got := fmt.Sprint(live, st.Told().Dropped(id)); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	if !st.Told().Dropped(table.ID{}) || newState().Told().Dropped(table.IDOf(1, 1)) {
		t.Error("no table has no id")
	}
}
