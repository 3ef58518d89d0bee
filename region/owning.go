package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/owner"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
)

// foundOwned returns the record of ownership that every shard of a new deployment begins with: all regions are members under
// their configured numbers, and hold the first entry of the configured owner's epoch.
func foundOwned(c config.Config) ownership.Record {
	conf := ownership.Config{Number: 1}
	for _, r := range c.Regions {
		id := ownership.MemberID(r.Member)
		conf.Members = append(conf.Members, ownership.Member{ID: id, Region: r.Name})
		conf.Highest = max(conf.Highest, id)
	}
	slices.SortFunc(conf.Members, func(a, b ownership.Member) int { return int(a.ID) - int(b.ID) })
	self, _ := c.Member(c.Region)
	owner, _ := c.Member(c.Owner)
	return ownership.FoundOwned(ownership.MemberID(self.Member), conf, ownership.MemberID(owner.Member))
}

// settings returns what a configuration says of leases and claims.
func settings(c config.Ownership) ownership.Settings {
	s := ownership.Default()
	lease := c.Lease.D()
	s.Lease, s.Margin, s.ClaimAfter = lease, c.Margin.D(), c.ClaimAfter.D()
	s.Longest = min(2*lease, ownership.MaxLease)
	s.Stagger, s.Alone = c.ClaimAfter.D()/4, lease*2/5
	s.Flip, s.Resend = max(3*lease, 3*time.Second), max(lease/2, 500*time.Millisecond)
	return s
}

// owners is what a node has to do with the ownership of its shards, and a collector of how that goes.
type owners struct {
	env      *Env
	peers    *peers
	set      ownership.Settings
	clock    owner.Clock
	conns    *router.Conns // to nodes of other regions
	shards   []atomic.Pointer[owner.Shard]
	exchange *owner.Exchange

	owns, lease, dropped, taken, sent, logged, events, distrusted *prometheus.Desc
	waiting, kept, conflicts                                      *prometheus.Desc
}

func newOwners(env *Env, p *peers, clock owner.Clock) *owners {
	c := env.Config
	o := &owners{env: env, peers: p, set: settings(c.Ownership), clock: clock, shards: make([]atomic.Pointer[owner.Shard], c.Shards)}
	if o.clock == nil {
		o.clock = owner.NewClock(o.set.Margin / 2)
	}
	// A cut that ends is to be noticed within about a lease.
	o.conns = router.NewConns(append(router.DialOptions(), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 300 * time.Millisecond},
		MinConnectTimeout: time.Second,
	}))...)
	o.exchange = owner.NewExchange(owner.ExchangeOptions{
		Self: c.RegionID(), Regions: c.RegionIDs(), Hello: o.hello, Check: p.server.Check, Addresses: p.directory.Addresses,
		Conn: o.conns.To, Forget: o.conns.Forget, Near: env.Conns.To, Shard: o.Shard, Leader: o.leader, Shards: c.Shards,
		Logger: env.Logger.Named("owner"),
	})
	o.describe()
	return o
}

// Shard returns the owned log of a shard that is on this node, nil where it isn't.
func (o *owners) Shard(id keyspace.ShardID) *owner.Shard { return o.shards[id].Load() }

// leader returns the address of the node that leads a shard, "" for this one and where none is known.
func (o *owners) leader(id keyspace.ShardID) string {
	if n, ok := o.env.Router.Leader(id); ok && n.ID != o.env.Config.Node {
		return n.GRPC
	}
	return ""
}

// hello returns what a node of a region says of itself.
func (o *owners) hello(of crdt.RegionID) *peerv1.Hello {
	r, _ := o.env.Config.Member(string(of))
	return &peerv1.Hello{Deployment: o.env.Config.Deployment, Region: r.Name, Member: uint32(r.Member),
		Shards: uint32(o.env.Config.Shards), Version: peer.Version}
}

