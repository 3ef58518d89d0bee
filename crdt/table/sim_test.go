package table

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var simSeeds = flag.String("sim.seeds", "0:150", "first and one past the last seed of TestSimulation")

// TestSimulation plays deployments step by step from a seed: sessions that retry in other regions, also after their end;
// regions that are cut off for weeks and go on writing, some of them removed meanwhile; that lose their disks and come back
// from an old copy or from nothing; with clocks that are wrong; logs that are cut short, so that state travels instead. At
// every step a value must read as the operations that its copy holds say. Once all is healed, all regions must hold the
// same bytes, and all operations that were acknowledged, but for those lost with a region's disks or its removal.
//
//	go test ./crdt/table -run TestSimulation -sim.seeds 0:5000
func TestSimulation(t *testing.T) {
	lo, hi, _ := strings.Cut(*simSeeds, ":")
	from, err1 := strconv.Atoi(lo)
	to, err2 := strconv.Atoi(hi)
	if err1 != nil || err2 != nil || from >= to {
		t.Fatalf("-sim.seeds %q is not FROM:TO", *simSeeds)
	}
	stats := map[string]int{}
	for seed := from; seed < to; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed), stats)
			for range 100 + w.rng.IntN(500) {
				w.step()
			}
			w.finish()
		})
	}
	if to-from < 100 {
		return
	}
	for _, what := range []string{"taken", "held", "expired", "ahead", "full", "elsewhere", "by state", "restored", "rebuilt",
		"lost", "given up", "taken back", "floor", "cut for a week"} {
		if stats[what] == 0 {
			t.Errorf("never %s: %v", what, stats)
		}
	}
	t.Log(stats)
}

const (
	minute = int64(60_000)
	day    = 24 * 60 * minute
)

// simLife is how long a session lives.
const simLife = day

var simLimits = Limits{MaxAhead: minute, Open: 40, Gaps: 4}

// simKeys are the keys of the shard, by number.
var simKeys = []Type{TypeCounter, TypeUpDown, TypeUpDown, TypeRegister, TypeRegister, TypeSet, TypeSet, TypeLWWSet, TypeLWWSet}

type world struct {
	t       *testing.T
	rng     *rand.Rand
	now     int64
	regions []*region
	clients []*client
	acked   map[ID]bool
	lost    map[ID]bool
	stats   map[string]int

	// What the registry holds, an owned table that only connected regions read and write.
	members  []Actor
	departed []Actor // not sealed yet
	told     Marks   // of members their own marks; of actors that have left, where they were sealed
	floor    int64
	need     Marks // what a copy must cover to raise its floor to that
}

type simOp struct {
	Op
	key int
}

// entry is what an actor took: an operation, or a closing.
type entry struct {
	actor Actor
	mark  Mark
	op    *simOp
}

type region struct {
	actor    Actor
	skew     int64
	cutAt    int64 // 0 while connected
	removed  bool  // while it was cut off, and does not know it
	admitted bool  // takes writes
	marks    Marks
	sessions *Sessions
	values   map[int]Value // empty ones may be missing
	held     map[ID]*simOp
	log      map[Actor][]entry // without gaps, up to the mark
	copies   []*region         // old ones, on other disks
}

type client struct {
	session SessionID
	clock   Clock
	skew    int64
	home    int
	next    uint64
	pending []*simOp
}

func newWorld(t *testing.T, seed uint64, stats map[string]int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: 100 * day, told: Marks{}, need: Marks{},
		acked: map[ID]bool{}, lost: map[ID]bool{}, stats: stats}
	for i := range 2 + w.rng.IntN(3) {
		r := newRegion()
		w.join(r, Actor(i+1))
		w.begin(r)
		w.regions = append(w.regions, r)
	}
	return w
}

func newRegion() *region {
	return &region{marks: Marks{}, sessions: new(Sessions), values: map[int]Value{}, held: map[ID]*simOp{},
		log: map[Actor][]entry{}}
}

// join makes a region a member under a new number.
func (w *world) join(r *region, a Actor) {
	r.actor = a
	w.members = append(w.members, a)
	if _, err := w.told.Begin(a, w.floor); err != nil {
		w.t.Fatal(err)
	}
}

// begin has a member write.
func (w *world) begin(r *region) {
	mark, err := r.marks.Begin(r.actor, w.floor)
	if err != nil {
		w.t.Fatal(err)
	}
	r.log[r.actor] = []entry{{r.actor, mark, nil}}
	r.admitted = true
}

func (w *world) count(what string) { w.stats[what]++ }

func (w *world) region() *region { return w.regions[w.rng.IntN(len(w.regions))] }

