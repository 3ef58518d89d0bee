// Package worker reads the sources that its region assigned to it, folds their records, and feeds the region's shards.
// It is thin: whatever it holds can be read again, and it resumes from the shards' points, never from committed offsets.
//
// A worker runs one feeder per generation, a feeder one task over all shards, and for each shard that takes no writes a
// task of its own, which catches that shard up when it is back, so that no shard holds up a source. A task is one
// goroutine that owns a processor.Feed; the goroutines around it read inputs and wait for shards. Whenever a shard
// refuses, an assignment changes or a log does not fit, a task drops what it holds and begins again at the shards'
// points: there is one way to resume, and it is walked often.
package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
	"github.com/watershed-db/watershed/processor/job"
)

// Reply is how a shard met an Advance.
type Reply uint8

// The replies.
const (
	Accepted Reply = iota + 1 // applied, or there already
	Refused                   // it does not fit: the shard's points moved, or it does not know the generation
	Misfit                    // the shard stands on another history of a source
)

var (
	// ErrTooLarge says that an Advance is larger than a shard takes: a smaller one may fit.
	ErrTooLarge = errors.New("advance too large")
	// ErrInvalid says that a shard will never take an Advance, whoever leads it: this build or the log has a fault.
	ErrInvalid = errors.New("advance refused as invalid")
)

// Region is what a worker needs of its region: its coordinator and its shards, wherever they are led.
type Region interface {
	// Session keeps the session with the coordinator, whoever that is, until ctx ends: it sends what report returns,
	// at least once a second, and hands over every assignment. It calls both from one goroutine.
	Session(ctx context.Context, report func() []Report, take func([]Assigned)) error
	// Points returns where a shard stands in a generation; known is false where it was not told of it yet.
	Points(ctx context.Context, shard int, generation crdt.GenerationID) (points crdt.Frontier, known bool, err error)
	// Advance has a shard apply a, and returns when it is durable or refused. misfits names the sources of a Misfit.
	// After ErrTooLarge and ErrInvalid it was not applied. An error with a method RetryAfter() time.Duration says that the
	// shard takes nothing just now, and when it may. After any other error the outcome is unknown, and the same Advance may
	// be tried again.
	Advance(ctx context.Context, shard int, a *crdt.Advance) (r Reply, misfits []crdt.Source, err error)
	// Idle flags sources as idle at marks where the shard must stand; done is false where it does not.
	Idle(ctx context.Context, shard int, generation crdt.GenerationID, at map[crdt.Source]crdt.Mark) (done bool, err error)
}

// Assigned is one generation's work.
type Assigned struct {
	Generation crdt.GenerationID
	File       []byte
	Sources    []Source
}

// Source is one source that the worker is to work.
type Source struct {
	ID    crdt.Source
	First crdt.Point
	Topic log.TopicID // as recorded when its first point was decided
}

// Report is what a worker tells of one source.
type Report struct {
	Generation crdt.GenerationID
	Source     crdt.Source
	Offset     int64  // up to which it was read here
	LogEnd     int64  // -1 while unknown
	Idle       bool   // silent for idle_after at its log's end
	Stopped    string // why it can't be worked: the log does not fit the point
}

// Config describes a worker. Zero fields take the defaults that their comments name.
type Config struct {
	Region RegionConfig
	Kafka  *kafka.Client // not owned
	Shards int
	Group  string // consumer group under which the lag is committed, before "-JOB"; "" commits none

	Memory        int64         // bytes of batches and of what is under way, over all jobs (default 256 MiB)
	FlushInterval time.Duration // how long what was read may wait for its flush (default 10 ms)
	EmptyInterval time.Duration // how often a shard is told of progress that touched none of its keys (default 1 s)
	ParkAfter     time.Duration // how long a shard may take no writes before it is left behind (default 2 s)

	Logger  hclog.Logger
	Metrics *Metrics // nil: counted and not shown
}

// RegionConfig says which region the worker works for.
type RegionConfig struct {
	ID   crdt.RegionID
	Link Region
}

func (c Config) withDefaults() Config {
	if c.Memory <= 0 {
		c.Memory = 256 << 20
	}
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{{&c.FlushInterval, 10 * time.Millisecond}, {&c.EmptyInterval, time.Second}, {&c.ParkAfter, 2 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.fallback
		}
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	return c
}

// Worker works what the coordinator assigns. New returns it stopped; Run runs it, once.
type Worker struct {
	config   Config
	region   Region
	logger   hclog.Logger
	metrics  *Metrics
	producer *kafka.Producer // of side outputs
	used     atomic.Int64    // bytes of memory held, see Config.Memory

	mu struct {
		sync.Mutex
		feeders map[crdt.GenerationID]*feeder
	}
}

// New returns a worker that is not running.
func New(config Config) (*Worker, error) {
	c := config.withDefaults()
	if c.Region.Link == nil || c.Kafka == nil || c.Shards <= 0 {
		return nil, errors.New("worker: a region, a Kafka client and a number of shards are needed")
	}
	w := &Worker{config: c, region: c.Region.Link, logger: c.Logger.Named("worker"), metrics: c.Metrics}
	var err error
	if w.producer, err = kafka.NewProducer(c.Kafka, kafka.ProducerConfig{}, w.logger); err != nil {
		return nil, fmt.Errorf("worker: side outputs: %w", err)
	}
	w.mu.feeders = make(map[crdt.GenerationID]*feeder)
	return w, nil
}

// Memory returns the bound on the bytes of batches and of what is under way, Used what of it is in use.
func (w *Worker) Memory() int64 { return w.config.Memory }

// Used is explained with Memory.
func (w *Worker) Used() int64 { return w.used.Load() }

// Run works until ctx ends, and returns when every goroutine it started has.
func (w *Worker) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	defer w.producer.Close()
	defer all.Wait()
	defer stop()
	err := w.region.Session(ctx, w.report, func(as []Assigned) { w.take(ctx, &all, as) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// take makes the feeders be what the coordinator assigned.
func (w *Worker) take(ctx context.Context, all *sync.WaitGroup, as []Assigned) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wanted := make(map[crdt.GenerationID]bool, len(as))
	for _, a := range as {
		wanted[a.Generation] = true
		f := w.mu.feeders[a.Generation]
		if f != nil && f.assign(a) {
			continue
		}
		j, err := job.Parse("job", a.File)
		if err != nil {
			w.logger.Error("the assigned job cannot be read", "generation", fmt.Sprintf("%x", a.Generation), "error", err)
			continue
		}
		if f != nil { // another file of the same meaning
			f.stop()
		}
		f = newFeeder(w, j, a)
		w.mu.feeders[a.Generation] = f
		all.Go(func() { f.run(ctx) })
	}
	for g, f := range w.mu.feeders {
		if !wanted[g] {
			f.stop()
			delete(w.mu.feeders, g)
		}
	}
}

func (w *Worker) report() []Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Report
	for _, f := range w.mu.feeders {
		out = f.report(out)
	}
	return out
}
