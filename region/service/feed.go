package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// gather is how long changes of a shard gather before they are told, at least.
	gather = 10 * time.Millisecond
	// perMessage and perRow are what telling a watcher takes of a processor, about: a feed rests for as long as what it told
	// last takes, so that watchers, however many, leave room for writes.
	perMessage = 40 * time.Microsecond
	perRow     = 4 * time.Microsecond
	// maxDirty bounds the keys that wait to be looked at; past it all watchers look at all rows.
	maxDirty = 1 << 16
)

// feeds are the changes of this node's replicas, each read once however many watch it.
type feeds struct {
	mu sync.Mutex
	of map[feedKey]*feed
}

type feedKey struct {
	replica    *replica.Replica
	generation crdt.GenerationID
}

// join makes w one of those that are told, until leave is called.
func (fs *feeds) join(s *Server, w *watch) (leave func()) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	k := feedKey{w.replica, w.q.generation}
	f := fs.of[k]
	if f == nil {
		f = newFeed(s, w)
		if fs.of == nil {
			fs.of = map[feedKey]*feed{}
		}
		fs.of[k] = f
		ctx, stop := context.WithCancel(context.Background())
		deaf := f.replica.Observe(f.observe)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer deaf()
			f.run(ctx)
		}()
		f.stop = func() { stop(); <-done }
	}
	f.add(w)
	return func() {
		fs.mu.Lock()
		last := f.remove(w)
		if last {
			delete(fs.of, k)
		}
		fs.mu.Unlock()
		if last {
			f.stop()
		}
	}
}

// feed reads what changes in one generation on one replica, and tells its watchers. One goroutine runs it.
type feed struct {
	replica    *replica.Replica
	region     string
	generation crdt.GenerationID
	window     keyspace.Window
	wake       chan struct{} // holds one
	stop       func()        // ends it, and waits

	watermark int64                    // rows up to here were told as complete
	copies    map[crdt.RegionID]uint32 // that the rows were read from

	mu struct {
		sync.Mutex
		dirty map[string]ends // key to the window ends that changed
		all   bool            // too many keys changed
		look  bool            // something else changed: look at copies and watermark
	}
	watching struct {
		sync.Mutex
		all   map[*watch]struct{}
		broad map[*watch]struct{}            // those that want more than a few keys
		keyed map[string]map[*watch]struct{} // the others, by key
	}
}

// ends are window ends: the least and the greatest.
type ends struct{ from, to int64 }

// told are rows that changed, as many watchers are told them. Nobody changes it.
type told struct {
	g     *shard.Generation
	state *watershedv1.ShardState
	rows  []*job.Row
}

func newFeed(s *Server, w *watch) *feed {
	f := &feed{replica: w.replica, region: s.o.Region, generation: w.q.generation, window: w.q.sel.job.Window, wake: make(chan struct{}, 1)}
	f.mu.dirty = map[string]ends{}
	f.watching.all, f.watching.broad = map[*watch]struct{}{}, map[*watch]struct{}{}
	f.watching.keyed = map[string]map[*watch]struct{}{}
	if g := f.replica.State().Generation(f.generation); g != nil {
		f.watermark, f.copies = g.Watermark, copiesOf(g)
	}
	return f
}

func (f *feed) add(w *watch) {
	f.watching.Lock()
	defer f.watching.Unlock()
	f.watching.all[w] = struct{}{}
	if w.q.sel.keys == nil {
		f.watching.broad[w] = struct{}{}
		return
	}
	for _, k := range w.q.sel.keys {
		if f.watching.keyed[string(k)] == nil {
			f.watching.keyed[string(k)] = map[*watch]struct{}{}
		}
		f.watching.keyed[string(k)][w] = struct{}{}
	}
}

func (f *feed) remove(w *watch) (last bool) {
	f.watching.Lock()
	defer f.watching.Unlock()
	delete(f.watching.all, w)
	delete(f.watching.broad, w)
	for _, k := range w.q.sel.keys {
		if delete(f.watching.keyed[string(k)], w); len(f.watching.keyed[string(k)]) == 0 {
			delete(f.watching.keyed, string(k))
		}
	}
	return len(f.watching.all) == 0
}

