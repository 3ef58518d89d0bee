package placement

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func three(t *testing.T, shards int) *Table {
	t.Helper()
	table, err := Found([]Node{node("c", "", 1), node("a", "", 1), node("b", "", 1)}, shards, 3)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestFoundingIsTheSameEverywhere(t *testing.T) {
	nodes := []Node{node("c", "x", 1), node("a", "y", 2), node("b", "", 1), node("d", "x", 1)}
	first, err := Found(nodes, 16, 3)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(nodes)
	second, err := Found(nodes, 16, 3)
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Fatalf("%+v\n%+v\n%v", first, second, err)
	}
	if two, err := Found(nodes[:2], 4, 5); err != nil || two.Replication != 1 {
		t.Fatalf("two nodes: %+v, %v", two, err)
	}
}

func TestLeadersAreSpread(t *testing.T) {
	leads := map[string]int{}
	for _, voters := range three(t, 9).Shards {
		leads[voters[0]]++
	}
	if leads["a"] != 3 || leads["b"] != 3 || leads["c"] != 3 {
		t.Fatal(leads)
	}
}

func TestWeights(t *testing.T) {
	table, err := Found([]Node{node("a", "", 3), node("b", "", 1)}, 16, 1)
	if err != nil || len(table.Of("a")) != 12 || len(table.Of("b")) != 4 {
		t.Fatal(table, err)
	}
}

func TestAJoiningNodeMovesNoMoreThanItsShare(t *testing.T) {
	before := three(t, 8)
	after, err := before.Add(node("d", "", 1))
	if err != nil {
		t.Fatal(err)
	}
	i, _ := after.find("d")
	after.Nodes[i].State = Active
	if err := after.plan("d"); err != nil {
		t.Fatal(err)
	}
	moved := 0
	for s, voters := range after.Shards {
		for _, id := range voters {
			if !slices.Contains(before.Shards[s], id) {
				moved++
			}
		}
	}
	if moved != 6 || len(after.Of("d")) != 6 { // of 24 replicas
		t.Fatalf("%d moved: %v", moved, after.Shards)
	}
}

func TestRefusals(t *testing.T) {
	table := three(t, 4)
	o := Observed{Up: map[string]bool{"a": true, "b": true, "c": true}}
	for _, voters := range table.Shards {
		g := Group{Index: 1, Leader: voters[0]}
		for _, id := range voters {
			g.Members = append(g.Members, Member{id, true, true})
		}
		o.Groups = append(o.Groups, g)
	}
	if _, err := table.Drain("a"); !errors.Is(err, ErrTooFew) || !strings.Contains(err.Error(), "shard 0, 1, 2, 3") {
		t.Error(err)
	}
	if _, err := table.Drain("x"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	four, err := table.Add(node("d", "", 1))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := four.Add(node("d", "", 1)); err != nil || again != four {
		t.Error(err)
	}
	for _, n := range []Node{{ID: "d", Raft: "other:1", GRPC: "d:2", HTTP: "d:3"}, {ID: "e", Raft: "d:1", GRPC: "e:2", HTTP: "e:3"}} {
		if _, err := four.Add(n); !errors.Is(err, ErrTaken) {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if _, err := four.Add(Node{ID: "e"}); !errors.Is(err, ErrNode) {
		t.Error(err)
	}
	i, _ := four.find("d")
	four.Nodes[i].State = Active
	o.Up["b"] = false
	if _, err := four.Remove("a", o); !errors.Is(err, ErrMajority) || !strings.Contains(err.Error(), "shard 0, 1, 2, 3") {
		t.Error(err)
	}
	gone, err := four.Remove("b", o)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := gone.Remove("b", o); err != nil || again != gone {
		t.Error(err)
	}
	i, _ = gone.find("b")
	gone.Nodes[i].State = Removed
	if _, err := gone.Add(node("b", "", 1)); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	if _, err := gone.Remove("b", o); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	table, err := Found([]Node{node("a", "z", 1), node("b", "", 2), node("c", "", 1)}, 3, 3)
	if err != nil {
		f.Fatal(err)
	}
	whole, err := table.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"replication":3,"nodes":[],"shards":[["a"]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Decode(b)
		if err != nil {
			if table != nil && !errors.Is(err, ErrTable) {
				t.Fatal(err)
			}
			return
		}
		again, err := table.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if second, err := Decode(again); err != nil || !reflect.DeepEqual(table, second) {
			t.Fatalf("%+v\n%+v\n%v", table, second, err)
		}
	})
}
