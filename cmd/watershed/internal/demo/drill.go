package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// The drill's steps, as parts of the time that traffic flows.
const (
	killAt    = 0.15
	cutAt     = 0.35
	healAt    = 0.60
	restartAt = 0.75
)

// settle is for how long after a fault nothing counts as calm.
const settle = 2 * time.Second

// Drill says what the drill did and how long it took to get well again. Times are milliseconds.
type Drill struct {
	Killed       string  `json:"killed"`              // node
	LeadersAfter float64 `json:"leaders_replaced_ms"` // from the kill until every shard had a leader again
	Cut          float64 `json:"cut_ms"`              // how long the regions were apart
	Heal         float64 `json:"time_to_heal_ms"`     // from the heal until each held all that the others held at it
	Restart      float64 `json:"restart_ms"`          // of the killed node, until it was ready
}

// drill plays the faults. What it says is safe to read at any time.
type drill struct {
	run    *run
	broken atomic.Int32 // faults that are on
	mended atomic.Int64 // when the last one ended, Unix ms
	mu     sync.Mutex
	doing  string
	result Drill
	failed []string // steps that did not go as they should
}

// calm says whether nothing is broken, and has not been for a while.
func (d *drill) calm() bool {
	return d.broken.Load() == 0 && time.Now().UnixMilli()-d.mended.Load() > settle.Milliseconds()
}

func (d *drill) begin(format string, args ...any) {
	d.broken.Add(1)
	d.say(format, args...)
}

// end tells that a fault is over, unless err says that it is not.
func (d *drill) end(err error, format string, args ...any) {
	d.mended.Store(time.Now().UnixMilli())
	d.broken.Add(-1)
	if err == nil {
		d.say(format, args...)
	}
}

func (d *drill) say(format string, args ...any) {
	d.mu.Lock()
	d.doing = fmt.Sprintf(format, args...)
	d.mu.Unlock()
	d.run.screen.event(d.status())
}

func (d *drill) status() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doing
}

func (d *drill) set(change func(*Drill)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.result)
}

// taken returns what the drill did, and what went wrong.
func (d *drill) taken() (Drill, []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.result, slices.Clone(d.failed)
}

func millis(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }

// play goes through all steps while traffic flows, for so long from start, and until ctx ends. A step that fails is noted,
// and the next one goes on. Nothing is left cut.
func (d *drill) play(ctx context.Context, start time.Time, flows time.Duration) {
	d.mended.Store(start.UnixMilli())
	defer func() { _ = d.pairs(d.run.deployment.Heal) }() // the regions are those of the deployment
	for _, step := range []struct {
		part float64
		do   func(context.Context) error
	}{{killAt, d.kill}, {cutAt, d.cut}, {healAt, d.heal}, {restartAt, d.restart}} {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(start.Add(time.Duration(step.part * float64(flows))))):
		}
		switch {
		case errors.Is(ctx.Err(), context.Canceled): // the demo ends
			return
		case ctx.Err() != nil:
			d.fail(errors.New("the traffic ended before all steps were played"))
			return
		}
		if err := step.do(ctx); err != nil {
			d.fail(err)
		}
	}
}

func (d *drill) fail(err error) {
	d.mu.Lock()
	d.failed = append(d.failed, fmt.Sprintf("drill: %v", err))
	d.mu.Unlock()
	d.run.screen.event(err.Error())
}

// kill ends the node that leads most shards of the region that owns them, and waits for new leaders.
func (d *drill) kill(ctx context.Context) error {
	owner := d.run.regions[0]
	var leads map[string]int
	node := ""
	err := await(ctx, "find a leader", func() (bool, error) {
		leaders, err := d.run.leaders(ctx, owner)
		leads = map[string]int{}
		for _, n := range leaders {
			if leads[n]++; n != "" && (node == "" || leads[n] > leads[node]) {
				node = n
			}
		}
		return node != "", err
	})
	if err != nil {
		return err
	}
	d.set(func(r *Drill) { r.Killed = node })
	d.begin("kill -9 %s, which leads %d of %d shards", node, leads[node], d.run.deployment.Shards())
	killed := time.Now()
	if err := d.run.deployment.Kill(node); err != nil {
		d.end(err, "")
		return err
	}
	err = await(ctx, "replace "+node, func() (bool, error) {
		leaders, err := d.run.leaders(ctx, owner)
		for _, n := range leaders {
			if n == "" || n == node {
				return false, err
			}
		}
		return len(leaders) == d.run.deployment.Shards(), err
	})
	took := millis(killed)
	d.set(func(r *Drill) { r.LeadersAfter = took })
	d.end(err, "%s is dead, its shards have new leaders after %.0f ms", node, took)
	return err
}

// pairs calls do for every two regions.
func (d *drill) pairs(do func(a, b string) error) error {
	for i, a := range d.run.regions {
		for _, b := range d.run.regions[i+1:] {
			if err := do(a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *drill) cut(context.Context) error {
	d.begin("the regions are cut apart")
	d.set(func(r *Drill) { r.Cut = float64(time.Now().UnixMicro()) / 1000 })
	return d.pairs(d.run.deployment.Cut)
}

// heal joins the regions, and waits until each has all that the others had at that moment.
func (d *drill) heal(ctx context.Context) error {
	goal := map[sourceID]int64{}
	for _, r := range d.run.regions {
		v, err := d.run.look(ctx, r)
		if err != nil {
			d.fail(fmt.Errorf("look at %s: %w", r, err))
		}
		for id, offset := range v.offsets {
			goal[id] = max(goal[id], offset)
		}
	}
	healed := time.Now()
	d.set(func(r *Drill) { r.Cut = float64(healed.UnixMicro())/1000 - r.Cut })
	err := d.pairs(d.run.deployment.Heal)
	d.say("the regions are joined again")
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range d.run.regions {
		g.Go(func() error {
			return await(ctx, "heal "+r, func() (bool, error) {
				v, err := d.run.look(ctx, r)
				return err == nil && v.reaches(goal), err
			})
		})
	}
	err = errors.Join(err, g.Wait())
	took := millis(healed)
	d.set(func(r *Drill) { r.Heal = took })
	d.end(err, "the regions agree again after %.0f ms", took)
	return err
}

func (d *drill) restart(ctx context.Context) error {
	drill, _ := d.taken()
	node := drill.Killed
	if node == "" {
		return nil // the kill has failed, and said so
	}
	d.begin("%s is started again", node)
	started := time.Now()
	err := d.run.deployment.Restart(ctx, node)
	took := millis(started)
	d.set(func(r *Drill) { r.Restart = took })
	d.end(err, "%s is back after %.0f ms", node, took)
	return err
}
