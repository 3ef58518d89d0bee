package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// world is a region whose groups do as they are told: one change at a time, and no change of what they no longer are.
type world struct {
	t     *rapid.T
	table *Table
	Observed
}

func node(id, zone string, weight int) Node {
	return Node{ID: id, Raft: id + ":1", GRPC: id + ":2", HTTP: id + ":3", Zone: zone, Weight: weight, State: Active}
}

func found(t *rapid.T) *world {
	replication := rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "replication")
	zones := rapid.IntRange(1, 4).Draw(t, "zones")
	var nodes []Node
	for i := range replication + rapid.IntRange(0, 2).Draw(t, "more nodes") {
		nodes = append(nodes, drawNode(t, i, zones))
	}
	table, err := Found(nodes, rapid.IntRange(1, 12).Draw(t, "shards"), replication)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, table: table, Observed: Observed{Up: map[string]bool{}}}
	for i, voters := range table.Shards {
		g := Group{Index: 1, Leader: voters[0]}
		for _, n := range nodes {
			w.Up[n.ID] = true
			if v := slices.Contains(voters, n.ID); v || i == 0 {
				g.Members = append(g.Members, Member{n.ID, v, true})
			}
		}
		w.Groups = append(w.Groups, g)
	}
	return w
}

func drawNode(t *rapid.T, i, zones int) Node {
	zone := ""
	if z := rapid.IntRange(0, zones).Draw(t, "zone"); z > 0 {
		zone = fmt.Sprint("z", z)
	}
	return node(fmt.Sprintf("n%02d", i), zone, rapid.IntRange(1, 3).Draw(t, "weight"))
}

// change asks for something, which may be refused.
func (w *world) change(next int) {
	var table *Table
	var err error
	nodes := w.table.Present()
	id := nodes[rapid.IntRange(0, len(nodes)-1).Draw(w.t, "which")].ID
	switch rapid.IntRange(0, 2).Draw(w.t, "change") {
	case 0:
		n := drawNode(w.t, next, 4)
		if table, err = w.table.Add(n); err == nil {
			w.Up[n.ID] = true
		}
	case 1:
		table, err = w.table.Drain(id)
	case 2:
		table, err = w.table.Remove(id, w.Observed)
	}
	if err == nil {
		w.set(table)
	}
}

// set writes a table down, as it is kept.
func (w *world) set(table *Table) {
	b, err := table.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.table, err = Decode(b); err != nil {
		w.t.Fatal(err)
	}
}

// step makes the steps of one look, some of which get lost, and says whether there was anything to do.
func (w *world) step() bool {
	if table := w.table.Turn(w.Observed); table != nil {
		w.set(table)
		return true
	}
	steps := w.table.Next(w.Observed, 2)
	if len(steps) > 2 {
		w.t.Fatalf("%d steps, at most 2 were wanted", len(steps))
	}
	seen := map[int]bool{}
	for _, s := range steps {
		if seen[s.Shard] {
			w.t.Fatalf("two steps for shard %d", s.Shard)
		}
		seen[s.Shard] = true
		if !rapid.Bool().Draw(w.t, "lost") {
			w.apply(s)
		}
	}
	return len(steps) > 0
}

func (w *world) apply(s Step) {
	g := &w.Groups[s.Shard]
	if s.Index != g.Index {
		w.t.Fatalf("%v is for configuration %d, the group has %d", s, s.Index, g.Index)
	}
	at := slices.IndexFunc(g.Members, func(m Member) bool { return m.ID == s.Node })
	if s.Op == Transfer {
		if at < 0 || !g.Members[at].Voter || !w.Up[s.Node] {
			w.t.Fatalf("%v: %+v", s, g)
		}
		g.Leader = s.Node
		return
	}
	g.Index++
	switch s.Op {
	case AddNonvoter:
		if at >= 0 {
			w.t.Fatalf("%v: is a member", s)
		}
		g.Members = append(g.Members, Member{ID: s.Node, Caught: true})
	case Promote:
		g.Members[at].Voter = true
	case Demote:
		g.Members[at].Voter = false
	case Remove:
		g.Members = slices.Delete(g.Members, at, at+1)
	}
	voters, up := 0, 0
	for _, m := range g.Members {
		if m.ID == g.Leader && !m.Voter {
			w.t.Fatalf("%v: the leader has no vote", s)
		}
		if m.Voter {
			voters++
			if w.Up[m.ID] {
				up++
			}
		}
	}
	if up <= voters/2 || voters > w.table.Replication+1 || voters < w.table.Replication {
		w.t.Fatalf("%v: %d of %d voters are up", s, up, voters)
	}
	if _, ok := g.member(g.Leader); !ok {
		w.t.Fatalf("%v: the leader is gone", s)
	}
}

