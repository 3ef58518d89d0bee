package service

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/owner"
	"github.com/watershed-db/watershed/region/replica"
)

// Owners are the owned logs of the shards that are on this node.
type Owners interface {
	Shard(keyspace.ShardID) *owner.Shard // nil where it isn't here
}

// Exchange takes what other regions' members of owned logs say.
type Exchange interface {
	Own(grpc.BidiStreamingServer[peerv1.OwnRequest, peerv1.OwnResponse]) error
}

const (
	// hops is the header of an operator's call that nodes send on: how often it was.
	hops    = "watershed-hops"
	maxHops = 4
	// viewWithin bounds the question of how one region sees a shard.
	viewWithin = 1500 * time.Millisecond
	// lookEvery is how often it is looked whether a new owner answers.
	lookEvery = 5 * time.Millisecond
)

// Own implements the service.
func (s peerService) Own(stream peerv1.PeerService_OwnServer) error { return s.o.Exchange.Own(stream) }

// Join implements the service.
func (s peerService) Join(ctx context.Context, in *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	if err := s.o.Peers.Check(in.GetHello()); err != nil {
		return nil, err
	}
	out := &peerv1.JoinResponse{}
	err := s.atOwner(ctx, in.GetHello().GetShard(), func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) error {
		if here == nil {
			answer, err := peerv1.NewPeerServiceClient(there).Join(ctx, in)
			out = answer
			return err
		}
		m, err := here.Add(ctx, crdt.RegionID(in.GetHello().GetRegion()), ownership.MemberID(min(in.GetInstead(), 1<<16-1)))
		out.Member = uint32(m)
		return err
	})
	return out, err
}

// OwnState implements the service: on the shard's leader.
func (s peerService) OwnState(in *peerv1.OwnStateRequest, stream peerv1.PeerService_OwnStateServer) error {
	if err := s.o.Peers.Check(in.GetHello()); err != nil {
		return err
	}
	ctx, err := hop(stream.Context())
	if err != nil {
		return err
	}
	id := keyspace.ShardID(in.GetHello().GetShard())
	var elsewhere *grpc.ClientConn // what it streams may take longer than leaders are looked for
	err = s.o.Router.AtLeader(ctx, id, func(_ context.Context, _ *replica.Replica, there *grpc.ClientConn) error {
		elsewhere = there
		return nil
	})
	if err != nil {
		return s.o.Router.Status(err)
	}
	if elsewhere != nil {
		return relayState(ctx, elsewhere, in, stream)
	}
	here := s.o.Owners.Shard(id)
	if here == nil {
		return status.Errorf(codes.Unavailable, "shard %d is not here any more", id)
	}
	at := ownership.Mark{Epoch: ownership.Epoch(in.GetEpoch()), Position: ownership.Position(in.GetPosition())}
	err = here.State(ctx, at, func(digest owned.Digest, rows []byte) error {
		return stream.Send(&peerv1.OwnStateResponse{Digest: digest[:], Rows: rows})
	})
	if errors.Is(err, owner.ErrNoState) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return s.ownerError(err)
}

func relayState(ctx context.Context, there *grpc.ClientConn, in *peerv1.OwnStateRequest, to peerv1.PeerService_OwnStateServer) error {
	from, err := peerv1.NewPeerServiceClient(there).OwnState(ctx, in)
	if err != nil {
		return err
	}
	for {
		m, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := to.Send(m); err != nil {
			return err
		}
	}
}

// hop counts how often a call was sent on, and fails where that has no end.
func hop(ctx context.Context) (context.Context, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	n := 0
	if v := incoming.Get(hops); len(v) > 0 {
		n, _ = strconv.Atoi(v[0])
	}
	if n >= maxHops {
		return nil, status.Error(codes.Unavailable, "nobody knows who leads or owns the shard: the call was sent round")
	}
	return metadata.AppendToOutgoingContext(ctx, hops, strconv.Itoa(n+1)), nil
}

// atOwner calls call with the shard's owned log where this node leads it, else with a connection to the node of this region
// that does.
func (s *Server) atOwner(ctx context.Context, id uint32, call func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) error) error {
	if int(id) >= s.o.Shards {
		return status.Errorf(codes.InvalidArgument, "there is no shard %d of %d", id, s.o.Shards)
	}
	ctx, err := hop(ctx)
	if err != nil {
		return err
	}
	return s.ownerError(s.o.Router.AtLeader(ctx, keyspace.ShardID(id), func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) error {
		if here == nil {
			return call(ctx, nil, there)
		}
		return call(ctx, s.o.Owners.Shard(keyspace.ShardID(id)), nil)
	}))
}

