package group

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A follower learns what is committed from the leader's next message. With entries under way that is soon; after the last
// one Raft would let it wait for CommitTimeout, which is long, since an idle leader's repeating itself is most of what an
// idle group costs. So the transport remembers what it has sent last, and when nothing has followed tells the commit index
// in the message that Raft would use: an AppendEntries without entries, behind those that were sent.

const (
	// noticeAfter is how long after an entry was sent a follower is first told that it is committed.
	noticeAfter = 15 * time.Millisecond
	// noticeTries is how often the leader looks whether it is by then, each time after twice the pause.
	noticeTries = 6
)

// notices are those of one group's transport, by follower.
type notices struct {
	send func(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest)
	// reign returns the term at which this node leads, 0 where it doesn't, and its commit index.
	reign func() (term, commit uint64)

	mu struct {
		sync.Mutex
		closed bool
		to     map[raft.ServerID]*notice
	}
}

// notice is what one follower is still to be told.
type notice struct {
	id     raft.ServerID
	target raft.ServerAddress
	timer  *time.Timer
	tries  int
	args   raft.AppendEntriesRequest // as it will be sent: its previous entry is the last one sent
	told   uint64                    // the commit index in the last message
}

// sent takes note of a message to a follower.
func (n *notices) sent(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest) {
	if len(args.Entries) == 0 {
		return
	}
	last := args.Entries[len(args.Entries)-1]
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		return
	}
	to := n.mu.to[id]
	if to == nil {
		to = &notice{id: id}
		n.mu.to[id] = to
		to.timer = time.AfterFunc(noticeAfter, func() { n.fire(to) })
	} else {
		to.timer.Reset(noticeAfter)
	}
	to.target, to.tries, to.told = target, 0, args.LeaderCommitIndex
	to.args = *args
	to.args.Entries, to.args.PrevLogEntry, to.args.PrevLogTerm = nil, last.Index, last.Term
}

// fire tells a follower what is committed of what it was sent, and comes back while that is not all.
func (n *notices) fire(to *notice) {
	term, commit := n.reign()
	n.mu.Lock()
	args := to.args
	if n.mu.closed || args.Term != term {
		n.mu.Unlock()
		return
	}
	args.LeaderCommitIndex = min(commit, args.PrevLogEntry)
	news := args.LeaderCommitIndex > to.told
	to.told = max(to.told, args.LeaderCommitIndex)
	if to.tries++; to.told < args.PrevLogEntry && to.tries < noticeTries {
		to.timer.Reset(noticeAfter << to.tries)
	}
	id, target := to.id, to.target
	n.mu.Unlock()
	if news {
		n.send(id, target, &args)
	}
}

// close ends all of them; one that is being sent may still be.
func (n *notices) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.closed = true
	for _, to := range n.mu.to {
		to.timer.Stop()
	}
}
