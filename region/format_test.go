package region

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// TestRaiseNeedsEveryNode: a format comes into force only when every node of the region has said that it knows it.
func TestRaiseNeedsEveryNode(t *testing.T) {
	c := newCluster(t, 3, 2)
	conn, err := c.conns.To(c.config.Nodes[0].GRPC)
	if err != nil {
		t.Fatal(err)
	}
	raise := func(format uint32) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := watershedv1.NewClusterServiceClient(conn).Raise(ctx, &watershedv1.RaiseRequest{Format: format})
		return err
	}
	await := func(what string, done func(error) bool, format uint32) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for err := raise(format); !done(err); err = raise(format) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	await("the format that all know", func(err error) bool { return err == nil }, shard.Format)
	refused := func(want ...string) func(error) bool {
		return func(err error) bool {
			for _, part := range want {
				if !strings.Contains(status.Convert(err).Message(), part) {
					return false
				}
			}
			return status.Code(err) == codes.FailedPrecondition
		}
	}
	await("a format that nobody knows", refused("knows formats up to", fmt.Sprint(shard.Format), fmt.Sprint(shard.Format+1)), shard.Format+1)
	c.stop(2)
	await("a node that is down", refused("node n2 of a does not answer"), shard.Format)
}
