package client

import (
	"context"

	"google.golang.org/grpc"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// AddNode admits a node to the answering node's region; see watershedv1.ClusterServiceClient, as for the others here.
func (c *Client) AddNode(ctx context.Context, n *watershedv1.AddNodeRequest) (*watershedv1.NodeResponse, error) {
	return c.node(ctx, func(ctx context.Context, cc watershedv1.ClusterServiceClient) (*watershedv1.NodeResponse, error) {
		return cc.AddNode(ctx, n)
	})
}

// DrainNode has a node's replicas move to other nodes of its region.
func (c *Client) DrainNode(ctx context.Context, id string) (*watershedv1.NodeResponse, error) {
	return c.node(ctx, func(ctx context.Context, cc watershedv1.ClusterServiceClient) (*watershedv1.NodeResponse, error) {
		return cc.DrainNode(ctx, &watershedv1.DrainNodeRequest{Id: id})
	})
}

// RemoveNode drains a node and removes it from its region for good.
func (c *Client) RemoveNode(ctx context.Context, id string) (*watershedv1.NodeResponse, error) {
	return c.node(ctx, func(ctx context.Context, cc watershedv1.ClusterServiceClient) (*watershedv1.NodeResponse, error) {
		return cc.RemoveNode(ctx, &watershedv1.RemoveNodeRequest{Id: id})
	})
}

func (c *Client) node(ctx context.Context,
	ask func(context.Context, watershedv1.ClusterServiceClient) (*watershedv1.NodeResponse, error),
) (out *watershedv1.NodeResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = ask(ctx, watershedv1.NewClusterServiceClient(cc))
		return err
	})
	return out, err
}
