package shard

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	tabledef "github.com/watershed-db/watershed/keyspace/table"
)

// TestTableSimulation plays a shard of tables that every region writes at once, over real Machines: sessions that retry in
// other regions, cuts, crashes, logs that are cut short so that state travels and is broken off on its way, regions that
// come back from an old checkpoint or from nothing as new actors. At every step values must read as the operations that
// their region holds say; once all is healed, all regions hold the same bytes, and every acknowledged operation once, but
// for those that were lost with a region's disks.
//
//	go test ./region/shard -run TestTableSimulation -sim.seeds 0:1000
func TestTableSimulation(t *testing.T) {
	lo, hi, _ := strings.Cut(*simSeeds, ":")
	from, err1 := strconv.Atoi(lo)
	to, err2 := strconv.Atoi(hi)
	if err1 != nil || err2 != nil || from >= to {
		t.Fatalf("-sim.seeds %q is not FROM:TO", *simSeeds)
	}
	stats := map[string]int{}
	for seed := from; seed < to; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newTableWorld(t, uint64(seed), stats)
			defer w.close()
			for range 100 + w.rng.IntN(400) {
				w.step()
			}
			w.finish()
		})
	}
	t.Log(stats)
	if to-from < 30 {
		return
	}
	for _, what := range []string{"taken", "held", "elsewhere", "expired", "adopted", "broken off", "merged", "restored", "rebuilt",
		"lost", "floor", "crash"} {
		if stats[what] == 0 {
			t.Errorf("never %s", what)
		}
	}
}

const (
	simMinute = int64(60_000)
	simDay    = 24 * 60 * simMinute
)

var simLimits = table.Limits{MaxAhead: simMinute, Open: 40, Gaps: 4}

// simTypes are the tables of the shard, by number.
var simTypes = []table.Type{table.TypeCounter, table.TypeUpDown, table.TypeRegister, table.TypeSet, table.TypeLWWSet}

type tableWorld struct {
	t       *testing.T
	rng     *rand.Rand
	now     int64
	regions []*tableRegion
	clients []*tableClient
	acked   map[table.ID]bool
	lost    map[table.ID]bool
	stats   map[string]int
	quiet   bool // nobody writes any more
	last    table.Actor
}

type simTableOp struct {
	table.Op
	table, key int
}

type tableRegion struct {
	w      *tableWorld
	name   crdt.RegionID
	actor  table.Actor
	fs     *vfs.MemFS
	m      *Machine
	raft   [][]byte // command i has index i+1
	base   uint64
	cursor map[*tableRegion]uint64
	told   map[*tableRegion]TableStanding
	cut    bool
	held   map[table.ID]*simTableOp
	copies []tableCopy
}

type tableCopy struct {
	dir   string
	index uint64
	held  map[table.ID]*simTableOp
}

type tableClient struct {
	session table.SessionID
	clock   table.Clock
	home    int
	next    uint64
	pending []*simTableOp
}

func newTableWorld(t *testing.T, seed uint64, stats map[string]int) *tableWorld {
	w := &tableWorld{t: t, rng: rand.New(rand.NewPCG(seed, 3)), now: 100 * simDay, stats: stats,
		acked: map[table.ID]bool{}, lost: map[table.ID]bool{}}
	for i := range 2 + w.rng.IntN(2) {
		r := &tableRegion{w: w, name: crdt.RegionID(fmt.Sprint("region-", i)), fs: vfs.NewCrashableMem()}
		w.regions = append(w.regions, r)
	}
	for _, r := range w.regions {
		r.empty()
		w.enter(r)
	}
	for _, r := range w.regions {
		w.raise(r)
	}
	return w
}

func (w *tableWorld) config(r *tableRegion) Config {
	c := Config{Self: r.name, Shards: 1, Owner: r == w.regions[0]}
	for _, x := range w.regions {
		c.Regions = append(c.Regions, x.name)
	}
	return c
}

func (w *tableWorld) close() {
	for _, r := range w.regions {
		closeMachine(w.t, r.m)
	}
}

