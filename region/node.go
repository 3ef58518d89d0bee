package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/region/carrier"
	"github.com/watershed-db/watershed/region/checkpoint/objects"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/coordinator"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/owner"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/probe"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/service"
)

// ErrTooOld says that a live job uses a built-in in a version that this build does not have (rules A11).
var ErrTooOld = errors.New("this version of watershed is too old for a job that runs")

// Env is what a part of a node works with. The parts share it and change nothing in it.
type Env struct {
	Config     config.Config
	Router     *router.Router
	Conns      *router.Conns // to nodes of any region
	Registerer prometheus.Registerer
	Bounds     *limit.Set // which shows what the node takes on
	Logger     hclog.Logger
}

// Parts are what a node runs beside its replicas, filled in by whoever knows them.
type Parts struct {
	// Logs is the region's log. Required.
	Logs coordinator.Logs
	// Run lists what runs for as long as the node does, such as its worker. An error, or a return before ctx ends, ends
	// the node.
	Run []func(ctx context.Context, env *Env) error
	// Lead lists the tasks of every shard's leader, such as its emitter, see replica.Replica.Lead.
	Lead []func(ctx context.Context, env *Env, r *replica.Replica)
}

// Listeners are ports that are open already, for tests; a nil one is opened as configured. The node owns them.
type Listeners struct{ Raft, GRPC, HTTP net.Listener }

// Options says what a Node runs on.
type Options struct {
	Config  config.Config // as config.Parse returns it
	Version string
	Parts   Parts
	Logger  hclog.Logger // default: none
	// Fatal is told of failures after which nothing that this process says about its state can be trusted. It is to end
	// the process and not to return. Required.
	Fatal     func(error)
	Listeners Listeners
	// CheckEvery is how far apart the replicas of a shard are compared, ScrubEvery how far apart the passes over all tables
	// are, LearnEvery how often other regions are asked where their nodes are; 0 for 10 s, an hour and 5 s.
	CheckEvery, ScrubEvery, LearnEvery time.Duration
	// StatFS tells the room of the disk that a folder lies on, for tests; nil for what the system says.
	StatFS func(path string) (limit.Space, error)
	// Clock is what leases between regions are measured by; nil for the machine's.
	Clock owner.Clock
}

// Node is one node of a region.
type Node struct {
	o        Options
	env      *Env
	registry *prometheus.Registry
	scrubber *scrubber
	lock     *os.File
	cache    *pebble.Cache
	bounds   *limit.Set
	disk     *limit.Disk
	host     *group.Host
	restored uint64           // index up to which shard 0 was restored; its placement table is of other nodes then
	founding *placement.Table // what the region began with; of no use on a node that joined
	local    *router.Local
	carrier  *carrier.Carrier
	keeping  sync.WaitGroup // replicas that are begun or deleted
	expelled chan struct{}  // closed when another node says that this one was removed
	grpc     net.Listener
	http     net.Listener
	peers    *peers
	owners   *owners
	objects  objects.Store // of checkpoints; nil without
	prober   *probe.Prober
	probing  func() // ends the prober
	server   *service.Server
	pages    *service.Pages
	closing  sync.Once
	closed   error
}

// Open takes hold of the node's folder and ports and starts its replicas. Nothing is served yet. Every error is one line,
// and leaves the folder as it was.
func Open(o Options) (node *Node, err error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	n := &Node{o: o, registry: prometheus.NewRegistry(), expelled: make(chan struct{})}
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.env = &Env{Config: o.Config, Conns: router.NewConns(), Registerer: n.registry, Logger: o.Logger}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if n.lock, err = openFolder(o.Config); err != nil {
		return nil, err
	}
	if err := n.openBounds(); err != nil {
		return nil, err
	}
	if err := n.listen(); err != nil {
		return nil, err
	}
	if n.founding, err = founding(o.Config); err != nil {
		return nil, err
	}
	n.local = router.NewLocal(o.Config.Shards)
	if err := n.openHost(); err != nil {
		return nil, err
	}
	if err := n.openReplicas(); err != nil {
		return nil, err
	}
	if err := n.checkPins(); err != nil {
		return nil, err
	}
	if err := n.wire(); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node) listen() (err error) {
	c, l := n.o.Config, n.o.Listeners
	if n.grpc = l.GRPC; n.grpc == nil {
		if n.grpc, err = service.Listen("grpc", c.Listen.GRPC); err != nil {
			return err
		}
	}
	if n.http = l.HTTP; n.http == nil {
		if n.http, err = service.Listen("http", c.Listen.HTTP); err != nil {
			return err
		}
	}
	n.grpc = n.bounded("grpc_connections", n.grpc, c.Limits.GRPC)
	n.http = n.bounded("http_connections", n.http, c.Limits.HTTP)
	return nil
}

