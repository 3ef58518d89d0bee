package service

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/coordinator"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// PeerVersion is the version of what regions say to each other.
const PeerVersion = 1

// peerService serves other regions.
type peerService struct {
	peerv1.UnimplementedPeerServiceServer
	*Server
}

// CheckHello refuses a caller that is not of a deployment like c's. The reason is one of a few, for metrics.
func CheckHello(h *peerv1.Hello, deployment string, shards int, member func(region string) (number uint16, ok bool)) (string, error) {
	refuse := func(reason, format string, args ...any) (string, error) {
		return reason, fmt.Errorf("%w: %s", router.ErrDeployment, fmt.Sprintf(format, args...))
	}
	number, ok := member(h.GetRegion())
	switch {
	case h.GetVersion() != PeerVersion:
		return refuse("protocol version", "it speaks version %d, this node %d", h.GetVersion(), PeerVersion)
	case h.GetDeployment() != deployment:
		return refuse("deployment", "this is %s", deployment)
	case int(h.GetShards()) != shards:
		return refuse("number of shards", "it has %d, this one %d", h.GetShards(), shards)
	case !ok || uint32(number) != h.GetMember():
		return refuse("region", "region %.64q, member %d, is not known", h.GetRegion(), h.GetMember())
	case h.GetShard() >= h.GetShards():
		return refuse("shard", "there is no shard %d", h.GetShard())
	}
	return "", nil
}

func (s *Server) checkHello(h *peerv1.Hello) error {
	reason, err := CheckHello(h, s.o.Deployment, s.o.Shards, func(region string) (uint16, bool) {
		r, ok := s.o.Member(region)
		return r.Member, ok && region != s.o.Region
	})
	if err != nil {
		s.refusals.note(h.GetDeployment()+"/"+h.GetRegion(), reason)
	}
	return err
}

// hello returns what this region says of itself.
func (s *Server) hello() *peerv1.Hello {
	self, _ := s.o.Member(s.o.Region)
	return &peerv1.Hello{
		Deployment: s.o.Deployment, Region: s.o.Region, Member: uint32(self.Member), Shards: uint32(s.o.Shards),
		Version: PeerVersion,
	}
}

// Pull implements the service.
func (s peerService) Pull(stream peerv1.PeerService_PullServer) error {
	if s.o.Peers == nil {
		return s.UnimplementedPeerServiceServer.Pull(stream)
	}
	return s.o.Peers.Pull(stream)
}

// State implements the service.
func (s peerService) State(in *peerv1.StateRequest, stream peerv1.PeerService_StateServer) error {
	if s.o.Peers == nil {
		return s.UnimplementedPeerServiceServer.State(in, stream)
	}
	return s.o.Peers.State(in, stream)
}

// Summary implements the service.
func (s peerService) Summary(ctx context.Context, in *peerv1.SummaryRequest) (*peerv1.SummaryResponse, error) {
	if err := s.checkHello(in.GetHello()); err != nil {
		return nil, err
	}
	region, err := proto.Marshal(s.ownRegion(ctx))
	if err != nil {
		return nil, err
	}
	out := &peerv1.SummaryResponse{Region: region}
	registry, states := s.o.Router.Replica(0).State().Registry(), s.states()
	out.Registry = coordinator.Settled(registry, states)
	for _, e := range registry.Jobs() {
		everywhere := true
		for _, st := range states {
			everywhere = everywhere && st.Generation(e.Generation) != nil
		}
		if everywhere {
			out.Jobs = append(out.Jobs, e.Generation[:])
		}
	}
	return out, nil
}

// Submit implements the service.
func (s peerService) Submit(ctx context.Context, in *peerv1.SubmitRequest) (*peerv1.SubmitResponse, error) {
	if err := s.checkHello(in.GetHello()); err != nil {
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
	if !s.o.Owns() {
		return shard.Result{}, status.Errorf(codes.FailedPrecondition, "region %s owns the registry, not %s", s.o.Owner, s.o.Region)
	}
	switch c := command.(type) {
	case *shard.JobApply:
		j, err := job.Parse(c.Name, c.File)
		if err != nil || j.Name != c.Name || j.Meaning() != c.Meaning {
			return shard.Result{}, status.Error(codes.InvalidArgument, "the job file does not mean what the command says")
		}
		c.Epoch = s.o.Epoch()
	case *shard.JobDelete:
		c.Epoch = s.o.Epoch()
	default:
		return shard.Result{}, status.Errorf(codes.InvalidArgument, "a %T is no registry command", command)
	}
	return s.o.Router.Propose(ctx, keyspace.ShardID(0), command)
}
