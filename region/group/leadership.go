package group

import (
	"sync"

	"github.com/hashicorp/raft"
)

// Leadership says whether this node leads a group. Term is at or above the term at which that began; it is what a later
// leader's is above.
type Leadership struct {
	Leader bool
	Term   uint64
}

// leaderships tells subscribers of changes. Raft must never wait for them, so each gets the latest state, in order, and
// what they miss in between is made up: between two terms of leading they always see its end.
type leaderships struct {
	changed chan struct{} // has a value while a subscriber may lag behind

	mu struct {
		sync.Mutex
		now         Leadership
		subscribers []*subscriber
	}
}

type subscriber struct {
	call func(Leadership)
	told Leadership // of the goroutine that calls
}

func newLeaderships() *leaderships {
	return &leaderships{changed: make(chan struct{}, 1)}
}

// OnLeader has call told whether this node leads: soon, if it does now, and at each change. Calls come one after another
// from one goroutine of the group, which they hold up, until Stop returns; the last one, when the node led, says that it
// no longer does. A new leader's machine may not have applied all that its predecessor acknowledged: call Linearizable
// before acting on its state.
func (g *Group) OnLeader(call func(Leadership)) {
	l := g.leaderships
	l.mu.Lock()
	l.mu.subscribers = append(l.mu.subscribers, &subscriber{call: call})
	l.mu.Unlock()
	l.signal()
}

func (l *leaderships) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *leaderships) set(now Leadership) {
	l.mu.Lock()
	l.mu.now = now
	l.mu.Unlock()
	l.signal()
}

// tell brings all subscribers up to the present.
func (l *leaderships) tell() {
	l.mu.Lock()
	now, subscribers := l.mu.now, l.mu.subscribers
	l.mu.Unlock()
	for _, s := range subscribers {
		if s.told.Leader && (!now.Leader || now.Term != s.told.Term) {
			s.told.Leader = false
			s.call(s.told)
		}
		if now.Leader && s.told != now {
			s.told = now
			s.call(now)
		}
	}
}

// watchLeader takes Raft's word on leadership until the group stops, but for while the disk stalls: nobody leads then.
func (g *Group) watchLeader(notices <-chan bool) {
	var now Leadership // by Raft's word
	for {
		stalled, changed := g.host.guard.stall()
		if stalled {
			g.leaderships.set(Leadership{Term: now.Term})
		} else {
			g.leaderships.set(now)
		}
		select {
		case leads := <-notices:
			now = Leadership{Leader: leads, Term: g.raft.CurrentTerm()}
		case <-changed:
		case <-g.stopped:
			g.leaderships.set(Leadership{})
			return
		}
	}
}

// tellLeader calls the subscribers until the group has stopped.
func (g *Group) tellLeader() {
	for {
		select {
		case <-g.leaderships.changed:
			g.leaderships.tell()
		case <-g.watched:
			g.leaderships.tell()
			return
		}
	}
}

// Leader returns the member that leads the group as far as this node knows, or the zero Member. While the disk stalls that
// is the one to whom leadership was handed.
func (g *Group) Leader() Member {
	if g.raft.State() == raft.Leader && g.host.Stalled() {
		if heir := g.heir.Load(); heir != nil {
			return *heir
		}
		return Member{}
	}
	address, id := g.raft.LeaderWithID()
	if id == "" {
		return Member{}
	}
	return g.host.book.member(string(id), string(address))
}

// IsLeader says whether this node believes that it leads. It may be wrong for as long as its lease: only Linearizable
// and Propose know. While the disk stalls it does not lead.
func (g *Group) IsLeader() bool { return g.raft.State() == raft.Leader && !g.host.Stalled() }
