package group

import "testing"

// Followers know what is committed long before an idle leader would repeat it.
func TestFollowersLearnSoonWhatIsCommitted(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CommitTimeout = 100 * patience })
	for _, text := range []string{"a", "b"} {
		index := c.propose(text)
		c.await("all to have applied "+text, func() bool {
			for _, n := range c.nodes {
				if n.group.position.get() < index {
					return false
				}
			}
			return true
		})
	}
}

func TestStanding(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.propose("a")
	leader := c.leader()
	for i, n := range c.nodes {
		c.await("the log to arrive", func() bool { return n.group.Standing().LastIndex == c.nodes[leader].group.Standing().LastIndex })
		s := n.group.Standing()
		if s.Voters != 3 || !s.Votes || s.Leads != (i == leader) || s.Follows == s.Leads || s.LastTerm != s.Term {
			t.Errorf("node %d of which %d leads: %+v", i, leader, s)
		}
		c.await("the leader to be known", func() bool { return n.group.Standing().Leader == c.configs[leader].NodeID })
	}
	c.kill(leader)
	c.start(leader)
	if s := c.nodes[leader].group.Standing(); s.LastTerm == 0 {
		t.Errorf("after a restart: %+v", s)
	}
}
