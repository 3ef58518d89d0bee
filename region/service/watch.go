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

	"github.com/watershed-db/watershed/processor/job"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// maxQueued bounds the rows that wait to be sent to one watcher of a shard; past it all rows are looked at.
	maxQueued = 1 << 14
	// maxSent bounds what a watcher is remembered to have been sent, by shard, and maxRemembered what all are.
	maxSent       = 1 << 16
	maxRemembered = 1 << 20
	// maxWholes bounds the watchers that look at all rows at a time.
	maxWholes = 4
	// wholeWithin is for how long one of them counts.
	wholeWithin = 5 * time.Second
)

// Watch implements the service. Rows come from this node's replicas, whatever the consistency, and where it has none of a
// shard, from another node's; a change that follows another before that was sent stands for both.
func (s stateService) Watch(in *watershedv1.WatchRequest, stream watershedv1.StateService_WatchServer) error {
	ctx := stream.Context()
	q, err := s.query(ctx, &watershedv1.ScanRequest{Selection: in.GetSelection()})
	if err != nil {
		return err
	}
	if err := stream.Send(&watershedv1.WatchResponse{Columns: toColumns(q.sel.job)}); err != nil {
		return err
	}
	only, err := relayed(ctx)
	if err != nil {
		return err
	}
	var sending sync.Mutex
	send := func(m *watershedv1.WatchResponse) error {
		sending.Lock()
		defer sending.Unlock()
		return stream.Send(m)
	}
	shards, ctx := errgroup.WithContext(ctx)
	for _, id := range q.shards {
		here := s.o.Router.Replica(id)
		switch {
		case !contains(only, id):
		case here != nil:
			w := newWatch(s.Server, here, q, send)
			shards.Go(func() error { return w.run(ctx) })
		case only != nil:
			shards.Go(func() error { return s.o.Router.Status(s.o.Router.Elsewhere(id)) })
		default:
			shards.Go(func() error { return s.watchElsewhere(ctx, id, in, send) })
		}
	}
	return shards.Wait()
}

// watch is one watcher of one shard. What it has not sent yet is bounded: one that falls behind further looks at all rows.
type watch struct {
	server  *Server
	replica *replica.Replica
	q       *query
	send    func(*watershedv1.WatchResponse) error
	wake    chan struct{} // holds one

	sent map[sentKey]struct{} // rows that were sent, so that they can be taken back; nil when there were too many

	mu struct {
		sync.Mutex
		queue []*told
		rows  int   // in queue
		all   bool  // it has missed some: all rows are looked at
		err   error // why nothing more comes
	}
}

type sentKey struct {
	end int64
	key string
}

func newWatch(s *Server, r *replica.Replica, q *query, send func(*watershedv1.WatchResponse) error) *watch {
	return &watch{server: s, replica: r, q: q, send: send, wake: make(chan struct{}, 1), sent: map[sentKey]struct{}{}}
}

func (w *watch) run(ctx context.Context) error {
	defer w.server.feeds.join(w.server, w)()
	defer w.forget()
	for {
		if err := w.flush(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.replica.Closed():
			return w.server.o.Router.Status(w.server.o.Router.Elsewhere(w.replica.Shard()))
		case <-w.wake:
		}
	}
}

// told takes rows that changed. It does not block.
func (w *watch) told(t *told) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.rows += len(t.rows); w.mu.rows > maxQueued {
		w.mu.all = true
	}
	if w.mu.all {
		w.mu.queue, w.mu.rows = nil, 0
	} else {
		w.mu.queue = append(w.mu.queue, t)
	}
	w.rouse()
}

// lost has all rows looked at.
func (w *watch) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.all, w.mu.queue, w.mu.rows = true, nil, 0
	w.rouse()
}

// fail ends the watch.
func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.err = err
	w.rouse()
}

func (w *watch) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// flush sends what it was told.
func (w *watch) flush(ctx context.Context) error {
	w.mu.Lock()
	queue, all, err := w.mu.queue, w.mu.all, w.mu.err
	w.mu.queue, w.mu.rows, w.mu.all = nil, 0, false
	w.mu.Unlock()
	switch {
	case err != nil:
		return err
	case all:
		return w.whole(ctx)
	}
	latest := map[sentKey]*told{} // of a row that changed again before it was sent, the last state
	if len(queue) > 1 {
		for _, t := range queue {
			for _, r := range t.rows {
				latest[keyOf(r)] = t
			}
		}
	}
	for _, t := range queue {
		b := &watchBatch{watch: w, ctx: ctx, state: t.state}
		span := w.q.sel.span(t.g)
		w.expire(t.g)
		for _, r := range t.rows {
			if r.End <= span.From || r.End > span.To || len(queue) > 1 && latest[keyOf(r)] != t {
				continue
			}
			if err := b.add(r); err != nil {
				return err
			}
		}
		if err := b.flush(); err != nil {
			return err
		}
	}
	return nil
}

// whole sends all rows as they are now.
func (w *watch) whole(ctx context.Context) (err error) {
	select {
	case w.server.wholes <- struct{}{}:
		leave := sync.OnceFunc(func() { <-w.server.wholes })
		defer time.AfterFunc(wholeWithin, leave).Stop() // one who reads slowly holds up no other
		defer leave()
	case <-ctx.Done():
		return ctx.Err()
	}
	snap, err := w.replica.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	g := snap.Generation(w.q.generation)
	if g == nil {
		return status.Error(codes.NotFound, "the job was deleted")
	}
	w.expire(g)
	b := &watchBatch{watch: w, ctx: ctx, state: toShardState(w.replica, w.server.o.Region, snap.State, g)}
	span := w.q.sel.span(g)
	span.Hidden = true
	if err := snap.Rows(g, span, b.add); err != nil {
		return err
	}
	return b.flush()
}

func keyOf(r *job.Row) sentKey { return sentKey{r.End, string(r.Key)} }

// expire forgets rows that are gone, when there are many.
func (w *watch) expire(g *shard.Generation) {
	if len(w.sent) <= maxSent/2 {
		return
	}
	before := len(w.sent)
	maps.DeleteFunc(w.sent, func(k sentKey, _ struct{}) bool { return k.end <= g.Horizon })
	w.server.bounds.remember.Give(int64(before - len(w.sent)))
}

// forget gives back what is remembered of rows that were sent: from here on every hidden row that changed is taken back,
// sent or not.
func (w *watch) forget() {
	w.server.bounds.remember.Give(int64(len(w.sent)))
	w.sent = nil
}

// remember notes that a row was sent, as far as there is room for that.
func (w *watch) remember(k sentKey) {
	switch _, known := w.sent[k]; {
	case w.sent == nil || known:
	case len(w.sent) >= maxSent || w.server.bounds.remember.Take(1) != nil:
		w.forget()
	default:
		w.sent[k] = struct{}{}
	}
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
		if known {
			delete(b.sent, k)
			b.server.bounds.remember.Give(1)
		}
	default:
		b.remember(k)
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
