package service

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/table"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/owner"
	"github.com/watershed-db/watershed/region/shard"
)

// maxConflicts bounds the entries of one shard's ledger in a list.
const maxConflicts = 1000

// conflictID names an entry of the divergence ledger: the shard, and the entry of its log that was cut off.
type conflictID struct {
	shard keyspace.ShardID
	mark  ownership.Mark
}

func (c conflictID) String() string {
	return fmt.Sprintf("%d-%d@%d-%d", c.shard, c.mark.Epoch.Counter(), c.mark.Epoch.Owner(), c.mark.Position)
}

func (s *Server) conflictID(text string) (c conflictID, err error) {
	var id, counter, member, position uint64
	_, err = fmt.Sscanf(text, "%d-%d@%d-%d", &id, &counter, &member, &position)
	c.mark = ownership.Mark{Epoch: ownership.EpochOf(counter, ownership.MemberID(member)), Position: ownership.Position(position)}
	c.shard = keyspace.ShardID(id)
	if err != nil || id >= uint64(s.o.Shards) || member >= 1<<16 || c.String() != text {
		return c, status.Errorf(codes.InvalidArgument, "%.64q names no entry of a ledger", text)
	}
	return c, nil
}

// Conflicts implements the service.
func (s clusterService) Conflicts(ctx context.Context, in *watershedv1.ConflictsRequest) (*watershedv1.ConflictsResponse, error) {
	if in.GetId() != "" {
		if _, err := s.conflictID(in.GetId()); err != nil {
			return nil, err
		}
	}
	if in.GetRegion() == s.o.Region {
		return s.ownConflicts(ctx, in)
	}
	return s.conflicts(ctx, in)
}

// conflicts asks all regions, or the one that is named.
func (s *Server) conflicts(ctx context.Context, in *watershedv1.ConflictsRequest) (*watershedv1.ConflictsResponse, error) {
	answers := make([]*watershedv1.ConflictsResponse, len(s.o.Regions))
	s.eachRegion(func(i int) {
		name := s.o.Regions[i].Name
		if in.GetRegion() != "" && in.GetRegion() != name {
			answers[i] = &watershedv1.ConflictsResponse{}
			return
		}
		ask := &watershedv1.ConflictsRequest{Id: in.GetId(), Settled: in.GetSettled(), Region: name, Shard: in.Shard}
		_ = s.atRegion(ctx, name, func(ctx context.Context, there *grpc.ClientConn) (err error) {
			if there == nil {
				answers[i], err = s.ownConflicts(ctx, ask)
			} else {
				answers[i], err = watershedv1.NewClusterServiceClient(there).Conflicts(ctx, ask)
			}
			return err
		})
	})
	out := &watershedv1.ConflictsResponse{}
	known := map[string]*watershedv1.Conflict{}
	for i, a := range answers {
		if a == nil {
			out.Missing = append(out.Missing, s.o.Regions[i].Name)
			continue
		}
		out.More = out.More || a.GetMore()
		for _, c := range a.GetConflicts() {
			if first := known[c.GetId()]; first != nil {
				first.Regions = append(first.Regions, c.GetRegions()...)
				continue
			}
			known[c.GetId()] = c
			out.Conflicts = append(out.Conflicts, c)
		}
	}
	slices.SortStableFunc(out.Conflicts, func(a, b *watershedv1.Conflict) int {
		return cmp.Or(cmp.Compare(a.GetShard(), b.GetShard()), cmp.Compare(a.GetEpoch(), b.GetEpoch()), cmp.Compare(a.GetPosition(), b.GetPosition()))
	})
	return out, nil
}

