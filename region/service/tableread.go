package service

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	crdttable "github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/table"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// tablePage is how many keys of a table are read at a time on each shard.
	tablePage = 64
	// pageBytes is about how many bytes of values travel in one answer at most.
	pageBytes = 1 << 20
)

// GetValue implements the service.
func (s stateService) GetValue(ctx context.Context, in *watershedv1.GetValueRequest) (*watershedv1.GetValueResponse, error) {
	e, err := s.table(ctx, in.GetTable())
	if err != nil {
		return nil, err
	}
	key, err := tableKey(in.GetKey())
	if err != nil {
		return nil, err
	}
	id := e.TableID()
	out, err := s.readTable(ctx, e.Table, &regionv1.ReadTableRequest{
		Deployment: s.o.Deployment, Shard: uint32(table.ShardOf(id, key, s.o.Router.Shards())), Table: id[:], Key: key,
		Local: in.GetConsistency() == watershedv1.Consistency_CONSISTENCY_LOCAL, Element: in.Element,
	})
	return out.GetAnswer(), err
}

// ReadTable implements the service.
func (s shardService) ReadTable(ctx context.Context, in *regionv1.ReadTableRequest) (*regionv1.ReadTableResponse, error) {
	r, err := s.replica(in.GetDeployment(), in.GetShard())
	if err != nil {
		return nil, err
	}
	if len(in.GetTable()) != len(table.ID{}) {
		return nil, status.Errorf(codes.InvalidArgument, "a table of %d bytes", len(in.GetTable()))
	}
	if !in.GetLocal() {
		if err := r.Linearizable(ctx); err != nil {
			return nil, err
		}
	}
	d, ok := r.State().Told().Get(table.ID(in.GetTable()))
	if !ok {
		return nil, status.Errorf(codes.Unavailable, "shard %d does not know the table", in.GetShard())
	}
	return s.readTableHere(ctx, r, d, in)
}

// readTable reads a table on one shard, wherever that can be done.
func (s *Server) readTable(ctx context.Context, d table.Def, in *regionv1.ReadTableRequest) (out *regionv1.ReadTableResponse, err error) {
	id := keyspace.ShardID(in.GetShard())
	if in.GetLocal() {
		if here := s.o.Router.Replica(id); here != nil {
			return s.readTableHere(ctx, here, d, in)
		}
		err := s.o.Router.Elsewhere(id)
		for _, n := range s.o.Router.Holders(id) {
			conn, e := s.o.Conns.To(n.GRPC)
			if e == nil {
				out, e = regionv1.NewShardServiceClient(conn).ReadTable(ctx, in)
			}
			if e == nil || !temporary(e) {
				return out, e
			}
			err = e
		}
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	err = s.o.Router.AtLeader(ctx, id, func(ctx context.Context, here *replica.Replica, there *grpc.ClientConn) (err error) {
		if here == nil {
			out, err = regionv1.NewShardServiceClient(there).ReadTable(ctx, in)
			return err
		}
		if err = here.Linearizable(ctx); err == nil {
			out, err = s.readTableHere(ctx, here, d, in)
		}
		return err
	})
	if other := ownerOf(err); other != "" && other != s.o.Region {
		err = s.atRegion(ctx, other, func(ctx context.Context, there *grpc.ClientConn) (err error) {
			out, err = regionv1.NewShardServiceClient(there).ReadTable(ctx, in)
			return err
		})
	}
	return out, err
}

// readTableHere reads a table from this node's replica.
func (s *Server) readTableHere(ctx context.Context, r *replica.Replica, d table.Def, in *regionv1.ReadTableRequest) (out *regionv1.ReadTableResponse, err error) {
	of, ok := d.Type.CRDT()
	if !ok {
		return s.readOwnedHere(ctx, r, d, in)
	}
	snap, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	id := table.ID(in.GetTable())
	if len(in.GetKey()) > 0 {
		return s.readKey(r, snap, id, of, in)
	}
	out = &regionv1.ReadTableResponse{}
	size := 0
	next, err := snap.TableScan(id, of, in.GetFrom(), tablePage, func(key []byte, v crdttable.Value) error {
		if size >= pageBytes {
			out.Next = key
			return errPageFull
		}
		if v.Empty(snap.Tables().Floor) {
			return nil
		}
		shown, err := toTableValue(key, v)
		if shown != nil {
			out.Values, out.Keys = append(out.Values, shown), append(out.Keys, key)
			size += len(v.Append(nil))
		}
		return err
	})
	if errors.Is(err, errPageFull) {
		return out, nil
	}
	out.Next = next
	return out, err
}

// errPageFull ends a page.
var errPageFull = errors.New("the page is full")

func (s *Server) readKey(r *replica.Replica, snap *shard.Snapshot, id table.ID, of crdttable.Type, in *regionv1.ReadTableRequest) (
	*regionv1.ReadTableResponse, error,
) {
	v, err := snap.TableValue(id, of, in.GetKey())
	if err != nil {
		return nil, err
	}
	answer := &watershedv1.GetValueResponse{
		Region: s.o.Region, AppliedIndex: snap.Index, StalenessMs: r.Staleness().Milliseconds(),
	}
	if answer.Value, err = toTableValue(in.GetKey(), v); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *crdttable.Register:
		answer.Time = uint64(v.Stamp().Time)
	case *crdttable.LWWSet:
		if in.Element != nil {
			stamp, _ := v.Stamp(in.GetElement())
			answer.Time = uint64(stamp.Time)
		}
	case *crdttable.Set:
		if in.Element != nil {
			for _, o := range v.Inserts(in.GetElement()) {
				answer.Observed = append(answer.Observed, fromID(o))
			}
		}
	}
	return &regionv1.ReadTableResponse{Answer: answer}, nil
}

