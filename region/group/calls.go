package group

import (
	"sync"
	"time"
)

// calls counts what was asked of Raft and has no answer yet. Raft never answers what its queues still hold when it shuts
// down, so a group asks for nothing more and waits for its answers first.
type calls struct {
	mu      sync.Mutex
	open    int
	closing bool
	idle    chan struct{} // closed when closing and none is open
}

func newCalls() *calls { return &calls{idle: make(chan struct{})} }

// begin counts a call, which end takes back; false when calls are no longer allowed.
func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.open++
	return true
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if c.closing && c.open == 0 {
		close(c.idle)
	}
}

// close allows no more calls, and waits for those under way, no longer than bound. It is called once.
func (c *calls) close(bound time.Duration) {
	c.mu.Lock()
	c.closing = true
	if c.open == 0 {
		close(c.idle)
	}
	c.mu.Unlock()
	limit := time.NewTimer(bound)
	defer limit.Stop()
	select {
	case <-c.idle:
	case <-limit.C:
	}
}
