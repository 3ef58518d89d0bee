package shard

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What memory knows of the commands that others want is what the store does, and it says where it does not reach back.
func TestLatestOuts(t *testing.T) {
	fs := vfs.NewMem()
	m := openMachine(t, twoRegions(), fs)
	startJob(t, m)
	check := func(after uint64, want ...Out) {
		t.Helper()
		list, to, ok := m.LatestOuts(after, 10)
		if !ok || to != m.AppliedIndex() || len(list) != len(want) {
			t.Fatalf("after %d: %v to %d %t, want %v", after, list, to, ok, want)
		}
		for i := range want {
			if list[i] != want[i] {
				t.Errorf("after %d: %v, want %v", after, list, want)
			}
		}
		s, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stored, _, err := s.OutAfter(after, 10)
		if err != nil || len(stored) != len(want) {
			t.Errorf("the store has %v (%v), want %v", stored, err, want)
		}
	}
	check(0, Out{Index: 2, Kind: OutSources}, Out{Index: 3, Kind: OutSources})
	check(2, Out{Index: 3, Kind: OutSources})
	check(3)
	if list, to, ok := m.LatestOuts(0, 1); !ok || to != 2 || len(list) != 1 {
		t.Errorf("at most one is %v to %d %t", list, to, ok)
	}
	closeMachine(t, m)
	m = openMachine(t, twoRegions(), fs)
	defer closeMachine(t, m)
	if _, _, ok := m.LatestOuts(2, 10); ok {
		t.Error("a reopened machine claims to know what it never saw")
	}
	check(3)
}

func TestLatestOutsAreBounded(t *testing.T) {
	var o outs
	for i := range uint64(5 * keptOuts) {
		o.put(Out{Index: i + 1, Kind: OutAdvance})
	}
	if len(o.list) > 2*keptOuts || o.from != o.list[0].Index-1 || o.last != 5*keptOuts {
		t.Errorf("%d kept, from %d to %d", len(o.list), o.from, o.last)
	}
}
