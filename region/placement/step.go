package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// Op is a change of one group.
type Op uint8

// What a step does.
const (
	AddNonvoter Op = iota + 1 // the node gets the group's log, without a vote
	Promote                   // a non-voter that has caught up gets a vote
	Demote                    // a voter becomes a non-voter
	Transfer                  // the node is to lead
	Remove                    // the node leaves the group
)

// String names the operation.
func (o Op) String() string {
	return [...]string{"nothing", "add", "promote", "demote", "lead", "remove"}[min(o, 5)]
}

// Member is a member of a group as its leader sees it.
type Member struct {
	ID     string
	Voter  bool
	Caught bool // up with the leader's log, as good as a change needs
}

// Group is how a shard's group stands.
type Group struct {
	Leader  string // "" where none answers: nothing can be done then
	Index   uint64 // of the configuration, committed
	Members []Member
}

func (g *Group) member(id string) (Member, bool) {
	for _, m := range g.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

func (g *Group) voters() int {
	n := 0
	for _, m := range g.Members {
		if m.Voter {
			n++
		}
	}
	return n
}

// Observed is how the region stands.
type Observed struct {
	Groups []Group         // by shard
	Up     map[string]bool // nodes that answer
	Short  map[string]bool // nodes that lack room on their disks: they take no writes as leaders
}

// Step is one change of one group, for the configuration at Index: the group refuses it for any other.
type Step struct {
	Shard int
	Op    Op
	Node  string
	Index uint64
}

// String tells the step.
func (s Step) String() string { return fmt.Sprintf("shard %d: %v %s", s.Shard, s.Op, s.Node) }

// Next returns what to do now to bring the groups to what the table says: at most one step a group, for at most limit
// groups, those with a node that is catching up among them, in order of shards. No step leaves a group without a majority of voters that are up. When it returns nothing,
// something is waited for, or all is as it should be (Settled).
func (t *Table) Next(o Observed, limit int) []Step {
	var steps []Step
	for i := range t.Shards {
		if len(steps) >= limit {
			break
		}
		switch s, ok := t.next(i, o); {
		case ok:
			steps = append(steps, s)
		case i < len(o.Groups) && t.behind(i, o):
			limit--
		}
	}
	return steps
}

// behind says whether a node is being brought up to date with a shard, which costs as much as any step.
func (t *Table) behind(shard int, o Observed) bool {
	for _, m := range o.Groups[shard].Members {
		if !m.Voter && !m.Caught && o.Up[m.ID] && slices.Contains(t.Shards[shard], m.ID) {
			return true
		}
	}
	return false
}

func (t *Table) next(shard int, o Observed) (Step, bool) {
	if shard >= len(o.Groups) || o.Groups[shard].Leader == "" {
		return Step{}, false
	}
	g := &o.Groups[shard]
	step := func(op Op, id string) (Step, bool) { return Step{shard, op, id, g.Index}, true }
	voters := t.Shards[shard]
	if op, id := t.shed(shard, g, o); op != 0 { // before another one gets a vote
		return step(op, id)
	}
	waits := false
	for _, id := range voters {
		m, ok := g.member(id)
		switch {
		case !ok && o.Up[id]:
			return step(AddNonvoter, id)
		case ok && !m.Voter && m.Caught && o.Up[id] && g.voters() <= t.Replication:
			return step(Promote, id)
		}
		waits = waits || !ok || !m.Voter
	}
	if waits {
		return Step{}, false
	}
	if id := t.successor(shard, g, o); id != "" {
		return step(Transfer, id)
	}
	for _, m := range g.Members {
		if !m.Voter && !slices.Contains(voters, m.ID) && !(shard == 0 && t.learns(m.ID, o)) {
			return step(Remove, m.ID)
		}
	}
	if shard != 0 {
		return Step{}, false
	}
	for _, n := range t.Nodes { // everybody has shard 0, by and by
		if _, ok := g.member(n.ID); !ok && t.learns(n.ID, o) && o.Up[n.ID] {
			return step(AddNonvoter, n.ID)
		}
	}
	return Step{}, false
}

// shed takes a vote away where a group has more of them than it should: from one that is not to have one, the leader
// last, who hands on its leadership first.
func (t *Table) shed(shard int, g *Group, o Observed) (Op, string) {
	if g.voters() <= t.Replication {
		return 0, ""
	}
	for _, m := range g.Members {
		switch {
		case m.ID == g.Leader || !m.Voter || slices.Contains(t.Shards[shard], m.ID) || !safeWithout(g, m.ID, o.Up):
		case shard == 0 && t.learns(m.ID, o):
			return Demote, m.ID
		default:
			return Remove, m.ID
		}
	}
	if !slices.Contains(t.Shards[shard], g.Leader) {
		if id := t.successor(shard, g, o); id != "" {
			return Transfer, id
		}
	}
	return 0, ""
}

// learns says whether a node is to hold shard 0 without a vote, where it has none: until it leaves, and no other group
// has it any more.
func (t *Table) learns(id string, o Observed) bool {
	n, ok := t.Node(id)
	return ok && n.State != Removed && !(n.Leave && t.clear(id, o))
}

// clear says whether no group but shard 0's has a node.
func (t *Table) clear(id string, o Observed) bool {
	for i := 1; i < len(t.Shards); i++ {
		if i >= len(o.Groups) || o.Groups[i].Leader == "" {
			return false
		}
		if _, ok := o.Groups[i].member(id); ok {
			return false
		}
	}
	return true
}

// successor returns who is to lead a shard instead of its leader: the table's first where a plan is under way, any voter
// that stays where the leader doesn't, one with room on its disk where the leader has none. "" where the leader may go on, or
// nobody can follow it.
func (t *Table) successor(shard int, g *Group, o Observed) string {
	voters := t.Shards[shard]
	able := func(id string) bool {
		m, _ := g.member(id)
		return m.Voter && m.Caught && o.Up[id]
	}
	stays := slices.Contains(voters, g.Leader)
	if (!stays || t.Done < t.Plan) && voters[0] != g.Leader && able(voters[0]) && !o.Short[voters[0]] {
		return voters[0]
	}
	if stays && !o.Short[g.Leader] {
		return ""
	}
	for _, id := range voters {
		if id != g.Leader && able(id) && !o.Short[id] {
			return id
		}
	}
	if i := slices.IndexFunc(voters, able); i >= 0 && !stays {
		return voters[i]
	}
	return ""
}

// safeWithout says whether a group keeps a majority of voters that are up when one voter leaves it.
func safeWithout(g *Group, id string, up map[string]bool) bool {
	voters, alive := 0, 0
	for _, m := range g.Members {
		if !m.Voter || m.ID == id {
			continue
		}
		voters++
		if up[m.ID] {
			alive++
		}
	}
	return voters > 0 && alive > voters/2
}

// settled says whether a shard's group is as the table says, its leader among it.
func (t *Table) settled(shard int, o Observed) bool {
	if shard >= len(o.Groups) || o.Groups[shard].Leader == "" {
		return false
	}
	g := &o.Groups[shard]
	for _, id := range t.Shards[shard] {
		if m, ok := g.member(id); !ok || !m.Voter {
			return false
		}
	}
	for _, m := range g.Members {
		wanted := slices.Contains(t.Shards[shard], m.ID)
		if m.Voter != wanted || !wanted && !(shard == 0 && t.learns(m.ID, o)) {
			return false
		}
	}
	return t.successor(shard, g, o) == ""
}

// Moving counts the shards whose groups are not as the table says.
func (t *Table) Moving(o Observed) int {
	n := 0
	for i := range t.Shards {
		if !t.settled(i, o) {
			n++
		}
	}
	return n
}

// Turn returns the table that follows from what is observed, nil where it stays: a node that has caught up with shard 0
// becomes active and gets its share, one that leaves and holds nothing any more is removed, a plan that was carried out is
// done. It must be written down before a step of it is made.
func (t *Table) Turn(o Observed) *Table {
	if len(o.Groups) != len(t.Shards) || o.Groups[0].Leader == "" {
		return nil
	}
	c := t.Clone()
	changed := false
	for i, n := range c.Nodes {
		m, ok := o.Groups[0].member(n.ID)
		switch {
		case n.State == Joining && ok && m.Caught && o.Up[n.ID]:
			c.Nodes[i].State = Active
			if c.plan("node %s joined", n.ID) != nil {
				return nil
			}
			changed = true
		case n.State == Draining && n.Leave && !ok && t.clear(n.ID, o):
			c.Nodes[i].State = Removed
			changed = true
		}
	}
	if !changed && t.Done < t.Plan && t.Moving(o) == 0 {
		c.Done, changed = t.Plan, true
	}
	if !changed {
		return nil
	}
	return c
}

// plan assigns anew.
func (t *Table) plan(reason string, args ...any) error {
	t.Plan++
	t.Reason = fmt.Sprintf(reason, args...)
	return t.assign()
}

// order keeps the nodes in order of their ids.
func (t *Table) order() {
	slices.SortFunc(t.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
}
