package probe

import (
	"cmp"
	"slices"
	"time"
)

// Timing says how quickly a Detector decides.
type Timing struct {
	// Interval is the time between two probes.
	Interval time.Duration
	// DeadAfter is for how long nothing is heard of a node before it counts as dead. A node that pauses for less keeps
	// its leaderships.
	DeadAfter time.Duration
	// Settle is for how long a group has no known leader before a probe's reader helps it to one: an election may be
	// under way.
	Settle time.Duration
	// Step is how much longer each next survivor waits, so that they don't split the vote.
	Step time.Duration
	// Pause is for how long a group doesn't campaign again.
	Pause time.Duration
}

// DefaultTiming ignores a stall of 200 ms.
func DefaultTiming() Timing {
	return Timing{
		Interval: 50 * time.Millisecond, DeadAfter: 275 * time.Millisecond, Settle: 200 * time.Millisecond,
		Step: 120 * time.Millisecond, Pause: 400 * time.Millisecond,
	}
}

// Detector decides which nodes are dead and when a group is to ask for votes: a pure function of what it is told and of
// the times it is told at. It is not safe for concurrent use.
type Detector struct {
	self   string
	timing Timing
	peers  map[string]*peer
	groups map[uint32]*watch
	ticked time.Time // the last Tick; zero before the first
	late   uint64
}

// peer is what was heard of another node.
type peer struct {
	heard   time.Time // when last; moved on where this node itself was late
	last    Packet
	standOf map[uint32]Standing // last.Groups by shard
}

// watch is what a Detector remembers of a group without a leader.
type watch struct {
	lostSince, campaigned time.Time // zero for never
}

// NewDetector returns a Detector of the named node that has heard of nobody.
func NewDetector(self string, timing Timing) *Detector {
	return &Detector{self: self, timing: timing, peers: map[string]*peer{}, groups: map[uint32]*watch{}}
}

// Heard takes a packet of another node. One that was overtaken by a later one of the same start is dropped.
func (d *Detector) Heard(now time.Time, p Packet) {
	was := d.peers[p.Node]
	if p.Node == d.self || was != nil && was.last.Boot == p.Boot && p.Sequence <= was.last.Sequence {
		return
	}
	if was == nil && len(d.peers) >= MaxNodes {
		return
	}
	stand := make(map[uint32]Standing, len(p.Groups))
	for _, g := range p.Groups {
		stand[g.Shard] = g
	}
	d.peers[p.Node] = &peer{heard: now, last: p, standOf: stand}
}

// Dead says whether a node has been heard of, and not for DeadAfter. One that was never heard of is unknown.
func (d *Detector) Dead(now time.Time, node string) bool {
	p := d.peers[node]
	return p != nil && now.Sub(p.heard) >= d.timing.DeadAfter
}

// Known says whether a node was ever heard of.
func (d *Detector) Known(node string) bool { return d.peers[node] != nil }

// Late returns how often this node's own tick came so late that it gave the others a fresh grace.
func (d *Detector) Late() uint64 { return d.late }

// Forget drops what was heard of nodes that keep does not name.
func (d *Detector) Forget(keep func(node string) bool) {
	for node := range d.peers {
		if !keep(node) {
			delete(d.peers, node)
		}
	}
}

// Tick looks at this node's groups, at every Interval. It sets Lost in own, which the next packet is to carry, and returns
// the shards whose groups on this node are to ask for votes now. stalled says that this node's disk hangs: it
// can't promise a vote then, and asks for none.
func (d *Detector) Tick(now time.Time, own []Standing, stalled bool) (campaign []uint32) {
	// Who comes late himself can't tell who is: all others get a fresh grace.
	if !d.ticked.IsZero() && now.Sub(d.ticked) > d.timing.DeadAfter/2 {
		d.late++
		for _, p := range d.peers {
			p.heard = now
		}
	}
	d.ticked = now
	for i := range own {
		g := &own[i]
		g.Lost = d.lost(now, g)
		w := d.groups[g.Shard]
		if w == nil {
			w = new(watch)
			d.groups[g.Shard] = w
		}
		if !g.Lost {
			w.lostSince = time.Time{}
			continue
		}
		if w.lostSince.IsZero() {
			w.lostSince = now
		}
		if !stalled && g.Votes && g.Follows && d.turn(now, g, w) {
			w.campaigned = now
			campaign = append(campaign, g.Shard)
		}
	}
	return campaign
}

// lost says whether the leader that a group has, as this node knows it, does not serve.
func (d *Detector) lost(now time.Time, g *Standing) bool {
	if g.Leads {
		return false
	}
	if g.Leader == "" || g.Leader == d.self {
		return true
	}
	p := d.peers[g.Leader]
	if p == nil {
		return false // unknown: Raft's own timeouts are for those
	}
	if d.silent(now, g.Leader) {
		return true
	}
	if s, ok := p.standOf[g.Shard]; ok && !s.Leads && s.Term >= g.Term {
		return true // it says itself that it doesn't lead
	}
	return slices.Contains(p.last.Views, View{Node: d.self, Dead: true}) // the way there is cut
}

// silent says whether a node is dead, or as good as dead because its disk hangs.
func (d *Detector) silent(now time.Time, node string) bool {
	p := d.peers[node]
	return p != nil && (d.Dead(now, node) || p.last.Stalled)
}

// turn says whether this node is to campaign for a group now: the survivors agree that its leader is lost and can elect
// one, and it is this node's turn among them.
func (d *Detector) turn(now time.Time, g *Standing, w *watch) bool {
	if !w.campaigned.IsZero() && now.Sub(w.campaigned) < d.timing.Pause {
		return false
	}
	wait := d.timing.Settle
	if d.silent(now, g.Leader) {
		wait = 0
	}
	survivors, before := 1, 0
	for node, p := range d.peers {
		s, member := p.standOf[g.Shard]
		if !member || !s.Votes || d.silent(now, node) || node == g.Leader && s.Leads {
			continue
		}
		if !s.Lost {
			return false // it has a leader: maybe one that this node has not heard of
		}
		survivors++
		if d.precedes(node, s, g) {
			before++
		}
	}
	if survivors <= g.Voters/2 {
		return false // no majority would be left to vote
	}
	return now.Sub(w.lostSince) >= wait+time.Duration(before)*d.timing.Step
}

// precedes says whether another survivor campaigns before this one: the one whose log is ahead, which is the one that
// can win, and else by name, in an order that differs from shard to shard so that leaderships spread.
func (d *Detector) precedes(node string, s Standing, g *Standing) bool {
	if c := cmp.Or(cmp.Compare(s.LastTerm, g.LastTerm), cmp.Compare(s.LastIndex, g.LastIndex)); c != 0 {
		return c > 0
	}
	if odd := g.Shard%2 == 1; odd {
		return node > d.self
	}
	return node < d.self
}

// Views lists what this node has seen of the named nodes.
func (d *Detector) Views(now time.Time, nodes []string) []View {
	views := make([]View, len(nodes))
	for i, node := range nodes {
		views[i] = View{Node: node, Dead: d.Dead(now, node)}
	}
	return views
}
