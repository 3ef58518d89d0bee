package group

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// acks remembers when the last heartbeat was sent that a follower has taken, at which term. Raft's own check of leadership
// counts any answer that comes after the question, also to a heartbeat that was sent long before: of a leader that stood
// still meanwhile, that may be an answer from before the others chose another one.
type acks struct {
	mu struct {
		sync.Mutex
		term  uint64
		sent  map[raft.ServerID]time.Time
		moved chan struct{} // closed when sent changes; nil while nobody waits
	}
}

// note takes the answer to a heartbeat that was sent at a time.
func (a *acks) note(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, sent time.Time) {
	if !isHeartbeat(args) || !resp.Success || resp.Term != args.Term {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case args.Term < a.mu.term:
		return
	case args.Term > a.mu.term || a.mu.sent == nil:
		a.mu.term, a.mu.sent = args.Term, map[raft.ServerID]time.Time{}
	}
	a.mu.sent[id] = sent
	if a.mu.moved != nil {
		close(a.mu.moved)
		a.mu.moved = nil
	}
}

// since returns which followers have taken a heartbeat of a term that was sent after a time, and a channel that is closed
// when there may be more.
func (a *acks) since(term uint64, after time.Time) (followers map[raft.ServerID]bool, moved <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	followers = map[raft.ServerID]bool{}
	if a.mu.term == term {
		for id, sent := range a.mu.sent {
			followers[id] = sent.After(after)
		}
	}
	if a.mu.moved == nil {
		a.mu.moved = make(chan struct{})
	}
	return followers, a.mu.moved
}
