package service

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace/table"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/owner"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// writeOwned has the region that owns a key's shard take an operation: this one, or where it may be sent on another.
func (s stateService) writeOwned(ctx context.Context, e shard.Entry, key []byte, in *watershedv1.WriteRequest) (out *watershedv1.WriteResponse, err error) {
	op, err := toOwnedOp(e, key, in)
	if err != nil {
		return nil, err
	}
	id := table.ShardOf(e.TableID(), key, s.o.Router.Shards())
	err = s.atOwner(ctx, uint32(id), func(ctx context.Context, here *owner.Shard, there *grpc.ClientConn) (err error) {
		if here == nil {
			out, err = watershedv1.NewStateServiceClient(there).Write(ctx, in)
			return err
		}
		op.Time = time.Now().UnixMilli()
		if op.ID.Session.Born-op.Time > clientLimits.MaxAhead {
			return status.Errorf(codes.FailedPrecondition, "the session was born too far ahead of this region's time")
		}
		b, err := here.Write(ctx, op.Append(nil), e.Table.Durability == table.Quorum)
		if err != nil {
			return err
		}
		out, err = s.ownedOutcome(e.Name, b)
		return err
	})
	if other := ownerOf(err); !in.GetRefuse() && other != "" && other != s.o.Region {
		err = s.atRegion(ctx, other, func(ctx context.Context, there *grpc.ClientConn) (err error) {
			out, err = watershedv1.NewStateServiceClient(there).Write(ctx, in)
			return err
		})
	}
	return out, err
}

// toOwnedOp takes an operation on an owned table from outside; its time is set where it is appended.
func toOwnedOp(e shard.Entry, key []byte, in *watershedv1.WriteRequest) (op owned.Op, err error) {
	id, err := toID(in.GetSession(), in.GetSequence())
	if err != nil {
		return op, err
	}
	op = owned.Op{
		Kind: owned.Put, Table: owned.TableID(e.TableID()), Key: key, TTL: e.Table.TTL,
		ID: owned.ID{Session: owned.Session{Born: id.Session.Born, Nonce: id.Session.Nonce}, Sequence: id.Sequence},
	}
	switch x := in.GetOperation().(type) {
	case *watershedv1.WriteRequest_Put:
		op.Value = x.Put
	case *watershedv1.WriteRequest_Delete:
		op.Kind, op.TTL = owned.Delete, 0
	case *watershedv1.WriteRequest_CompareAndSet:
		op.Value = x.CompareAndSet.GetPut()
		switch expect := x.CompareAndSet.GetExpect().(type) {
		case *watershedv1.CompareAndSet_Version:
			op.Expect = owned.Expect{Kind: owned.AtVersion, Version: toMark(expect.Version)}
		case *watershedv1.CompareAndSet_Value:
			op.Expect = owned.Expect{Kind: owned.EqualValue, Value: expect.Value}
		case *watershedv1.CompareAndSet_Absent:
			op.Expect = owned.Expect{Kind: owned.Absent}
		}
		if op.Expect.Kind == owned.Anything || op.Expect.Kind == owned.Absent && !x.CompareAndSet.GetAbsent() {
			return op, status.Error(codes.InvalidArgument, "a compare-and-set that expects nothing")
		}
	default:
		return op, status.Errorf(codes.InvalidArgument, "an owned table takes put, compare-and-set and delete, not %T", x)
	}
	if n := max(len(op.Value), len(op.Expect.Value)); n > e.Table.MaxBytes {
		return op, status.Errorf(codes.FailedPrecondition, "table %s: a value of %d bytes, %d are allowed", e.Name, n, e.Table.MaxBytes)
	}
	if id.Session.Born < 0 || id.Session.Born > owned.MaxMillis {
		return op, status.Error(codes.InvalidArgument, "a session that was born at no time")
	}
	return op, nil
}

func toMark(v *watershedv1.Version) ownership.Mark {
	return ownership.Mark{Epoch: ownership.Epoch(v.GetEpoch()), Position: ownership.Position(v.GetPosition())}
}