// openHost starts the Raft host.
func (n *Node) openHost() (err error) {
	c := n.o.Config
	var members []group.Member
	for _, m := range c.Nodes {
		members = append(members, group.Member{ID: m.ID, Address: m.Raft})
	}
	n.host, err = group.Open(group.Config{
		Dir: filepath.Join(c.Data, raftFolder), Deployment: c.Deployment, Region: c.Region, NodeID: c.Node, Members: members,
		Listen: c.Listen.Raft, Listener: n.o.Listeners.Raft, Logger: n.o.Logger, Fatal: n.o.Fatal,
		Expelled:         func() { close(n.expelled) },
		HeartbeatTimeout: c.Raft.Heartbeat.D(), ElectionTimeout: c.Raft.Election.D(), LeaderLeaseTimeout: c.Raft.Lease.D(),
		CommitTimeout: c.Raft.Commit.D(), ProposeTimeout: c.Raft.Propose.D(), TrailingBytes: uint64(c.Raft.LogBytes),
		MaxUnderWay: int64(c.Limits.UnderWay), MaxBacklog: int64(c.Limits.Backlog),
	})
	if err != nil {
		return err
	}
	n.cache = pebble.NewCache(int64(c.Store.Cache))
	return nil
}

// checkPins refuses to run with a live job that uses what this build does not have.
func (n *Node) checkPins() error {
	have := map[string]uint16{}
	for _, p := range job.Announced() {
		have[p.Name] = p.Version
	}
	for _, e := range n.local.Get(0).State().Registry().Jobs() {
		for _, p := range e.Pinned {
			if have[p.Name] < p.Version {
				return fmt.Errorf("%w: job %s uses %s in version %d, this one has %d", ErrTooOld, e.Name, p.Name, p.Version, have[p.Name])
			}
		}
	}
	return nil
}

// nodeIDs lists the region's nodes.
func (n *Node) nodeIDs() []string {
	var out []string
	for _, x := range n.env.Router.Nodes() {
		out = append(out, x.ID)
	}
	return out
}

// wire puts router, coordinator and services round the replicas.
func (n *Node) wire() (err error) {
	c := n.o.Config
	first := n.local.Get(0)
	founded := n.founding
	layout := carrier.LayoutOf(founded)
	if c.Join {
		founded, layout.Holders = nil, nil
	}
	n.env.Router = router.New(router.Options{
		Deployment: c.Deployment, Self: c.Node, Layout: layout, Local: n.local, Conns: n.env.Conns, Dead: n.dead,
	})
	if err := n.openProbe(); err != nil {
		return err
	}
	n.carrier = carrier.New(carrier.Options{
		Deployment: c.Deployment, Self: c.Node, Router: n.env.Router, Conns: n.env.Conns, Founding: founded, Restored: n.restored,
		Short:  n.short,
		Logger: n.o.Logger.Named("carrier"),
	})
	leads := coordinator.New(coordinator.Options{
		Deployment: c.Deployment, Region: c.RegionID(), Shards: n.env.Router, Logs: n.o.Parts.Logs,
		Logger: n.o.Logger.Named("coordinator"), Changed: first.Changed, Dead: n.dead,
		Nodes:     n.nodeIDs,
		NotLeader: func() error { return n.env.Router.Status(&group.NotLeaderError{Leader: first.Leader()}) },
	})
	first.Lead(leads.Run)
	first.Lead(n.carrier.Run)
	o := service.Options{
		Config: c, Version: n.o.Version, Router: n.env.Router, Conns: n.env.Conns, Coordinator: leads, Carrier: n.carrier,
		Logger: n.o.Logger.Named("service"), Registerer: n.registry, Bounds: n.bounds,
	}
	if o.Checkpoints, err = n.keepCheckpoints(); err != nil {
		return err
	}
	n.peers = newPeers(n.env, n.o.CheckEvery, n.peerQueue())
	n.owners = newOwners(n.env, n.peers, n.o.Clock)
	o.Owners = n.owners
	o.Peers, o.Lag, o.Exchange = n.peers.server, n.peers.lag, n.owners.exchange
	o.Addresses = func(region string) []string { return n.peers.directory.Addresses(crdt.RegionID(region)) }
	for _, r := range n.local.All() {
		n.attach(r)
	}
	n.registry.MustRegister(service.NewShardMetrics(n.env.Router), n.peers, n.owners)
	registerDisk(n.registry, n.host)
	n.scrubber = newScrubber(n.registry, n.host, cmp.Or(n.o.ScrubEvery, scrubPause))
	n.showBounds()
	n.server = service.New(o)
	n.pages = service.NewPages(n.registry, func() string { return service.NotReady(n.env.Router) }, n.o.Logger)
	return nil
}

