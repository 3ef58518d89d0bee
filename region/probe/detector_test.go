package probe

import (
	"slices"
	"testing"
	"time"
)

// world is three nodes of one region, whose detectors run on one clock and hear each other as the test lets them.
type world struct {
	t         *testing.T
	now       time.Time
	detectors map[string]*Detector
	groups    map[string][]Standing
	stalled   map[string]bool
	silent    map[string]bool       // sends nothing and does nothing
	cut       map[[2]string]bool    // from, to
	asked     map[string][]campaign // by node
	sequence  uint64
}

type campaign struct {
	at    time.Duration
	shard uint32
}

var start = time.Unix(1_800_000_000, 0)

func newWorld(t *testing.T, leader string, shards ...uint32) *world {
	w := &world{
		t: t, now: start, detectors: map[string]*Detector{}, groups: map[string][]Standing{}, stalled: map[string]bool{},
		silent: map[string]bool{}, cut: map[[2]string]bool{}, asked: map[string][]campaign{},
	}
	for _, node := range []string{"a", "b", "c"} {
		w.detectors[node] = NewDetector(node, DefaultTiming())
		for _, shard := range shards {
			w.groups[node] = append(w.groups[node], Standing{
				Shard: shard, Term: 3, LastTerm: 3, LastIndex: 100, Voters: 3, Votes: true,
				Leads: node == leader, Follows: node != leader, Leader: leader,
			})
		}
	}
	return w
}

// run lets so much time pass, a tick of all nodes every interval.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(DefaultTiming().Interval) {
		for _, node := range []string{"a", "b", "c"} {
			if w.silent[node] {
				continue
			}
			det := w.detectors[node]
			for _, shard := range det.Tick(w.now, w.groups[node], w.stalled[node]) {
				w.asked[node] = append(w.asked[node], campaign{w.now.Sub(start), shard})
			}
			w.sequence++
			others := slices.DeleteFunc([]string{"a", "b", "c"}, func(o string) bool { return o == node })
			p := Packet{Boot: 1, Sequence: w.sequence, Stalled: w.stalled[node], Node: node,
				Views: det.Views(w.now, others), Groups: slices.Clone(w.groups[node])}
			p, err := Decode(p.Append(nil))
			if err != nil {
				w.t.Fatal(err)
			}
			for _, o := range others {
				if !w.cut[[2]string{node, o}] && !w.silent[o] {
					w.detectors[o].Heard(w.now, p)
				}
			}
		}
	}
}

// set changes a group's standing on a node.
func (w *world) set(node string, change func(*Standing)) {
	for i := range w.groups[node] {
		change(&w.groups[node][i])
	}
}

func (w *world) nobody(what string) {
	w.t.Helper()
	if len(w.asked) > 0 {
		w.t.Fatalf("%s: %v", what, w.asked)
	}
}

func TestDeadLeaderIsFollowedByOneSurvivor(t *testing.T) {
	w := newWorld(t, "a", 0, 1)
	w.run(time.Second)
	w.nobody("all is well")
	w.silent["a"] = true
	w.run(200 * time.Millisecond)
	w.nobody("a stall of 200 ms")
	w.run(200 * time.Millisecond)
	b, c := w.asked["b"], w.asked["c"]
	if len(b) != 1 || b[0].shard != 0 || len(c) != 1 || c[0].shard != 1 {
		t.Fatalf("b asks %v, c %v, want one shard each", b, c)
	}
	if b[0].at > 1400*time.Millisecond || c[0].at > 1400*time.Millisecond {
		t.Errorf("they ask at %v and %v", b[0].at, c[0].at)
	}
}

// The other one comes in where the first does not win, and none asks again at once.
func TestTurns(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.run(time.Second)
	w.silent["a"] = true
	w.run(300 * time.Millisecond)
	w.run(700 * time.Millisecond) // nobody wins
	b, c := w.asked["b"], w.asked["c"]
	if len(b) < 2 || len(c) < 1 {
		t.Fatalf("b asks %v, c %v", b, c)
	}
	// c counts from when it lost the leader, b from when it also knew that c has.
	if wait := c[0].at - b[0].at; wait < DefaultTiming().Step-DefaultTiming().Interval {
		t.Errorf("c waited %v for b", wait)
	}
	if pause := b[1].at - b[0].at; pause < DefaultTiming().Pause {
		t.Errorf("b asked again after %v", pause)
	}
}

