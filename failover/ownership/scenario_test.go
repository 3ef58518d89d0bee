package ownership

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScenarios plays testdata/scenarios/*.txt. Regions are named by the number that they had first. Every step prints what is to be
// done, in order: notes, commands, messages, grants. The commands are those of scenario.run. To write what the machine
// prints into the files: go test ./failover/ownership -run TestScenarios -rewrite
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		sc := &scenario{set: Default()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			sc.t, sc.d = t, d
			sc.out.Reset()
			sc.run()
			return sc.out.String()
		})
	})
}

// scenario is a shard's members, messages under way in the order in which they were sent, and the time.
type scenario struct {
	t     *testing.T
	d     *datadriven.TestData
	out   strings.Builder
	set   Settings
	now   time.Duration
	nodes []*actor
	sent  []Message
	cut   map[[2]int]bool
	hush  bool // asks and grants are not printed
}

// actor is a region: its record as its group holds it, and its leader.
type actor struct {
	record Record
	image  Record // of its disks, once
	state  State
	skew   time.Duration
	down   bool
}

func (sc *scenario) printf(format string, args ...any) { fmt.Fprintf(&sc.out, format+"\n", args...) }

// run plays one command:
//
//	members data data witness          a new shard, every region with a new leader
//	settings alone=1h                  before members; fields in small letters
//	hush                               asks and grants are not printed from here on
//	tick 1 2 [after=1s]                time passes, then the regions named see the time, or all
//	deliver [from=1] [to=2] [kind=ack] what was sent so far and matches
//	settle                             deliver until nothing is under way
//	drop [from=1] [to=2] [kind=ack]
//	repeat [from=1] [to=2] [kind=ack]  what matches is under way twice
//	cut 1 2 | heal | down 1            messages between 1 and 2 are dropped; none are; region 1 is gone
//	lead 1                             another node leads region 1, from what its group holds
//	image 1 | restore 1                keep what region 1's disks hold; they hold that again
//	skew 1 by=5ms                      the clock of region 1's leader jumps
//	propose 1 n=3 | flip 1 to=2 | force 2 remove=(1,3) | cost 2 remove=1 | add 1 role=data [instead=3] | remove 1 member=3 | distrust 1
//	rejoin 1 as=4                      region 1 comes back as member 4
//	show                               every region: who it takes for owner, what it holds, whether it serves
func (sc *scenario) run() {
	switch sc.d.Cmd {
	case "members":
		sc.members()
	case "settings":
		sc.settings()
	case "hush":
		sc.hush = true
	case "tick":
		sc.now += sc.duration("after")
		for _, n := range sc.named() {
			sc.step(n, Tick{})
		}
	case "deliver":
		sc.deliver()
	case "settle":
		for i := 0; len(sc.sent) > 0; i++ {
			if i > 50 {
				sc.t.Fatal("messages without an end")
			}
			sc.deliver()
		}
	case "drop":
		sc.sent = slices.DeleteFunc(sc.sent, sc.matches)
	case "repeat":
		for _, m := range sc.sent {
			if sc.matches(m) {
				sc.sent = append(sc.sent, m)
			}
		}
	case "cut":
		a, b := sc.arg(0), sc.arg(1)
		sc.cut[[2]int{a, b}], sc.cut[[2]int{b, a}] = true, true
	case "heal":
		sc.cut = map[[2]int]bool{}
	case "down":
		sc.named()[0].down = true
	case "lead":
		for _, n := range sc.named() {
			n.down, n.state = false, Lead(n.record, sc.set, uint64(sc.now), sc.now+n.skew)
		}
	case "image":
		n := sc.named()[0]
		n.image = n.record
	case "restore":
		n := sc.named()[0]
		n.record = n.image
	case "skew":
		sc.named()[0].skew += sc.duration("by")
	case "show":
		sc.show()
	case "rejoin":
		n := sc.named()[0]
		n.record = n.record.Rejoin(MemberID(sc.int("as")))
		n.down, n.state = false, Lead(n.record, sc.set, uint64(sc.now), sc.now+n.skew)
	default:
		sc.order()
	}
}

func (sc *scenario) members() {
	var roles []Role
	for _, a := range sc.d.CmdArgs {
		roles = append(roles, map[string]Role{"data": Data, "witness": Witness}[a.Key])
	}
	if err := sc.set.Validate(); err != nil {
		sc.t.Fatal(err)
	}
	sc.nodes, sc.sent, sc.now, sc.cut = nil, nil, time.Hour, map[[2]int]bool{}
	for i := range roles {
		r := Found(MemberID(i+1), NewConfig(roles...))
		sc.nodes = append(sc.nodes, &actor{record: r, state: Lead(r, sc.set, 0, sc.now)})
	}
}

func (sc *scenario) settings() {
	for _, a := range sc.d.CmdArgs {
		switch a.Key {
		case "alone":
			sc.set.Alone = sc.duration("alone")
		case "batch":
			sc.set.Batch = Position(sc.int("batch"))
		case "unconfirmed":
			sc.set.Unconfirmed = Position(sc.int("unconfirmed"))
		case "span":
			sc.set.Span = Position(sc.int("span"))
		case "lag":
			sc.set.Lag = Position(sc.int("lag"))
		default:
			sc.t.Fatalf("no setting %q here", a.Key)
		}
	}
}

func (sc *scenario) arg(i int) int {
	var n int
	if _, err := fmt.Sscan(sc.d.CmdArgs[i].Key, &n); err != nil {
		sc.t.Fatal(err)
	}
	return n
}

func (sc *scenario) int(key string) int {
	var n int
	sc.d.MaybeScanArgs(sc.t, key, &n)
	return n
}

func (sc *scenario) duration(key string) time.Duration {
	var text string
	if !sc.d.MaybeScanArgs(sc.t, key, &text) {
		return 0
	}
	x, err := time.ParseDuration(text)
	if err != nil {
		sc.t.Fatal(err)
	}
	return x
}

// named returns the regions that the command names, or all.
func (sc *scenario) named() []*actor {
	var list []*actor
	for i, a := range sc.d.CmdArgs {
		if len(a.Vals) == 0 {
			list = append(list, sc.nodes[sc.arg(i)-1])
		}
	}
	if list == nil {
		return sc.nodes
	}
	return list
}

// index returns which region is a member.
func (sc *scenario) index(id MemberID) int {
	return slices.IndexFunc(sc.nodes, func(n *actor) bool { return n.record.Self == id }) + 1
}

func (sc *scenario) matches(m Message) bool {
	var kind string
	from, to := sc.int("from"), sc.int("to")
	sc.d.MaybeScanArgs(sc.t, "kind", &kind)
	return (from == 0 || sc.index(m.From) == from) && (to == 0 || sc.index(m.To) == to) && (kind == "" || m.Kind.String() == kind)
}

// deliver delivers what is under way now, and not what is sent because of it.
func (sc *scenario) deliver() {
	var rest []Message
	list := sc.sent
	sc.sent = nil
	for _, m := range list {
		to := sc.index(m.To)
		switch {
		case !sc.matches(m):
			rest = append(rest, m)
		case to == 0 || sc.nodes[to-1].down || sc.cut[[2]int{sc.index(m.From), to}]:
		default:
			sc.step(sc.nodes[to-1], Receive{m})
		}
	}
	sc.sent = append(rest, sc.sent...)
}

func (sc *scenario) order() {
	n := sc.named()[0]
	var gone []MemberID
	for _, a := range sc.d.CmdArgs {
		for _, v := range a.Vals {
			if id, err := strconv.Atoi(v); a.Key == "remove" && err == nil {
				gone = append(gone, MemberID(id))
			}
		}
	}
	switch sc.d.Cmd {
	case "propose":
		sc.step(n, Propose{Position(sc.int("n"))})
	case "flip":
		sc.step(n, Flip{MemberID(sc.int("to"))})
	case "force":
		sc.step(n, Force{gone})
	case "cost":
		c, err := n.state.Cost(gone, sc.now+n.skew)
		sc.printf("unknown=%v last %v confirmed %d wait %v, %v", c.Unknown, c.Last, c.Confirmed, c.Wait, err)
	case "add":
		role := Data
		if sc.d.HasArg("role") && sc.d.CmdArgs[1].Vals[0] == "witness" {
			role = Witness
		}
		sc.step(n, Add{Role: role, Instead: MemberID(sc.int("instead"))})
	case "remove":
		sc.step(n, Remove{MemberID(sc.int("member"))})
	case "distrust":
		sc.step(n, Distrust{})
	default:
		sc.t.Fatalf("unknown command %q", sc.d.Cmd)
	}
}

// step takes a step of a region's leader and prints its effects.
func (sc *scenario) step(n *actor, e Event) {
	if n.down {
		return
	}
	next, out := n.state.Step(e, sc.now+n.skew)
	id := n.record.Self
	if out.Refused != nil {
		sc.printf("%d refuses: %v", id, out.Refused)
	}
	if out.Member > 0 {
		sc.printf("%d gives number %d", id, out.Member)
	}
	for _, note := range out.Notes {
		sc.printf("%d note: %v", id, note)
	}
	for _, c := range out.Commands {
		done := n.record.Apply(c)
		sc.printf("%d logs: %v", id, c)
		if !done.Cut.Empty() {
			sc.printf("%d cuts off %v", id, done.Cut)
		}
		if done.Aside {
			sc.printf("%d keeps its state aside", id)
		}
	}
	if n.record.changed(&next.Record) {
		sc.t.Fatalf("%d expects %+v, its group holds %+v", id, next.Record, n.record)
	}
	n.state = next
	for _, m := range append(out.Messages, out.Proved...) {
		if !sc.hush || m.Kind != Ask && m.Kind != Grant {
			sc.printf("  %v", m)
		}
		sc.sent = append(sc.sent, m)
	}
}

func (sc *scenario) show() {
	for _, n := range sc.nodes {
		s := &n.state
		owner, epoch := s.Owner()
		sc.printf("%d %v: owner %d by %v, promised %v, last %v, confirmed %d, serves %v", n.record.Self, s.Standing(), owner,
			epoch, n.record.Promised, n.record.LastMark(), s.Confirmed(), s.Serves(sc.now+n.skew))
	}
}
