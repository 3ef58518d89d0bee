package carrier

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/router"
)

// newcomer is the node that founds nothing.
func (f *fleet) newcomer() placement.Node {
	n := f.nodes[3]
	at := slices.IndexFunc(n.router.Nodes(), func(x router.Node) bool { return x.ID == n.id })
	x := n.router.Nodes()[at]
	return placement.Node{ID: x.ID, Raft: x.Raft, GRPC: x.GRPC, HTTP: "h:9", Weight: 1}
}

func (f *fleet) add() {
	f.t.Helper()
	n := f.newcomer()
	_, err := f.leader(0).carrier.Change(f.t.Context(), func(t *placement.Table, _ placement.Observed) (*placement.Table, error) { return t.Add(n) })
	if err != nil {
		f.t.Fatal(err)
	}
}

// A plan goes on whoever carries it: here each look is made by whoever leads then, and shard 0 changes hands on the way.
func TestAPlanChangesHands(t *testing.T) {
	f := newFleet(t, 4)
	first := f.settle()
	if first.Plan != f.table.Plan || len(first.Nodes) != 3 {
		t.Fatalf("%+v", first)
	}
	f.add()
	for range 4 {
		if _, err := f.leader(0).carrier.look(t.Context()); err != nil {
			t.Log(err) // a step that waits for its group
		}
		f.depose(f.leader(0))
	}
	table := f.settle()
	n, _ := table.Node("n3")
	if n.State != placement.Active || len(table.Of("n3")) == 0 {
		t.Errorf("%+v of %+v", n, table)
	}
	for id, voters := range table.Shards {
		m := f.membership(0)
		if id == 1 {
			m = f.membership(1)
		}
		var have []string
		for _, s := range m.Seats {
			if s.Voter {
				have = append(have, s.ID)
			}
		}
		slices.Sort(have)
		if want := slices.Sorted(slices.Values(voters)); !slices.Equal(have, want) {
			t.Errorf("shard %d has voters %v, want %v", id, have, want)
		}
	}
	f.await("the newcomer to say the same", func() bool {
		known, err := Ask(t.Context(), f.nodes[3].conns, "test", f.newcomer().GRPC)
		return err == nil && reflect.DeepEqual(known, table)
	})
}

// A carrier that lost shard 0 in the middle of a plan makes one step more, and writes one table more: neither counts.
func TestADeposedCarrierComesTooLate(t *testing.T) {
	f := newFleet(t, 4)
	f.settle()
	f.add()
	old := f.leader(0)
	var table *placement.Table
	var seen placement.Observed
	var steps []placement.Step
	var revision uint64
	f.await("a change to be made", func() bool { // the plan is under way by then
		var err error
		if table, revision, err = old.carrier.Table(); err != nil {
			t.Fatal(err)
		}
		seen = old.carrier.Observe(t.Context(), table)
		steps = slices.DeleteFunc(table.Next(seen, atOnce), func(s placement.Step) bool { return s.Op != placement.AddNonvoter })
		return len(steps) > 0
	})
	f.depose(old)
	f.settle()
	// The node comes and goes again meanwhile, so that to add it would make sense to its group.
	_, err := f.leader(0).carrier.Change(t.Context(), func(t *placement.Table, o placement.Observed) (*placement.Table, error) {
		return t.Remove("n3", o)
	})
	if err != nil {
		t.Fatal(err)
	}
	f.settle()
	f.depose(old) // a plan may have had it lead again
	before := []group.Membership{f.membership(0), f.membership(1)}

	for _, s := range steps {
		err := old.carrier.step(t.Context(), table, seen, s)
		if refused := errors.Is(err, group.ErrConfiguration) || status.Code(err) == codes.FailedPrecondition ||
			errors.Is(err, group.ErrNotLeader) || status.Code(err) == codes.Unavailable; !refused {
			t.Errorf("the late step %v: %v", s, err)
		}
		// Neither does it pass where it reaches the leader by luck.
		lead := f.leader(1)
		if s.Shard == 0 {
			lead = f.leader(0)
		}
		if err := Alter(t.Context(), lead.local, s, f.newcomer().Raft); !errors.Is(err, group.ErrConfiguration) {
			t.Errorf("the late step %v at the leader: %v", s, err)
		}
	}
	late := table.Clone()
	late.Reason = "from the past"
	if done, err := old.carrier.write(t.Context(), late, revision); done || err != nil {
		t.Errorf("the late table: %v, %v", done, err)
	}
	if _, err := old.carrier.Change(t.Context(), func(*placement.Table, placement.Observed) (*placement.Table, error) {
		t.Error("a deposed carrier changes the table")
		return late, nil
	}); !errors.Is(err, group.ErrNotLeader) {
		t.Errorf("a change: %v", err)
	}
	if after := []group.Membership{f.membership(0), f.membership(1)}; !reflect.DeepEqual(before, after) {
		t.Errorf("from %+v to %+v", before, after)
	}
	if now := f.settle(); now.Reason == late.Reason {
		t.Errorf("%+v", now)
	}
}

