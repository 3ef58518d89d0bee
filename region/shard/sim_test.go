package shard

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
)

var simSeeds = flag.String("sim.seeds", "0:30", "first and one past the last seed of TestSimulation")

// TestSimulation plays whole deployments in memory: regions of real Machines over crashable file systems, logs and their
// mirrors, workers, anti-entropy and state joins, with crashes, zombies, takeovers, cuts, lost regions, truncated Raft
// logs and rewritten source logs, step by step from a seed. It is the core model in Go: whatever happens, what a shard
// holds must be what the logs' prefixes at its points say, and once faults end all regions hold the same.
//
//	go test ./region/shard -run TestSimulation -sim.seeds 0:1000
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
			defer w.close()
			for range w.rng.IntN(800) + 150 {
				w.step()
			}
			w.finish()
		})
	}
	if testing.Verbose() {
		t.Log(stats)
	}
}

// simRec is a record. bad: 1 not decodable or without a time, 2 without a key.
type simRec struct {
	off, et, lts, val int64
	key, bad          int
}

// simLog is a log, or a region's copy of one.
type simLog []simRec

func (l simLog) end() int64 {
	if len(l) == 0 {
		return 0
	}
	return l[len(l)-1].off + 1
}

// find returns the place of the first record at or after an offset.
func (l simLog) find(off int64) int {
	i, _ := slices.BinarySearchFunc(l, off, func(r simRec, off int64) int { return int(r.off - off) })
	return i
}

func (r simRec) hash() crdt.Hash {
	var h crdt.Hasher
	return h.Record(r.off, r.lts, nil, fmt.Append(nil, r.et, r.key, r.val, r.bad), nil)
}

// simJob is the job of a run, and what of it the machine does not know.
type simJob struct {
	*job.Job
	file          []byte
	bound, maxFut int64
	keys          int
}

// simShard is a shard of a region: its machine, its Raft log, and what the region remembers of peers and sinks.
type simShard struct {
	w       *world
	region  int
	shard   int
	fs      *vfs.MemFS
	m       *Machine
	raft    [][]byte // command i has index i+1
	base    uint64   // commands at or below this index are gone from the log
	told    map[int]int64
	cursor  map[int]uint64
	emitted map[simRow]simValue
	view    *simBatch
}

// world is a deployment.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	job   simJob
	gen   crdt.GenerationID
	names []crdt.RegionID
	parts []int // partitions of each region's topic
	all   []crdt.Source
	skew  map[crdt.Source]int64

	shards  [][]*simShard
	copies  []map[crdt.Source]simLog
	history map[crdt.Source]map[crdt.Hash]simLog // every prefix that any log ever had, by its chain
	decided map[simAt]simJudged
	now     int64

	idleOn, unclean, wasUnclean bool
	storm                       float64
	cuts                        map[[2]int]bool
	down                        int // which region is lost; -1 for none
	stopped                     map[simStop]bool
	workers                     []*simWorker
	net, old                    []simMessage
	stats                       map[string]int
}

type simStop struct {
	region int
	source crdt.Source
}

func newWorld(t *testing.T, seed uint64, stats map[string]int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), gen: GenerationOf(1<<16, 1), down: -1, stats: stats,
		skew: map[crdt.Source]int64{}, history: map[crdt.Source]map[crdt.Hash]simLog{}, decided: map[simAt]simJudged{},
		cuts: map[[2]int]bool{}, stopped: map[simStop]bool{}}
	regions, shards := w.pick(2, 2, 3), w.pick(1, 2, 2)
	for x := range int(regions) {
		w.names = append(w.names, crdt.RegionID(fmt.Sprint("region-", x)))
	}
	w.job = w.drawJob()
	w.idleOn, w.unclean = w.chance(0.5), w.chance(0.15)
	w.storm = []float64{0, 0.3, 1}[w.rng.IntN(3)]
	for x, name := range w.names {
		w.parts = append(w.parts, w.rng.IntN(3)+1)
		for p := range w.parts[x] {
			s := crdt.Source{Region: name, Topic: "events", Partition: int32(p)}
			w.all = append(w.all, s)
			w.skew[s] = w.pick(0, 0, 5, 15)
			if w.idleOn && w.chance(0.2) {
				w.skew[s] = 40
			}
			w.history[s] = map[crdt.Hash]simLog{crdt.FirstPoint(s, 0).Chain: nil}
		}
	}
	for x := range w.names {
		w.copies = append(w.copies, map[crdt.Source]simLog{})
		var list []*simShard
		for s := range int(shards) {
			list = append(list, w.newShard(x, s, int(shards)))
		}
		w.shards = append(w.shards, list)
	}
	return w
}

