package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor"
)

var (
	// errDone ends a catch-up task: the main task has its shard again.
	errDone = errors.New("shard caught up")
	// errAgain has a task begin again at the shards' points.
	errAgain = errors.New("begin again")
)

// settleInterval is how often a task looks for idle sources and says where it stands.
const settleInterval = time.Second

// task reads sources and feeds shards: all that are not parked, or a parked one alone. It is one goroutine.
type task struct {
	f      *feeder
	only   int // the parked shard to catch up; -1: the main task
	logger hclog.Logger

	feed    *processor.Feed
	sources []*source
	inputs  map[key]*source
	lanes   []*lane // by shard
	step    int64   // of window ends, 0 if there are none
	side    side
	batch   int      // bytes that a shard's batch may grow to
	rest    *fetched // what is left of a poll whose beginning filled a batch; nil for none
	held    int64    // bytes that this task holds of the worker's memory

	fetched chan fetched
	replies chan reply
	ends    chan map[log.Partition]log.Span
	halting chan halted
	tolds   chan told
	failed  chan error
	flush   *time.Timer // for the next flush that is due
}

// key finds the source of a batch.
type key struct {
	input     int
	partition log.Partition
}

// source is what the task knows of one source.
type source struct {
	Source
	reader  processor.Reader
	watch   int64     // its watermark's window when a flush was last thought of
	heard   time.Time // when its last record came
	end     int64     // of its log, when last asked; -1 before
	endedAt time.Time // since when the end has stood there
	idle    bool
}

// lane is what the task knows of one shard.
type lane struct {
	shard   int
	flushed time.Time
	took    time.Duration // of the last flush
	flying  bool          // an Advance is under way
	urgent  bool          // progress that the shard should hear of with the next flush
	bytes   int64
	told    map[crdt.Source]crdt.Mark // idle flags that the shard has taken
	telling bool
}

type halted struct {
	source crdt.Source
	why    error
}

func newTask(f *feeder, only int) *task {
	t := &task{f: f, batch: f.batchBytes(), only: only, logger: f.logger, inputs: make(map[key]*source),
		fetched: make(chan fetched), replies: make(chan reply, 4*f.w.config.Shards),
		ends: make(chan map[log.Partition]log.Span), halting: make(chan halted),
		tolds: make(chan told), failed: make(chan error, 1)}
	switch w := f.job.Window; {
	case w.Every > 0:
		t.step = w.Every
	case w.Size > 0:
		t.step = w.Size
	}
	return t
}

// run works until ctx ends or the task must begin again, which its error says.
func (t *task) run(ctx context.Context) error {
	list, changed := t.f.work()
	if len(list) == 0 {
		select {
		case <-ctx.Done():
		case <-changed:
		}
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		_ = group.Wait() // the goroutines return nil
		t.account(0)
	}()
	if err := t.begin(ctx, list); err != nil {
		return err
	}
	t.f.w.metrics.resumed.Inc()
	t.side.start(t.f)
	positions := make(map[int][]log.Position)
	for _, s := range t.sources {
		p, _ := t.feed.Point(s.ID)
		positions[int(s.ID.Input)] = append(positions[int(s.ID.Input)], log.Position{Partition: partition(s.ID),
			TopicID: s.Topic, Offset: p.Offset, Last: p.Last})
	}
	for input, at := range positions {
		group.Go(func() error {
			err := readInput(ctx, t.f.w.config.Kafka, input, at, t.fetched, func(p log.Partition, err error) {
				t.refuse(ctx, key{input, p}, err)
			}, t.f.logger)
			t.fail(err)
			return nil
		})
	}
	group.Go(func() error { t.watchEnds(ctx); return nil })
	return t.loop(ctx, group, changed)
}

// begin asks the shards where they stand and makes the feed.
func (t *task) begin(ctx context.Context, list []Source) error {
	shards := t.f.w.config.Shards
	t.feed = processor.NewFeed(t.f.job, t.f.id, t.f.w.config.Region.ID, shards)
	t.lanes = make([]*lane, shards)
	points, err := t.points(ctx)
	if err != nil {
		return err
	}
	for shard := range t.lanes {
		t.lanes[shard] = &lane{shard: shard, flushed: time.Now(), told: make(map[crdt.Source]crdt.Mark)}
		if points[shard] == nil {
			t.feed.Park(shard)
		}
	}
	now := time.Now()
	for _, s := range list {
		at := make([]crdt.Point, shards)
		for shard, p := range points {
			var ok bool
			if at[shard], ok = p[s.ID]; !ok && p != nil {
				return fmt.Errorf("shard %d does not know source %s yet", shard, s.ID)
			}
		}
		if _, err := t.feed.Add(s.ID, processor.DeclaredColumns(&t.f.job.Inputs[s.ID.Input]), at); err != nil {
			t.f.halt(s.ID, err)
			return err
		}
		r, err := t.feed.Reader(s.ID)
		if err != nil {
			return err
		}
		x := &source{Source: s, reader: r, heard: now, end: -1}
		p, _ := t.feed.Point(s.ID)
		x.watch = t.window(p.Watermark)
		t.sources = append(t.sources, x)
		t.inputs[key{int(s.ID.Input), partition(s.ID)}] = x
	}
	return nil
}

