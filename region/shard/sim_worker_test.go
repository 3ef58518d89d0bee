package shard

import (
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
)

// simMessage is a command on its way to a shard. The net may lose it, hold it back, or bring it twice.
type simMessage struct {
	to     *simShard
	c      Command
	worker *simWorker
}

// simAt names a record by the chain that ends with it; simJudged is what became of it.
type simAt struct {
	source crdt.Source
	chain  crdt.Hash
}

type simJudged struct {
	outcome   crdt.Outcome
	time      int64
	class     uint16
	watermark int64
}

// produce appends records to a source's log.
func (w *world) produce(src crdt.Source, n int) {
	x := w.region(src)
	log := w.copies[x][src]
	for range n {
		w.now += w.pick(0, 1, 1, 2)
		r := simRec{off: log.end(), lts: w.now, key: w.rng.IntN(w.job.keys), val: w.pick(-1, 1, 2, 3, 5)}
		if w.chance(0.1) {
			r.off++ // a transaction marker takes an offset
		}
		r.et = w.now - w.skew[src] - w.pick(0, 0, 1, 2, 3, 6, 12, 25)
		if w.chance(0.03) {
			r.et = w.now + 40
		}
		if w.chance(0.06) {
			r.bad = w.rng.IntN(2) + 1
		}
		log = append(slices.Clip(log), r)
		w.history[src][w.chain(src, log)] = log
	}
	w.copies[x][src] = log
}

// chain is the running hash over all of a log.
func (w *world) chain(src crdt.Source, log simLog) crdt.Hash {
	h := crdt.FirstPoint(src, 0).Chain
	for _, r := range log {
		h = h.Next(r.hash())
	}
	return h
}

// uncleanElection lets a log lose its end and go on with other records at the same offsets.
func (w *world) uncleanElection(src crdt.Source) {
	x, k := w.region(src), w.rng.IntN(8)+1
	log := w.copies[x][src]
	if len(log) <= k {
		return
	}
	w.copies[x][src] = slices.Clone(log[:len(log)-k])
	w.unclean, w.wasUnclean = false, true
	w.produce(src, k+w.rng.IntN(4))
}

// mirror brings records of a source's log into region x's copy. It looks at the last record again first (rules A1).
func (w *world) mirror(x int, src crdt.Source, k int) {
	y := w.region(src)
	if x == y || !w.up(x, y) || w.stopped[simStop{x, src}] {
		return
	}
	theirs, mine := w.copies[y][src], w.copies[x][src]
	i := theirs.find(mine.end())
	if len(mine) > 0 && (i == 0 || theirs[i-1] != mine[len(mine)-1]) {
		w.stop(x, src)
		return
	}
	w.copies[x][src] = append(slices.Clip(mine), theirs[i:min(i+k, len(theirs))]...)
}

func (w *world) stop(x int, src crdt.Source) {
	w.need(w.wasUnclean, "region %d stops a sound source %v", x, src)
	w.stopped[simStop{x, src}] = true
	w.stats["stopped"]++
}

// nextRecord returns what region x reads at a point: nothing yet, or nothing because the log does not fit (rules A1).
func (w *world) nextRecord(x int, src crdt.Source, at crdt.Point) (simRec, bool) {
	log := w.copies[x][src]
	if w.stopped[simStop{x, src}] {
		return simRec{}, false
	}
	i := log.find(at.Offset)
	if at.Offset > 0 {
		if i == 0 || log[i-1].off != at.Offset-1 {
			if x == w.region(src) || i < len(log) { // lost, not just not mirrored yet
				w.stop(x, src)
			}
			return simRec{}, false
		}
		if log[i-1].hash() != at.Last {
			w.stop(x, src)
			return simRec{}, false
		}
	}
	if i == len(log) {
		return simRec{}, false
	}
	return log[i], true
}

// judge decides a record: a function of it and the point before it.
func (w *world) judge(src crdt.Source, at crdt.Point, r simRec) (crdt.Point, simJudged) {
	j := simJudged{watermark: at.Watermark}
	timed := r.bad != 1 && r.et <= r.lts+w.job.maxFut
	if timed {
		j.watermark = max(at.Watermark, r.et-w.job.bound)
	}
	switch {
	case r.bad == 1:
		j.outcome = crdt.Invalid
	case !timed:
		j.outcome = crdt.Implausible
	case r.val < 0:
		j.outcome = crdt.Filtered
	case r.bad == 2:
		j.outcome = crdt.Invalid
	default:
		var ok bool
		if j.time, j.class, ok = w.job.Window.Place(r.et, at.Watermark, w.job.Lateness); !ok {
			j.outcome, j.time, j.class = crdt.Late, 0, 0
		}
	}
	p := at.After(r.off, r.hash(), j.watermark, j.outcome)
	k := simAt{src, p.Chain}
	old, seen := w.decided[k]
	w.need(!seen || old == j, "two readers judge record %d of %v differently: %+v, %+v", r.off, src, old, j)
	w.decided[k] = j
	return p, j
}

// simCell is a cell being gathered.
type simCells map[simSlot]*crdt.Cell

type simSlot struct {
	time  int64
	class uint16
	key   int
}

func (w *world) shardOf(key int) int {
	return int(keyspace.ShardOf(w.key(key), len(w.shards[0])))
}

func (w *world) key(key int) []byte { return crdt.Text(string(rune('a' + key))).AppendKey(nil) }