func (w *world) drawJob() simJob {
	kind, lateness := w.rng.IntN(3), w.pick(0, 0, 4, 10)
	window := []string{"{tumbling: 12ms}", fmt.Sprintf("{hopping: 12ms, every: %dms}", w.pick(3, 4, 6)),
		fmt.Sprintf("{session: %dms}", w.pick(4, 6))}[kind]
	options := []string{fmt.Sprintf("allowed_lateness: %dms", lateness), fmt.Sprintf("retention: %dms", lateness+w.pick(0, 5, 20))}
	if kind == 2 {
		options = append(options, "max_session: 1h")
	} else {
		options = append(options, "emit: {from: every-region, sinks: [{kafka: {topic: out}}]}")
	}
	file := jobFile(window, options...)
	file = []byte(strings.Replace(string(file), "n: count()", "n: count()\n      s: sum(v)", 1))
	return simJob{Job: mustJob(w.t, file), file: file, bound: w.pick(0, 2, 6), maxFut: 20, keys: w.rng.IntN(4) + 2}
}

func (w *world) newShard(x, s, shards int) *simShard {
	sh := &simShard{w: w, region: x, shard: s, fs: vfs.NewCrashableMem(), told: map[int]int64{}, cursor: map[int]uint64{},
		emitted: map[simRow]simValue{}}
	sh.m = openMachine(w.t, w.config(x, s, shards), sh.fs)
	sh.submit(&AddGeneration{ID: w.gen, Name: "count", File: w.job.file, Meaning: w.job.Meaning()})
	c := &AddSources{Generation: w.gen, Group: w.names[x]}
	for p := range w.parts[x] {
		src := crdt.Source{Region: w.names[x], Topic: "events", Partition: int32(p)}
		c.Sources = append(c.Sources, SourcePoint{src, crdt.FirstPoint(src, 0)})
	}
	sh.submit(c)
	return sh
}

func (w *world) config(x, s, shards int) Config {
	return Config{Self: w.names[x], Regions: w.names, Shard: keyspace.ShardID(s), Shards: shards, Owner: x == 0}
}

func (w *world) close() {
	for _, list := range w.shards {
		for _, sh := range list {
			closeMachine(w.t, sh.m)
		}
	}
}

func (w *world) pick(list ...int64) int64 { return list[w.rng.IntN(len(list))] }

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) need(ok bool, format string, args ...any) {
	w.t.Helper()
	if !ok {
		w.t.Fatalf(format, args...)
	}
}

func (w *world) region(s crdt.Source) int { return slices.Index(w.names, s.Region) }

func (w *world) up(x, y int) bool {
	return x != w.down && y != w.down && !w.cuts[[2]int{min(x, y), max(x, y)}]
}

func (w *world) eachShard(f func(sh *simShard)) {
	for _, list := range w.shards {
		for _, sh := range list {
			f(sh)
		}
	}
}

// generation is the shard's present state of the one generation.
func (sh *simShard) generation() *Generation { return sh.m.State().Generation(sh.w.gen) }

func (sh *simShard) name() string { return fmt.Sprintf("region %d shard %d", sh.region, sh.shard) }

// submit proposes a command and applies it.
func (sh *simShard) submit(c Command) Result {
	w := sh.w
	before := crdt.Frontier{}
	if g := sh.generation(); g != nil {
		before = g.Points()
	}
	raw := Encode(c)
	w.need(sh.m.Validate(c) == nil, "%s: %T is invalid: %v", sh.name(), c, sh.m.Validate(c))
	sh.raft = append(sh.raft, raw)
	res := sh.m.Apply(uint64(len(sh.raft)), raw).(Result)
	w.stats[fmt.Sprintf("%T %v", c, res.Outcome)]++
	w.need(res.Outcome != Malformed && res.Outcome != Unknown, "%s: %T is %v: %s", sh.name(), c, res.Outcome, res.Reason)
	if res.Outcome == Applied {
		sh.keepsHistory(before)
		if _, installed := c.(*Install); installed || w.chance(0.05) {
			w.check(sh)
		}
	}
	return res
}

// keepsHistory demands that no point went from one history of a log to another.
func (sh *simShard) keepsHistory(before crdt.Frontier) {
	w := sh.w
	for src, to := range sh.generation().Points() {
		from, ok := before[src]
		if !ok || from == to {
			continue
		}
		low, known := w.history[src][from.Chain]
		high, known2 := w.history[src][to.Chain]
		w.need(known && known2, "%s: a point of %v that is no prefix of any log", sh.name(), src)
		w.need(len(low) <= len(high) && slices.Equal(low, high[:len(low)]),
			"%s went from one history of %v to another without a word", sh.name(), src)
	}
}

