package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Get returns the rows of one key, of which the selection gives every part. With a session the answer reflects at least
// what was seen of that shard before.
func (c *Client) Get(ctx context.Context, selection *watershedv1.Selection) (out *watershedv1.GetResponse, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) error {
		in := &watershedv1.GetRequest{Selection: c.remembering(selection)}
		answer, err := watershedv1.NewStateServiceClient(cc).Get(ctx, in)
		if err != nil {
			return err
		}
		if err := c.o.session.see(selection.GetJob(), answer.GetShard()); err != nil {
			return err
		}
		out = answer
		return nil
	})
	return out, err
}

// remembering returns the selection with the points that the session has seen.
func (c *Client) remembering(selection *watershedv1.Selection) *watershedv1.Selection {
	seen := c.o.session.least(selection.GetJob())
	if len(seen) == 0 {
		return selection
	}
	with := proto.CloneOf(selection)
	with.Seen = append(with.Seen, seen...)
	return with
}