func fromMark(m ownership.Mark) *watershedv1.Version {
	return &watershedv1.Version{Epoch: uint64(m.Epoch), Position: uint64(m.Position)}
}

// ownedOutcome says what an operation came to.
func (s *Server) ownedOutcome(name string, b []byte) (*watershedv1.WriteResponse, error) {
	r, err := owned.DecodeResult(b)
	if err != nil {
		return nil, err
	}
	out := &watershedv1.WriteResponse{Region: s.o.Region, Again: r.Again, Failed: r.Verdict == owned.CompareFailed}
	if r.Stands {
		out.Version = fromMark(r.Version)
	}
	switch r.Verdict {
	case owned.Applied, owned.CompareFailed:
		return out, nil
	case owned.Forgotten, owned.Expired:
		return nil, withReason(codes.Aborted, reasonExpired, "table %s: the operation of this session is %v", name, r.Verdict)
	case owned.TooFar:
		return nil, router.Exhausted(&limit.Exhausted{What: "the session is too far ahead of what was answered", Wait: streamWait})
	}
	return nil, status.Errorf(codes.InvalidArgument, "table %s: the operation is %v", name, r.Verdict)
}

// readOwnedHere reads an owned table from this node's replica: where it isn't local, as the shard's owner.
func (s *Server) readOwnedHere(ctx context.Context, r *replica.Replica, d table.Def, in *regionv1.ReadTableRequest) (out *regionv1.ReadTableResponse, err error) {
	own := s.o.Owners.Shard(r.Shard())
	if own == nil {
		return nil, s.o.Router.Elsewhere(r.Shard())
	}
	confirmed := own.View().Confirmed // before the snapshot is taken, which then holds it
	snap, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	reader, err := snap.Owned()
	if err != nil {
		return nil, err
	}
	at := reader.Held()
	if d.Durability == table.Quorum {
		at = min(confirmed, at)
	}
	view, err := reader.At(at)
	if err != nil {
		return nil, err
	}
	if out, err = s.ownedRows(r, snap, view, in); err != nil || in.GetLocal() {
		return out, err
	}
	return out, s.ownerError(own.Serve(ctx))
}

func (s *Server) ownedRows(r *replica.Replica, snap *shard.Snapshot, view *owned.View, in *regionv1.ReadTableRequest) (
	out *regionv1.ReadTableResponse, err error,
) {
	id := owned.TableID(in.GetTable())
	if key := in.GetKey(); len(key) > 0 {
		answer := &watershedv1.GetValueResponse{
			Region: s.o.Region, AppliedIndex: snap.Index, StalenessMs: r.Staleness().Milliseconds(),
		}
		row, ok, err := view.Get(id, key)
		if err == nil && ok && !over(row) {
			answer.Value, err = ownedValue(key, row)
		}
		return &regionv1.ReadTableResponse{Answer: answer}, err
	}
	out = &regionv1.ReadTableResponse{}
	size := 0
	var failed error
	out.Next, err = view.Scan(id, in.GetFrom(), tablePage, func(key []byte, row owned.Row) bool {
		if over(row) {
			return true
		}
		v, err := ownedValue(key, row)
		if failed = err; err != nil {
			return false
		}
		out.Values, out.Keys = append(out.Values, v), append(out.Keys, key)
		size += len(key) + len(row.Value)
		return size < pageBytes
	})
	return out, errors.Join(err, failed)
}

// over says whether a row has expired by this node's clock. The log's own time may be behind: it moves with entries.
func over(row owned.Row) bool { return row.Expires > 0 && row.Expires <= time.Now().UnixMilli() }

func ownedValue(key []byte, row owned.Row) (*watershedv1.TableValue, error) {
	name, err := keyValue(key)
	if err != nil {
		return nil, err
	}
	out := &watershedv1.TableValue{Key: name, Kind: &watershedv1.TableValue_Bytes{Bytes: row.Value}, Version: fromMark(row.Version)}
	if row.Expires > 0 {
		out.ExpiresMs = &row.Expires
	}
	return out, nil
}
