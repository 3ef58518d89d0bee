package region

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
	"github.com/watershed-db/watershed/region/upkeep"
)

// peers is what a node has to do with other regions, and a collector of how that goes.
type peers struct {
	env    *Env
	check  time.Duration // how far apart replicas are compared; 0: as upkeep says
	id     peer.Identity
	links  *peer.Links
	logger hclog.Logger
	shards []atomic.Pointer[peer.Shard] // of the replicas that are here
	server *peer.Server
	// directory knows where the other regions' nodes are.
	directory *peer.Directory

	heard, behind, entries, bytes, joined, gaps, refusals, early, tables, sent, sentBytes, refused, known *prometheus.Desc
}

func newPeers(env *Env, check time.Duration, queue *limit.Limit) *peers {
	c := env.Config
	id := peer.Identity{Deployment: c.Deployment, Self: c.RegionID(), Shards: c.Shards}
	for _, r := range c.Regions {
		id.Members = append(id.Members, peer.Member{Region: crdt.RegionID(r.Name), Number: r.Member, Addresses: r.GRPC})
	}
	p := &peers{env: env, check: check, id: id, links: peer.NewLinks(), logger: env.Logger.Named("peer")}
	p.directory = peer.NewDirectory(id)
	p.shards = make([]atomic.Pointer[peer.Shard], c.Shards)
	p.describe()
	p.server = peer.NewServer(id, func(n uint32) (*peer.Shard, group.Member) {
		leader, _ := env.Router.Leader(keyspace.ShardID(n))
		return p.shards[n].Load(), group.Member{ID: leader.ID}
	}, env.Router.Address, queue, p.logger)
	return p
}

// attach has a replica, while it leads, pull from other regions, and keeps its shard up.
func (p *peers) attach(r *replica.Replica) {
	s := peer.New(peer.Options{
		Identity: p.id, Replica: r, Links: p.links, Logger: p.logger, Addresses: p.directory.Addresses,
		Stopped: func(ctx context.Context, s *shard.SourceStopped) {
			if _, err := p.env.Router.Propose(ctx, 0, s); err != nil && !errors.Is(err, context.Canceled) {
				p.logger.Warn("a source that two regions hold different histories of is not recorded as stopped",
					"source", s.Source, "error", err)
			}
		},
	})
	p.shards[r.Shard()].Store(s)
	r.Lead(s.Run)
	r.Lead(func(ctx context.Context) {
		upkeep.Run(ctx, upkeep.Options{
			Compare: func(ctx context.Context, index uint64, chain crdt.Hash) upkeep.Verdict {
				return compare(ctx, p.env, r, index, chain)
			},
			Replica: r, Peers: s, CheckEvery: p.check, UnreachableAfter: p.env.Config.Peers.UnreachableAfter.D(), Logger: p.env.Logger.Named("upkeep"),
		})
	})
}

// detach forgets a replica that goes.
func (p *peers) detach(id keyspace.ShardID) { p.shards[id].Store(nil) }

// lag tells how far a shard that this node leads is behind other regions.
func (p *peers) lag(id keyspace.ShardID) []*watershedv1.PeerLag {
	here, s := p.env.Router.Replica(id), p.shards[id].Load()
	if here == nil || s == nil || !here.IsLeader() {
		return nil
	}
	unreachable := map[crdt.RegionID]bool{}
	for _, x := range here.State().Unreachable {
		unreachable[x] = true
	}
	var out []*watershedv1.PeerLag
	for _, v := range s.Peers() {
		out = append(out, &watershedv1.PeerLag{
			Region: string(v.Region), Reachable: !unreachable[v.Region], SilentMs: time.Since(v.Heard).Milliseconds(),
			RecordsBehind: v.Behind,
		})
	}
	return out
}

// waiting returns the bytes that wait to be proposed of the stream that has most.
func (p *peers) waiting() (most int64) {
	for i := range p.shards {
		if s := p.shards[i].Load(); s != nil {
			most = max(most, s.Waiting())
		}
	}
	return most
}

func (p *peers) describe() {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("watershed_peer_"+name, help, labels, nil)
	}
	of := []string{"shard", "region"}
	p.heard = desc("silent_seconds", "Time since a shard's leader heard from its peer in a region.", of...)
	p.behind = desc("records_behind", "Records that the peer has taken and this shard not; -1 where it never told.", of...)
	p.entries = desc("entries_total", "Commands taken from the peer.", of...)
	p.bytes = desc("bytes_total", "Bytes of commands taken from the peer.", of...)
	p.joined = desc("joined_bytes_total", "Bytes taken from the peer by state joins.", of...)
	p.gaps = desc("gaps_total", "Commands of the peer that did not fit yet.", of...)
	p.early = desc("table_waits_total", "Times that operations on tables waited for stamps too far ahead: a clock is wrong.", of...)
	p.tables = desc("table_behind", "Entries of tables' histories that the region has and the shard not.", of...)
	p.refusals = desc("join_refusals_total", "State joins that could not be made: people have to look.", of...)
	p.sent = desc("sent_entries_total", "Commands sent to other regions.")
	p.sentBytes = desc("sent_bytes_total", "Bytes of commands sent to other regions.")
	p.known = desc("addresses", "Addresses at which nodes of a region are dialed.", "region")
	p.refused = desc("refused_total", "Calls of other regions that were refused.", "reason")
}

// Describe implements prometheus.Collector.
func (p *peers) Describe(out chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{
		p.heard, p.behind, p.entries, p.bytes, p.joined, p.gaps, p.refusals, p.early, p.tables, p.sent, p.sentBytes, p.refused, p.known,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (p *peers) Collect(out chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	for i := range p.shards {
		s, here := p.shards[i].Load(), p.env.Router.Replica(keyspace.ShardID(i))
		if s == nil || here == nil {
			continue
		}
		id := strconv.Itoa(i)
		leads := here.IsLeader()
		for _, v := range s.Peers() {
			region := string(v.Region)
			if leads {
				tell(p.heard, prometheus.GaugeValue, time.Since(v.Heard).Seconds(), id, region)
				tell(p.behind, prometheus.GaugeValue, float64(v.Behind), id, region)
			}
			tell(p.entries, prometheus.CounterValue, float64(v.Entries), id, region)
			tell(p.bytes, prometheus.CounterValue, float64(v.Bytes), id, region)
			tell(p.joined, prometheus.CounterValue, float64(v.Joined), id, region)
			tell(p.gaps, prometheus.CounterValue, float64(v.Gaps), id, region)
			tell(p.refusals, prometheus.CounterValue, float64(v.Refusals), id, region)
			tell(p.early, prometheus.CounterValue, float64(v.Early), id, region)
			tell(p.tables, prometheus.GaugeValue, float64(v.Tables), id, region)
		}
	}
	for _, region := range p.directory.Regions() {
		tell(p.known, prometheus.GaugeValue, float64(len(p.directory.Addresses(region))), string(region))
	}
	entries, bytes := p.server.Sent()
	tell(p.sent, prometheus.CounterValue, float64(entries))
	tell(p.sentBytes, prometheus.CounterValue, float64(bytes))
	for reason, n := range p.server.Refused() {
		tell(p.refused, prometheus.CounterValue, float64(n), reason)
	}
}
