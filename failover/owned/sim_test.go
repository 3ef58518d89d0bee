package owned

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/watershed-db/watershed/failover/ownership"
)

var (
	schedules = flag.Int("owned.schedules", 120, "how many schedules TestSimulation plays")
	firstSeed = flag.Uint64("owned.seed", 1, "the first one's seed")
)

// TestSimulation lets three regions take, lose and take over one log at random, with clients that try again wherever they
// like, and holds every region to the model after every command.
func TestSimulation(t *testing.T) {
	for i := range *schedules {
		seed := *firstSeed + uint64(i)
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for range 60 {
				w.step()
			}
			w.settle()
		})
		if !ok {
			t.Fatalf("replay with: go test ./failover/owned -run TestSimulation -owned.schedules 1 -owned.seed %d", seed)
		}
	}
}

// region is a copy of the log, and what a person with pen and paper would have written down of it.
type region struct {
	store     store
	log       []logEntry // from position 2 on; of entries before base only the model knows
	confirmed ownership.Position
	base      ownership.Position
	ledger    map[ID]bool
}

func (r *region) last() ownership.Position { return ownership.Position(1 + len(r.log)) }

// world is three regions of which one is the owner.
type world struct {
	t         *testing.T
	rng       *rand.Rand
	regions   []*region
	owner     int
	epoch     uint64
	confirmed ownership.Position // by two regions
	now       int64
	sent      []Op
	next      map[Session]uint64
	acked     map[ID]bool
	replayed  ID
	digests   map[ownership.Mark]Digest
}

var simTables = []TableID{{1}, {1, 2}}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), epoch: 1, confirmed: 1, now: 1000, next: map[Session]uint64{},
		acked: map[ID]bool{}, digests: map[ownership.Mark]Digest{}}
	for range 3 {
		w.regions = append(w.regions, &region{store: store{}, confirmed: 1, base: 1, ledger: map[ID]bool{}})
	}
	return w
}

func (w *world) step() {
	o := w.regions[w.owner]
	switch n := w.rng.IntN(20); {
	case n < 9:
		w.append(1 + w.rng.IntN(4))
	case n < 15:
		w.replicate(w.rng.IntN(3), 1+w.rng.IntN(6))
	case n < 17:
		w.takeOver(w.rng.IntN(3))
	case n < 19:
		o.base = max(o.base, min(w.confirmed, o.base+ownership.Position(w.rng.IntN(5))))
		w.command(o, func(l *Log) { l.Drop(o.base) })
	default:
		w.now += int64(w.rng.IntN(200))
	}
}

// settle ends the schedule: all regions catch up, and everything acknowledged is accounted for.
func (w *world) settle() {
	for i := range w.regions {
		w.replicate(i, 1000)
	}
	o := w.regions[w.owner]
	stands := map[ID]bool{}
	_, results := play(o.log)
	for i, e := range o.log {
		if !e.control && e.op.Kind != Sweep && results[i].Verdict == Applied {
			stands[e.op.Names()] = true
		}
	}
	for id := range w.acked {
		lost, doubt := false, false
		for _, r := range w.regions {
			lost = lost || r.ledger[id]
			doubt = doubt || w.doubted(r, id)
		}
		if lost == stands[id] && !(lost && doubt) {
			w.t.Fatalf("acknowledged %v: in the history %v, in a ledger %v", id, stands[id], lost)
		}
	}
}

// doubted says whether a region's ledger doubts that it holds something that does not stand.
func (w *world) doubted(r *region, id ID) bool {
	list, _, err := r.store.read(w.t).Conflicts(0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(c Conflict) bool { return c.Op.Names() == id && c.Doubt })
}

// append lets clients write at the owner.
func (w *world) append(n int) {
	o := w.regions[w.owner]
	var list []logEntry
	for i := range n {
		list = append(list, logEntry{mark: mark(w.epoch, uint64(o.last())+uint64(i)+1), op: w.op()})
	}
	o.log = append(o.log, list...)
	w.take(o, list)
	w.check(o)
}

