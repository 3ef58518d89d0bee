package service

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	crdttable "github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace/table"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// sessionLife is how long sessions of writers live, by the clock of the region that opened them.
const sessionLife = time.Hour

// clientLimits bound what a shard takes from this region's clients.
var clientLimits = crdttable.Limits{MaxAhead: time.Minute.Milliseconds(), Open: 1 << 16, Gaps: 1 << 10}

// Reasons beside a status, for clients to act on.
const (
	reasonOtherTable = "another table"   // the id is not that of the table with this name
	reasonNotBegun   = "not begun"       // nothing was taken; the shard takes writes soon
	reasonExpired    = "session expired" // whether the operation was taken before is no longer known
)

// OpenSession implements the service. A session costs nothing before its first write.
func (s stateService) OpenSession(ctx context.Context, in *watershedv1.OpenSessionRequest) (*watershedv1.OpenSessionResponse, error) {
	e, err := s.table(ctx, in.GetTable())
	if err != nil {
		return nil, err
	}
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	id := e.TableID()
	return &watershedv1.OpenSessionResponse{
		Session: &watershedv1.WriteSession{BornMs: time.Now().UnixMilli(), Nonce: binary.LittleEndian.Uint64(nonce[:])},
		LifeMs:  sessionLife.Milliseconds(), Region: s.o.Region, TableId: id[:], Type: e.Table.Type.String(),
		Shards: uint32(s.o.Router.Shards()),
	}, nil
}

// tableKey takes the key of a table from outside.
func tableKey(v *watershedv1.Value) ([]byte, error) {
	key, err := fromValue(v)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the key: %v", err)
	}
	b := key.AppendKey(nil)
	if len(b) > table.MaxKey {
		return nil, status.Errorf(codes.InvalidArgument, "a key of %d bytes, at most %d are taken", len(b), table.MaxKey)
	}
	return b, nil
}

// Write implements the service.
func (s stateService) Write(ctx context.Context, in *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
	e, err := s.table(ctx, in.GetTable())
	if err != nil {
		return nil, err
	}
	if id := e.TableID(); len(in.GetTableId()) > 0 && !slices.Equal(in.GetTableId(), id[:]) {
		return nil, withReason(codes.FailedPrecondition, reasonOtherTable, "table %s was made again", e.Name)
	}
	key, err := tableKey(in.GetKey())
	if err != nil {
		return nil, err
	}
	of, ok := e.Table.Type.CRDT()
	if !ok {
		return s.writeOwned(ctx, e, key, in)
	}
	op, err := toOp(in, of)
	if err != nil {
		return nil, err
	}
	self, _ := s.o.Member(s.o.Region)
	result, err := s.o.Router.Propose(ctx, table.ShardOf(e.TableID(), key, s.o.Router.Shards()), &shard.TableWrite{
		Actor: crdttable.Actor(self.Member), Table: e.TableID(), Type: of, Key: key, Op: op, Now: time.Now().UnixMilli(),
		Limits: clientLimits,
	})
	switch {
	case err != nil:
		return nil, err
	case result.Outcome == shard.Applied || result.Outcome == shard.Duplicate:
		return &watershedv1.WriteResponse{Region: s.o.Region, Again: result.Outcome == shard.Duplicate}, nil
	case result.Outcome == shard.Refused:
		return nil, s.refusedWrite(e.Name, result)
	}
	return nil, status.Errorf(codes.Internal, "the shard says %v: %s", result.Outcome, result.Reason)
}

func withReason(code codes.Code, reason, format string, args ...any) error {
	st := status.Newf(code, format, args...)
	if full, err := st.WithDetails(&watershedv1.ErrorDetail{Reason: reason}); err == nil {
		st = full
	}
	return st.Err()
}

// refusedWrite says why a shard has refused an operation, which has left nothing.
func (s *Server) refusedWrite(name string, result shard.Result) error {
	switch result.Refusal {
	case shard.RefusedActor, shard.RefusedUnknown:
		return withReason(codes.Unavailable, reasonNotBegun, "%s", result.Reason)
	case shard.RefusedExpired:
		return withReason(codes.Aborted, reasonExpired, "%s", result.Reason)
	case shard.RefusedSessions, shard.RefusedGaps:
		return router.Exhausted(&limit.Exhausted{What: result.Reason, Wait: streamWait})
	case shard.RefusedDropped:
		return status.Errorf(codes.NotFound, "there is no table %q", name)
	case shard.RefusedAhead, shard.RefusedSize:
		return status.Errorf(codes.FailedPrecondition, "table %s: %s", name, result.Reason)
	}
	return status.Errorf(codes.InvalidArgument, "table %s: %s", name, result.Reason)
}

// toOp takes an operation from outside.
func toOp(in *watershedv1.WriteRequest, of crdttable.Type) (op crdttable.Op, err error) {
	if op.ID, err = toID(in.GetSession(), in.GetSequence()); err != nil {
		return op, err
	}
	register := of == crdttable.TypeRegister
	switch x := in.GetOperation().(type) {
	case *watershedv1.WriteRequest_Put:
		op.Kind, op.Data = crdttable.Assign, x.Put
	case *watershedv1.WriteRequest_Delete:
		op.Kind = crdttable.Clear
	case *watershedv1.WriteRequest_Increment:
		op.Kind, op.Amount = crdttable.Increment, x.Increment
	case *watershedv1.WriteRequest_Add:
		op.Kind, op.Data = crdttable.Insert, x.Add
	case *watershedv1.WriteRequest_Remove:
		op.Kind, op.Data = crdttable.Remove, x.Remove
	case *watershedv1.WriteRequest_CompareAndSet:
		return op, status.Errorf(codes.InvalidArgument, "a %s takes no compare-and-set, only an owned table does", of)
	default:
		return op, status.Error(codes.InvalidArgument, "a write without an operation")
	}
	if register || of == crdttable.TypeLWWSet {
		op.Time = crdttable.Time(in.GetTime())
	}
	if of == crdttable.TypeSet {
		for _, o := range in.GetObserved() {
			id, err := toID(o.GetSession(), o.GetSequence())
			if err != nil {
				return op, err
			}
			op.Observed = append(op.Observed, id)
		}
	}
	if err := op.Validate(of, math.MaxInt64>>16, math.MaxInt64>>16); err != nil {
		return op, status.Errorf(codes.InvalidArgument, "%v", err)
	}
	return op, nil
}

func toID(s *watershedv1.WriteSession, sequence uint64) (crdttable.ID, error) {
	id := crdttable.ID{Session: crdttable.SessionID{Born: s.GetBornMs(), Nonce: s.GetNonce()}, Sequence: sequence}
	if s == nil || sequence == 0 {
		return id, status.Error(codes.InvalidArgument, "an operation without a session, or without a sequence from 1")
	}
	return id, nil
}

func fromID(id crdttable.ID) *watershedv1.OperationID {
	return &watershedv1.OperationID{
		Session: &watershedv1.WriteSession{BornMs: id.Session.Born, Nonce: id.Session.Nonce}, Sequence: id.Sequence,
	}
}

// keyValue returns a key as it was encoded.
func keyValue(key []byte) (*watershedv1.Value, error) {
	v, rest, err := crdt.CutKey(key)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes left over", len(rest))
	}
	if err != nil {
		return nil, fmt.Errorf("key %x: %w", key, err)
	}
	return toValue(v), nil
}
