package service

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/keyspace"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// damaged lists this node's replicas that are out.
func (s *Server) damaged() (list []*watershedv1.Damage) {
	for _, here := range s.o.Router.Local().All() {
		if d := here.Damage(); d != nil {
			list = append(list, &watershedv1.Damage{Shard: uint32(here.Shard()), File: d.File, What: d.What, TimeMs: d.Time.UnixMilli()})
		}
	}
	return list
}

// Rebuild implements the service. One call at a time is enough for anybody: replicas are rebuilt one after the other.
func (s clusterService) Rebuild(ctx context.Context, in *watershedv1.RebuildRequest) (*watershedv1.RebuildResponse, error) {
	if node := in.GetNode(); node != "" && node != s.o.Node {
		return s.rebuildElsewhere(ctx, in)
	}
	shards := in.GetShards()
	if len(shards) > s.o.Router.Shards() {
		return nil, status.Errorf(codes.InvalidArgument, "%d shards of %d", len(shards), s.o.Router.Shards())
	}
	if len(shards) == 0 {
		for _, d := range s.damaged() {
			shards = append(shards, d.GetShard())
		}
	}
	for _, id := range shards {
		if err := s.rebuild(ctx, id, in.GetWhole()); err != nil {
			return nil, err
		}
	}
	return &watershedv1.RebuildResponse{Shards: shards}, nil
}

func (s clusterService) rebuildElsewhere(ctx context.Context, in *watershedv1.RebuildRequest) (*watershedv1.RebuildResponse, error) {
	address := s.o.Router.Address(in.GetNode())
	if address == "" {
		return nil, status.Errorf(codes.NotFound, "there is no node %q in region %s", in.GetNode(), s.o.Region)
	}
	conn, err := s.o.Conns.To(address)
	if err != nil {
		return nil, err
	}
	return watershedv1.NewClusterServiceClient(conn).Rebuild(ctx, in)
}

// rebuild takes one replica anew, and waits until it has caught up.
func (s *Server) rebuild(ctx context.Context, id uint32, whole bool) error {
	r := s.o.Router.Replica(keyspace.ShardID(id))
	if r == nil {
		return status.Errorf(codes.InvalidArgument, "there is no shard %d of %d", id, s.o.Router.Shards())
	}
	if r.Damage() == nil && !whole {
		return status.Errorf(codes.FailedPrecondition, "node %s's replica of shard %d is not damaged", s.o.Node, id)
	}
	r.StepDown()
	if !s.ledElsewhere(ctx, id) {
		return status.Errorf(codes.FailedPrecondition, "no other node leads shard %d: there is nobody to take it from", id)
	}
	s.o.Logger.Info("rebuilding a replica", "shard", id)
	if err := r.Rebuild(); err != nil {
		return err
	}
	return r.AwaitReady(ctx)
}

// ledWithin bounds the search for a leader of a replica that is to be rebuilt.
const ledWithin = 3 * time.Second

// ledElsewhere says whether another node of the region says that it leads a shard.
func (s *Server) ledElsewhere(ctx context.Context, id uint32) bool {
	ctx, cancel := context.WithTimeout(ctx, ledWithin)
	defer cancel()
	for {
		nodes, _ := s.nodes()
		for _, n := range nodes {
			if n.GetId() == s.o.Node {
				continue
			}
			view := s.askNode(ctx, n.GetGrpc())
			if view == nil {
				continue
			}
			shards := view.GetRegions()[0].GetShards()
			if int(id) < len(shards) && shards[id].GetLeader() == n.GetId() {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}