// Env returns what the node's parts work with.
func (n *Node) Env() *Env { return n.env }

// GRPC returns the address that gRPC is served at.
func (n *Node) GRPC() string { return n.grpc.Addr().String() }

// HTTP returns the address that the pages are served at.
func (n *Node) HTTP() string { return n.http.Addr().String() }

// errEnded says that a part of the node returned though nothing told it to.
var errEnded = errors.New("a part of the node ended by itself")

// Run serves until ctx ends or a part of the node fails, and closes the node: leadership is handed on first. It returns
// nil where ctx ended it and everything closed well.
func (n *Node) Run(ctx context.Context) error {
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return n.server.Serve(n.grpc) })
	running.Go(func() error {
		n.peers.learn(ctx, cmp.Or(n.o.LearnEvery, learnEvery))
		return nil
	})
	scrubbed := make(chan struct{})
	go func() {
		defer close(scrubbed)
		n.scrubber.run(ctx, n.env)
	}()
	running.Go(func() error { return n.pages.Serve(n.http) })
	running.Go(func() error { return n.watchDisk(ctx) })
	n.keeping.Add(1)
	running.Go(func() error {
		defer n.keeping.Done()
		return n.keep(ctx)
	})
	var parts sync.WaitGroup
	for _, run := range n.o.Parts.Run {
		parts.Add(1)
		running.Go(func() error {
			defer parts.Done()
			err := run(ctx, n.env)
			if err == nil && ctx.Err() == nil {
				err = errEnded
			}
			if errors.Is(err, context.Canceled) && ctx.Err() != nil {
				err = nil
			}
			return err
		})
	}
	c := n.o.Config
	n.o.Logger.Info("node runs", "deployment", c.Deployment, "region", c.Region, "node", c.Node, "shards", c.Shards,
		"grpc", n.GRPC(), "http", n.HTTP(), "version", n.o.Version)
	<-ctx.Done()
	n.server.Drain()
	n.stepDown()
	parts.Wait()
	<-scrubbed
	closed := n.Close()
	return errors.Join(running.Wait(), closed)
}

const (
	// handAtOnce is how many leaderships a node hands on at a time: those that wait for their turn still take writes, and those
	// that don't have the processors to themselves.
	handAtOnce = 2
	// handWithin is when the rest is handed on at once after all.
	handWithin = 3 * time.Second
)

// stepDown hands all leadership on.
func (n *Node) stepDown() {
	turns, late := make(chan struct{}, handAtOnce), time.After(handWithin)
	var handing sync.WaitGroup
	defer handing.Wait()
	for _, r := range n.local.All() {
		select {
		case turns <- struct{}{}:
		case <-late:
			turns, late = make(chan struct{}, len(n.local.All())), nil
			turns <- struct{}{}
		}
		mine := turns
		handing.Go(func() {
			r.StepDown()
			<-mine
		})
	}
}

const (
	// callsWithin is how long calls under way have when a node stops.
	callsWithin = 2 * time.Second
	// requestsWithin is the same for requests of the pages.
	requestsWithin = 500 * time.Millisecond
)

func (n *Node) closeReplicas() error {
	if n.local == nil {
		return nil
	}
	replicas := n.local.All()
	stopped := make([]error, len(replicas))
	var stopping sync.WaitGroup
	for i, r := range replicas {
		stopping.Go(func() { stopped[i] = r.Close() })
	}
	stopping.Wait()
	return errors.Join(stopped...)
}

// Close ends everything that Open began. It may be called twice. A node that Run closes needs no Close.
func (n *Node) Close() error {
	n.closing.Do(func() { n.closed = n.close() })
	return n.closed
}

func (n *Node) close() error {
	var errs []error
	if n.server != nil {
		n.peers.server.Close()
		errs = append(errs, n.owners.close())
		n.server.Stop(callsWithin)
		n.peers.server.Wait()
		errs = append(errs, n.pages.Stop(requestsWithin))
	}
	for _, l := range [...]net.Listener{n.grpc, n.http} {
		if l != nil {
			l.Close() // closed already where it was served
		}
	}
	if n.probing != nil {
		n.probing()
	}
	n.keeping.Wait()
	errs = append(errs, n.closeReplicas())
	if n.host != nil {
		errs = append(errs, n.host.Close())
	} else if l := n.o.Listeners.Raft; l != nil {
		errs = append(errs, l.Close())
	}
	if n.peers != nil {
		errs = append(errs, n.peers.links.Close())
	}
	if n.objects != nil {
		n.objects.Close()
	}
	errs = append(errs, n.env.Conns.Close())
	if n.cache != nil {
		n.cache.Unref()
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
