package service

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// shardService serves workers and nodes of this region, on the leader of the shard that is asked for.
type shardService struct {
	regionv1.UnimplementedShardServiceServer
	*Server
}

// replica returns this node's replica of a shard of the caller's deployment.
func (s *Server) replica(deployment string, id uint32) (*replica.Replica, error) {
	if deployment != s.o.Deployment {
		s.refusals.note(deployment, "a call for another deployment")
		return nil, fmt.Errorf("%w: this is %s", router.ErrDeployment, s.o.Deployment)
	}
	if int64(id) >= int64(s.o.Router.Shards()) {
		return nil, status.Errorf(codes.InvalidArgument, "there is no shard %d of %d", id, s.o.Router.Shards())
	}
	r := s.o.Router.Replica(keyspace.ShardID(id))
	if r == nil {
		return nil, s.o.Router.Elsewhere(keyspace.ShardID(id))
	}
	return r, nil
}

func generationID(b []byte) (id crdt.GenerationID, err error) {
	if len(b) != len(id) {
		return id, status.Errorf(codes.InvalidArgument, "a generation of %d bytes", len(b))
	}
	return crdt.GenerationID(b), nil
}

// Points implements the service.
func (s shardService) Points(ctx context.Context, in *regionv1.PointsRequest) (*regionv1.PointsResponse, error) {
	r, err := s.replica(in.GetDeployment(), in.GetShard())
	if err != nil {
		return nil, err
	}
	id, err := generationID(in.GetGeneration())
	if err != nil {
		return nil, err
	}
	if err := r.Linearizable(ctx); err != nil {
		return nil, err
	}
	points, index, known := r.Points(id)
	return &regionv1.PointsResponse{Frontier: crdt.AppendFrontier(nil, points), Known: known, AppliedIndex: index}, nil
}

// Chain implements the service.
func (s shardService) Chain(ctx context.Context, in *regionv1.ChainRequest) (*regionv1.ChainResponse, error) {
	r, err := s.replica(in.GetDeployment(), in.GetShard())
	if err != nil {
		return nil, err
	}
	chain, known, err := r.ChainAt(ctx, in.GetIndex())
	if err != nil {
		return nil, err
	}
	return &regionv1.ChainResponse{Known: known, Chain: chain[:]}, nil
}

// Advance implements the service.
func (s shardService) Advance(ctx context.Context, in *regionv1.AdvanceRequest) (*regionv1.AdvanceResponse, error) {
	r, err := s.replica(in.GetDeployment(), in.GetShard())
	if err != nil {
		return nil, err
	}
	result, err := r.ProposeEncoded(ctx, shard.AdvanceCommand(in.GetAdvance()))
	if err != nil {
		return nil, err
	}
	out := &regionv1.AdvanceResponse{}
	switch result.Outcome {
	case shard.Applied:
		out.Outcome = regionv1.Outcome_OUTCOME_APPLIED
	case shard.Duplicate:
		out.Outcome = regionv1.Outcome_OUTCOME_DUPLICATE
	case shard.Refused:
		out.Outcome = regionv1.Outcome_OUTCOME_REFUSED
	case shard.Mismatch:
		out.Outcome = regionv1.Outcome_OUTCOME_MISMATCH
	case shard.Unknown:
		out.Outcome = regionv1.Outcome_OUTCOME_UNKNOWN_GENERATION
	default:
		return nil, status.Errorf(codes.InvalidArgument, "%v: %s", result.Outcome, result.Reason)
	}
	present := crdt.Frontier{}
	for _, sp := range result.Points {
		present[sp.Source] = sp.Point
	}
	out.Frontier = crdt.AppendFrontier(nil, present)
	for _, x := range result.Sources {
		out.Mismatched = append(out.Mismatched, x.String())
		out.MismatchedSources = append(out.MismatchedSources, crdt.AppendSource(nil, x))
	}
	return out, nil
}

// foreign are the commands that only tasks of a shard's leader propose, at home: nobody sends them.
var foreign = []shard.Kind{
	shard.KindCheck, shard.KindHorizon, shard.KindReach, shard.KindStageBegin, shard.KindStageChunk, shard.KindStageAbandon,
	shard.KindInstall, shard.KindPlan, shard.KindDone,
}

// Propose implements the service.
func (s shardService) Propose(ctx context.Context, in *regionv1.ProposeRequest) (*regionv1.ProposeResponse, error) {
	r, err := s.replica(in.GetDeployment(), in.GetShard())
	if err != nil {
		return nil, err
	}
	if k := shard.KindOf(in.GetCommand()); slices.Contains(foreign, k) {
		s.refusals.note(kindName(k), "a command that is not taken from outside")
		return nil, status.Errorf(codes.InvalidArgument, "a command %s is not taken from outside", kindName(k))
	}
	result, err := r.ProposeEncoded(ctx, in.GetCommand())
	if err != nil {
		return nil, err
	}
	return &regionv1.ProposeResponse{Result: router.EncodeResult(result)}, nil
}

// Read answers another node of the region that merges a scan, where this one leads the shard.
func (s shardService) Read(in *regionv1.ReadRequest, stream regionv1.ShardService_ReadServer) error {
	ctx, cancel := context.WithTimeout(stream.Context(), scanWithin)
	defer cancel()
	r, err := s.replica(in.GetDeployment(), in.GetShard())
	if err != nil {
		return err
	}
	q, err := s.query(ctx, in.GetScan())
	if err != nil {
		return err
	}
	if !q.sel.local {
		if err := r.Linearizable(ctx); err != nil {
			return err
		}
	}
	err = s.readHere(ctx, r, q, func(p part) error {
		m := &regionv1.ReadResponse{State: p.state}
		for _, e := range p.rows {
			m.Rows, m.Keys = append(m.Rows, e.row), append(m.Keys, e.key)
		}
		return stream.Send(m)
	})
	if err != nil {
		return err
	}
	return stream.Send(&regionv1.ReadResponse{End: true})
}

// coordinatorService serves workers' sessions.
type coordinatorService struct {
	regionv1.UnimplementedCoordinatorServiceServer
	*Server
}

// Work implements the service.
func (s coordinatorService) Work(stream regionv1.CoordinatorService_WorkServer) error {
	return s.o.Coordinator.Work(stream)
}

// states lists the states of this node's replicas by shard, nil where it has none.
func (s *Server) states() []*shard.State {
	out := make([]*shard.State, s.o.Router.Shards())
	for i := range out {
		out[i] = s.o.Router.State(keyspace.ShardID(i))
	}
	return out
}

// leastPoints returns the least point of every source of a generation over the shards.
func leastPoints(states []*shard.State, id crdt.GenerationID) []shard.Standing {
	least := map[crdt.Source]shard.Standing{}
	for _, st := range states {
		if st == nil || st.Generation(id) == nil {
			continue
		}
		g := st.Generation(id)
		for _, region := range g.Groups() {
			for _, at := range g.Standings(region) {
				if x, ok := least[at.Source]; !ok || at.Point.Offset < x.Point.Offset {
					least[at.Source] = at
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(least), func(a, b shard.Standing) int { return crdt.CompareSources(a.Source, b.Source) })
}
