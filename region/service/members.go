package service

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/carrier"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/replica"
)

// Observe implements the service.
func (s shardService) Observe(_ context.Context, in *regionv1.ObserveRequest) (*regionv1.ObserveResponse, error) {
	if err := s.ours(in.GetDeployment()); err != nil {
		return nil, err
	}
	return &regionv1.ObserveResponse{Groups: carrier.View(s.o.Router.Local())}, nil
}

// Alter implements the service.
func (s shardService) Alter(ctx context.Context, in *regionv1.AlterRequest) (*regionv1.AlterResponse, error) {
	if _, err := s.replica(in.GetDeployment(), in.GetShard()); err != nil {
		return nil, err
	}
	step := placement.Step{
		Shard: int(in.GetShard()), Op: placement.Op(min(in.GetOp(), 255)), Node: in.GetNode(), Index: in.GetIndex(),
	}
	err := carrier.Alter(ctx, s.o.Router.Local(), step, in.GetAddress())
	if errors.Is(err, group.ErrConfiguration) {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &regionv1.AlterResponse{}, err
}

// Placement implements the service.
func (s shardService) Placement(_ context.Context, in *regionv1.PlacementRequest) (*regionv1.PlacementResponse, error) {
	if err := s.ours(in.GetDeployment()); err != nil {
		return nil, err
	}
	return &regionv1.PlacementResponse{Table: s.o.Router.State(0).Note(carrier.Note).Value}, nil
}

// AddNode implements the service.
func (s clusterService) AddNode(ctx context.Context, in *watershedv1.AddNodeRequest) (*watershedv1.NodeResponse, error) {
	n := placement.Node{
		ID: in.GetId(), Raft: in.GetRaft(), GRPC: in.GetGrpc(), HTTP: in.GetHttp(), Zone: in.GetZone(),
		Weight: int(min(in.GetWeight(), placement.MaxWeight+1)),
	}
	for _, a := range [...]string{n.Raft, n.GRPC, n.HTTP} {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return nil, s.nodeError(fmt.Errorf("%w: its address is %q, want HOST:PORT", placement.ErrNode, a))
		}
	}
	return s.change(ctx, n.ID,
		func(c watershedv1.ClusterServiceClient, ctx context.Context) (*watershedv1.NodeResponse, error) {
			return c.AddNode(ctx, in)
		},
		func(t *placement.Table, _ placement.Observed) (*placement.Table, error) { return t.Add(n) })
}

// DrainNode implements the service.
func (s clusterService) DrainNode(ctx context.Context, in *watershedv1.DrainNodeRequest) (*watershedv1.NodeResponse, error) {
	return s.change(ctx, in.GetId(),
		func(c watershedv1.ClusterServiceClient, ctx context.Context) (*watershedv1.NodeResponse, error) {
			return c.DrainNode(ctx, in)
		},
		func(t *placement.Table, _ placement.Observed) (*placement.Table, error) { return t.Drain(in.GetId()) })
}

// RemoveNode implements the service.
func (s clusterService) RemoveNode(ctx context.Context, in *watershedv1.RemoveNodeRequest) (*watershedv1.NodeResponse, error) {
	return s.change(ctx, in.GetId(),
		func(c watershedv1.ClusterServiceClient, ctx context.Context) (*watershedv1.NodeResponse, error) {
			return c.RemoveNode(ctx, in)
		},
		func(t *placement.Table, o placement.Observed) (*placement.Table, error) {
			return t.Remove(in.GetId(), o)
		})
}

// change makes a change of the placement table where shard 0 is led.
func (s clusterService) change(ctx context.Context, id string,
	there func(watershedv1.ClusterServiceClient, context.Context) (*watershedv1.NodeResponse, error),
	change func(*placement.Table, placement.Observed) (*placement.Table, error),
) (out *watershedv1.NodeResponse, err error) {
	err = s.o.Router.AtLeader(ctx, 0, func(ctx context.Context, here *replica.Replica, conn *grpc.ClientConn) error {
		if here == nil {
			out, err = there(watershedv1.NewClusterServiceClient(conn), ctx)
			return err
		}
		table, err := s.o.Carrier.Change(ctx, change)
		if err != nil {
			return s.nodeError(err)
		}
		n, _ := table.Node(id)
		out = &watershedv1.NodeResponse{Node: toNode(n), Placement: toPlacement(table)}
		return nil
	})
	return out, err
}

// nodeError gives what the table refuses its status, and the name of the region that was asked.
func (s clusterService) nodeError(err error) error {
	for _, x := range [...]struct {
		is   error
		code codes.Code
	}{
		{placement.ErrNode, codes.InvalidArgument}, {placement.ErrUnknown, codes.NotFound}, {placement.ErrTaken, codes.AlreadyExists},
		{placement.ErrGone, codes.FailedPrecondition}, {placement.ErrTooFew, codes.FailedPrecondition},
		{placement.ErrMajority, codes.FailedPrecondition},
	} {
		if errors.Is(err, x.is) {
			return status.Errorf(x.code, "region %s: %v", s.o.Region, err)
		}
	}
	return err
}

func toNode(n placement.Node) *watershedv1.Node {
	return &watershedv1.Node{
		Id: n.ID, Raft: n.Raft, Grpc: n.GRPC, Http: n.HTTP, Zone: n.Zone, Weight: uint32(n.Weight), State: string(n.State),
	}
}

func toPlacement(t *placement.Table) *watershedv1.Placement {
	return &watershedv1.Placement{Plan: t.Plan, Done: t.Done, Reason: t.Reason, Replication: uint32(t.Replication)}
}

// nodes lists the region's nodes, the removed ones left out: as the placement table says, and before there is one as the
// configuration does.
func (s *Server) nodes() ([]*watershedv1.Node, *watershedv1.Placement) {
	table, _, err := s.o.Carrier.Table()
	var out []*watershedv1.Node
	if err != nil || table == nil {
		for _, n := range s.o.Nodes {
			out = append(out, &watershedv1.Node{Id: n.ID, Raft: n.Raft, Grpc: n.GRPC, Http: n.HTTP, Zone: n.Zone})
		}
		return out, nil
	}
	for _, n := range table.Present() {
		out = append(out, toNode(n))
	}
	return out, toPlacement(table)
}