// attach has a replica, while it leads, take its region's part in who owns the shard.
func (o *owners) attach(r *replica.Replica) {
	c, id := o.env.Config, r.Shard()
	self, _ := c.Member(c.Region)
	s := owner.New(owner.Options{
		Replica: r, Incarnation: ownership.MemberID(self.Member), Settings: o.set, Tick: c.Ownership.Tick.D(), Clock: o.clock,
		Send: func(to crdt.RegionID, m ownership.Message, entries [][]byte) { o.exchange.Send(to, id, m, entries) },
		Join: func(ctx context.Context, instead ownership.MemberID) (ownership.MemberID, error) {
			return o.join(ctx, id, instead)
		},
		State: func(ctx context.Context, from crdt.RegionID, at ownership.Mark, take func(owned.Digest, []byte) error) error {
			return o.state(ctx, id, from, at, take)
		},
		Now: time.Now, SessionLife: ownedSessions,
		Hold: func(ctx context.Context, to crdt.RegionID) (func(), error) {
			if id != 0 {
				return func() {}, nil
			}
			return func() {}, o.hasRegistry(ctx, to, r.State().Registry().Position())
		},
		Logger: o.env.Logger.Named("owner"),
	})
	o.shards[id].Store(s)
	r.Lead(s.Run)
}

