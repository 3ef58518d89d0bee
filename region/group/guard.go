package group

import (
	"fmt"
	"sync"
	"time"
)

// guard stands between Raft and the disk. A write that fails is never tried again, for the pages it was to make durable
// may be gone from the cache; and one that hangs must not keep a leader leading. Both end the process through fatal, and
// until it has ended every write fails with the first error, so that nothing is acknowledged on top of it.
type guard struct {
	timeout time.Duration
	fatal   func(error)

	mu struct {
		sync.Mutex
		failed error // the first failure; never cleared
	}
}

func newGuard(timeout time.Duration, fatal func(error)) *guard {
	return &guard{timeout: timeout, fatal: fatal}
}

// err returns the failure that has poisoned the stores, or nil.
func (g *guard) err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.failed
}

// fail poisons the stores and calls fatal, once. It returns the first failure.
func (g *guard) fail(err error) error {
	g.mu.Lock()
	if g.mu.failed != nil {
		defer g.mu.Unlock()
		return g.mu.failed
	}
	g.mu.failed = err
	g.mu.Unlock()
	g.fatal(err)
	return err
}

// do runs write and waits for it, but no longer than the timeout. After a timeout write is still running: it must own
// all that it touches.
func (g *guard) do(what string, write func() error) error {
	if err := g.err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := fmt.Errorf("%s: ended without a result", what) // pebble's Fatalf ends the goroutine
		defer func() { done <- err }()
		err = write()
	}()
	timer := time.NewTimer(g.timeout)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			return g.fail(fmt.Errorf("%s: %w", what, err))
		}
		return g.err()
	case <-timer.C:
		return g.fail(fmt.Errorf("%s: %w: no answer for %v", what, ErrStalled, g.timeout))
	}
}