// take lets a region take entries that its log has last, and compares what they come to.
func (w *world) take(r *region, list []logEntry) {
	_, want := play(r.log)
	want = want[len(want)-len(list):]
	w.command(r, func(l *Log) {
		for i, e := range list {
			x := Entry{Mark: e.mark, Control: e.control}
			if !e.control {
				x.Payload = e.op.Append(nil)
			}
			if got := l.Take(x); got != want[i] {
				w.t.Fatalf("entry %v comes to %+v, not %+v", e, got, want[i])
			}
		}
	})
	for i, e := range list {
		if e.control || e.op.Kind == Sweep || want[i].Verdict != Applied {
			continue
		}
		if !want[i].Again {
			delete(r.ledger, e.op.Names())
		}
		if r == w.regions[w.owner] {
			w.acked[e.op.Names()] = true
		}
	}
}

func (w *world) command(r *region, f func(*Log)) {
	w.t.Helper()
	r.store.command(w.t, f)
}

// op returns what a client, an operator or the owner itself does next.
func (w *world) op() Op {
	o := w.regions[w.owner]
	if len(w.sent) > 0 && w.rng.IntN(4) == 0 {
		op := w.sent[w.rng.IntN(len(w.sent))]
		op.Time = w.now
		return op
	}
	if w.rng.IntN(8) == 0 {
		op, _, err := o.store.read(w.t).Sweep(w.now, w.now-400)
		if err != nil {
			w.t.Fatal(err)
		}
		if w.rng.IntN(3) == 0 {
			if op.Dropped, err = o.store.read(w.t).TableRows(simTables[1]); err != nil {
				w.t.Fatal(err)
			}
		}
		return op
	}
	op := Op{Kind: Put, Time: w.now, Table: simTables[w.rng.IntN(2)], Key: fmt.Appendf(nil, "k%d", w.rng.IntN(4)), ID: w.id()}
	if w.rng.IntN(3) == 0 {
		op.Kind = Delete
	} else {
		op.Value = fmt.Appendf(nil, "%d", w.rng.IntN(3))
		op.TTL = int64(w.rng.IntN(3) * w.rng.IntN(150))
	}
	switch w.rng.IntN(6) {
	case 0:
		op.Expect.Kind = Absent
	case 1:
		op.Expect = Expect{Kind: EqualValue, Value: fmt.Appendf(nil, "%d", w.rng.IntN(3))}
	case 2:
		m, _ := play(o.log)
		if r, ok := m.rows[rowKey(op.Table, op.Key)]; ok {
			op.Expect = Expect{Kind: AtVersion, Version: r.Version}
		}
	}
	if id := w.lost(); w.rng.IntN(3) == 0 && id != w.replayed {
		op.Replays, w.replayed = id, id // not twice at once, where only the session's life tells one from two
	}
	w.sent = append(w.sent, op)
	return op
}

// lost returns an operation that the ledger of some region holds which has the owner's whole log; none where none does.
func (w *world) lost() ID {
	r, o := w.regions[w.rng.IntN(3)], w.regions[w.owner]
	if common(r, o) < o.last() {
		return ID{}
	}
	list, _, err := r.store.read(w.t).Conflicts(0, 1+w.rng.IntN(3))
	if err != nil {
		w.t.Fatal(err)
	}
	if n := len(list); n > 0 && !list[n-1].Doubt {
		return list[n-1].Op.Names()
	}
	return ID{}
}

func (w *world) id() ID {
	s := Session{(w.now/300 - int64(w.rng.IntN(2))) * 300, uint64(w.rng.IntN(2))}
	w.next[s]++
	if w.rng.IntN(30) == 0 {
		w.next[s] += uint64(w.rng.IntN(2 * Window))
	}
	return ID{s, w.next[s]}
}

