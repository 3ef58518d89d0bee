package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/coordinator"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

// This file answers for shards that this node has no replica of.

// Stand implements the service.
func (s shardService) Stand(_ context.Context, in *regionv1.StandRequest) (*regionv1.StandResponse, error) {
	r, err := s.replica(in.GetDeployment(), in.GetShard())
	if err != nil {
		return nil, err
	}
	if !r.IsLeader() {
		return nil, &group.NotLeaderError{Leader: r.Leader()}
	}
	id, err := generationID(in.GetGeneration())
	if err != nil {
		return nil, err
	}
	return s.stand(r, id), nil
}

func (s *Server) stand(r *replica.Replica, id crdt.GenerationID) *regionv1.StandResponse {
	st := r.State()
	out := &regionv1.StandResponse{
		Registry: coordinator.Settled(s.o.Router.State(0).Registry(), []*shard.State{st}),
	}
	if g := st.Generation(id); g != nil {
		out.State = toShardState(r, s.o.Region, st, g)
	}
	return out
}

// askAtOnce is how many shards one call asks at a time: each may wait for a leader.
const askAtOnce = 16

// elsewhere asks the leaders of the shards that this node has no replica of how they stand; of those that do not answer
// there is nothing in it. All says whether all have answered.
func (s *Server) elsewhere(ctx context.Context, id crdt.GenerationID) (out map[keyspace.ShardID]*regionv1.StandResponse, all bool) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	var missing []keyspace.ShardID
	for i := range s.o.Router.Shards() {
		if shardID := keyspace.ShardID(i); s.o.Router.Replica(shardID) == nil {
			missing = append(missing, shardID)
		}
	}
	return askEach(missing, askAtOnce, func(shardID keyspace.ShardID) (answer *regionv1.StandResponse, err error) {
		err = s.o.Router.AtLeader(ctx, shardID, func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) (err error) {
			if here != nil {
				answer = s.stand(here, id)
				return nil
			}
			answer, err = regionv1.NewShardServiceClient(there).Stand(ctx, &regionv1.StandRequest{
				Deployment: s.o.Deployment, Shard: uint32(shardID), Generation: id[:],
			})
			return err
		})
		return answer, err
	})
}

// askEach asks for each of the shards, a few at once, and returns the answers. All says whether none failed.
func askEach[T any](ids []keyspace.ShardID, atOnce int, ask func(keyspace.ShardID) (T, error)) (out map[keyspace.ShardID]T, all bool) {
	out = make(map[keyspace.ShardID]T, len(ids))
	var mu sync.Mutex // of out
	var asking errgroup.Group
	asking.SetLimit(atOnce)
	for _, id := range ids {
		asking.Go(func() error {
			answer, err := ask(id)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				out[id] = answer
			}
			return err
		})
	}
	return out, asking.Wait() == nil
}

// settledElsewhere returns the least registry position that the shards which are not here are up to, and the given one
// where all are here.
func (s *Server) settledElsewhere(ctx context.Context, position uint64) uint64 {
	stands, all := s.elsewhere(ctx, crdt.GenerationID{})
	if !all {
		return 0
	}
	for _, x := range stands {
		position = min(position, x.GetRegistry())
	}
	return position
}

// readElsewhere hands out the answer of any node that holds the shard.
func (s *Server) readElsewhere(ctx context.Context, id keyspace.ShardID, q *query, out func(part) error) error {
	err := s.o.Router.Elsewhere(id)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, n := range s.o.Router.Holders(id) {
		conn, e := s.o.Conns.To(n.GRPC)
		if e != nil {
			err = e
			continue
		}
		stream, e := regionv1.NewShardServiceClient(conn).Read(ctx, &regionv1.ReadRequest{
			Deployment: s.o.Deployment, Shard: uint32(id), Scan: q.scan,
		})
		var first *regionv1.ReadResponse
		if e == nil {
			first, e = stream.Recv()
		}
		if e == nil {
			return relay(stream, first, out)
		}
		if err = e; !temporary(e) {
			break
		}
	}
	return s.o.Router.Status(err)
}

// onlyShards is the header of a watch that another node of this region relays: the shards that it is for.
const onlyShards = "watershed-shards"

// relayed returns the shards that a relayed watch is for, nil for a watch of a client.
func relayed(ctx context.Context) ([]keyspace.ShardID, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	var out []keyspace.ShardID
	for _, v := range incoming.Get(onlyShards) {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "%s: %q is no shard", onlyShards, v)
		}
		out = append(out, keyspace.ShardID(n))
	}
	return out, nil
}

// watchElsewhere relays the watch of one shard from a node that holds it.
func (s *Server) watchElsewhere(ctx context.Context, id keyspace.ShardID, in *watershedv1.WatchRequest,
	send func(*watershedv1.WatchResponse) error,
) error {
	err := s.o.Router.Elsewhere(id)
	ctx = metadata.AppendToOutgoingContext(ctx, onlyShards, strconv.Itoa(int(id)))
	for _, n := range s.o.Router.Holders(id) {
		conn, e := s.o.Conns.To(n.GRPC)
		if e != nil {
			err = e
			continue
		}
		var stream grpc.ServerStreamingClient[watershedv1.WatchResponse]
		if stream, err = watershedv1.NewStateServiceClient(conn).Watch(ctx, in); err == nil {
			_, err = stream.Recv() // the columns
		}
		for err == nil {
			var m *watershedv1.WatchResponse
			if m, err = stream.Recv(); err == nil {
				if err := send(m); err != nil {
					return err
				}
				continue
			}
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: the watch of shard %d ended", group.ErrUnavailable, id)
			}
			return s.o.Router.Status(err) // what it missed nobody knows: the client begins again
		}
		if !temporary(err) {
			break
		}
	}
	return s.o.Router.Status(err)
}

// contains says whether a relayed watch is for a shard; one of a client is for all.
func contains(only []keyspace.ShardID, id keyspace.ShardID) bool {
	return only == nil || slices.Contains(only, id)
}
