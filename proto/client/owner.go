package client

import (
	"context"

	"google.golang.org/grpc"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Ownership tells who owns a shard, as each region sees it; see watershedv1.ClusterServiceClient, as for the others here.
func (c *Client) Ownership(ctx context.Context, shard uint32) (out *watershedv1.OwnershipResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewClusterServiceClient(cc).Ownership(ctx, &watershedv1.OwnershipRequest{Shard: shard})
		return err
	})
	return out, err
}

// Flip hands a shard to another region, as planned.
func (c *Client) Flip(ctx context.Context, shard uint32, to string) (out *watershedv1.FlipResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewClusterServiceClient(cc).Flip(ctx, &watershedv1.FlipRequest{Shard: shard, To: to})
		return err
	})
	return out, err
}

// Force makes a region the owner of a shard without those that it does not hear of; with dry it tells what that would cost.
func (c *Client) Force(ctx context.Context, shard uint32, to string, dry bool) (out *watershedv1.ForceResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewClusterServiceClient(cc).Force(ctx, &watershedv1.ForceRequest{Shard: shard, To: to, Dry: dry})
		return err
	})
	return out, err
}
