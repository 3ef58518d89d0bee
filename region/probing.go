package region

import (
	"context"
	"sync"

	"github.com/watershed-db/watershed/region/probe"
)

// openProbe starts the exchange of probes with the region's other nodes, at the UDP port with the number of the Raft
// listener's.
func (n *Node) openProbe() (err error) {
	c := n.o.Config
	n.prober, err = probe.Open(probe.Options{
		Deployment: c.Deployment, Region: c.Region, Node: c.Node, Listen: n.host.Addr().String(),
		Peers: n.probed, Groups: n.standings, Room: n.disk.State, Stalled: n.host.Stalled, Campaign: n.campaign,
		Lost:   n.lost,
		Logger: n.o.Logger.Named("probe"),
	})
	if err != nil {
		return err
	}
	n.registry.MustRegister(n.prober)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.prober.Run(ctx) })
	n.probing = func() {
		cancel()
		running.Wait()
	}
	return nil
}

// probed lists the addresses of the region's other nodes.
func (n *Node) probed() map[string]string {
	peers := map[string]string{}
	for _, m := range n.env.Router.Nodes() {
		if m.ID != n.o.Config.Node {
			peers[m.ID] = m.Raft
		}
	}
	return peers
}

// standings tells how the groups on this node stand.
func (n *Node) standings() []probe.Standing {
	out := make([]probe.Standing, 0, n.local.Shards())
	for shard := range uint32(n.local.Shards()) {
		g := n.host.Group(shard)
		if g == nil {
			continue
		}
		s := g.Standing()
		out = append(out, probe.Standing{
			Shard: shard, Term: s.Term, LastTerm: s.LastTerm, LastIndex: s.LastIndex, Voters: s.Voters,
			Votes: s.Votes, Follows: s.Follows, Leads: s.Leads, Leader: s.Leader,
		})
	}
	return out
}

// campaign has this node's group of a shard ask for votes.
func (n *Node) campaign(shard uint32) {
	if g := n.host.Group(shard); g != nil {
		n.o.Logger.Info("a shard's leader is not heard of: asking for votes", "shard", shard, "leader", g.Leader().ID)
		g.Campaign()
	}
}

// lost has calls to a node that is not heard of any more fail, instead of waiting for an answer.
func (n *Node) lost(node string) {
	if address := n.env.Router.Address(node); address != "" {
		n.env.Conns.Break(address)
	}
}

// dead says whether a node of the region is known not to serve any more.
func (n *Node) dead(node string) bool { return n.prober != nil && n.prober.Dead(node) }