// toTableValue returns a key's value as callers are told it, nil for none. A counter that nothing was done to is 0.
func toTableValue(key []byte, v crdttable.Value) (*watershedv1.TableValue, error) {
	name, err := keyValue(key)
	if err != nil {
		return nil, err
	}
	out := &watershedv1.TableValue{Key: name}
	switch v := v.(type) {
	case *crdttable.Counter:
		out.Kind = &watershedv1.TableValue_Count{Count: toCount(v.Total())}
	case *crdttable.Register:
		b, ok := v.Get()
		if !ok {
			return nil, nil
		}
		out.Kind = &watershedv1.TableValue_Bytes{Bytes: b}
	case interface{ Elements() []string }:
		elements := &watershedv1.Elements{}
		for _, e := range v.Elements() {
			elements.Elements = append(elements.Elements, []byte(e))
		}
		if len(elements.GetElements()) == 0 {
			return nil, nil
		}
		out.Kind = &watershedv1.TableValue_Elements{Elements: elements}
	default:
		return nil, status.Errorf(codes.Internal, "a value of %T", v)
	}
	return out, nil
}

func toCount(sum crdttable.Sum) *watershedv1.Value {
	if i, ok := sum.Int64(); ok {
		return &watershedv1.Value{Kind: &watershedv1.Value_Int{Int: i}}
	}
	return &watershedv1.Value{Kind: &watershedv1.Value_Big{Big: sum.String()}}
}

// tableCursor is where a scan stands on one shard.
type tableCursor struct {
	in   *regionv1.ReadTableRequest
	page *regionv1.ReadTableResponse // what is left of it
}

func (c *tableCursor) key() []byte { return c.page.GetKeys()[0] }

// fill reads pages until one holds a key, or the shard has no more: then it reports false.
func (s *Server) fill(ctx context.Context, d table.Def, c *tableCursor) (more bool, err error) {
	for len(c.page.GetKeys()) == 0 {
		if c.page != nil && len(c.page.GetNext()) == 0 {
			return false, nil
		}
		if c.page != nil {
			c.in.From = c.page.GetNext()
		}
		if c.page, err = s.readTable(ctx, d, c.in); err != nil {
			return false, s.o.Router.Status(err)
		}
		if len(c.page.GetKeys()) != len(c.page.GetValues()) {
			return false, status.Error(codes.Internal, "a node of this region sent values without keys")
		}
	}
	return true, nil
}

// ScanTable implements the service.
func (s stateService) ScanTable(in *watershedv1.ScanTableRequest, stream watershedv1.StateService_ScanTableServer) error {
	ctx, cancel := context.WithTimeout(stream.Context(), scanWithin)
	defer cancel()
	e, err := s.table(ctx, in.GetTable())
	if err != nil {
		return err
	}
	var from []byte
	if in.GetFrom() != nil {
		if from, err = tableKey(in.GetFrom()); err != nil {
			return err
		}
	}
	id := e.TableID()
	cursors := make([]*tableCursor, s.o.Router.Shards())
	filling, fillCtx := errgroup.WithContext(ctx)
	filling.SetLimit(askAtOnce)
	for i := range cursors {
		c := &tableCursor{in: &regionv1.ReadTableRequest{
			Deployment: s.o.Deployment, Shard: uint32(i), Table: id[:], From: from,
			Local: in.GetConsistency() == watershedv1.Consistency_CONSISTENCY_LOCAL,
		}}
		cursors[i] = c
		filling.Go(func() error { _, err := s.fill(fillCtx, e.Table, c); return err })
	}
	if err := filling.Wait(); err != nil {
		return err
	}
	return s.mergeTables(ctx, e.Table, cursors, int(in.GetLimit()), stream)
}

// mergeTables sends what is at the cursors in order of keys, at most limit of them or all for 0.
func (s *Server) mergeTables(ctx context.Context, d table.Def, cursors []*tableCursor, limit int, stream watershedv1.StateService_ScanTableServer) error {
	out := &watershedv1.ScanTableResponse{}
	for sent, size := 0, 0; limit == 0 || sent < limit; sent++ {
		var least *tableCursor
		for i := 0; i < len(cursors); i++ {
			c := cursors[i]
			more, err := s.fill(ctx, d, c)
			switch {
			case err != nil:
				return err
			case !more:
				cursors = slices.Delete(cursors, i, i+1)
				i--
			case least == nil || bytes.Compare(c.key(), least.key()) < 0:
				least = c
			}
		}
		if least == nil {
			break
		}
		v := least.page.GetValues()[0]
		least.page.Keys, least.page.Values = least.page.GetKeys()[1:], least.page.GetValues()[1:]
		out.Values = append(out.Values, v)
		if size += proto.Size(v); size >= pageBytes || len(out.GetValues()) >= batchRows {
			if err := stream.Send(out); err != nil {
				return err
			}
			out, size = &watershedv1.ScanTableResponse{}, 0
		}
	}
	out.End = true
	return stream.Send(out)
}