func (f *feed) run(ctx context.Context) {
	for {
		changed, took := f.replica.Changed(), time.Duration(0)
		if f.moved() {
			var err error
			if took, err = f.flush(); err != nil {
				f.each(func(w *watch) { w.fail(err) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(gather, took)):
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-f.wake:
		}
	}
}

// observe notes what a command changed. It is called by the goroutine that applies commands.
func (f *feed) observe(c shard.Change) {
	if c.Generation != f.generation {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.look = f.mu.look || c.Whole
	for _, slot := range c.Slots {
		if f.mu.all {
			break
		}
		from, to := f.window.Windows(slot.Time, slot.Class)
		if f.window.Kind == keyspace.Session { // which session the cell is in, its neighbours say
			from, to = f.window.SlotStart(slot.Time), crdt.MaxTime
		}
		x, ok := f.mu.dirty[string(slot.Key)]
		if !ok {
			x = ends{from, to}
		}
		f.mu.dirty[string(slot.Key)] = ends{min(x.from, from), max(x.to, to)}
		f.mu.all = len(f.mu.dirty) >= maxDirty
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// moved says whether there is anything to look at.
func (f *feed) moved() bool {
	g := f.replica.State().Generation(f.generation)
	f.mu.Lock()
	defer f.mu.Unlock()
	return g == nil || len(f.mu.dirty) > 0 || f.mu.all || f.mu.look || g.Watermark > f.watermark
}

// flush reads the rows that changed since the last time, tells them, and returns what telling them takes, about.
func (f *feed) flush() (took time.Duration, err error) {
	f.mu.Lock()
	dirty, all := f.mu.dirty, f.mu.all
	f.mu.dirty, f.mu.all, f.mu.look = map[string]ends{}, false, false
	f.mu.Unlock()
	snap, err := f.replica.Snapshot()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	g := snap.Generation(f.generation)
	if g == nil {
		return 0, status.Error(codes.NotFound, "the job was deleted")
	}
	copies := copiesOf(g)
	for region, n := range copies { // a copy that was installed may differ anywhere
		all = all || f.copies[region] != n
	}
	closed := f.watermark
	f.watermark, f.copies = g.Watermark, copies
	if all {
		f.each(func(w *watch) { w.lost() })
		return 0, nil
	}
	t := &told{g: g, state: toShardState(f.replica, f.region, snap.State, g)}
	if t.rows, err = f.changed(snap, g, dirty, closed); err != nil || len(t.rows) == 0 {
		return 0, err
	}
	return f.tell(t), nil
}

// changed reads the rows of keys that changed, and those that became complete, hidden ones among them.
func (f *feed) changed(snap *shard.Snapshot, g *shard.Generation, dirty map[string]ends, closed int64) (rows []*job.Row, err error) {
	span := job.Everything()
	span.Hidden = true
	add := func(r *job.Row) error {
		rows = append(rows, r.Clone())
		return nil
	}
	for key, x := range dirty {
		part := span
		part.From, part.To = max(span.From, x.from-1), min(span.To, x.to)
		if err := snap.RowsOf(g, []byte(key), part, add); err != nil {
			return nil, err
		}
	}
	if closed >= g.Watermark {
		return rows, nil
	}
	part := span
	part.From, part.To = max(span.From, closed), min(span.To, g.Watermark)
	return rows, snap.Rows(g, part, func(r *job.Row) error {
		if x, ok := dirty[string(r.Key)]; ok && x.from <= r.End && r.End <= x.to || r.Hidden {
			return nil
		}
		return add(r)
	})
}

// tell hands rows to those who may want them.
func (f *feed) tell(t *told) (took time.Duration) {
	f.watching.Lock()
	defer f.watching.Unlock()
	for w := range f.watching.broad {
		w.told(t)
		took += perMessage + time.Duration(len(t.rows))*perRow
	}
	some := map[*watch]*told{}
	for _, r := range t.rows {
		for w := range f.watching.keyed[string(r.Key)] {
			if some[w] == nil {
				some[w] = &told{g: t.g, state: t.state}
			}
			some[w].rows = append(some[w].rows, r)
		}
	}
	for w, x := range some {
		w.told(x)
		took += perMessage + time.Duration(len(x.rows))*perRow
	}
	return took
}

func (f *feed) each(do func(*watch)) {
	f.watching.Lock()
	defer f.watching.Unlock()
	for w := range f.watching.all {
		do(w)
	}
}

func copiesOf(g *shard.Generation) map[crdt.RegionID]uint32 {
	out := map[crdt.RegionID]uint32{}
	for _, region := range g.Groups() {
		out[region] = g.Copy(region)
	}
	return out
}
