package owner

import (
	"sync"
	"time"
)

// Clock is what leases are measured by. It is safe for any goroutine.
type Clock interface {
	// Now returns the time since some instant. It never goes back, and counts on while the machine sleeps.
	Now() time.Duration
	// Trusted says whether the clock has kept time lately, as far as can be told.
	Trusted() bool
}

const (
	// distrustFor is for how long a clock is not trusted after it disagreed with the wall's.
	distrustFor = 10 * time.Second
	// compareOver is the time over which two clocks are compared.
	compareOver = time.Second
)

// NewClock returns the machine's clock. It is distrusted for a while when it and the wall's clock have moved apart by more
// than bound within a second or so: after a machine was stopped and moved, or when someone sets the time.
func NewClock(bound time.Duration) Clock { return &systemClock{judge: judge{bound: bound}} }

type systemClock struct {
	mu    sync.Mutex
	judge judge
}

// Now implements Clock.
func (c *systemClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, wall, spread := readBoth()
	c.judge.look(now, wall, spread)
	return now
}

// readBoth reads both clocks, and tells how far apart the readings may lie: the process may be held up between them.
func readBoth() (now time.Duration, wall int64, spread time.Duration) {
	before := sinceBoot()
	wall = time.Now().UnixNano()
	now = sinceBoot()
	return now, wall, now - before
}

// Trusted implements Clock.
func (c *systemClock) Trusted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.look(readBoth())
}

// judge compares a clock with the wall's.
type judge struct {
	bound time.Duration

	begun    bool
	at       time.Duration // when they were compared first in the present second
	wall     int64         // the wall's clock then, in nanoseconds
	spread   time.Duration // how far apart those two readings may lie
	distrust time.Duration // until when; 0 for none
}

// look says whether the clock is to be trusted at an instant, whose two readings lie no further apart than spread.
func (j *judge) look(now time.Duration, wall int64, spread time.Duration) bool {
	if !j.begun {
		j.begun, j.at, j.wall, j.spread = true, now, wall, spread
	}
	apart := time.Duration(wall-j.wall) - (now - j.at)
	switch bound := j.bound + j.spread + spread; {
	case apart > bound || apart < -bound:
		j.distrust = now + distrustFor
		j.at, j.wall, j.spread = now, wall, spread
	case now-j.at >= compareOver && spread <= j.bound/4:
		j.at, j.wall, j.spread = now, wall, spread
	}
	return j.distrust == 0 || now >= j.distrust
}