// ownConflicts lists what the ledgers of this region's shards hold, as their leaders have them.
func (s *Server) ownConflicts(ctx context.Context, in *watershedv1.ConflictsRequest) (*watershedv1.ConflictsResponse, error) {
	from, to := 0, s.o.Shards
	if in.Shard != nil {
		from, to = int(in.GetShard()), int(in.GetShard())+1
	} else if in.GetId() != "" {
		id, err := s.conflictID(in.GetId())
		if err != nil {
			return nil, err
		}
		from, to = int(id.shard), int(id.shard)+1
	}
	out := &watershedv1.ConflictsResponse{}
	for i := from; i < to; i++ {
		n := uint32(i)
		err := s.atOwner(ctx, n, func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) error {
			var answer *watershedv1.ConflictsResponse
			var err error
			if here != nil {
				answer, err = s.ledger(keyspace.ShardID(i), in)
			} else {
				answer, err = watershedv1.NewClusterServiceClient(there).Conflicts(ctx,
					&watershedv1.ConflictsRequest{Id: in.GetId(), Settled: in.GetSettled(), Region: in.GetRegion(), Shard: &n})
			}
			if err != nil {
				return err
			}
			out.Conflicts, out.More = append(out.Conflicts, answer.GetConflicts()...), out.More || answer.GetMore()
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ledger reads a ledger of this node.
func (s *Server) ledger(id keyspace.ShardID, in *watershedv1.ConflictsRequest) (out *watershedv1.ConflictsResponse, err error) {
	r := s.o.Router.Replica(id)
	if r == nil {
		return nil, status.Errorf(codes.Unavailable, "shard %d is not here any more", id)
	}
	snap, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	reader, err := snap.Owned()
	if err != nil {
		return nil, err
	}
	out = &watershedv1.ConflictsResponse{}
	add := func(c owned.Conflict, whole bool) error {
		if c.Settled && !in.GetSettled() && !whole {
			return nil
		}
		x, err := s.toConflict(id, c, whole)
		out.Conflicts = append(out.Conflicts, x)
		return err
	}
	if in.GetId() != "" {
		want, err := s.conflictID(in.GetId())
		if err != nil {
			return nil, err
		}
		c, ok, err := reader.Conflict(want.mark)
		if err != nil || !ok {
			return out, err
		}
		return out, add(c, true)
	}
	for behind := uint64(0); ; {
		list, next, err := reader.Conflicts(behind, 100)
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			if len(out.Conflicts) == maxConflicts {
				out.More = true
				return out, nil
			}
			if err := add(c, false); err != nil {
				return nil, err
			}
		}
		if behind = next; next == 0 {
			return out, nil
		}
	}
}

func (s *Server) toConflict(id keyspace.ShardID, c owned.Conflict, whole bool) (*watershedv1.Conflict, error) {
	out := &watershedv1.Conflict{
		Id: conflictID{id, c.Mark}.String(), Shard: uint32(id), Regions: []string{s.o.Region}, Operation: "state",
		Epoch: uint64(c.Mark.Epoch), Position: uint64(c.Mark.Position), ByEpoch: uint64(c.By), Doubt: c.Doubt, Settled: c.Settled, Reason: c.Reason,
	}
	if c.Aside > 0 {
		return out, nil
	}
	out.Operation, out.TimeMs, out.TableId = c.Op.Kind.String(), c.Op.Time, c.Op.Table[:]
	out.ValueBytes, out.HadBefore = uint64(len(c.Op.Value)), c.HadBefore
	for _, e := range s.o.Router.State(0).Registry().Tables() {
		if of := e.TableID(); bytes.Equal(of[:], c.Op.Table[:]) {
			out.Table = e.Name
		}
	}
	key, rest, err := crdt.CutKey(c.Op.Key)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("ledger entry %s: key %x is none", out.Id, c.Op.Key)
	}
	out.Key = toValue(key)
	if whole {
		out.Value, out.Before, out.Payload = c.Op.Value, c.Before.Value, c.Op.Append(nil)
	}
	return out, nil
}

// DiscardConflict implements the service.
func (s clusterService) DiscardConflict(ctx context.Context, in *watershedv1.DiscardConflictRequest) (*watershedv1.DiscardConflictResponse, error) {
	id, err := s.conflictID(in.GetId())
	switch {
	case err != nil:
		return nil, err
	case strings.TrimSpace(in.GetReason()) == "" || len(in.GetReason()) > owned.MaxReason:
		return nil, status.Errorf(codes.InvalidArgument, "a reason is needed, of at most %d bytes", owned.MaxReason)
	case in.GetRegion() == s.o.Region:
		return s.discard(ctx, id, in.GetReason())
	}
	answers := make([]*watershedv1.DiscardConflictResponse, len(s.o.Regions))
	s.eachRegion(func(i int) {
		ask := &watershedv1.DiscardConflictRequest{Id: in.GetId(), Reason: in.GetReason(), Region: s.o.Regions[i].Name}
		_ = s.atRegion(ctx, ask.GetRegion(), func(ctx context.Context, there *grpc.ClientConn) (err error) {
			if there == nil {
				answers[i], err = s.discard(ctx, id, ask.GetReason())
			} else {
				answers[i], err = watershedv1.NewClusterServiceClient(there).DiscardConflict(ctx, ask)
			}
			return err
		})
	})
	out := &watershedv1.DiscardConflictResponse{}
	for i, a := range answers {
		if a == nil {
			out.Missing = append(out.Missing, s.o.Regions[i].Name)
		}
		out.Regions = append(out.Regions, a.GetRegions()...)
	}
	if len(out.Regions) == 0 {
		return nil, s.noConflict(in.GetId(), out.Missing)
	}
	return out, nil
}

func (s *Server) noConflict(id string, missing []string) error {
	if len(missing) > 0 {
		return status.Errorf(codes.Unavailable, "no ledger that could be asked holds %s; regions %s did not answer", id, strings.Join(missing, ", "))
	}
	return status.Errorf(codes.NotFound, "no ledger holds %s any more", id)
}

// discard settles an entry of this region's ledger.
func (s *Server) discard(ctx context.Context, id conflictID, reason string) (*watershedv1.DiscardConflictResponse, error) {
	res, err := s.o.Router.Propose(ctx, id.shard, &shard.Discard{Mark: id.mark, Reason: reason})
	if err != nil {
		return nil, err
	}
	out := &watershedv1.DiscardConflictResponse{}
	if res.Outcome == shard.Applied {
		out.Regions = []string{s.o.Region}
	}
	return out, nil
}

// ReplayConflict implements the service.
func (s clusterService) ReplayConflict(ctx context.Context, in *watershedv1.ReplayConflictRequest) (*watershedv1.ReplayConflictResponse, error) {
	id, err := s.conflictID(in.GetId())
	if err != nil {
		return nil, err
	}
	if len(in.GetPayload()) > 0 {
		return s.replay(ctx, id, in)
	}
	found, err := s.conflicts(ctx, &watershedv1.ConflictsRequest{Id: in.GetId()})
	if err != nil {
		return nil, err
	}
	if len(found.GetConflicts()) == 0 {
		return nil, s.noConflict(in.GetId(), found.GetMissing())
	}
	c := found.GetConflicts()[0]
	op, err := owned.DecodeOp(c.GetPayload())
	switch {
	case c.GetOperation() == "state":
		return nil, status.Errorf(codes.FailedPrecondition, "%s is a whole state, and no write", in.GetId())
	case c.GetSettled():
		return nil, status.Errorf(codes.FailedPrecondition, "%s was discarded: %s", in.GetId(), c.GetReason())
	case err != nil:
		return nil, err
	}
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	op.Replays, op.Time = op.Names(), time.Now().UnixMilli()
	op.ID = owned.ID{Session: owned.Session{Born: op.Time, Nonce: binary.LittleEndian.Uint64(nonce[:])}, Sequence: 1}
	if in.GetAnyway() {
		op.Expect = owned.Expect{}
	}
	return s.replay(ctx, id, &watershedv1.ReplayConflictRequest{Id: in.GetId(), Payload: op.Append(nil)})
}

// replay writes at the shard's owner, wherever that is.
func (s *Server) replay(ctx context.Context, id conflictID, in *watershedv1.ReplayConflictRequest) (out *watershedv1.ReplayConflictResponse, err error) {
	op, err := owned.DecodeOp(in.GetPayload())
	if err != nil || op.Kind == owned.Sweep || op.Replays.Sequence == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "what is to be done again is no write: %v", err)
	}
	err = s.atOwner(ctx, uint32(id.shard), func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) error {
		if here == nil {
			out, err = watershedv1.NewClusterServiceClient(there).ReplayConflict(ctx, in)
			return err
		}
		if r := s.o.Router.Replica(id.shard); r != nil && r.State().Told().Dropped(table.ID(op.Table)) {
			return status.Errorf(codes.FailedPrecondition, "the table of %s was dropped", in.GetId())
		}
		raw, err := here.Write(ctx, in.GetPayload(), true)
		if err != nil {
			return err
		}
		res, err := owned.DecodeResult(raw)
		out = &watershedv1.ReplayConflictResponse{Applied: res.Verdict == owned.Applied, Again: res.Again, Verdict: res.Verdict.String(), Owner: s.o.Region}
		return err
	})
	other := ownerOf(err)
	if other == "" || other == s.o.Region {
		return out, err
	}
	err = s.atRegion(ctx, other, func(ctx context.Context, there *grpc.ClientConn) error {
		out, err = watershedv1.NewClusterServiceClient(there).ReplayConflict(ctx, in)
		return err
	})
	return out, err
}
