package objects

import (
	"context"
	"sync"
	"time"
)

// pace spreads bytes over time. A body waits before it is sent, so a body is a burst.
type pace struct {
	rate int64 // bytes a second; 0 for no bound

	mu   sync.Mutex
	free time.Time // when what was let through so far has had its time
}

// wait returns when n bytes may be sent, or when ctx ends.
func (p *pace) wait(ctx context.Context, n int) error {
	if p.rate <= 0 {
		return ctx.Err()
	}
	pause := p.reserve(time.Now(), n)
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reserve books n bytes and returns how long they have to wait from now on.
func (p *pace) reserve(now time.Time, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free.Before(now) {
		p.free = now
	}
	pause := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return pause
}
