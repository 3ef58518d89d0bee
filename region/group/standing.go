package group

import "github.com/hashicorp/raft"

// Standing is what a group on this node brings to an election.
type Standing struct {
	Term      uint64 // the node is at
	LastTerm  uint64 // of the last entry of its log, 0 where unknown
	LastIndex uint64
	Voters    int    // of the group
	Votes     bool   // this node is one of them
	Follows   bool   // it is Raft's follower: it may campaign
	Leads     bool   // as far as it knows
	Leader    string // the leading member, as far as it knows
}

// Standing describes the group at this moment. What Raft changes meanwhile may be seen in part.
func (g *Group) Standing() Standing {
	role := g.raft.State()
	s := Standing{
		Term: g.raft.CurrentTerm(), LastTerm: g.log.LastTerm(), LastIndex: g.raft.LastIndex(), Leader: g.Leader().ID,
		Follows: role == raft.Follower, Leads: g.IsLeader(),
	}
	future := g.raft.GetConfiguration() // answers from memory
	if future.Error() != nil {
		return s
	}
	for _, server := range future.Configuration().Servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		s.Voters++
		if server.ID == raft.ServerID(g.host.cfg.NodeID) {
			s.Votes = true
		}
	}
	return s
}
