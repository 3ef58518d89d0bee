package client

import (
	"context"

	"google.golang.org/grpc"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Checkpoint makes a checkpoint of the answering node's region, under a name a savepoint, and returns when it is whole.
func (c *Client) Checkpoint(ctx context.Context, savepoint string) (out *watershedv1.Checkpoint, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) error {
		answer, err := watershedv1.NewClusterServiceClient(cc).Checkpoint(ctx, &watershedv1.CheckpointRequest{Savepoint: savepoint})
		out = answer.GetCheckpoint()
		return err
	})
	return out, err
}

// Checkpoints returns the checkpoints of the answering node's region, oldest first, then its savepoints by name.
func (c *Client) Checkpoints(ctx context.Context) (out *watershedv1.CheckpointsResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewClusterServiceClient(cc).Checkpoints(ctx, &watershedv1.CheckpointsRequest{})
		return err
	})
	return out, err
}

// DeleteSavepoint removes a savepoint of the answering node's region. One that does not exist is NOT_FOUND.
func (c *Client) DeleteSavepoint(ctx context.Context, savepoint string) error {
	return c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := watershedv1.NewClusterServiceClient(cc).DeleteSavepoint(ctx, &watershedv1.DeleteSavepointRequest{Savepoint: savepoint})
		return err
	})
}