// takeOver makes a region the owner of a new epoch, if it holds all that is confirmed.
func (w *world) takeOver(i int) {
	r, o := w.regions[i], w.regions[w.owner]
	if i == w.owner || common(r, o) < w.confirmed {
		return
	}
	w.owner = i
	w.epoch++
	e := logEntry{mark: mark(w.epoch, uint64(r.last())+1), control: true}
	r.log = append(r.log, e)
	w.take(r, []logEntry{e})
	w.check(r)
}

// common returns the last position that two logs share.
func common(a, b *region) ownership.Position {
	n := 0
	for n < min(len(a.log), len(b.log)) && a.log[n].mark == b.log[n].mark {
		n++
	}
	return ownership.Position(1 + n)
}

// replicate brings a region up to at most so many entries of the owner's log.
func (w *world) replicate(i, n int) {
	r, o := w.regions[i], w.regions[w.owner]
	if r == o {
		return
	}
	c := common(r, o)
	if c < o.base {
		w.install(r, o)
		c = r.last()
	} else if c < r.last() {
		w.cut(r, c+1)
	}
	end := min(int(c)-1+n, len(o.log))
	list := o.log[c-1 : end]
	r.log = append(r.log[:c-1:c-1], list...)
	w.take(r, list)
	if n := len(o.log); n > 0 && o.log[n-1].mark.Epoch == ownership.EpochOf(w.epoch, 1) { // an entry of the own epoch confirms
		w.confirmed = max(w.confirmed, common(r, o))
	}
	o.confirmed = w.confirmed
	r.confirmed = max(r.confirmed, min(w.confirmed, r.last()))
	if w.rng.IntN(2) == 0 {
		r.base = max(r.base, min(r.confirmed, o.base))
		w.command(r, func(l *Log) { l.Drop(r.base) })
	}
	w.check(r)
}

// cut takes entries of a region back.
func (w *world) cut(r *region, from ownership.Position) {
	w.lose(r, from)
	w.command(r, func(l *Log) { l.Cut(from, ownership.EpochOf(w.epoch, 1)) })
	r.log = r.log[:from-2]
	w.check(r)
}

// lose notes what of a region's log goes to its ledger.
func (w *world) lose(r *region, from ownership.Position) {
	_, results := play(r.log)
	for i, e := range r.log[from-2:] {
		if x := results[int(from)-2+i]; !e.control && e.op.Kind != Sweep && x.Verdict == Applied && !x.Again {
			r.ledger[e.op.Names()] = true
		}
	}
}

// install gives a region the owner's confirmed state.
func (w *world) install(r, o *region) {
	at := max(w.confirmed, o.base)
	m := o.log[at-2].mark
	x, err := o.store.read(w.t).Export(at)
	if err != nil {
		w.t.Fatal(err)
	}
	var number uint32
	w.command(r, func(l *Log) { number = l.Stage(m, x.Digest()) })
	for n := uint32(0); ; n++ {
		b, err := x.Next(1 + w.rng.IntN(200))
		if err != nil {
			w.t.Fatal(err)
		}
		if b == nil {
			break
		}
		w.command(r, func(l *Log) {
			if l.Staged(m) || l.Fill(number, n+1, b) || !l.Fill(number, n, b) || l.Fill(number, n, b) {
				w.t.Fatalf("chunk %d of the state at %v", n, m)
			}
		})
	}
	first := max(r.base, r.confirmed) + 1
	if first <= r.last() {
		w.lose(r, first)
	}
	w.command(r, func(l *Log) {
		if first <= r.last() {
			l.Cut(first, m.Epoch)
		}
		l.Install(m, false, m.Epoch)
	})
	r.log = append([]logEntry(nil), o.log[:at-1]...)
	r.base, r.confirmed = at, at
	state, _ := play(r.log)
	for id := range r.ledger {
		if state.outcomes[id].Verdict == Applied {
			delete(r.ledger, id)
		}
	}
	w.check(r)
}
