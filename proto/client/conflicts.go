package client

import (
	"context"

	"google.golang.org/grpc"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Conflicts lists what the divergence ledgers hold; see watershedv1.ClusterServiceClient, as for the others here.
func (c *Client) Conflicts(ctx context.Context, in *watershedv1.ConflictsRequest) (out *watershedv1.ConflictsResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewClusterServiceClient(cc).Conflicts(ctx, in)
		return err
	})
	return out, err
}

// DiscardConflict gives a lost write up.
func (c *Client) DiscardConflict(ctx context.Context, id, reason string) (out *watershedv1.DiscardConflictResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		in := &watershedv1.DiscardConflictRequest{Id: id, Reason: reason}
		out, err = watershedv1.NewClusterServiceClient(cc).DiscardConflict(ctx, in)
		return err
	})
	return out, err
}

// ReplayConflict does a lost write again; with anyway whatever the row is by now.
func (c *Client) ReplayConflict(ctx context.Context, id string, anyway bool) (out *watershedv1.ReplayConflictResponse, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		in := &watershedv1.ReplayConflictRequest{Id: id, Anyway: anyway}
		out, err = watershedv1.NewClusterServiceClient(cc).ReplayConflict(ctx, in)
		return err
	})
	return out, err
}
