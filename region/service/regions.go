package service

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// silentFor is for how long a region may not answer before a call goes on without it.
	silentFor = 2 * time.Second
	// askEvery is how often a region is asked how far it is.
	askEvery = 50 * time.Millisecond
)

// submitTo hands a registry command to a node of the region that owns the registry.
func (s *Server) submitTo(ctx context.Context, conn *grpc.ClientConn, command shard.Command) (shard.Result, error) {
	answer, err := peerv1.NewPeerServiceClient(conn).Submit(ctx, &peerv1.SubmitRequest{
		Hello: s.hello(), Command: shard.Encode(command),
	})
	if err != nil {
		return shard.Result{}, err
	}
	var result regionv1.Result
	if err := proto.Unmarshal(answer.GetResult(), &result); err != nil {
		return shard.Result{}, fmt.Errorf("result of a registry command: %w", err)
	}
	return router.DecodeResult(&result)
}

// eachRegion calls call with the index of every region, at once.
func (s *Server) eachRegion(call func(i int)) {
	var calls sync.WaitGroup
	defer calls.Wait()
	for i := range s.o.Regions {
		calls.Go(func() { call(i) })
	}
}

// awaitOther asks a region until all its shards are up to a registry position; false when it does not answer for a
// while, or ctx ends.
func (s *Server) awaitOther(ctx context.Context, r config.Region, position uint64) bool {
	heard := time.Now()
	for {
		answer, err := s.summary(ctx, r)
		if err == nil {
			heard = time.Now()
			if answer.GetRegistry() >= position {
				return true
			}
		}
		if time.Since(heard) >= silentFor {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(askEvery):
		}
	}
}