// hasRegistry waits until a region has taken the registry up to a position: its entries are not in the owned log, and a new
// owner that lacks some would give their numbers to others.
func (o *owners) hasRegistry(ctx context.Context, region crdt.RegionID, position uint64) error {
	err := errors.New("no node of it is known")
	for {
		for _, address := range o.peers.directory.Addresses(region) {
			conn, e := o.conns.To(address)
			if err = e; err != nil {
				continue
			}
			try, cancel := context.WithTimeout(ctx, joinWithin)
			answer, e := peerv1.NewPeerServiceClient(conn).Summary(try, &peerv1.SummaryRequest{Hello: o.hello(o.env.Config.RegionID())})
			cancel()
			if e == nil && answer.GetRegistry() >= position {
				return nil
			}
			err = errors.New(status.Convert(e).Message()) // as a status it would be tried again
			if e == nil {
				err = fmt.Errorf("it has taken the registry up to %d of %d", answer.GetRegistry(), position)
				break
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("region %s: %w", region, err)
		case <-time.After(registryPause):
		}
	}
}

// registryPause is between questions of how far a region is with the registry.
const registryPause = 10 * time.Millisecond

// detach forgets a replica that goes.
func (o *owners) detach(id keyspace.ShardID) { o.shards[id].Store(nil) }

func (o *owners) close() error {
	o.exchange.Close()
	return o.conns.Close()
}

// joinWithin bounds one question of Join.
const joinWithin = 2 * time.Second

// join asks the other regions in turn to take this one in.
func (o *owners) join(ctx context.Context, id keyspace.ShardID, instead ownership.MemberID) (ownership.MemberID, error) {
	hello := o.hello(o.env.Config.RegionID())
	hello.Shard = uint32(id)
	err := errors.New("no other region is known")
	for _, region := range o.peers.directory.Regions() {
		for _, address := range o.peers.directory.Addresses(region) {
			conn, e := o.conns.To(address)
			if err = e; err != nil {
				continue
			}
			try, cancel := context.WithTimeout(ctx, joinWithin)
			answer, e := peerv1.NewPeerServiceClient(conn).Join(try, &peerv1.JoinRequest{Hello: hello, Instead: uint32(instead)})
			cancel()
			if e == nil && answer.GetMember() > 0 && answer.GetMember() < 1<<16 {
				return ownership.MemberID(answer.GetMember()), nil
			}
			if err = cmp.Or(e, fmt.Errorf("region %s names member %d", region, answer.GetMember())); status.Code(e) != codes.Unavailable {
				break // the region has answered
			}
		}
	}
	return 0, err
}

// ownedSessions is for how long outcomes of a session are kept on a shard: longer than clients go on with it.
const ownedSessions = 2 * time.Hour

// state has the state of a shard's owned tables brought from a region.
func (o *owners) state(ctx context.Context, id keyspace.ShardID, from crdt.RegionID, at ownership.Mark,
	take func(owned.Digest, []byte) error,
) error {
	hello := o.hello(o.env.Config.RegionID())
	hello.Shard = uint32(id)
	in := &peerv1.OwnStateRequest{Hello: hello, Epoch: uint64(at.Epoch), Position: uint64(at.Position)}
	err := fmt.Errorf("no node of region %s is known", from)
	for _, address := range o.peers.directory.Addresses(from) {
		conn, e := o.conns.To(address)
		if err = e; err != nil {
			continue
		}
		began := false
		err = receiveState(ctx, conn, in, func(d owned.Digest, rows []byte) error {
			began = true
			return take(d, rows)
		})
		if err == nil || began || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func receiveState(ctx context.Context, conn *grpc.ClientConn, in *peerv1.OwnStateRequest, take func(owned.Digest, []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := peerv1.NewPeerServiceClient(conn).OwnState(ctx, in)
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(m.GetDigest()) != len(owned.Digest{}) {
			return fmt.Errorf("a digest of %d bytes", len(m.GetDigest()))
		}
		if err := take(owned.Digest(m.GetDigest()), m.GetRows()); err != nil {
			return err
		}
	}
}

func (o *owners) describe() {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("watershed_owner_"+name, help, labels, nil)
	}
	o.owns = desc("epoch", "Counter of the epoch that this region owns a shard with, on its leader; 0 where another one does.", "shard")
	o.lease = desc("lease_seconds", "What is left of the owner's lease, on its shard's leader.", "shard")
	o.waiting = desc("waiting_bytes", "Payload of entries of the owned log that are not confirmed, on the shard's leader.", "shard")
	o.kept = desc("log_bytes", "Payload of entries of the owned log that are kept, on the shard's leader.", "shard")
	o.conflicts = desc("conflicts", "Lost writes in the region's divergence ledger that nobody has settled, on the shard's leader.", "shard")
	o.logged = desc("commands_total", "Steps of the owned log that were logged.", "shard")
	o.events = desc("events_total", "What happened to ownership, as this node's leaders saw it.", "shard", "event")
	o.distrusted = desc("distrusted_total", "Leaderships handed on because the node's clock was not trusted.")
	o.dropped = desc("messages_dropped_total", "Messages between regions that were dropped.")
	o.sent = desc("messages_sent_total", "Messages to other regions.")
	o.taken = desc("messages_taken_total", "Messages of other regions.")
}

// Describe implements prometheus.Collector.
func (o *owners) Describe(out chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{o.owns, o.lease, o.logged, o.events, o.distrusted, o.dropped, o.sent, o.taken, o.waiting,
		o.kept, o.conflicts} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (o *owners) Collect(out chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	dropped, distrusted := o.exchange.Dropped(), uint64(0)
	for i := range o.shards {
		s := o.Shard(keyspace.ShardID(i))
		if s == nil {
			continue
		}
		id, v, n := strconv.Itoa(i), s.View(), s.Counts()
		if v.Leads {
			epoch := uint64(0)
			if v.Standing == ownership.Owning {
				epoch = v.Epoch.Counter()
			}
			tell(o.owns, prometheus.GaugeValue, float64(epoch), id)
			if sizes, err := s.Sizes(); err == nil {
				tell(o.waiting, prometheus.GaugeValue, float64(sizes.Waiting), id)
				tell(o.kept, prometheus.GaugeValue, float64(sizes.Kept), id)
				tell(o.conflicts, prometheus.GaugeValue, float64(sizes.Conflicts), id)
			}
			tell(o.lease, prometheus.GaugeValue, min(v.Lease, time.Hour).Seconds(), id)
		}
		tell(o.logged, prometheus.CounterValue, float64(n.Logged), id)
		for what, count := range n.Notes {
			tell(o.events, prometheus.CounterValue, float64(count), id, what)
		}
		dropped, distrusted = dropped+n.Dropped, distrusted+n.Distrusted
	}
	tell(o.distrusted, prometheus.CounterValue, float64(distrusted))
	tell(o.dropped, prometheus.CounterValue, float64(dropped))
	tell(o.sent, prometheus.CounterValue, float64(o.exchange.Sent()))
	tell(o.taken, prometheus.CounterValue, float64(o.exchange.Taken()))
}