// A leader that lacks room on its disk hands its shards on, and gets none while it does.
func TestAShortNodeLeadsNothing(t *testing.T) {
	f := newFleet(t, 3)
	f.settle()
	short := f.leader(1).id
	for _, n := range f.nodes {
		n.short = func(node string) bool { return node == short }
	}
	f.await("others to lead", func() bool {
		_, _ = f.leader(0).carrier.look(t.Context())
		return f.leader(0).id != short && f.leader(1).id != short
	})
	f.settle()
}

// What is observed: who answers, who leads at the newest term, and who is up with it.
func TestObserve(t *testing.T) {
	f := newFleet(t, 4)
	table := f.settle()
	lead := f.leader(0)
	gone := table.Clone()
	gone.Nodes = append(gone.Nodes, placement.Node{ID: "gone", Raft: "127.0.0.1:1", GRPC: "127.0.0.1:1", HTTP: "127.0.0.1:1", State: placement.Active})
	var o placement.Observed
	f.await("a whole view", func() bool {
		o = lead.carrier.Observe(t.Context(), gone)
		return !slices.ContainsFunc(o.Groups, func(g placement.Group) bool {
			return g.Leader == "" || slices.ContainsFunc(g.Members, func(m placement.Member) bool { return !m.Caught })
		})
	})
	if o.Up["gone"] || !o.Up["n0"] || !o.Up["n1"] || !o.Up["n2"] || o.Up["n3"] { // which the table does not name
		t.Errorf("up: %v", o.Up)
	}
	if g := o.Groups[0]; g.Leader != lead.id || len(g.Members) != 3 || g.Index == 0 {
		t.Errorf("%+v", g)
	}
}

// A node that founded nothing writes no table, and a region without one is not changed.
func TestWithoutATable(t *testing.T) {
	f := newFleet(t, 3)
	lead := f.leader(0)
	lead.carrier.o.Founding = nil
	if _, err := lead.carrier.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := lead.carrier.Change(t.Context(), func(x *placement.Table, _ placement.Observed) (*placement.Table, error) { return x, nil })
	if !errors.Is(err, group.ErrUnavailable) {
		t.Errorf("a change without a table: %v", err)
	}
	lead.carrier.o.Founding = f.table
	f.settle()
	restored := New(lead.carrier.o)
	restored.o.Restored = lead.router.State(0).Note(Note).Index
	if table, _, err := restored.Table(); table != nil || err != nil {
		t.Errorf("the table from before a restore: %+v, %v", table, err)
	}
	restored.o.Restored--
	if table, _, err := restored.Table(); table == nil || err != nil {
		t.Errorf("the table from after a restore: %+v, %v", table, err)
	}
}

// Run ends with its leadership, and carries a plan out without being asked.
func TestRun(t *testing.T) {
	f := newFleet(t, 4)
	for _, n := range f.nodes {
		n.local.Get(0).Lead(n.carrier.Run)
	}
	f.await("a table", func() bool {
		table, _, err := f.leader(0).carrier.Table()
		return err == nil && table != nil
	})
	f.add()
	f.await("the newcomer to hold its share", func() bool {
		table, _, err := f.leader(0).carrier.Table()
		return err == nil && len(table.Of("n3")) > 0 && table.Done == table.Plan
	})
}

func TestRemovedAndLayout(t *testing.T) {
	table := &placement.Table{
		Nodes: []placement.Node{
			{ID: "a", GRPC: "a:1", Raft: "a:2", State: placement.Active}, {ID: "b", State: placement.Removed},
			{ID: "c", GRPC: "c:1", Raft: "c:2", State: placement.Draining},
		},
		Shards: [][]string{{"a", "c"}, {"c"}},
	}
	if got := Removed(table); !slices.Equal(got, []string{"b"}) {
		t.Errorf("removed: %v", got)
	}
	want := router.Layout{
		Nodes:   []router.Node{{ID: "a", GRPC: "a:1", Raft: "a:2"}, {ID: "c", GRPC: "c:1", Raft: "c:2"}},
		Holders: [][]string{{"a", "c"}, {"c"}},
	}
	got := LayoutOf(table)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	got.Holders[0][0] = "x"
	if table.Shards[0][0] != "a" {
		t.Error("the layout is part of the table")
	}
	err := Alter(context.Background(), router.NewLocal(1), placement.Step{Op: placement.Remove}, "")
	if !errors.Is(err, group.ErrNotLeader) {
		t.Errorf("a step for a shard that is not here: %v", err)
	}
}
