package replica

import (
	"slices"
	"sync"

	"github.com/watershed-db/watershed/region/shard"
)

// watchers are told of changes. The list is replaced whole, so that telling them takes no lock for long.
type watchers struct {
	mu   sync.Mutex
	list []*watcher
}

type watcher struct{ tell func(shard.Change) }

// Observe has call told of each command that changes rows from now on, in order, by the goroutine that applies commands:
// it must not block, and keep nothing of its argument. stop ends that; a call may still be under way when it returns.
func (r *Replica) Observe(call func(shard.Change)) (stop func()) {
	w := &watcher{call}
	ws := &r.watchers
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.list = append(slices.Clip(ws.list), w)
	return func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		ws.list = slices.DeleteFunc(slices.Clone(ws.list), func(x *watcher) bool { return x == w })
	}
}

func (ws *watchers) tell(c shard.Change) {
	ws.mu.Lock()
	list := ws.list
	ws.mu.Unlock()
	for _, w := range list {
		w.tell(c)
	}
}
