package group

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// A leader whose disk hangs would lead for ever: Raft's main loop waits for the write, but heartbeats go out beside it, so
// its followers stay loyal and nothing commits. While a call of the node's stores is late (guard), therefore, a group that
// this node leads tells its subscribers that it no longer does, takes no proposals and reads, sends its followers nothing
// and hands leadership to one of them. Raft itself learns of it when the call returns.

var errStalled = fmt.Errorf("%w: %w", ErrUnavailable, ErrStalled)

// watchDisk hands on leadership when the disk stalls.
func (g *Group) watchDisk() {
	for {
		stalled, changed := g.host.guard.stall()
		if stalled && g.raft.State() == raft.Leader {
			g.logger.Warn("disk stalls: handing on leadership", "term", g.raft.CurrentTerm())
			g.handOn()
		}
		if !stalled {
			g.heir.Store(nil)
		}
		select {
		case <-changed:
		case <-g.stopped:
			return
		}
	}
}

// handOn has another member campaign at once. Raft's own transfer would wait for its main loop, which may be what hangs.
// Where the member's log lacks too much to win, the others follow when they have heard nothing for a heartbeat timeout.
func (g *Group) handOn() {
	self := raft.ServerID(g.host.cfg.NodeID)
	args := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: []byte(g.transport.stream.address),
	}}
	members := g.voters()
	for i := range members {
		m := members[(int(g.shard)+i)%len(members)]
		if m.ID == string(self) {
			continue
		}
		if g.timeoutNow(m, args) {
			g.heir.Store(&m)
			return
		}
	}
}

// handOnWithin bounds what a member may take to answer that it campaigns.
const handOnWithin = 300 * time.Millisecond

func (g *Group) timeoutNow(m Member, args *raft.TimeoutNowRequest) (done bool) {
	answer := make(chan error, 1)
	g.running.Go(func() {
		answer <- g.transport.TimeoutNow(raft.ServerID(m.ID), raft.ServerAddress(m.Address), args, new(raft.TimeoutNowResponse))
	})
	select {
	case err := <-answer:
		return err == nil
	case <-time.After(handOnWithin):
		return false
	case <-g.stopped:
		return false
	}
}

// hold keeps a leader's message back while the disk stalls: it would keep followers from electing another one. It returns
// nil when the message may go, and an error when there is nothing more to say.
func (t *transport) hold(term uint64) error {
	for {
		stalled, changed := t.stall()
		if !stalled {
			return nil
		}
		if !t.leads(term) {
			return errStalled
		}
		select {
		case <-changed:
		case <-t.stream.closed:
			return raft.ErrTransportShutdown
		}
	}
}
