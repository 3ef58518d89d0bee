package worker

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/job"
)

// feeder works one generation: it runs the main task, and one task for each shard that was left behind.
type feeder struct {
	w      *Worker
	job    *job.Job
	id     crdt.GenerationID
	file   []byte
	logger hclog.Logger
	done   context.CancelFunc
	ctx    context.Context // ends when the feeder is stopped; set by run, before any task begins
	tasks  sync.WaitGroup

	mu struct {
		sync.Mutex
		sources map[crdt.Source]Source
		changed chan struct{} // closed when the main task is to begin again
		parked  map[int]bool
		offsets map[crdt.Source]int64  // where the main task stands
		ends    map[crdt.Source]int64  // of the logs, as last seen
		idle    map[crdt.Source]bool   //
		stopped map[crdt.Source]string // sources whose log does not fit, or that no shard takes, and why
		batch   int                    // bytes that a shard's batch may grow to
		stop    bool
	}
}

func newFeeder(w *Worker, j *job.Job, a Assigned) *feeder {
	f := &feeder{w: w, job: j, id: a.Generation, file: a.File, logger: w.logger.With("job", j.Name)}
	f.mu.changed = make(chan struct{})
	f.mu.batch = maxBatch
	f.mu.parked = make(map[int]bool)
	f.mu.offsets, f.mu.ends = make(map[crdt.Source]int64), make(map[crdt.Source]int64)
	f.mu.idle, f.mu.stopped = make(map[crdt.Source]bool), make(map[crdt.Source]string)
	f.mu.sources = bySource(a.Sources)
	return f
}

func bySource(list []Source) map[crdt.Source]Source {
	out := make(map[crdt.Source]Source, len(list))
	for _, s := range list {
		out[s.ID] = s
	}
	return out
}

// assign takes over another assignment of the same file; it returns false when the file is another one.
func (f *feeder) assign(a Assigned) bool {
	if !bytes.Equal(f.file, a.File) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if sources := bySource(a.Sources); !maps.Equal(sources, f.mu.sources) {
		for s := range f.mu.sources {
			if _, ok := sources[s]; !ok {
				delete(f.mu.offsets, s)
				delete(f.mu.ends, s)
				delete(f.mu.idle, s)
				delete(f.mu.stopped, s)
			}
		}
		f.mu.sources = sources
		f.againLocked()
	}
	return true
}

func (f *feeder) againLocked() {
	close(f.mu.changed)
	f.mu.changed = make(chan struct{})
}

// work returns the sources to work, in order, and a channel that is closed when that has changed.
func (f *feeder) work() ([]Source, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Source
	for id, s := range f.mu.sources {
		if f.mu.stopped[id] == "" {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b Source) int { return crdt.CompareSources(a.ID, b.ID) })
	return out, f.mu.changed
}

// run works until ctx ends or stop is called.
func (f *feeder) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	f.mu.Lock()
	f.ctx, f.done = ctx, cancel
	if f.mu.stop {
		cancel()
	}
	f.mu.Unlock()
	defer f.forgetParked()
	defer f.tasks.Wait()
	defer cancel()
	f.repeat(ctx, func() error { return newTask(f, -1).run(ctx) })
}

func (f *feeder) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.stop = true
	if f.done != nil {
		f.done()
	}
}

// Pauses between two tries of a task that made no progress.
const (
	firstPause = 20 * time.Millisecond
	maxPause   = 2 * time.Second
	// complainEvery bounds how often a task that goes on failing is logged.
	complainEvery = time.Minute
)

// repeat calls once until ctx ends or it returns errDone, with pauses that grow while it fails quickly.
func (f *feeder) repeat(ctx context.Context, once func() error) {
	pause, complained := firstPause, time.Time{}
	for ctx.Err() == nil {
		began := time.Now()
		err := once()
		switch {
		case err == errDone || ctx.Err() != nil:
			return
		case time.Since(began) > 2*maxPause:
			pause = firstPause
		}
		switch {
		case err == nil:
		case pause == maxPause && time.Since(complained) >= complainEvery:
			complained = time.Now()
			f.logger.Warn("the job cannot be worked, and is tried again and again", "error", err)
		default:
			f.logger.Debug("task begins again", "error", err, "pause", pause)
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, maxPause)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// park leaves a shard behind and starts the task that will catch it up.
func (f *feeder) park(shard int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.parked[shard] {
		return
	}
	f.mu.parked[shard] = true
	f.w.metrics.parked.Inc()
	f.logger.Warn("a shard takes no writes and is left behind", "shard", shard)
	f.tasks.Go(func() {
		f.repeat(f.ctx, func() error { return newTask(f, shard).run(f.ctx) })
	})
}

// caughtUp says whether a parked shard that stands at those offsets may be taken back by the main task, and if so makes
// the main task begin again with it.
func (f *feeder) caughtUp(shard int, at map[crdt.Source]int64) bool {
	const near = 4096 // records that the main task will read once more
	f.mu.Lock()
	defer f.mu.Unlock()
	for s, main := range f.mu.offsets {
		if f.mu.stopped[s] != "" {
			continue // nobody reads it
		}
		if off, ok := at[s]; !ok || main-off > near {
			return false
		}
	}
	delete(f.mu.parked, shard)
	f.w.metrics.parked.Dec()
	f.logger.Info("a shard has caught up", "shard", shard)
	f.againLocked()
	return true
}

// forgetParked takes the shards that are still left behind out of the metric.
func (f *feeder) forgetParked() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.w.metrics.parked.Sub(float64(len(f.mu.parked)))
	clear(f.mu.parked)
}

func (f *feeder) isParked(shard int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.parked[shard]
}

// halt stops a source for good in this worker: its log does not fit the shards' points, or they will not take it. It says so loudly, and to the
// coordinator with the next report.
func (f *feeder) halt(s crdt.Source, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.stopped[s] == "" {
		f.mu.stopped[s] = why.Error()
		f.w.metrics.stopped.Inc()
		f.logger.Error("source stopped", "source", s.String(), "error", why)
		f.againLocked()
	}
}

// batchBytes returns how large a shard's batch may grow.
func (f *feeder) batchBytes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.batch
}

// shrink halves the batches to come; false where they are as small as they get.
func (f *feeder) shrink() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.batch <= minBatch {
		return false
	}
	f.mu.batch = max(f.mu.batch/2, minBatch)
	f.logger.Warn("a shard refused an Advance as too large: smaller ones are sent from here on", "batch_bytes", f.mu.batch)
	return true
}

func (f *feeder) report(out []Report) []Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.mu.sources {
		r := Report{Generation: f.id, Source: s, Offset: f.mu.offsets[s], LogEnd: -1, Idle: f.mu.idle[s],
			Stopped: f.mu.stopped[s]}
		if end, ok := f.mu.ends[s]; ok {
			r.LogEnd = end
		}
		out = append(out, r)
	}
	return out
}

// partition returns where a source lies in the region's cluster.
func partition(s crdt.Source) log.Partition { return log.Partition{Topic: s.Topic, Index: s.Partition} }
