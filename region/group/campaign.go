package group

import (
	"errors"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// campaignStep is how much longer each next survivor waits, so that they don't split the vote.
	campaignStep = 120 * time.Millisecond
	// campaignPause is how long a group doesn't campaign again.
	campaignPause = time.Second
	// goneWithin is for how long a peer that may be ending is looked at, and goneCheckPause is between looks.
	goneWithin     = 500 * time.Millisecond
	goneCheckPause = 25 * time.Millisecond
)

// watchPeers shortens a failover where the leader's process has ended: its connections break, and its address refuses new
// ones, long before the heartbeat timeout. One survivor then campaigns as if leadership had been handed to it. Votes, terms
// and logs are checked as ever; only the followers' loyalty to a leader they heard from lately is given up, and a leader
// that lives after all finds out when it verifies its leadership.
func (g *Group) watchPeers() {
	var last time.Time
	for {
		select {
		case peer := <-g.transport.stream.lost:
			if time.Since(last) > campaignPause && g.shouldCampaign(peer) {
				last = time.Now()
				g.Campaign()
			}
		case <-g.stopped:
			return
		}
	}
}

// aloneEvery is how often the only voter of a group tries to lead it.
const aloneEvery = 50 * time.Millisecond

// watchAlone has the only voter of a group lead it without waiting for a heartbeat that nobody sends: when it starts, and
// when it led and does no more. The timeouts are not shorter for that, so a group that grows has those of any other.
func (g *Group) watchAlone() {
	ended := make(chan struct{}, 1)
	g.OnLeader(func(l Leadership) {
		if l.Leader {
			return
		}
		select {
		case ended <- struct{}{}:
		default:
		}
	})
	for {
		for g.raft.State() != raft.Leader && g.alone() {
			g.Campaign()
			if !g.pause(aloneEvery) {
				return
			}
		}
		select {
		case <-ended:
		case <-g.stopped:
			return
		}
	}
}

// alone says whether this node is the only one that votes.
func (g *Group) alone() bool {
	voters := g.voters()
	return len(voters) == 1 && voters[0].ID == g.host.cfg.NodeID
}

// shouldCampaign says whether peer led this group, is gone, and it is this node's turn to follow it.
func (g *Group) shouldCampaign(peer string) bool {
	term := g.raft.CurrentTerm()
	if g.raft.State() != raft.Follower || g.Leader().ID != peer || !g.votes() {
		return false
	}
	for began := time.Now(); !g.gone(peer); {
		if time.Since(began) > goneWithin || !g.pause(goneCheckPause) || g.Leader().ID != peer {
			return false
		}
	}
	if !g.pause(time.Duration(g.rank(peer)) * campaignStep) {
		return false
	}
	if g.raft.CurrentTerm() != term && !g.pause(2*campaignStep) { // another campaigns: let it win, if it can
		return false
	}
	leader := g.Leader().ID
	return g.raft.State() == raft.Follower && !g.host.Stalled() && (leader == "" || leader == peer) && g.gone(peer)
}

// gone says whether nothing listens at the peer's address any more, or it no longer serves the shard. A peer that doesn't
// answer is not gone: the heartbeat timeout is for those.
func (g *Group) gone(peer string) bool {
	m := g.host.book.member(peer, "")
	conn, err := g.transport.stream.dial(m.Address, maxDial)
	if err == nil {
		conn.Close()
		return false
	}
	var refused refusal
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &refused) && verdict(refused) == refusedShard
}

// rank is this node's place in the order in which the survivors of peer campaign. It differs from shard to shard, so that
// not all leaderships of a node move to one other.
func (g *Group) rank(peer string) int {
	return rankOf(g.voters(), g.host.cfg.NodeID, peer, g.shard)
}

func rankOf(voters []Member, node, peer string, shard uint32) int {
	survivors, self := 0, 0
	for _, m := range voters {
		if m.ID == peer {
			continue
		}
		if m.ID == node {
			self = survivors
		}
		survivors++
	}
	return (self + int(shard)) % max(survivors, 1)
}

// pause waits, and says whether the group still runs.
func (g *Group) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-g.stopped:
		return false
	}
}

// Campaign has this node ask for votes at once where it follows and its disk answers, by the message that hands on
// leadership, sent to itself. The leader that the others have does not keep them from voting; terms and logs do.
func (g *Group) Campaign() {
	if g.raft.State() != raft.Follower || g.host.Stalled() {
		return
	}
	self := raft.ServerID(g.host.cfg.NodeID)
	address := raft.ServerAddress(g.transport.stream.address)
	args := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: []byte(address),
	}}
	if err := g.transport.TimeoutNow(self, address, args, new(raft.TimeoutNowResponse)); err != nil {
		g.logger.Warn("campaigning at once failed", "error", err)
	}
}