// ownerError returns what an owned log says as a status.
func (s *Server) ownerError(err error) error {
	var other *owner.NotOwnerError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &other):
		st := status.New(codes.FailedPrecondition, err.Error())
		detail := &watershedv1.ErrorDetail{Owner: string(other.Owner), OwnerEpoch: uint64(other.Epoch), Reason: "not the owner"}
		if full, e := st.WithDetails(detail); e == nil {
			st = full
		}
		return st.Err()
	case errors.Is(err, ownership.ErrNoMember), errors.Is(err, ownership.ErrIsOwner), errors.Is(err, ownership.ErrBehind),
		errors.Is(err, ownership.ErrUnreachable), errors.Is(err, ownership.ErrOwnerLives), errors.Is(err, ownership.ErrOut),
		errors.Is(err, ownership.ErrLastCopy), errors.Is(err, owner.ErrNothingLost), errors.Is(err, owner.ErrFlipBack):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, ownership.ErrBusy), errors.Is(err, ownership.ErrFlipping), errors.Is(err, ownership.ErrFull):
		return status.Error(codes.Aborted, err.Error())
	}
	return s.o.Router.Status(err)
}

// ownerOf returns the region that an error names as the owner, "" where it names none.
func ownerOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if x, ok := d.(*watershedv1.ErrorDetail); ok {
			return x.GetOwner()
		}
	}
	return ""
}

// atRegion calls call with a connection to a node of another region, or with none where the region is the own one.
func (s *Server) atRegion(ctx context.Context, region string, call func(ctx context.Context, there *grpc.ClientConn) error) error {
	if region == s.o.Region {
		return call(ctx, nil)
	}
	r, ok := s.o.Member(region)
	if !ok {
		return status.Errorf(codes.FailedPrecondition, "there is no region %.64q", region)
	}
	ctx, err := hop(ctx)
	if err != nil {
		return err
	}
	return s.anyNode(ctx, r, func(ctx context.Context, conn *grpc.ClientConn) error { return call(ctx, conn) })
}

// Flip implements the service.
func (s clusterService) Flip(ctx context.Context, in *watershedv1.FlipRequest) (out *watershedv1.FlipResponse, err error) {
	if _, ok := s.o.Member(in.GetTo()); !ok {
		return nil, status.Errorf(codes.FailedPrecondition, "there is no region %.64q", in.GetTo())
	}
	err = s.atOwner(ctx, in.GetShard(), func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) error {
		if here == nil {
			out, err = watershedv1.NewClusterServiceClient(there).Flip(ctx, in)
			return err
		}
		out, err = s.flip(ctx, here, in)
		return err
	})
	other := ownerOf(err)
	if other == "" || other == s.o.Region {
		return out, err
	}
	if other == in.GetTo() {
		return nil, status.Errorf(codes.FailedPrecondition, "shard %d: region %s owns it already", in.GetShard(), in.GetTo())
	}
	err = s.atRegion(ctx, other, func(ctx context.Context, there *grpc.ClientConn) error {
		out, err = watershedv1.NewClusterServiceClient(there).Flip(ctx, in)
		return err
	})
	return out, err
}

// flip hands over a shard that this node leads, and waits until the new owner answers.
func (s *Server) flip(ctx context.Context, here *owner.Shard, in *watershedv1.FlipRequest) (*watershedv1.FlipResponse, error) {
	began := time.Now()
	note, err := here.Flip(ctx, crdt.RegionID(in.GetTo()))
	if err != nil {
		return nil, err
	}
	out := &watershedv1.FlipResponse{
		From: s.o.Region, FromEpoch: uint64(note.Epoch), Position: uint64(note.Mark.Position), PositionEpoch: uint64(note.Mark.Epoch),
	}
	for {
		v := here.View()
		if v.Last.Epoch > note.Epoch {
			if v.Owner != crdt.RegionID(in.GetTo()) {
				return nil, status.Errorf(codes.Aborted, "shard %d was given up, and region %s owns it now", in.GetShard(), v.Owner)
			}
			out.Epoch, out.PauseUs = uint64(v.Epoch), time.Since(began).Microseconds()
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, status.Errorf(codes.DeadlineExceeded, "shard %d was given up, and region %s has not been heard of since", in.GetShard(), in.GetTo())
		case <-time.After(lookEvery):
		}
	}
}

