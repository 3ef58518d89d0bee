package service

import (
	"context"

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
	if err := checkAnnounced(format, s.ownRegion(ctx)); err != nil {
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

// checkAnnounced fails unless every node of the region has said that it knows the format (rules A11).
func checkAnnounced(format uint32, region *watershedv1.Region) error {
	for _, n := range region.GetNodes() {
		switch {
		case !n.GetUp():
			return status.Errorf(codes.FailedPrecondition,
				"node %s does not answer: all nodes of %s must say that they know format %d", n.GetId(), region.GetName(), format)
		case n.GetFormat() < format:
			return status.Errorf(codes.FailedPrecondition, "node %s knows formats up to %d, not %d", n.GetId(), n.GetFormat(), format)
		}
	}
	return nil
}
