package shard

import (
	"bytes"
	"testing"

	"github.com/watershed-db/watershed/crdt"
)

func TestNotes(t *testing.T) {
	cfg := &Config{Self: "a", Regions: []crdt.RegionID{"a"}, Shards: 1}
	st := newState()
	do := func(c *Note, want Outcome) {
		t.Helper()
		next, _, res, _ := apply(cfg, st, nil, st.Index+1, Encode(c), c)
		if res.Outcome != want {
			t.Fatalf("%+v: %v %s, wanted %v", c, res.Outcome, res.Reason, want)
		}
		st = next
	}
	do(&Note{"n", 1, []byte("x")}, Refused)
	do(&Note{"n", 0, []byte("x")}, Applied)
	before := st
	do(&Note{"n", 0, []byte("x")}, Duplicate)
	do(&Note{"n", 0, []byte("y")}, Refused)
	do(&Note{"n", 1, []byte("y")}, Applied)
	do(&Note{"m", 0, nil}, Applied)
	if n := st.Note("n"); n.Revision != 2 || !bytes.Equal(n.Value, []byte("y")) {
		t.Fatalf("%+v", n)
	}
	if n := before.Note("n"); n.Revision != 1 {
		t.Fatalf("a state that was handed out has changed: %+v", n)
	}
}