// crash loses what was not synced, opens what is left and replays the log: it must come to what it was.
func (sh *simShard) crash() {
	w := sh.w
	clone := sh.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: w.rng.IntN(101), RNG: w.rng})
	was := image(w.t, sh.m)
	closeMachine(w.t, sh.m)
	sh.fs = clone
	sh.m = openMachine(w.t, w.config(sh.region, sh.shard, len(w.shards[sh.region])), clone)
	for i := sh.m.AppliedIndex(); i < uint64(len(sh.raft)); i++ {
		sh.m.Apply(i+1, sh.raft[i])
	}
	w.need(image(w.t, sh.m) == was, "%s: a replay differs from the first run", sh.name())
	sh.view = nil
}

// step does one thing.
func (w *world) step() {
	x := w.rng.IntN(len(w.names))
	sh := w.shards[x][w.rng.IntN(len(w.shards[x]))]
	src := w.all[w.rng.IntN(len(w.all))]
	weights := []int{140, 120, 340, 140, 180, 180, 30, 10, 20, 6, 10, 15, 6, 60, 40, 60, 15, 20, 5, 8}
	total := 0
	for _, n := range weights {
		total += n
	}
	at := w.rng.IntN(total)
	act := 0
	for ; at >= weights[act]; act++ {
		at -= weights[act]
	}
	w.act(act, x, sh, src)
}

func (w *world) act(act, x int, sh *simShard, src crdt.Source) {
	switch act {
	case 0:
		if w.region(src) != w.down {
			w.produce(src, w.rng.IntN(3)+1)
		}
	case 1:
		w.mirror(x, src, w.rng.IntN(5)+1)
	case 2, 3:
		w.work(act == 2)
	case 4:
		if len(w.net) > 0 {
			i := 0
			if w.chance(0.3) {
				i = w.rng.IntN(len(w.net))
			}
			w.deliver(i)
		}
	case 5:
		w.pullSome(x, sh)
	case 6:
		w.spawn(x, sh)
	case 7:
		if alive := w.alive(); len(alive) > 0 {
			alive[w.rng.IntN(len(alive))].dead = true
		}
	case 8, 9:
		w.fault(act == 8, x)
	case 10:
		sh.base = max(sh.base, uint64(w.rng.IntN(len(sh.raft)+1)))
	case 11:
		_, err := sh.m.Checkpoint(fmt.Sprintf("checkpoint-%d-%d", len(sh.raft), w.rng.Uint32()))
		w.need(err == nil, "checkpoint: %v", err)
	case 12:
		sh.crash()
	default:
		w.actTime(act, x, sh, src)
	}
}

func (w *world) actTime(act, x int, sh *simShard, src crdt.Source) {
	switch act {
	case 13:
		if x != w.down {
			sh.moveHorizon()
		}
	case 14:
		if w.idleOn {
			sh.setIdle()
		}
	case 15:
		for range w.rng.IntN(6) + 1 {
			sh.emit()
		}
	case 16:
		w.check(sh)
		w.checkPair(sh, w.shards[(x+1)%len(w.names)][sh.shard])
	case 17:
		if len(w.old) > 0 {
			m := w.old[w.rng.IntN(len(w.old))]
			m.to.submit(m.c)
		}
	case 18:
		if len(w.net) > 0 {
			i := w.rng.IntN(len(w.net))
			w.net = slices.Delete(w.net, i, i+1)
		}
	case 19:
		if w.unclean {
			w.uncleanElection(src)
		}
	}
}

// fault cuts or heals a link, or loses or brings back a region, and lets everyone know.
func (w *world) fault(link bool, x int) {
	if !w.chance(w.storm) {
		return
	}
	y := (x + 1 + w.rng.IntN(len(w.names)-1)) % len(w.names)
	switch {
	case link:
		k := [2]int{min(x, y), max(x, y)}
		w.cuts[k] = !w.cuts[k]
	case w.down >= 0:
		w.down = -1
	default:
		w.down = x
		for _, k := range w.alive() {
			k.dead = k.dead || k.region == x
		}
	}
	w.tellReach()
}

// tellReach tells every shard which regions it can't reach; it fires without some of them.
func (w *world) tellReach() {
	w.eachShard(func(sh *simShard) {
		c := &Reach{}
		for y, name := range w.names {
			if y != sh.region && !w.up(sh.region, y) {
				c.Unreachable = append(c.Unreachable, name)
			}
		}
		if len(c.Unreachable) > 0 && w.chance(0.5) {
			c.Excluded = []Exclusion{{w.gen, c.Unreachable}}
		}
		sh.submit(c)
	})
}
