package service

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/processor/job"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/coordinator"
	"github.com/watershed-db/watershed/region/owner"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// peerService serves other regions.
type peerService struct {
	peerv1.UnimplementedPeerServiceServer
	*Server
}

// hello returns what this region says of itself.
func (s *Server) hello() *peerv1.Hello {
	self, _ := s.o.Member(s.o.Region)
	return &peerv1.Hello{
		Deployment: s.o.Deployment, Region: s.o.Region, Member: uint32(self.Member), Shards: uint32(s.o.Shards),
		Version: peer.Version,
	}
}

// Pull implements the service.
func (s peerService) Pull(stream peerv1.PeerService_PullServer) error { return s.o.Peers.Pull(stream) }

// State implements the service.
func (s peerService) State(in *peerv1.StateRequest, stream peerv1.PeerService_StateServer) error {
	return s.o.Peers.State(in, stream)
}

// Summary implements the service.
func (s peerService) Summary(ctx context.Context, in *peerv1.SummaryRequest) (*peerv1.SummaryResponse, error) {
	if err := s.o.Peers.Check(in.GetHello()); err != nil {
		return nil, err
	}
	region, err := proto.Marshal(s.ownRegion(ctx))
	if err != nil {
		return nil, err
	}
	out := &peerv1.SummaryResponse{Region: region}
	registry, states := s.o.Router.Replica(0).State().Registry(), s.states()
	out.Registry = s.settledElsewhere(ctx, coordinator.Settled(registry, states))
	for _, e := range registry.Jobs() {
		everywhere := true
		for _, st := range states {
			everywhere = everywhere && (st == nil || st.Generation(e.Generation) != nil)
		}
		if everywhere && out.Registry >= e.Position {
			out.Jobs = append(out.Jobs, e.Generation[:])
		}
	}
	return out, nil
}

// Nodes implements the service.
func (s peerService) Nodes(_ context.Context, in *peerv1.NodesRequest) (*peerv1.NodesResponse, error) {
	if err := s.o.Peers.Check(in.GetHello()); err != nil {
		return nil, err
	}
	out := &peerv1.NodesResponse{Region: s.o.Region}
	if table, revision, err := s.o.Carrier.Table(); err == nil && table != nil {
		out.Revision = revision
	}
	nodes, _ := s.nodes()
	for _, n := range nodes {
		out.Grpc = append(out.Grpc, n.GetGrpc())
	}
	return out, nil
}

// Submit implements the service.
func (s peerService) Submit(ctx context.Context, in *peerv1.SubmitRequest) (*peerv1.SubmitResponse, error) {
	if err := s.o.Peers.Check(in.GetHello()); err != nil {
		return nil, err
	}
	command, err := shard.Decode(in.GetCommand())
	if err != nil {
		return nil, err
	}
	result, err := s.enter(ctx, command)
	if err != nil {
		return nil, err
	}
	b, err := proto.Marshal(router.EncodeResult(result))
	return &peerv1.SubmitResponse{Result: b}, err
}

// enter has the registry, which this region owns, take a command.
func (s *Server) enter(ctx context.Context, command shard.Command) (shard.Result, error) {
	epoch := uint64(s.o.Router.State(0).Epoch())
	switch c := command.(type) {
	case *shard.JobApply:
		j, err := job.Parse(c.Name, c.File)
		if err != nil || j.Name != c.Name || j.Meaning() != c.Meaning {
			return shard.Result{}, status.Error(codes.InvalidArgument, "the job file does not mean what the command says")
		}
		c.Epoch = epoch
	case *shard.JobDelete:
		c.Epoch = epoch
	case *shard.RegisterTable:
		d, err := table.Parse(c.Def.Name, c.File)
		if err != nil || d != c.Def {
			return shard.Result{}, status.Error(codes.InvalidArgument, "the table's file does not mean what the command says")
		}
		c.Epoch = epoch
	case *shard.UnregisterTable:
		c.Epoch = epoch
	default:
		return shard.Result{}, status.Errorf(codes.InvalidArgument, "a %T is no registry command", command)
	}
	result, err := s.o.Router.Propose(ctx, keyspace.ShardID(0), command)
	if err == nil && result.Outcome == shard.Elsewhere {
		err = s.notRegistry()
	}
	return result, err
}

// notRegistry says which region owns the registry, as far as this node knows.
func (s *Server) notRegistry() error {
	region, epoch := s.o.Router.State(0).Owner()
	return s.ownerError(&owner.NotOwnerError{Owner: region, Epoch: epoch})
}