func (w *tableWorld) need1(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// empty gives a region empty disks.
func (r *tableRegion) empty() {
	r.fs, r.raft, r.base, r.copies = vfs.NewCrashableMem(), nil, 0, nil
	r.held, r.cursor = map[table.ID]*simTableOp{}, map[*tableRegion]uint64{}
	r.m = openMachine(r.w.t, r.w.config(r), r.fs)
	r.submit(simTold())
}

// simTold tells of the tables of the simulation.
func simTold() *TellTables {
	c := &TellTables{At: simTable(len(simTypes))}
	for n, of := range simTypes {
		c.Live = append(c.Live, LiveTable{simTable(n), tabledef.Def{Name: fmt.Sprint("table-", n), Type: tabledef.Type(of), MaxBytes: 1 << 16}})
	}
	return c
}

// enter gives a region a number that was never given. The others know it, and what they were told before goes on to count
// for nothing; it has yet to hear from them.
func (w *tableWorld) enter(r *tableRegion) {
	w.last++
	r.actor, r.told = w.last, map[*tableRegion]TableStanding{}
	for _, s := range w.regions {
		delete(s.told, r)
	}
}

// others lists what a region was told by all the others.
func (r *tableRegion) others() (list []TableStanding) {
	for _, s := range r.w.regions {
		if s != r {
			x := r.told[s]
			x.Actor = s.actor
			list = append(list, x)
		}
	}
	return list
}

func (r *tableRegion) tables() *Tables { return r.m.State().Tables() }

func (r *tableRegion) begun() bool { return r.tables().Begun && r.tables().Actor == r.actor }

func (r *tableRegion) submit(c Command) Result {
	raw := Encode(c)
	r.raft = append(r.raft, raw)
	res, ok := r.m.Apply(uint64(len(r.raft)), raw).(Result)
	if !ok || res.Outcome == Malformed {
		r.w.t.Fatalf("%s: %T is %v: %s", r.name, c, res.Outcome, res.Reason)
	}
	return res
}

func (w *tableWorld) step() {
	i := w.rng.IntN(len(w.regions))
	r, s := w.regions[i], w.regions[(i+1+w.rng.IntN(len(w.regions)-1))%len(w.regions)]
	switch n := w.rng.IntN(100); {
	case n < 35:
		w.write()
	case n < 45:
		w.retry()
	case n < 70:
		for range w.rng.IntN(8) + 1 {
			if !r.pull(s) {
				break
			}
		}
	case n < 74:
		w.now += []int64{1, 500, simMinute, 90 * simMinute, simDay / 2, 3 * simDay}[w.rng.IntN(6)]
	case n < 78:
		r.close()
	case n < 83:
		w.raise(r)
	case n < 88:
		r.merge(w.rng.IntN(600))
	case n < 91:
		r.base = max(r.base, uint64(w.rng.IntN(len(r.raft)+1)))
	case n < 94:
		r.crash()
	case n < 96:
		r.cut = !r.cut
	case n < 99:
		c := tableCopy{fmt.Sprintf("copy-%d-%d", len(r.raft), w.rng.Uint32()), 0, maps.Clone(r.held)}
		var err error
		c.index, err = r.m.Checkpoint(c.dir)
		w.need1(err)
		r.copies = append(r.copies, c)
	case w.rng.IntN(3) == 0:
		w.restore(r)
	default:
		w.joinState(r, s)
	}
	w.check(r)
}

// write has a client do something new.
func (w *tableWorld) write() {
	if len(w.clients) < 3 || w.rng.IntN(20) == 0 {
		w.clients = append(w.clients, &tableClient{})
	}
	c := w.clients[w.rng.IntN(len(w.clients))]
	if c.next == 0 || w.now-c.session.Born > simDay/2 || w.rng.IntN(15) == 0 {
		if old := *c; len(old.pending) > 0 {
			w.clients = append(w.clients, &old)
		}
		*c = tableClient{home: w.rng.IntN(len(w.regions)), next: 1, clock: table.Clock{MaxAhead: simMinute}}
		c.session = table.SessionID{Born: w.now, Nonce: w.rng.Uint64()}
		w.need1(c.clock.Observe(table.TimeAt(w.now), w.now))
	}
	r := w.regions[c.home]
	op := w.newOp(c, r)
	c.next++
	w.send(c, op, r)
}

func (w *tableWorld) newOp(c *tableClient, r *tableRegion) *simTableOp {
	n, element := w.rng.IntN(len(simTypes)), []byte{'a' + byte(w.rng.IntN(3))}
	op := &simTableOp{table.Op{ID: table.ID{Session: c.session, Sequence: c.next}}, n, w.rng.IntN(2)}
	v := r.value(op.table, op.key)
	switch of := simTypes[n]; of {
	case table.TypeCounter:
		op.Kind, op.Amount = table.Increment, w.rng.Int64N(10)
	case table.TypeUpDown:
		op.Kind, op.Amount = table.Increment, w.rng.Int64N(5)-2
	case table.TypeRegister:
		op.Kind, op.Data = table.Assign, element
		if w.rng.IntN(3) == 0 {
			op.Kind, op.Data = table.Clear, nil
		}
	default:
		op.Kind, op.Data = table.Kind(int(table.Insert)+w.rng.IntN(2)), element
	}
	switch v := v.(type) {
	case *table.Set:
		op.Observed = v.Inserts(element)
		return op
	case *table.Counter:
		return op
	case *table.Register:
		w.need1(c.clock.Observe(v.Stamp().Time, w.now))
	}
	var err error
	op.Time, err = c.clock.Next(w.now)
	w.need1(err)
	return op
}

func (w *tableWorld) retry() {
	if len(w.clients) == 0 {
		return
	}
	x := w.clients[w.rng.IntN(len(w.clients))]
	if len(x.pending) == 0 {
		return
	}
	op := x.pending[w.rng.IntN(len(x.pending))]
	x.pending = slices.DeleteFunc(x.pending, func(o *simTableOp) bool { return o == op })
	to := w.rng.IntN(len(w.regions))
	if to != x.home {
		w.stats["elsewhere"]++
	}
	w.send(x, op, w.regions[to])
}

// send loses requests and answers.
func (w *tableWorld) send(c *tableClient, op *simTableOp, r *tableRegion) {
	lost := w.rng.IntN(8)
	if lost == 0 || !r.begun() {
		c.pending = append(c.pending, op)
		return
	}
	res := r.submit(&TableWrite{r.actor, simTable(op.table), simTypes[op.table], simKey(op.key), op.Op, w.now, simLimits})
	switch res.Outcome {
	case Refused:
		w.stats[res.Refusal.String()]++
		c.next = 0 // the client goes on in another session
		return
	case Duplicate:
		w.stats["held"]++
	default:
		w.stats["taken"]++
		r.held[op.ID] = op
	}
	if lost < 3 {
		c.pending = append(c.pending, op)
	} else {
		w.acked[op.ID] = true
	}
}

func simTable(n int) TableID { return TableID(GenerationOf(1, uint64(n+1))) }

func simKey(n int) []byte { return keyOf(fmt.Sprint("key-", n)) }

func (r *tableRegion) close() {
	if r.begun() {
		r.submit(&TableClose{r.actor, r.w.now - simDay})
	}
}

// pull takes the next of what s has told. It reports whether there was anything.
func (r *tableRegion) pull(s *tableRegion) bool {
	w := r.w
	if r.cut || s.cut {
		return false
	}
	snap, err := s.m.Snapshot()
	w.need1(err)
	defer func() { w.need1(snap.Close()) }()
	if r.cursor[s] < s.base {
		if !r.tables().Marks.Covers(snap.Tables().Marks) && !w.joinState(r, s) {
			return false
		}
		r.cursor[s] = snap.Index
		return false
	}
	list, complete, err := snap.OutAfter(r.cursor[s], 1)
	w.need1(err)
	if !complete || len(list) == 0 {
		return false
	}
	c, err := Decode(s.raft[list[0].Index-1])
	w.need1(err)
	f := Forward(c, list[0])
	res := r.submit(f)
	switch {
	case res.Outcome == Refused:
		if !w.joinState(r, s) {
			return false
		}
	case res.Outcome == Applied && f.Op != nil:
		op := s.held[f.Op.Op.ID]
		r.held[op.ID] = op
	}
	r.cursor[s] = list[0].Index
	return true
}

// joinState takes all that s holds, unless that is broken off. It reports whether it was taken.
func (w *tableWorld) joinState(r, s *tableRegion) bool {
	if r.cut || s.cut {
		return false
	}
	snap, err := s.m.Snapshot()
	w.need1(err)
	defer func() { w.need1(snap.Close()) }()
	held := maps.Clone(s.held)
	stage := r.submit(&TableStage{})
	if stage.Outcome != Applied {
		return false
	}
	c := &TableAdopt{Copy: stage.Copy, Floor: snap.Tables().Floor, Marks: snap.Tables().Marks}
	broken := errors.New("broken off")
	chunk := func(x *TableChunk) error {
		if w.rng.IntN(12) == 0 {
			return broken
		}
		x.Copy, x.Number = c.Copy, c.Chunks
		c.Chunks++
		r.submit(x)
		if !w.quiet && w.rng.IntN(4) == 0 {
			w.write()
		}
		return nil
	}
	err = snap.TableRows(w.rng.IntN(500), func(part []TableRow) error { return chunk(&TableChunk{Rows: part}) })
	if err == nil {
		err = snap.SessionParts(w.rng.IntN(200), func(part []byte) error { return chunk(&TableChunk{Sessions: part}) })
	}
	if errors.Is(err, broken) {
		w.stats["broken off"]++
		if w.rng.IntN(2) == 0 {
			r.submit(&TableAbandon{c.Copy})
		}
		return false
	}
	w.need1(err)
	if r.submit(c).Outcome == Applied {
		w.stats["adopted"]++
		maps.Copy(r.held, held)
	}
	return true
}

func (r *tableRegion) merge(size int) {
	snap, err := r.m.Snapshot()
	r.w.need1(err)
	c, err := snap.NextMerge(size)
	r.w.need1(errors.Join(err, snap.Close()))
	if c != nil {
		r.w.stats["merged"]++
		if res := r.submit(c); res.Outcome != Applied {
			r.w.t.Fatalf("merge: %v %s", res.Outcome, res.Reason)
		}
	}
}

// raise has a region hear from some others how they stand, and begin and raise its floor where it may.
func (w *tableWorld) raise(r *tableRegion) {
	for _, s := range w.regions {
		if s == r || r.cut || s.cut || !w.quiet && w.rng.IntN(4) == 0 {
			continue
		}
		marks := table.Marks{}
		marks.Join(s.tables().Marks)
		r.told[s] = TableStanding{Marks: marks, Floor: s.tables().Floor}
	}
	if c := r.tables().BeginAs(r.actor, r.others()); c != nil {
		if res := r.submit(c); res.Outcome != Applied {
			w.t.Fatalf("begin: %v %s", res.Outcome, res.Reason)
		}
	}
	if c := r.tables().NextFloor(r.others()); c != nil && r.begun() {
		w.stats["floor"]++
		if res := r.submit(c); res.Outcome != Applied {
			w.t.Fatalf("raise: %v %s", res.Outcome, res.Reason)
		}
	}
}

func (r *tableRegion) crash() {
	w := r.w
	w.stats["crash"]++
	clone := r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: w.rng.IntN(101), RNG: w.rng})
	was := image(w.t, r.m)
	closeMachine(w.t, r.m)
	r.fs, r.m = clone, openMachine(w.t, w.config(r), clone)
	for i := r.m.AppliedIndex(); i < uint64(len(r.raft)); i++ {
		r.m.Apply(i+1, r.raft[i])
	}
	if now := image(w.t, r.m); now != was {
		w.t.Fatalf("%s: a replay differs from the first run:\n%s\n%s", r.name, now, was)
	}
}