func (c simCells) add(w *world, s simSlot, r simRec) {
	cell := c[s]
	if cell == nil {
		cell = crdt.NewCell(w.job.Schema())
		c[s] = cell
	}
	cell.Touch(r.et)
	cell.Add(0, crdt.Null(), crdt.Order{})
	cell.Add(1, crdt.Int(r.val), crdt.Order{})
}

func (c simCells) deltas(w *world) (list []crdt.Delta) {
	for s, cell := range c {
		list = append(list, crdt.Delta{Slot: crdt.Slot{Time: s.time, Class: s.class, Key: w.key(s.key)}, Cell: cell.AppendTo(nil)})
	}
	return sortedDeltas(list)
}

// simWorker reads some sources of one group, from the lowest of its shards' points, and feeds some shards.
type simWorker struct {
	w       *world
	region  int
	sources []crdt.Source
	shards  []int
	dead    bool
	from    []crdt.Frontier // for each shard: where the next Advance starts
	buf     []simCells
	cur     crdt.Frontier
}

func (w *world) alive() []*simWorker {
	w.workers = slices.DeleteFunc(w.workers, func(k *simWorker) bool { return k.dead })
	return w.workers
}

// spawn starts a worker: most often for its own region's sources, else a takeover, asked for or not.
func (w *world) spawn(x int, sh *simShard) {
	if x == w.down {
		return
	}
	group, shards := x, []int{sh.shard}
	if w.chance(0.35) {
		group = w.rng.IntN(len(w.names))
	}
	if w.chance(0.8) {
		shards = shards[:0]
		for s := range w.shards[x] {
			shards = append(shards, s)
		}
	}
	var list []crdt.Source
	for _, s := range w.all {
		if w.region(s) == group && w.known(x, shards, s) && w.chance(0.7) {
			list = append(list, s)
		}
	}
	if len(list) > 0 {
		w.workers = append(w.workers, w.newWorker(x, list, shards))
	}
}

// known reports whether the shards of a region have been told of a source.
func (w *world) known(x int, shards []int, src crdt.Source) bool {
	return !slices.ContainsFunc(shards, func(s int) bool {
		_, ok := w.shards[x][s].generation().Standing(src)
		return !ok
	})
}

func (w *world) newWorker(x int, sources []crdt.Source, shards []int) *simWorker {
	k := &simWorker{w: w, region: x, sources: sources, shards: shards}
	k.resume()
	return k
}

func (k *simWorker) resume() {
	n := len(k.w.shards[k.region])
	k.from, k.buf, k.cur = make([]crdt.Frontier, n), make([]simCells, n), crdt.Frontier{}
	for _, s := range k.shards {
		k.from[s], k.buf[s] = crdt.Frontier{}, simCells{}
		points := k.w.shards[k.region][s].generation().Points()
		for _, src := range k.sources {
			p := points[src]
			k.from[s][src] = p
			if cur, ok := k.cur[src]; !ok || p.Offset < cur.Offset {
				k.cur[src] = p
			}
		}
	}
}

// read takes the next record of a source.
func (k *simWorker) read(src crdt.Source) bool {
	w, at := k.w, k.cur[src]
	r, ok := w.nextRecord(k.region, src, at)
	if !ok {
		return false
	}
	p, judged := w.judge(src, at, r)
	for _, s := range k.shards {
		if f := k.from[s][src]; at.Offset < f.Offset && f.Offset <= p.Offset && f != p {
			w.stop(k.region, src) // the shard's point is not on this log
			return false
		}
	}
	s := w.shardOf(r.key)
	if judged.outcome == crdt.Counted && slices.Contains(k.shards, s) && r.off >= k.from[s][src].Offset {
		k.buf[s].add(w, simSlot{judged.time, judged.class, r.key}, r)
	}
	k.cur[src] = p
	return true
}

// flush sends a shard what was gathered for it; the next is not held up by the answer.
func (k *simWorker) flush(s int, empty bool) {
	c := &Advance{crdt.Advance{Generation: k.w.gen, Group: k.sources[0].Region, Deltas: k.buf[s].deltas(k.w)}}
	for _, src := range k.sources {
		from, to := k.from[s][src], k.cur[src]
		if to.Offset > from.Offset || empty && to.Offset == from.Offset {
			c.Ranges = append(c.Ranges, crdt.Range{Source: src, From: from.Mark(), To: to})
			k.from[s][src] = to
		}
	}
	if len(c.Ranges) == 0 {
		return
	}
	k.buf[s] = simCells{}
	k.w.net = append(k.w.net, simMessage{k.w.shards[k.region][s], c, k})
}

// work lets a worker read or flush.
func (w *world) work(read bool) {
	alive := w.alive()
	if len(alive) == 0 {
		return
	}
	k := alive[w.rng.IntN(len(alive))]
	if !read {
		k.flush(k.shards[w.rng.IntN(len(k.shards))], w.chance(0.3))
		return
	}
	src := k.sources[w.rng.IntN(len(k.sources))]
	for range w.rng.IntN(5) + 1 {
		k.read(src)
	}
}

// deliver brings a message to its shard.
func (w *world) deliver(i int) {
	m := w.net[i]
	if m.to.region == w.down {
		return
	}
	if w.chance(0.1) {
		w.old = append(w.old, m) // a zombie: it will come again
	}
	w.net = slices.Delete(w.net, i, i+1)
	res := m.to.submit(m.c)
	if k := m.worker; k != nil && !k.dead && (res.Outcome == Refused || res.Outcome == Mismatch) {
		if w.chance(0.2) {
			k.dead = true // stands down
		} else {
			k.resume()
		}
	}
}
