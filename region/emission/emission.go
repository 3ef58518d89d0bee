// Package emission sends the rows of closed windows to a job's sinks: a task of a shard's leader in a region that emits.
//
// What is to be sent stands in the shard's outbox as references: a cursor over window ends, and marks of rows that
// changed behind it (rules A15). A batch is planned by a command, made from one view at or after the plan, written to
// every sink, and recorded as done; marks that are younger than the view stay. A leader that dies between the two leaves
// the plan open, and the next one sends it again: at least once, with identities that let a sink tell.
package emission

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/region/shard"
)

// Sink writes rows where one of a job's sinks says. Write returns when all of them are durable there, or an error, after
// which any of them may be. Rows with equal Key keep their order. It is safe for concurrent use, and must not keep rows.
type Sink interface {
	Write(ctx context.Context, to job.Sink, rows []job.Output) error
}

// Replica is what emission needs of a shard's replica.
type Replica interface {
	Propose(ctx context.Context, c shard.Command) (shard.Result, error)
	State() *shard.State
	Snapshot() (*shard.Snapshot, error)
	Changed() <-chan struct{}
	Config() *shard.Config
}

// Config describes an Emission.
type Config struct {
	Replica Replica
	Sink    Sink
	Logger  hclog.Logger
	Metrics *Metrics // nil: counted and not shown
}

const (
	// batchRows bounds the rows of one Write, and markBatch the dirty marks of one plan.
	batchRows = 1000
	markBatch = 4096
	// restEvery bounds how often a generation without anything to send is looked at.
	restEvery = 5 * time.Millisecond
	// Pauses between tries of a sink that fails, or of a command that was not taken.
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
	// complainEvery bounds how often a sink that fails is logged.
	complainEvery = time.Minute
)

// Emission emits for one shard.
type Emission struct{ c Config }

// New returns the emission of a shard.
func New(c Config) *Emission {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	c.Logger = c.Logger.Named("emission").With("shard", c.Replica.Config().Shard)
	return &Emission{c}
}

// Run emits while this node leads the shard: until ctx ends. Each generation has a goroutine of its own, so that a slow
// sink holds up its own job alone.
func (e *Emission) Run(ctx context.Context) {
	running := make(map[crdt.GenerationID]*runner)
	defer func() {
		for _, r := range running {
			r.stop()
		}
	}()
	for {
		changed := e.c.Replica.Changed()
		st := e.c.Replica.State()
		for _, g := range st.Generations() {
			if running[g.ID] == nil && st.Emits(g) {
				running[g.ID] = e.start(ctx, g.ID)
			}
		}
		for id, r := range running {
			if g := st.Generation(id); g == nil || !st.Emits(g) {
				r.stop()
				delete(running, id)
			}
		}
		if !rest(ctx, changed) {
			return
		}
	}
}

// rest waits for a change, and no less than restEvery; false when ctx has ended.
func rest(ctx context.Context, changed <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	}
	return pause(ctx, restEvery)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// runner emits one generation.
type runner struct {
	e          *Emission
	id         crdt.GenerationID
	logger     hclog.Logger
	cancel     context.CancelFunc
	done       chan struct{}
	complained time.Time
}

func (e *Emission) start(ctx context.Context, id crdt.GenerationID) *runner {
	ctx, cancel := context.WithCancel(ctx)
	r := &runner{e: e, id: id, logger: e.c.Logger, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.run(ctx)
	}()
	return r
}

func (r *runner) stop() {
	r.cancel()
	<-r.done
}

func (r *runner) run(ctx context.Context) {
	wait := firstPause
	for ctx.Err() == nil {
		changed := r.e.c.Replica.Changed()
		g := r.e.c.Replica.State().Generation(r.id)
		if g == nil {
			return
		}
		plan, open := next(g)
		if plan == nil && !open {
			if !rest(ctx, changed) {
				return
			}
			continue
		}
		if err := r.batch(ctx, g, plan); err != nil {
			if ctx.Err() == nil {
				r.complain(g, err)
			}
			if !pause(ctx, wait) {
				return
			}
			wait = min(2*wait, maxPause)
			continue
		}
		wait = firstPause
	}
}

// complain logs a failure, once a minute; the metric counts them all.
func (r *runner) complain(g *shard.Generation, err error) {
	r.e.c.Metrics.failures.WithLabelValues(g.Name).Inc()
	if now := time.Now(); now.Sub(r.complained) >= complainEvery {
		r.complained = now
		r.logger.Warn("rows cannot be sent; they are kept and tried again", "job", g.Name, "error", err)
	}
}

// next decides what to send: the plan to propose, or that one is open already. It is a pure function of the state.
func next(g *shard.Generation) (plan *shard.Plan, open bool) {
	o := &g.Outbox
	if o.Open != nil {
		return nil, true
	}
	plan = &shard.Plan{Generation: g.ID, N: o.Last + 1}
	switch end := lastEnd(g.Job, g.Watermark); {
	case end > o.Full:
		plan.To = end
	case lastEnd(g.Job, g.Partial) > max(o.Full, o.Partial):
		plan.To, plan.Partial = lastEnd(g.Job, g.Partial), true
	case o.Pending > 0:
		plan.To = o.Full
	default:
		return nil, false
	}
	return plan, false
}

// lastEnd returns the greatest window end at or below a watermark; crdt.MinTime where there is none.
func lastEnd(j *job.Job, watermark int64) int64 {
	step := j.Window.Step()
	if watermark == crdt.MinTime || watermark == crdt.MaxTime || j.Window.Kind == keyspace.Global || step <= 0 {
		return crdt.MinTime
	}
	end := watermark - watermark%step
	if end > watermark {
		end -= step
	}
	return end
}

// batch proposes plan, if there is one, and sends and closes the open one.
func (r *runner) batch(ctx context.Context, g *shard.Generation, plan *shard.Plan) error {
	if plan != nil {
		if err := r.propose(ctx, plan); err != nil {
			return fmt.Errorf("plan %d: %w", plan.N, err)
		}
	}
	snap, err := r.e.c.Replica.Snapshot()
	if err != nil {
		return fmt.Errorf("read the shard: %w", err)
	}
	done, err := r.send(ctx, snap)
	if cerr := snap.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("read the shard: %w", cerr)
	}
	if err != nil || done == nil {
		return err
	}
	if err := r.propose(ctx, done); err != nil {
		return fmt.Errorf("close plan %d: %w", done.N, err)
	}
	return nil
}

// propose has a command applied. One that is there already counts as applied.
func (r *runner) propose(ctx context.Context, c shard.Command) error {
	res, err := r.e.c.Replica.Propose(ctx, c)
	if err != nil {
		return err
	}
	if res.Outcome != shard.Applied && res.Outcome != shard.Duplicate {
		return fmt.Errorf("%s: %s", res.Outcome, res.Reason)
	}
	return nil
}