// Force implements the service.
func (s clusterService) Force(ctx context.Context, in *watershedv1.ForceRequest) (out *watershedv1.ForceResponse, err error) {
	err = s.atRegion(ctx, in.GetTo(), func(ctx context.Context, there *grpc.ClientConn) error {
		if there != nil {
			out, err = watershedv1.NewClusterServiceClient(there).Force(ctx, in)
			return err
		}
		return s.atOwner(ctx, in.GetShard(), func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) error {
			if here == nil {
				out, err = watershedv1.NewClusterServiceClient(there).Force(ctx, in)
				return err
			}
			out, err = s.force(ctx, here, in.GetDry())
			return err
		})
	})
	return out, err
}

func (s *Server) force(ctx context.Context, here *owner.Shard, dry bool) (*watershedv1.ForceResponse, error) {
	if v := here.View(); v.Serves {
		return nil, ownership.ErrIsOwner
	}
	act := here.Force
	if dry {
		act = here.Cost
	}
	cost, err := act(ctx)
	if err != nil {
		return nil, err
	}
	out := &watershedv1.ForceResponse{
		Unknown: cost.Unknown, Last: uint64(cost.Last.Position), Confirmed: uint64(cost.Confirmed), WaitMs: cost.Wait.Milliseconds(),
	}
	for _, r := range cost.Remove {
		out.Without = append(out.Without, string(r))
	}
	for !dry {
		if v := here.View(); v.Serves {
			out.Epoch = uint64(v.Epoch)
			break
		}
		select {
		case <-ctx.Done():
			return nil, status.Error(codes.DeadlineExceeded, "the region has claimed the shard, and does not own it yet")
		case <-time.After(lookEvery):
		}
	}
	return out, nil
}

// Ownership implements the service.
func (s clusterService) Ownership(ctx context.Context, in *watershedv1.OwnershipRequest) (*watershedv1.OwnershipResponse, error) {
	if incoming, _ := metadata.FromIncomingContext(ctx); len(incoming.Get(hops)) > 0 {
		own, err := s.ownOwnership(ctx, in)
		return &watershedv1.OwnershipResponse{Regions: []*watershedv1.ShardOwnership{own}}, err
	}
	if int(in.GetShard()) >= s.o.Shards {
		return nil, status.Errorf(codes.InvalidArgument, "there is no shard %d of %d", in.GetShard(), s.o.Shards)
	}
	out := make([]*watershedv1.ShardOwnership, len(s.o.Regions))
	s.eachRegion(func(i int) {
		name := s.o.Regions[i].Name
		ctx, cancel := context.WithTimeout(ctx, viewWithin)
		defer cancel()
		err := s.atRegion(ctx, name, func(ctx context.Context, there *grpc.ClientConn) (err error) {
			if there == nil {
				out[i], err = s.ownOwnership(ctx, in)
				return err
			}
			answer, err := watershedv1.NewClusterServiceClient(there).Ownership(ctx, in)
			if err == nil && len(answer.GetRegions()) == 1 && answer.GetRegions()[0].GetRegion() == name {
				out[i] = answer.GetRegions()[0]
			}
			return err
		})
		if out[i] == nil {
			out[i] = &watershedv1.ShardOwnership{Region: name, Note: "cannot be reached: " + status.Convert(err).Message()}
		}
	})
	return &watershedv1.OwnershipResponse{Regions: out}, nil
}

// ownOwnership tells how this region's leader of a shard sees it.
func (s *Server) ownOwnership(ctx context.Context, in *watershedv1.OwnershipRequest) (out *watershedv1.ShardOwnership, err error) {
	err = s.atOwner(ctx, in.GetShard(), func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) error {
		if here == nil {
			answer, err := watershedv1.NewClusterServiceClient(there).Ownership(ctx, in)
			if err == nil && len(answer.GetRegions()) == 1 {
				out = answer.GetRegions()[0]
			}
			return err
		}
		v := here.View()
		out = &watershedv1.ShardOwnership{
			Region: s.o.Region, Owner: string(v.Owner), Epoch: uint64(v.Epoch), Serves: v.Serves, LeaseMs: min(v.Lease, time.Hour).Milliseconds(),
			Last: uint64(v.Last.Position), LastEpoch: uint64(v.Last.Epoch), Confirmed: uint64(v.Confirmed),
		}
		if v.Leads {
			out.Standing = v.Standing.String()
		}
		for _, m := range v.Config.Members {
			out.Members = append(out.Members, &watershedv1.OwnershipMember{Member: uint32(m.ID), Region: m.Region,
				Witness: m.Role == ownership.Witness, Joining: m.Joining, Behind: m.Behind})
		}
		return nil
	})
	return out, err
}
