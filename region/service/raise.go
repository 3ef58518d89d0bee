package service

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/keyspace"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// Raise implements the service. A shard that was raised before the call failed stays so; the next call raises the others.
func (s clusterService) Raise(ctx context.Context, in *watershedv1.RaiseRequest) (*watershedv1.RaiseResponse, error) {
	format := in.GetFormat()
	if format == 0 {
		return nil, status.Error(codes.InvalidArgument, "no format is named")
	}
	without := in.GetWithout()
	if err := s.checkWithout(without); err != nil {
		return nil, err
	}
	if err := checkAnnounced(format, s.allRegions(ctx), without); err != nil {
		return nil, err
	}
	for i := range s.o.Router.Shards() {
		id := keyspace.ShardID(i)
		for _, c := range append([]shard.Command{&shard.Raise{Format: format}}, shard.First(format)...) {
			result, err := s.o.Router.Propose(ctx, id, c)
			if err != nil {
				return nil, err
			}
			if o := result.Outcome; o != shard.Applied && o != shard.Duplicate {
				return nil, status.Errorf(codes.Internal, "shard %d: %v: %s", id, o, result.Reason)
			}
		}
		s.o.Logger.Info("format in force", "shard", id, "format", format)
	}
	return &watershedv1.RaiseResponse{}, nil
}

// checkWithout fails for a name that is not one of another region.
func (s *Server) checkWithout(without []string) error {
	for _, name := range without {
		if name == s.o.Region {
			return status.Errorf(codes.InvalidArgument, "%s is the region whose format is to be raised", name)
		}
		if _, ok := s.o.Member(name); !ok {
			return status.Errorf(codes.InvalidArgument, "there is no region %q", name)
		}
	}
	return nil
}

// checkAnnounced fails unless every node of every region but some has said that it knows the format (rules A11).
func checkAnnounced(format uint32, regions []*watershedv1.Region, without []string) error {
	for _, r := range regions {
		if slices.Contains(without, r.GetName()) {
			continue
		}
		if len(r.GetNodes()) == 0 {
			return status.Errorf(codes.FailedPrecondition, "region %s %s: all nodes of all regions must say that they know format %d",
				r.GetName(), cmp.Or(r.GetNote(), "names no node"), format)
		}
		for _, n := range r.GetNodes() {
			switch {
			case !n.GetUp():
				return status.Errorf(codes.FailedPrecondition, "node %s of %s does not answer: all nodes of all regions must say that they "+
					"know format %d", n.GetId(), r.GetName(), format)
			case n.GetFormat() < format:
				return status.Errorf(codes.FailedPrecondition, "node %s of %s knows formats up to %d, not %d", n.GetId(), r.GetName(),
					n.GetFormat(), format)
			}
		}
	}
	return nil
}
