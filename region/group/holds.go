package group

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// holdFor is how long the log is kept for a follower that takes nothing any more.
const holdFor = time.Minute

// holds keeps the log from being cut past what followers need that were sent a snapshot. Otherwise a follower that takes
// longer for it than the log lasts is sent one snapshot after the other (hashicorp/raft#697, #704).
type holds struct {
	mu struct {
		sync.Mutex
		of map[raft.ServerID]*hold
	}
}

// hold says that a follower needs the log from an index on.
type hold struct {
	index   uint64
	moved   time.Time
	sending bool
}

// need says that a follower is being sent a snapshot, or is there and waits for it, and will need the log from index on.
func (h *holds) need(id raft.ServerID, index uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.of == nil {
		h.mu.of = map[raft.ServerID]*hold{}
	}
	h.mu.of[id] = &hold{index: index, moved: time.Now(), sending: true}
}

// sent says that the follower has the snapshot, or that it can't be had.
func (h *holds) sent(id raft.ServerID, installed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	mine := h.mu.of[id]
	switch {
	case mine == nil:
	case installed:
		mine.sending, mine.moved = false, time.Now()
	default:
		delete(h.mu.of, id)
	}
}

// reached says that a follower has the log up to an index. Its hold ends when that is all that is committed.
func (h *holds) reached(id raft.ServerID, index, commit uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	mine := h.mu.of[id]
	switch {
	case mine == nil || mine.sending:
	case index >= commit:
		delete(h.mu.of, id)
	case index > mine.index:
		mine.index, mine.moved = index, time.Now()
	}
}

// least returns the index from which on the log is to be kept; not ok where nobody needs it.
func (h *holds) least(now time.Time) (index uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, mine := range h.mu.of {
		if now.Sub(mine.moved) > holdFor {
			delete(h.mu.of, id)
			continue
		}
		if !ok || mine.index < index {
			index, ok = mine.index, true
		}
	}
	return index, ok
}
