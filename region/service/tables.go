package service

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/keyspace/table"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// tableService keeps the registry of tables.
type tableService struct {
	watershedv1.UnimplementedTableServiceServer
	*Server
}

func parseTable(name string, file []byte) (d table.Def, problems []string) {
	if name == "" {
		name = "table.yaml"
	}
	d, err := table.Parse(name, file)
	if err != nil {
		problems = strings.Split(err.Error(), "\n")
	}
	return d, problems
}

// Validate implements the service.
func (s tableService) Validate(_ context.Context, in *watershedv1.ValidateTableRequest) (*watershedv1.ValidateTableResponse, error) {
	d, problems := parseTable(in.GetFileName(), in.GetFile())
	return &watershedv1.ValidateTableResponse{Name: d.Name, Problems: problems}, nil
}

// Apply implements the service.
func (s tableService) Apply(ctx context.Context, in *watershedv1.ApplyTableRequest) (*watershedv1.ApplyTableResponse, error) {
	d, problems := parseTable(in.GetFileName(), in.GetFile())
	if problems != nil {
		return nil, status.Error(codes.InvalidArgument, strings.Join(problems, "\n"))
	}
	result, err := s.submit(ctx, &shard.RegisterTable{File: in.GetFile(), Def: d})
	if err != nil {
		return nil, err
	}
	switch result.Outcome {
	case shard.Applied, shard.Duplicate:
	case shard.Refused:
		return nil, s.refusedTable(d, result)
	default:
		return nil, status.Errorf(codes.Internal, "the registry says %v: %s", result.Outcome, result.Reason)
	}
	out := &watershedv1.ApplyTableResponse{Changed: result.Outcome == shard.Applied}
	made := shard.Entry{Name: d.Name, Generation: result.Generation, File: in.GetFile(), Table: d}
	out.Regions, out.Missing = s.spread(ctx, func(r *shard.Registry) uint64 {
		e, ok := r.Table(d.Name)
		if !ok || e.Generation != result.Generation {
			return 0
		}
		made = e
		return e.Position
	})
	out.Table = toTable(made)
	return out, nil
}

// refusedTable says what has changed in a table that is live, or that there are too many.
func (s *Server) refusedTable(d table.Def, result shard.Result) error {
	live, ok := s.o.Router.State(0).Registry().Table(d.Name)
	switch {
	case result.Generation == shard.Result{}.Generation:
		return status.Errorf(codes.ResourceExhausted, "table %s: %s", d.Name, result.Reason)
	case !ok || live.Generation != result.Generation:
		return status.Errorf(codes.FailedPrecondition, "table %s: %s", d.Name, result.Reason)
	}
	return status.Errorf(codes.FailedPrecondition,
		"table %s is there with another meaning: %s changed; apply it under another name to have both", d.Name,
		strings.Join(live.Table.Diff(d), ", "))
}

// Drop implements the service.
func (s tableService) Drop(ctx context.Context, in *watershedv1.DropTableRequest) (*watershedv1.DropTableResponse, error) {
	result, err := s.submit(ctx, &shard.UnregisterTable{Name: in.GetName()})
	if err != nil {
		return nil, err
	}
	switch result.Outcome {
	case shard.Duplicate:
		return &watershedv1.DropTableResponse{}, nil
	case shard.Applied:
	default:
		return nil, status.Errorf(codes.Internal, "the registry says %v: %s", result.Outcome, result.Reason)
	}
	out := &watershedv1.DropTableResponse{Existed: true}
	_, out.Missing = s.spread(ctx, func(r *shard.Registry) uint64 {
		for _, e := range r.After(0) {
			if e.Op == shard.TableDropped && e.Generation == result.Generation {
				return e.Position
			}
		}
		return 0
	})
	return out, nil
}

// List implements the service.
func (s tableService) List(context.Context, *watershedv1.ListTablesRequest) (*watershedv1.ListTablesResponse, error) {
	out := &watershedv1.ListTablesResponse{}
	for _, e := range s.o.Router.State(0).Registry().Tables() {
		t := toTable(e)
		t.File = nil
		out.Tables = append(out.Tables, t)
	}
	return out, nil
}

// Show implements the service.
func (s tableService) Show(ctx context.Context, in *watershedv1.ShowTableRequest) (*watershedv1.ShowTableResponse, error) {
	e, err := s.table(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	return &watershedv1.ShowTableResponse{Table: toTable(e)}, nil
}

// table finds a table by name. One that was applied just now may not have reached this node: it waits a moment.
func (s *Server) table(ctx context.Context, name string) (found shard.Entry, err error) {
	err = await(ctx, s.o.Router.Replica(0), knownWithin, func(st *shard.State) (ok bool) {
		found, ok = st.Registry().Table(name)
		return ok
	})
	if err != nil {
		return found, status.Errorf(codes.NotFound, "there is no table %q", name)
	}
	return found, nil
}

func toTable(e shard.Entry) *watershedv1.Table {
	id := e.TableID()
	return &watershedv1.Table{
		Name: e.Name, Id: id[:], Type: e.Table.Type.String(), Durability: e.Table.Durability.String(), TtlMs: e.Table.TTL,
		MaxBytes: uint32(e.Table.MaxBytes), File: e.File,
	}
}