func TestLogAheadCampaignsFirst(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.set("c", func(s *Standing) { s.LastIndex = 101 })
	w.run(time.Second)
	w.silent["a"] = true
	w.run(350 * time.Millisecond)
	if len(w.asked["b"]) > 0 || len(w.asked["c"]) != 1 {
		t.Fatalf("%v", w.asked)
	}
}

func TestOtherSurvivorStillHearsTheLeader(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.run(time.Second)
	w.cut[[2]string{"a", "b"}] = true
	w.run(2 * time.Second)
	w.nobody("c hears the leader")
}

func TestLeaderThatHearsNobody(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.run(time.Second)
	w.cut[[2]string{"b", "a"}], w.cut[[2]string{"c", "a"}] = true, true
	w.run(time.Second)
	if len(w.asked["b"]) == 0 {
		t.Fatal("nobody follows a leader that its followers do not reach")
	}
}

func TestNeverHeardIsUnknown(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.silent["a"] = true
	w.run(5 * time.Second)
	w.nobody("a was never heard of")
	if w.detectors["b"].Known("a") || !w.detectors["b"].Known("c") {
		t.Error("b should know c alone")
	}
}

func TestMinorityAsksForNothing(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.run(time.Second)
	w.silent["a"], w.silent["b"] = true, true
	w.run(3 * time.Second)
	w.nobody("one of three is left")
}

func TestLateNodeGivesAFreshGrace(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.run(time.Second)
	w.silent["a"], w.silent["b"], w.silent["c"] = true, true, true // the machine stood still
	w.run(3 * time.Second)
	clear(w.silent)
	w.run(time.Second)
	w.nobody("all paused at once")
	if w.detectors["b"].Late() != 1 {
		t.Errorf("late %d times, want once", w.detectors["b"].Late())
	}
}

func TestStalledDisk(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.run(time.Second)
	w.stalled["a"], w.stalled["b"] = true, true
	w.run(time.Second)
	w.nobody("two of three disks hang")
	w.stalled["b"] = false
	w.run(300 * time.Millisecond)
	if len(w.asked["a"]) > 0 || len(w.asked["b"])+len(w.asked["c"]) == 0 {
		t.Errorf("%v", w.asked)
	}
}

func TestLeaderThatStartedAgain(t *testing.T) {
	w := newWorld(t, "a", 0)
	w.run(time.Second)
	w.set("a", func(s *Standing) { s.Leads, s.Follows, s.Leader = false, true, "" })
	w.run(150 * time.Millisecond)
	w.nobody("an election may be under way")
	w.run(500 * time.Millisecond)
	if n := len(w.asked["a"]) + len(w.asked["b"]) + len(w.asked["c"]); n == 0 {
		t.Fatal("nobody follows a leader that does not know that it led")
	}
}

// A follower may hear of its new leader before it hears a probe in which that one knows that it leads.
func TestNewLeadersOldProbe(t *testing.T) {
	w := newWorld(t, "", 0)
	w.set("a", func(s *Standing) { s.Leads, s.Follows = false, false })
	w.run(100 * time.Millisecond)
	w.set("b", func(s *Standing) { s.Leader = "a" })
	w.set("c", func(s *Standing) { s.Leader = "a" })
	w.run(100 * time.Millisecond)
	w.set("a", func(s *Standing) { s.Leads, s.Leader = true, "a" })
	w.run(time.Second)
	w.nobody("a leads")
}

func TestOvertakenPacketIsDropped(t *testing.T) {
	d := NewDetector("b", DefaultTiming())
	d.Heard(start, Packet{Node: "a", Boot: 7, Sequence: 2})
	d.Heard(start.Add(time.Second), Packet{Node: "a", Boot: 7, Sequence: 1})
	if !d.Dead(start.Add(time.Second), "a") {
		t.Error("an old packet counts as a sign of life")
	}
	d.Heard(start.Add(time.Second), Packet{Node: "a", Boot: 8, Sequence: 1})
	if d.Dead(start.Add(time.Second), "a") {
		t.Error("a new start does not")
	}
	d.Forget(func(string) bool { return false })
	if d.Known("a") {
		t.Error("it was to be forgotten")
	}
}