// points asks the task's shards where they stand. A shard that does not answer in time is parked by the main task, and
// its place is nil.
func (t *task) points(ctx context.Context) ([]crdt.Frontier, error) {
	out := make([]crdt.Frontier, t.f.w.config.Shards)
	errs := make([]error, len(out))
	asking, cancel := context.WithTimeout(ctx, t.f.w.config.ParkAfter)
	defer cancel()
	var g errgroup.Group
	for shard := range out {
		if t.skips(shard) {
			continue
		}
		g.Go(func() error {
			points, known, err := t.f.w.region.Points(asking, shard, t.f.id)
			switch {
			case err != nil:
				errs[shard] = err
				return nil
			case !known:
				return fmt.Errorf("shard %d does not know the job yet", shard)
			}
			out[shard] = points
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	answered := 0
	for shard, err := range errs {
		switch {
		case out[shard] != nil:
			answered++
		case err != nil && t.only >= 0:
			return nil, err
		}
	}
	if answered == 0 {
		return nil, fmt.Errorf("no shard answers: %w", errors.Join(errs...))
	}
	for shard, err := range errs {
		if err != nil && ctx.Err() == nil {
			t.f.park(shard)
		}
	}
	return out, nil
}

// skips says that a shard is another task's.
func (t *task) skips(shard int) bool {
	if t.only >= 0 {
		return shard != t.only
	}
	return t.f.isParked(shard)
}

// refuse takes a source whose log could not be opened: what does not fit is stopped, the rest is tried again.
func (t *task) refuse(ctx context.Context, k key, err error) {
	s := t.inputs[k]
	if s == nil || ctx.Err() != nil {
		return
	}
	if !log.Unfit(err) {
		t.fail(fmt.Errorf("source %s: %w", s.ID, err))
		return
	}
	select {
	case t.halting <- halted{s.ID, err}:
	case <-ctx.Done():
	}
}

// fail has the task begin again. Only the first error counts.
func (t *task) fail(err error) {
	if err != nil {
		select {
		case t.failed <- err:
		default:
		}
	}
}

// window returns the number of the window that a watermark stands in.
func (t *task) window(watermark int64) int64 {
	if t.step == 0 || watermark == crdt.MinTime {
		return 0
	}
	w := watermark / t.step
	if watermark%t.step < 0 {
		w--
	}
	return w
}

// loop is the task's one goroutine. It takes nothing from the inputs while the worker's memory is full.
func (t *task) loop(ctx context.Context, group *errgroup.Group, changed <-chan struct{}) error {
	t.flush = time.NewTimer(time.Hour)
	defer t.flush.Stop()
	slow := time.NewTicker(min(t.f.w.config.EmptyInterval, settleInterval))
	defer slow.Stop()
	for {
		in := t.fetched
		if t.full() || t.rest != nil {
			in = nil
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			return nil
		case err := <-t.failed:
			return err
		case h := <-t.halting:
			t.f.halt(h.source, h.why)
			return errAgain
		case f := <-in:
			t.rest = &f
		case r := <-t.replies:
			err = t.replied(r)
		case spans := <-t.ends:
			t.ended(spans)
		case x := <-t.tolds:
			t.wasTold(x)
		case <-t.flush.C:
		case <-slow.C:
			err = t.settle(ctx, group)
		}
		if err == nil {
			err = t.take()
		}
		if err != nil {
			return err
		}
		t.flushDue(ctx, group)
	}
}

// full says that no more may be read before something was flushed: the worker's memory is used up, one shard's next
// Advance would become too large, or the side outputs fall behind.
func (t *task) full() bool {
	if t.f.w.used.Load() >= t.f.w.config.Memory || t.side.bytes.Load() >= maxBatch {
		return true
	}
	for _, l := range t.lanes {
		if t.feed.BatchSize(l.shard) >= t.batch {
			return true
		}
	}
	return false
}

// lookEvery is after how many records a task looks whether a batch is full.
const lookEvery = 64

// take folds what a poll brought, up to where a batch is full.
func (t *task) take() error {
	if t.rest == nil {
		return nil
	}
	defer t.hold()
	every := lookEvery
	if t.batch < maxBatch { // Advances were too large: it is near
		every = 1
	}
	f, now, n := t.rest, time.Now(), 0
	for ; len(f.batches) > 0; f.batches = f.batches[1:] {
		b := &f.batches[0]
		s := t.inputs[key{f.input, b.Partition}]
		if s == nil {
			continue
		}
		if b.Err != nil {
			if !log.Unfit(b.Err) {
				return fmt.Errorf("source %s: %w", s.ID, b.Err)
			}
			t.f.halt(s.ID, b.Err)
			return errAgain
		}
		had := len(b.Records)
		for ; len(b.Records) > 0; b.Records = b.Records[1:] {
			if n%every == 0 && t.full() {
				break
			}
			n++
			if err := t.fold(s, &b.Records[0]); err != nil {
				return err
			}
		}
		if had > len(b.Records) {
			t.moved(s, now)
		}
		if len(b.Records) > 0 {
			return nil
		}
	}
	close(f.ack)
	t.rest = nil
	if t.side.bytes.Load() >= maxBatch {
		t.hurry() // what is aside is written with the next flush
	}
	return nil
}

// fold takes one record.
func (t *task) fold(s *source, r *log.Record) error {
	v, err := s.reader.Read(r)
	if err != nil {
		t.f.halt(s.ID, err)
		return errAgain
	}
	t.f.w.metrics.records[v.Outcome].Inc()
	t.side.add(t.f.job, s.ID, r, v)
	return nil
}

// moved notes that a source has brought records.
func (t *task) moved(s *source, now time.Time) {
	s.heard, s.idle = now, false
	p, _ := t.feed.Point(s.ID)
	if w := t.window(p.Watermark); w != s.watch {
		s.watch = w
		t.hurry()
	}
}

// hurry has every shard told of progress with the next flush, also those whose keys it does not touch.
func (t *task) hurry() {
	for _, l := range t.lanes {
		l.urgent = true
	}
}

// hold accounts for the bytes of the feed and of what is under way.
func (t *task) hold() {
	bytes := int64(t.feed.Size()) + t.side.bytes.Load()
	for _, l := range t.lanes {
		bytes += l.bytes
	}
	t.account(bytes)
}

func (t *task) account(bytes int64) {
	used := t.f.w.used.Add(bytes - t.held)
	t.held = bytes
	t.f.w.metrics.memory.Set(float64(used))
}

// settle is called about once a second: it tells the shards of sources that have fallen idle, commits the lag, and for a
// catch-up task sees whether it is done.
func (t *task) settle(ctx context.Context, group *errgroup.Group) error {
	offsets := make(map[crdt.Source]int64, len(t.sources))
	for _, s := range t.sources {
		p, _ := t.feed.Point(s.ID)
		offsets[s.ID] = p.Offset
	}
	if t.only >= 0 {
		l := t.lanes[t.only]
		if !l.flying && !t.feed.Moved(t.only) && t.f.caughtUp(t.only, offsets) {
			return errDone
		}
		return nil
	}
	t.f.mu.Lock()
	maps.Copy(t.f.mu.offsets, offsets)
	for _, s := range t.sources {
		t.f.mu.idle[s.ID] = s.idle
		if s.end >= 0 {
			t.f.mu.ends[s.ID] = s.end
		}
	}
	t.f.mu.Unlock()
	t.markIdle()
	for _, l := range t.lanes {
		t.tellIdle(ctx, group, l)
	}
	return nil
}

// commitLag tells stock tools how far the job has read.
func (t *task) commitLag(ctx context.Context) {
	if t.only >= 0 || t.f.w.config.Group == "" {
		return
	}
	t.f.mu.Lock()
	least := make(map[log.Partition]int64)
	for s, off := range t.f.mu.offsets {
		if now, ok := least[partition(s)]; !ok || off < now {
			least[partition(s)] = off
		}
	}
	t.f.mu.Unlock()
	if err := t.f.w.config.Kafka.CommitLag(ctx, t.f.w.config.Group+"-"+t.f.job.Name, least); err != nil && ctx.Err() == nil {
		t.logger.Debug("the lag could not be committed", "error", err)
	}
}

// topics returns the topics that the task reads, each once.
func (t *task) topics() []string {
	var out []string
	for _, s := range t.sources {
		out = append(out, s.ID.Topic)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
