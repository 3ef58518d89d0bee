package service

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

const (
	// scanWithin bounds a scan whose caller set no deadline: an answer that is not read holds on to old data.
	scanWithin = 10 * time.Minute
	// MaxGet bounds the rows of one Get.
	MaxGet = 10_000
)

// stateService serves reads of rows.
type stateService struct {
	watershedv1.UnimplementedStateServiceServer
	*Server
}

// query is a checked scan.
type query struct {
	scan       *watershedv1.ScanRequest
	generation crdt.GenerationID
	sel        *selection
	shards     []keyspace.ShardID
	by         int // index of the value to rank by, where the scan has a top
}

func (s *Server) query(ctx context.Context, scan *watershedv1.ScanRequest) (*query, error) {
	g, err := s.generation(ctx, scan.GetSelection().GetJob())
	if err != nil {
		return nil, err
	}
	sel, err := newSelection(g.Job, scan.GetSelection())
	if err != nil {
		return nil, err
	}
	q := &query{scan: scan, generation: g.ID, sel: sel, shards: sel.shards(s.o.Router.Shards())}
	if scan.GetTop() == 0 {
		return q, nil
	}
	names := toColumns(g.Job).GetValues()
	if q.by = slices.Index(names, scan.GetBy()); q.by < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "%q is no value of job %s, which has %q", scan.GetBy(), g.Job.Name, names)
	}
	if scan.GetTop() > MaxTop {
		return nil, status.Errorf(codes.InvalidArgument, "top is %d, at most %d rows are kept", scan.GetTop(), MaxTop)
	}
	return q, nil
}

// rank puts what keeps the greatest rows, where the scan asks for them, before out; done hands on the last ones.
func (q *query) rank(out func(entry) error) (each func(entry) error, done func() error) {
	if q.scan.GetTop() == 0 {
		return out, func() error { return nil }
	}
	t := &top{n: int(q.scan.GetTop()), by: q.by, out: out}
	return t.add, t.flush
}

// Get implements the service.
func (s stateService) Get(ctx context.Context, in *watershedv1.GetRequest) (*watershedv1.GetResponse, error) {
	q, err := s.query(ctx, &watershedv1.ScanRequest{Selection: in.GetSelection()})
	if err != nil {
		return nil, err
	}
	if q.sel.keys == nil {
		return nil, status.Errorf(codes.InvalidArgument, "Get needs every part of the key of job %s: %q", q.sel.job.Name,
			q.sel.job.KeyNames)
	}
	out := &watershedv1.GetResponse{Columns: toColumns(q.sel.job)}
	states, err := s.merge(ctx, q, func(e entry) error {
		if len(out.Rows) == MaxGet {
			return status.Errorf(codes.ResourceExhausted, "the key has more than %d rows: bound the windows, or scan", MaxGet)
		}
		out.Rows = append(out.Rows, e.row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Shard = states[0]
	for _, state := range states { // of a text that may stand for several keys, the one that is there
		if len(out.Rows) > 0 && state.GetShard() == out.Rows[0].GetShard() {
			out.Shard = state
		}
	}
	return out, nil
}

// Scan implements the service.
func (s stateService) Scan(in *watershedv1.ScanRequest, stream watershedv1.StateService_ScanServer) error {
	ctx, cancel := context.WithTimeout(stream.Context(), scanWithin)
	defer cancel()
	q, err := s.query(ctx, in)
	if err != nil {
		return err
	}
	err = stream.Send(&watershedv1.ScanResponse{Part: &watershedv1.ScanResponse_Columns{Columns: toColumns(q.sel.job)}})
	if err != nil {
		return err
	}
	var batch []*watershedv1.Row
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		rows := &watershedv1.Rows{Rows: batch}
		batch = nil
		return stream.Send(&watershedv1.ScanResponse{Part: &watershedv1.ScanResponse_Rows{Rows: rows}})
	}
	each, done := q.rank(func(e entry) error {
		if batch = append(batch, e.row); len(batch) < batchRows {
			return nil
		}
		return flush()
	})
	states, err := s.merge(ctx, q, each)
	for _, last := range [...]func() error{done, flush} {
		if err == nil {
			err = last()
		}
	}
	if err != nil {
		return err
	}
	summary := &watershedv1.ScanSummary{Shards: states}
	return stream.Send(&watershedv1.ScanResponse{Part: &watershedv1.ScanResponse_Summary{Summary: summary}})
}
