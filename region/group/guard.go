package group

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// guard stands between Raft and the disk. A write that fails is never tried again, for the pages it was to make durable
// may be gone from the cache; and one that hangs must not keep a leader leading. A call of the node's stores that has not
// returned after soft counts as stalled: until it returns, the node's groups lead nothing. One that has not returned after
// hard, and a write that fails, end the process through fatal. Meanwhile every call waits: Raft panics over an error of its
// stores, and would end the process before it has said why. Where fatal returns, every call fails with the first error, so
// that nothing is acknowledged on top of it.
type guard struct {
	soft, hard time.Duration
	fatal      func(error)
	late       atomic.Int64  // calls past soft that have not returned
	stalls     atomic.Uint64 // calls that ever went past it
	broken     chan struct{} // closed when failed is set and fatal has returned

	mu struct {
		sync.Mutex
		failed  error         // the first failure; never cleared
		changed chan struct{} // closed, and made anew, when late leaves 0 or comes back to it
	}
}

func newGuard(soft, hard time.Duration, fatal func(error)) *guard {
	g := &guard{soft: soft, hard: hard, fatal: fatal, broken: make(chan struct{})}
	g.mu.changed = make(chan struct{})
	return g
}

// err returns the failure that has poisoned the stores, or nil.
func (g *guard) err() error {
	g.mu.Lock()
	failed := g.mu.failed
	g.mu.Unlock()
	if failed != nil {
		<-g.broken
	}
	return failed
}

// fail poisons the stores and calls fatal, once. It returns the first failure.
func (g *guard) fail(err error) error {
	g.mu.Lock()
	if g.mu.failed != nil {
		g.mu.Unlock()
		return g.err()
	}
	g.mu.failed = err
	g.mu.Unlock()
	g.fatal(err)
	close(g.broken)
	return err
}

// stalled says whether a call is past its soft deadline now.
func (g *guard) stalled() bool { return g.late.Load() > 0 }

// stall returns that and a channel that is closed when it changes.
func (g *guard) stall() (stalled bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stalled(), g.mu.changed
}

// count adds to the calls that are late.
func (g *guard) count(by int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.late.Add(by)
	if (now == 0) != (now-by == 0) {
		close(g.mu.changed)
		g.mu.changed = make(chan struct{})
	}
}

// begin puts the call that the caller is about to make under both deadlines, until it calls the function returned.
func (g *guard) begin(what string) (end func()) {
	w := &watched{guard: g, what: what}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(g.soft, w.late)
	return w.end
}

// watched is one call under way.
type watched struct {
	guard *guard
	what  string
	file  string // that it is about, where it is about one

	mu      sync.Mutex // a leaf's only parent: held while the guard counts
	timer   *time.Timer
	ended   bool
	counted bool
}

func (w *watched) late() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.counted = true
	w.guard.stalls.Add(1)
	w.guard.count(1)
	w.timer = time.AfterFunc(w.guard.hard-w.guard.soft, w.hung)
}

func (w *watched) hung() {
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	what := w.what
	if w.file != "" {
		what += " " + w.file
	}
	if !ended {
		w.guard.fail(fmt.Errorf("%s: %w: no answer for %v", what, ErrStalled, w.guard.hard))
	}
}

func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	if w.counted {
		w.guard.count(-1)
	}
}

// do runs write and waits for it, but no longer than the hard deadline. After that write is still running: it must own
// all that it touches.
func (g *guard) do(what string, write func() error) error {
	if err := g.err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	end := g.begin(what)
	go func() {
		err := fmt.Errorf("%s: ended without a result", what) // pebble's Fatalf ends the goroutine
		defer func() {
			end()
			done <- err
		}()
		defer func() {
			if failed := failureOf(recover()); failed != nil {
				err = failed
			}
		}()
		err = write()
	}()
	select {
	case err := <-done:
		if err != nil {
			return g.fail(fmt.Errorf("%s: %w", what, err))
		}
	case <-g.broken:
	}
	return g.err()
}

// failureOf returns the error that the log's database panics with when a write before has failed, nil where it didn't panic.
// It leaves the database locked, and the process is to end. A panic of any other kind goes on.
func failureOf(panicked any) error {
	failed, ok := panicked.(error)
	var bug runtime.Error
	if panicked != nil && (!ok || errors.As(failed, &bug)) {
		panic(panicked)
	}
	return failed
}

// read is do for what changes nothing: what fails is the caller's to judge. It runs on the caller's goroutine, so one that
// hangs holds it until the process has ended.
func (g *guard) read(what string, read func() error) error {
	if err := g.err(); err != nil {
		return err
	}
	defer g.begin(what)()
	return read()
}
