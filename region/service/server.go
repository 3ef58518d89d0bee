package service

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/watershed-db/watershed/keyspace"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/carrier"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/coordinator"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/router"
)

// Peers serves other regions; peer.Server is one.
type Peers interface {
	// Check refuses a caller that does not belong to this deployment.
	Check(h *peerv1.Hello) error
	Pull(stream grpc.BidiStreamingServer[peerv1.PullRequest, peerv1.PullResponse]) error
	State(in *peerv1.StateRequest, stream grpc.ServerStreamingServer[peerv1.StateChunk]) error
}

// Options says what a Server serves.
type Options struct {
	config.Config
	Version     string
	Router      *router.Router
	Conns       *router.Conns // to nodes of any region; not closed by the Server
	Coordinator *coordinator.Coordinator
	Carrier     *carrier.Carrier
	Peers       Peers
	Owners      Owners
	Exchange    Exchange
	// Addresses returns where the nodes of another region are dialed by now, in the order to be tried; nil for what the
	// configuration says.
	Addresses func(region string) []string
	// Checkpoints are the region's; nil where it keeps none.
	Checkpoints *Checkpoints
	// Lag tells how far a shard is behind other regions, where this node leads it; nil elsewhere.
	Lag        func(id keyspace.ShardID) []*watershedv1.PeerLag
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Bounds     *limit.Set // that the bounds of the port are shown by
}

// Server serves a node's gRPC port.
type Server struct {
	o        Options
	grpc     *grpc.Server
	health   *health.Server
	metrics  *callMetrics
	refusals refusals
	bounds   *bounds
	feeds    feeds
	wholes   chan struct{} // held by watchers that look at all rows
}

// ErrPortInUse says that something else listens on an address of this node's.
var ErrPortInUse = errors.New("address is in use")

// Listen opens a port of this node. It fails with ErrPortInUse.
func Listen(what, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s port %s: %w", what, address, ErrPortInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("%s port: %w", what, err)
	}
	return l, nil
}

// New returns a Server that serves nothing yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	s := &Server{o: o, health: health.NewServer(), metrics: newCallMetrics(o.Registerer), wholes: make(chan struct{}, maxWholes)}
	s.bounds = newBounds(o.Limits, o.Bounds)
	s.show(o.Bounds)
	s.refusals.logger = o.Logger
	s.refusals.counter = newRefused(o.Registerer)
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(router.MaxMessage), grpc.MaxSendMsgSize(router.MaxMessage),
		grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(5*time.Second), grpc.MaxHeaderListSize(64<<10),
	)
	watershedv1.RegisterStateServiceServer(s.grpc, stateService{Server: s})
	watershedv1.RegisterJobServiceServer(s.grpc, jobService{Server: s})
	watershedv1.RegisterTableServiceServer(s.grpc, tableService{Server: s})
	watershedv1.RegisterClusterServiceServer(s.grpc, clusterService{Server: s})
	regionv1.RegisterShardServiceServer(s.grpc, shardService{Server: s})
	regionv1.RegisterCheckpointServiceServer(s.grpc, checkpointService{Server: s})
	regionv1.RegisterCoordinatorServiceServer(s.grpc, coordinatorService{Server: s})
	peerv1.RegisterPeerServiceServer(s.grpc, peerService{Server: s})
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s
}

// Serve answers calls that come in by l, until Stop. It owns l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

// Drain tells clients to go elsewhere; calls under way go on.
func (s *Server) Drain() { s.health.Shutdown() }

// Stop takes no more calls, and ends those that do not end by themselves within a moment. It may be called twice.
func (s *Server) Stop(within time.Duration) {
	s.Drain()
	hard := time.AfterFunc(within, s.grpc.Stop)
	defer hard.Stop()
	s.grpc.GracefulStop()
}
