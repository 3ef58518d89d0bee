package coordinator

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
)

// repeatAfter is how often the same warning is logged at most.
const repeatAfter = time.Minute

// notes is what is wrong, for people: each warning is logged at most once a minute, and kept for `job show`.
type notes struct {
	logger hclog.Logger

	mu     sync.Mutex
	of     map[crdt.GenerationID][]string
	logged map[string]time.Time
}

func (n *notes) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.of, n.logged = map[crdt.GenerationID][]string{}, map[string]time.Time{}
}

// judge replaces what is wrong with a generation.
func (n *notes) judge(id crdt.GenerationID, problems []string) {
	n.mu.Lock()
	n.of[id] = problems
	n.mu.Unlock()
	for _, p := range problems {
		n.warn(id, p)
	}
}

// warn logs a warning, unless it did so within the last minute.
func (n *notes) warn(id crdt.GenerationID, what string, args ...any) {
	key := fmt.Sprintf("%x %s %v", id, what, args)
	n.mu.Lock()
	due := time.Since(n.logged[key]) >= repeatAfter
	if due {
		for k, at := range n.logged {
			if time.Since(at) >= repeatAfter {
				delete(n.logged, k)
			}
		}
		n.logged[key] = time.Now()
	}
	n.mu.Unlock()
	if due {
		n.logger.Warn(what, args...)
	}
}

// Warnings lists what is wrong with a generation's topics, as this node's coordinator last saw it.
func (c *Coordinator) Warnings(id crdt.GenerationID) []string {
	c.notes.mu.Lock()
	defer c.notes.mu.Unlock()
	return slices.Clone(c.notes.of[id])
}
