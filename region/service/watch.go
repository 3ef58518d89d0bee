package service

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
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
	// gather is how long changes of a shard gather before they are sent.
	gather = 10 * time.Millisecond
	// maxDirty bounds the keys that wait to be sent to one watcher of a shard; past it all rows are looked at.
	maxDirty = 1 << 16
	// maxSent bounds what a watcher is remembered to have been sent, by shard.
	maxSent = 1 << 16
)

// Watch implements the service. Rows come from this node's replicas, whatever the consistency; a change that follows
// another before that was sent stands for both.
func (s stateService) Watch(in *watershedv1.WatchRequest, stream watershedv1.StateService_WatchServer) error {
	ctx := stream.Context()
	q, err := s.query(ctx, &watershedv1.ScanRequest{Selection: in.GetSelection()})
	if err != nil {
		return err
	}
	if err := stream.Send(&watershedv1.WatchResponse{Columns: toColumns(q.sel.job)}); err != nil {
		return err
	}
	var sending sync.Mutex
	shards, ctx := errgroup.WithContext(ctx)
	for _, id := range q.shards {
		w := newWatch(s.Server, s.o.Router.Replica(id), q, func(m *watershedv1.WatchResponse) error {
			sending.Lock()
			defer sending.Unlock()
			return stream.Send(m)
		})
		shards.Go(func() error { return w.run(ctx) })
	}
	return shards.Wait()
}

// watch follows one shard for one watcher.
type watch struct {
	server  *Server
	replica *replica.Replica
	q       *query
	send    func(*watershedv1.WatchResponse) error
	wake    chan struct{} // holds one

	watermark int64                    // rows up to here were sent as complete
	copies    map[crdt.RegionID]uint32 // that the rows were read from
	sent      map[sentKey]struct{}     // rows that were sent, so that they can be taken back; nil when there were too many

	mu struct {
		sync.Mutex
		dirty map[string]ends // key to the window ends that changed
		all   bool            // too many keys changed
		look  bool            // something else changed: look at copies and watermark
	}
}

// ends are window ends: the least and the greatest.
type ends struct{ from, to int64 }

type sentKey struct {
	end int64
	key string
}

func newWatch(s *Server, r *replica.Replica, q *query, send func(*watershedv1.WatchResponse) error) *watch {
	w := &watch{server: s, replica: r, q: q, send: send, wake: make(chan struct{}, 1), sent: map[sentKey]struct{}{}}
	w.mu.dirty = map[string]ends{}
	return w
}

func (w *watch) run(ctx context.Context) error {
	stop := w.replica.Observe(w.observe)
	defer stop()
	if g := w.replica.State().Generation(w.q.generation); g != nil {
		w.watermark, w.copies = g.Watermark, copiesOf(g)
	}
	for {
		changed := w.replica.Changed()
		if w.moved() {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-w.wake:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(gather):
		}
	}
}

// observe notes what a command changed. It is called by the goroutine that applies commands.
func (w *watch) observe(c shard.Change) {
	if c.Generation != w.q.generation {
		return
	}
	window := w.q.sel.job.Window
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.look = w.mu.look || c.Whole
	for _, slot := range c.Slots {
		if w.mu.all {
			break
		}
		from, to := window.Windows(slot.Time, slot.Class)
		if window.Kind == keyspace.Session { // which session the cell is in, its neighbours say
			from, to = window.SlotStart(slot.Time), crdt.MaxTime
		}
		x, ok := w.mu.dirty[string(slot.Key)]
		if !ok {
			x = ends{from, to}
		}
		w.mu.dirty[string(slot.Key)] = ends{min(x.from, from), max(x.to, to)}
		w.mu.all = len(w.mu.dirty) >= maxDirty
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// moved says whether there is anything to look at.
func (w *watch) moved() bool {
	g := w.replica.State().Generation(w.q.generation)
	w.mu.Lock()
	defer w.mu.Unlock()
	return g == nil || len(w.mu.dirty) > 0 || w.mu.all || w.mu.look || g.Watermark > w.watermark
}

// flush sends the rows that changed since the last time.
func (w *watch) flush(ctx context.Context) (err error) {
	w.mu.Lock()
	dirty, all := w.mu.dirty, w.mu.all
	w.mu.dirty, w.mu.all, w.mu.look = map[string]ends{}, false, false
	w.mu.Unlock()
	snap, err := w.replica.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	g := snap.Generation(w.q.generation)
	if g == nil {
		return status.Error(codes.NotFound, "the job was deleted")
	}
	copies := copiesOf(g)
	for region, n := range copies { // a copy that was installed may differ anywhere
		all = all || w.copies[region] != n
	}
	b := &watchBatch{watch: w, ctx: ctx, state: toShardState(w.replica, w.server.o.Region, snap.State, g)}
	span := w.q.sel.span(g)
	span.Hidden = true
	if len(w.sent) > maxSent/2 {
		maps.DeleteFunc(w.sent, func(k sentKey, _ struct{}) bool { return k.end <= g.Horizon })
	}
	closed := w.watermark
	w.watermark, w.copies = g.Watermark, copies
	if all {
		clear(dirty)
		if err := snap.Rows(g, span, b.add); err != nil {
			return err
		}
		return b.flush()
	}
	for key, x := range dirty {
		part := span
		part.From, part.To = max(span.From, x.from-1), min(span.To, x.to)
		if err := snap.RowsOf(g, []byte(key), part, b.add); err != nil {
			return err
		}
	}
	if closed < g.Watermark { // these are complete now
		part := span
		part.From, part.To = max(span.From, closed), min(span.To, g.Watermark)
		err := snap.Rows(g, part, func(r *job.Row) error {
			if x, ok := dirty[string(r.Key)]; ok && x.from <= r.End && r.End <= x.to || r.Hidden {
				return nil
			}
			return b.add(r)
		})
		if err != nil {
			return err
		}
	}
	return b.flush()
}

func copiesOf(g *shard.Generation) map[crdt.RegionID]uint32 {
	out := map[crdt.RegionID]uint32{}
	for _, region := range g.Groups() {
		out[region] = g.Copy(region)
	}
	return out
}

// watchBatch gathers rows for one message.
type watchBatch struct {
	*watch
	ctx   context.Context
	state *watershedv1.ShardState
	rows  []*watershedv1.Row
}

func (b *watchBatch) add(r *job.Row) error {
	if !b.q.sel.wants(r) {
		return b.ctx.Err()
	}
	k := sentKey{r.End, string(r.Key)}
	_, known := b.sent[k]
	if r.Hidden && !known && b.sent != nil {
		return b.ctx.Err()
	}
	row := toRow(r, uint32(b.replica.Shard()))
	switch {
	case r.Hidden:
		row.Retracted, row.Values = true, nil
		delete(b.sent, k)
	case b.sent == nil:
	case len(b.sent) >= maxSent:
		b.sent = nil // from here on every hidden row that changed is taken back, sent or not
	default:
		b.sent[k] = struct{}{}
	}
	if b.rows = append(b.rows, row); len(b.rows) < batchRows {
		return b.ctx.Err()
	}
	return b.flush()
}

func (b *watchBatch) flush() error {
	if len(b.rows) == 0 {
		return nil
	}
	rows := b.rows
	b.rows = nil
	return b.send(&watershedv1.WatchResponse{Rows: rows, Shard: b.state})
}
