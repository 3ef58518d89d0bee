package placement

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ErrTooFew says that fewer nodes are left than a shard has replicas.
var ErrTooFew = errors.New("too few nodes")

// layout is an assignment under way.
type layout struct {
	t       *Table
	nodes   []Node // that may hold replicas, by id
	load    map[string]int
	leads   map[string]int
	perZone int // replicas of one shard that a zone may hold
}

// assign gives every shard its voters anew: no more moves than it takes to be off the nodes that are not active, to part
// the replicas over zones, and to be balanced by weight. It is a function of the table alone.
func (t *Table) assign() error {
	l := &layout{t: t, load: map[string]int{}, leads: map[string]int{}}
	zones := map[string]bool{}
	for _, n := range t.Nodes {
		if n.State == Active {
			l.nodes = append(l.nodes, n)
			zones[l.zone(n)] = true
		}
	}
	if len(l.nodes) < t.Replication {
		return fmt.Errorf("%w: %d active nodes are left for %d replicas of every shard", ErrTooFew, len(l.nodes), t.Replication)
	}
	l.perZone = l.share(zones)
	for i, voters := range t.Shards {
		t.Shards[i] = l.keep(voters)
	}
	for i := range t.Shards {
		for len(t.Shards[i]) < t.Replication {
			l.fill(i)
		}
	}
	for l.level() {
	}
	for i := range t.Shards {
		l.leads[t.Shards[i][0]]++
	}
	for l.levelLeads() {
	}
	return nil
}

// zone is a node's zone; one that names none is a zone of its own.
func (l *layout) zone(n Node) string { return cmp.Or(n.Zone, "node "+n.ID) }

// share is the least number of replicas that one zone must be allowed for all to find a place.
func (l *layout) share(zones map[string]bool) int {
	for most := 1; ; most++ {
		room := 0
		for z := range zones {
			of := 0
			for _, n := range l.nodes {
				if l.zone(n) == z {
					of++
				}
			}
			room += min(of, most)
		}
		if room >= l.t.Replication {
			return most
		}
	}
}

func (l *layout) node(id string) (Node, bool) {
	n, ok := l.t.Node(id)
	return n, ok && n.State == Active
}

// keep returns the voters of a shard that may stay, and counts them.
func (l *layout) keep(voters []string) []string {
	var kept []string
	in := map[string]int{}
	for _, id := range voters {
		n, ok := l.node(id)
		if !ok || in[l.zone(n)] == l.perZone || len(kept) == l.t.Replication {
			continue
		}
		in[l.zone(n)]++
		kept = append(kept, id)
		l.load[id]++
	}
	return kept
}

// fits says whether a shard's replica may be on n, when the one on leaving is gone.
func (l *layout) fits(shard int, n Node, leaving string) bool {
	same := 0
	for _, id := range l.t.Shards[shard] {
		if id == n.ID {
			return false
		}
		if other, _ := l.t.Node(id); id != leaving && l.zone(other) == l.zone(n) {
			same++
		}
	}
	return same < l.perZone
}

// fill puts one more replica of a shard where there is most room.
func (l *layout) fill(shard int) {
	best := -1
	for i, n := range l.nodes {
		if l.fits(shard, n, "") && (best < 0 || l.fuller(l.nodes[best], n) > 0) {
			best = i
		}
	}
	id := l.nodes[best].ID // share made sure of one
	l.t.Shards[shard] = append(l.t.Shards[shard], id)
	l.load[id]++
}

// fuller compares nodes by what one replica more would make of them.
func (l *layout) fuller(a, b Node) int {
	return cmp.Compare((2*l.load[a.ID]+1)*b.Weight, (2*l.load[b.ID]+1)*a.Weight)
}

// gain says by how much, times both weights, the sum of load²/weight falls when one goes from a to b. Every move that has
// a gain brings loads nearer to the weights, and there are only so many such moves.
func gain(load map[string]int, a, b Node) int {
	return (2*load[a.ID]-1)*b.Weight - (2*load[b.ID]+1)*a.Weight
}

// level moves the one replica whose move gains most; false where none gains.
func (l *layout) level() bool {
	type move struct {
		from, to Node
		gain     int
	}
	var moves []move
	for _, from := range l.nodes {
		for _, to := range l.nodes {
			if g := gain(l.load, from, to); g > 0 && from.ID != to.ID {
				moves = append(moves, move{from, to, g})
			}
		}
	}
	slices.SortStableFunc(moves, func(a, b move) int { return cmp.Compare(b.gain, a.gain) })
	for _, m := range moves {
		for i, voters := range l.t.Shards {
			at := slices.Index(voters, m.from.ID)
			if at < 0 || !l.fits(i, m.to, m.from.ID) {
				continue
			}
			l.t.Shards[i] = append(slices.Delete(voters, at, at+1), m.to.ID)
			l.load[m.from.ID]--
			l.load[m.to.ID]++
			return true
		}
	}
	return false
}

// levelLeads has one shard led by another of its voters; false where that gains nothing.
func (l *layout) levelLeads() bool {
	best, shard, voter := 0, 0, 0
	for i, voters := range l.t.Shards {
		from, _ := l.t.Node(voters[0])
		for j, id := range voters[1:] {
			to, _ := l.t.Node(id)
			if g := gain(l.leads, from, to); g > best {
				best, shard, voter = g, i, j+1
			}
		}
	}
	if best == 0 {
		return false
	}
	voters := l.t.Shards[shard]
	l.leads[voters[0]]--
	l.leads[voters[voter]]++
	voters[0], voters[voter] = voters[voter], voters[0]
	return true
}
