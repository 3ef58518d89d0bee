package group

import (
	"context"
	"sync"
)

// position is how far a machine has applied the log. It may be used by any goroutine.
type position struct {
	mu struct {
		sync.Mutex
		index uint64
		moved chan struct{} // closed when index rises; nil while nobody waits
	}
}

func (p *position) get() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.index
}

// advance raises the position; a lower index changes nothing.
func (p *position) advance(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if index <= p.mu.index {
		return
	}
	p.mu.index = index
	if p.mu.moved != nil {
		close(p.mu.moved)
		p.mu.moved = nil
	}
}

// wait returns when the position is at index or above, when ctx is done, or with ErrStopped when stopped is closed.
func (p *position) wait(ctx context.Context, index uint64, stopped <-chan struct{}) error {
	for {
		p.mu.Lock()
		if p.mu.index >= index {
			p.mu.Unlock()
			return nil
		}
		if p.mu.moved == nil {
			p.mu.moved = make(chan struct{})
		}
		moved := p.mu.moved
		p.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-stopped:
			return ErrStopped
		}
	}
}