func (w *world) step() {
	r := w.region()
	switch n := w.rng.IntN(100); {
	case n < 40:
		w.write()
	case n < 50:
		w.retry()
	case n < 72:
		w.exchange(r, w.region())
	case n < 78:
		w.now += []int64{1, 500, minute, 90 * minute, 90 * minute, day / 2, 3 * day}[w.rng.IntN(7)]
	case n < 82:
		w.closeSessions(r)
	case n < 88:
		w.raise(r)
	case n < 91:
		r.fold()
	case n < 93:
		r.cutLogs(w.rng)
	case n < 95:
		w.cutOrHeal(w.rng.IntN(len(w.regions)))
	case n < 97:
		r.copies = append(r.copies, r.clone())
	case n < 98:
		r.skew = (w.rng.Int64N(5) - 2) * minute / 2
	case n < 99:
		w.restore(w.rng.IntN(len(w.regions)))
	case n < 100:
		w.remove(r)
	}
}

// write has a client do something new. One whose home region does not answer opens a session elsewhere.
func (w *world) write() {
	if len(w.clients) < 3 || w.rng.IntN(20) == 0 {
		w.clients = append(w.clients, &client{})
	}
	c := w.clients[w.rng.IntN(len(w.clients))]
	if c.next == 0 || w.now-c.session.Born > day/2 || w.rng.IntN(15) == 0 {
		w.open(c)
	}
	r := w.regions[c.home]
	op := w.newOp(c, r)
	if op == nil {
		return
	}
	c.next++
	w.send(c, op, r)
}

// open opens a session; what is pending of the last one can still be retried.
func (w *world) open(c *client) {
	old := *c
	if len(c.pending) > 0 {
		w.clients = append(w.clients, &old)
	}
	home := w.rng.IntN(len(w.regions))
	*c = client{home: home, next: 1, clock: Clock{MaxAhead: simLimits.MaxAhead}, skew: (w.rng.Int64N(7) - 3) * minute / 2}
	c.session = SessionID{w.now + w.regions[home].skew, w.rng.Uint64()}
	_ = c.clock.Observe(TimeAt(c.session.Born), w.now+c.skew) // else its stamps lie before the session, and are refused
}

// newOp makes an operation out of what a client reads in its home region.
func (w *world) newOp(c *client, r *region) *simOp {
	key := w.rng.IntN(len(simKeys))
	of := simKeys[key]
	op := &simOp{Op{ID: ID{c.session, c.next}}, key}
	element := []byte{'a' + byte(w.rng.IntN(3))}
	switch of {
	case TypeCounter:
		op.Kind, op.Amount = Increment, w.rng.Int64N(10)
	case TypeUpDown:
		op.Kind, op.Amount = Increment, w.rng.Int64N(5)-2
	case TypeRegister:
		op.Kind, op.Data = Assign, element
		if w.rng.IntN(3) == 0 {
			op.Kind, op.Data = Clear, nil
		}
	case TypeSet, TypeLWWSet:
		op.Kind, op.Data = Kind(int(Insert)+w.rng.IntN(2)), element
	}
	switch v := r.value(key).(type) {
	case *Set:
		op.Observed = v.Inserts(element)
	case *Register:
		_ = c.clock.Observe(v.Stamp().Time, w.now+c.skew) // refused where a clock is wrong
	}
	if of.stamped() {
		var err error
		if op.Time, err = c.clock.Next(w.now + c.skew); err != nil || op.Time.Millis() < c.session.Born {
			return nil
		}
	}
	return op
}

func (w *world) retry() {
	c := w.clients
	if len(c) == 0 {
		return
	}
	x := c[w.rng.IntN(len(c))]
	if len(x.pending) == 0 {
		return
	}
	op := x.pending[w.rng.IntN(len(x.pending))]
	x.pending = slices.DeleteFunc(x.pending, func(o *simOp) bool { return o == op })
	to := w.rng.IntN(len(w.regions))
	if to != x.home {
		w.count("elsewhere")
	}
	w.send(x, op, w.regions[to])
}

// send loses requests and answers.
func (w *world) send(c *client, op *simOp, r *region) {
	lost := w.rng.IntN(8)
	if lost == 0 || !r.admitted {
		c.pending = append(c.pending, op)
		return
	}
	err := w.serve(r, op)
	switch {
	case err != nil:
		c.next = 0 // a number that is not taken leaves a gap: the client goes on in another session
	case lost < 3:
		c.pending = append(c.pending, op)
	default:
		w.acked[op.ID] = true
	}
}