// run goes on until nothing is left to do, which must come.
func (w *world) run() {
	for range 3000 {
		if !w.step() {
			return
		}
	}
	w.t.Fatalf("it does not end: %+v", w.table)
}

func TestPlansAreCarriedOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := found(t)
		w.Short = map[string]bool{}
		for _, n := range w.table.Nodes {
			w.Short[n.ID] = rapid.IntRange(0, 3).Draw(t, "short of disk") == 0
		}
		for i := range rapid.IntRange(1, 6).Draw(t, "changes") {
			w.change(50 + i)
			for range rapid.IntRange(0, 8).Draw(t, "steps before the next") {
				w.step()
			}
		}
		w.run()
		if n := w.table.Moving(w.Observed); n > 0 || w.table.Done != w.table.Plan {
			t.Fatalf("%d shards are not where they should be, plan %d of %d is done", n, w.table.Done, w.table.Plan)
		}
		for _, n := range w.table.Nodes {
			if n.State == Joining || n.Leave && n.State != Removed {
				t.Fatalf("%+v", n)
			}
			if n.State != Active && len(w.table.Of(n.ID)) > 0 {
				t.Fatalf("%s holds shards %v", n.ID, w.table.Of(n.ID))
			}
		}
		for i, g := range w.Groups {
			roomy := func(id string) bool { return !w.Short[id] }
			if w.Short[g.Leader] && slices.ContainsFunc(w.table.Shards[i], roomy) {
				t.Fatalf("shard %d is led by %s, which lacks room on its disk, of %v", i, g.Leader, w.table.Shards[i])
			}
		}
		w.checkSpread()
	})
}

// checkSpread holds zones and balance.
func (w *world) checkSpread() {
	l := &layout{t: w.table, load: map[string]int{}}
	zones := map[string]bool{}
	for _, n := range w.table.Nodes {
		if n.State == Active {
			l.nodes = append(l.nodes, n)
			zones[l.zone(n)] = true
		}
	}
	most := l.share(zones)
	for i, voters := range w.table.Shards {
		in := map[string]int{}
		for _, id := range voters {
			n, _ := w.table.Node(id)
			in[l.zone(n)]++
			l.load[id]++
			if in[l.zone(n)] > most || len(zones) >= w.table.Replication && in[l.zone(n)] > 1 {
				w.t.Fatalf("shard %d is on %v, twice in zone %s", i, voters, l.zone(n))
			}
		}
	}
	// No single move that zones allow would help.
	if l.perZone = most; l.level() {
		w.t.Fatalf("not balanced: %v", l.load)
	}
}

// TestADeadNodeIsReplaced takes away a node that does not answer, and never with it the majority.
func TestADeadNodeIsReplaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := found(t)
		if w.table.Replication == 1 {
			return
		}
		nodes := w.table.Present()
		dead := nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "dead")].ID
		w.Up[dead] = false
		for i := range w.Groups {
			g := &w.Groups[i]
			for j := range g.Members {
				if g.Members[j].ID == dead {
					g.Members[j].Caught = false
				} else if g.Leader == dead && g.Members[j].Voter {
					g.Leader = g.Members[j].ID
				}
			}
		}
		added, err := w.table.Add(node("new", "", 1))
		if err != nil {
			t.Fatal(err)
		}
		w.Up["new"] = true
		w.set(added)
		w.run()
		removed, err := w.table.Remove(dead, w.Observed)
		if err != nil {
			t.Fatal(err)
		}
		w.set(removed)
		w.run()
		if n, _ := w.table.Node(dead); n.State != Removed || w.table.Done != w.table.Plan {
			t.Fatalf("%+v", w.table)
		}
	})
}