// serve is what a shard does with a client's write.
func (w *world) serve(r *region, op *simOp) error {
	now := w.now + r.skew
	held, err := r.sessions.Admit(op.ID, now, simLimits)
	if err == nil && !held {
		err = op.Validate(simKeys[op.key], now, simLimits.MaxAhead)
	}
	switch {
	case errors.Is(err, ErrExpired):
		w.count("expired")
	case errors.Is(err, ErrAhead):
		w.count("ahead")
	case errors.Is(err, ErrFull), errors.Is(err, ErrGaps):
		w.count("full")
	case err != nil:
		w.t.Fatal(err)
	case held:
		w.count("held")
	default:
		w.count("taken")
		w.own(r, 0, op)
	}
	return err
}

func (w *world) own(r *region, closed int64, op *simOp) {
	e := entry{r.actor, r.marks.Take(r.actor, closed), op}
	r.log[r.actor] = append(r.log[r.actor], e)
	if op != nil {
		w.take(r, op)
	}
}

func (w *world) take(r *region, op *simOp) {
	v := r.value(op.key)
	v.Apply(&op.Op)
	r.values[op.key] = v
	r.sessions.Add(op.ID)
	r.held[op.ID] = op
	w.check(r, op.key)
}

func (w *world) closeSessions(r *region) {
	if r.admitted && r.sessions.Close(w.now+r.skew-simLife) {
		w.own(r, r.sessions.Closed(), nil)
	}
}

func (w *world) cutOrHeal(i int) {
	r := w.regions[i]
	if r.cutAt == 0 {
		r.cutAt = w.now
		return
	}
	if w.now-r.cutAt > 7*day {
		w.count("cut for a week")
	}
	if r.cutAt = 0; r.removed {
		w.takeBack(i)
	}
}

// value returns a region's value of a key, which the caller may change.
func (r *region) value(key int) Value {
	if v := r.values[key]; v != nil {
		return v
	}
	return New(simKeys[key], r.sessions.Floor())
}

func (r *region) fold() {
	for key, v := range r.values {
		if v.Fold(r.sessions); v.Empty(r.sessions.Floor()) {
			delete(r.values, key)
		}
	}
}

func (r *region) cutLogs(rng *rand.Rand) {
	for _, a := range slices.Sorted(maps.Keys(r.log)) {
		r.log[a] = slices.Clone(r.log[a][rng.IntN(len(r.log[a])+1):])
	}
}

// check compares what a key reads as with the operations that the region holds.
func (w *world) check(r *region, key int) {
	ops := map[ID]*Op{}
	for id, op := range r.held {
		if op.key == key {
			ops[id] = &op.Op
		}
	}
	if got, want := read(r.value(key)), oracle(simKeys[key], ops); got != want {
		w.t.Fatalf("actor %d, key %d (%s) reads %s, its operations say %s", r.actor, key, simKeys[key], got, want)
	}
}

// bytes returns all that a region stores of a key.
func (r *region) bytes(key int) []byte { return r.value(key).Append(nil) }

func (w *world) sameBytes(what string) {
	first := w.regions[0]
	for _, r := range w.regions {
		r.fold()
		for key, of := range simKeys {
			w.check(r, key)
			if !bytes.Equal(r.bytes(key), first.bytes(key)) {
				w.t.Fatalf("%s: key %d (%s) is %x with actor %d and %x with %d", what, key, of, r.bytes(key), r.actor,
					first.bytes(key), first.actor)
			}
		}
		if !bytes.Equal(r.sessions.Append(nil), first.sessions.Append(nil)) {
			w.t.Fatalf("%s: sessions differ", what)
		}
	}
}

// finish heals all, and compares before and after the floor has passed everything.
func (w *world) finish() {
	for i, r := range w.regions {
		if r.skew = 0; r.cutAt != 0 {
			w.cutOrHeal(i)
		}
	}
	w.converge()
	w.sameBytes("healed")
	for id := range w.acked {
		if w.regions[0].held[id] == nil && !w.lost[id] {
			w.t.Fatalf("%s was acknowledged and is nowhere", id)
		}
	}
	w.now += 10 * day
	for _, r := range w.regions {
		w.closeSessions(r)
	}
	w.converge()
	w.sameBytes("folded")
	for _, r := range w.regions {
		if r.sessions.Len() > 0 {
			w.t.Fatalf("actor %d keeps %d sessions below floor %d", r.actor, r.sessions.Len(), r.sessions.Floor())
		}
	}
}

func (w *world) converge() {
	for range 3 {
		for _, r := range w.regions {
			for _, s := range w.regions {
				w.exchange(r, s)
			}
		}
		for range 2 {
			for _, r := range w.regions {
				w.raise(r)
			}
		}
	}
	for _, r := range w.regions {
		if !bytes.Equal(r.marks.Append(nil), w.regions[0].marks.Append(nil)) || !r.admitted {
			w.t.Fatalf("marks %v with actor %d and %v with %d", r.marks, r.actor, w.regions[0].marks, w.regions[0].actor)
		}
	}
}
