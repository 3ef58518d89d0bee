package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// fakeTables answers as a node of a deployment with two tables, drivers and visits.
type fakeTables struct{ *fakeNode }

var driversTable = &watershedv1.Table{
	Name: "drivers", Id: []byte("\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03"), Type: "owned", Durability: "quorum",
	TtlMs: 86_400_000, MaxBytes: 65536, File: []byte("name: drivers\n"),
}

var visitsTable = &watershedv1.Table{
	Name: "visits", Id: []byte("\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04"), Type: "counter", MaxBytes: 1024,
}

func (n fakeTables) Validate(_ context.Context, in *watershedv1.ValidateTableRequest) (*watershedv1.ValidateTableResponse, error) {
	if string(in.GetFile()) == "bad\n" {
		return &watershedv1.ValidateTableResponse{Problems: []string{in.GetFileName() + ":1:1: no table; expected a table"}}, nil
	}
	return &watershedv1.ValidateTableResponse{Name: "drivers"}, nil
}

func (n fakeTables) Apply(_ context.Context, in *watershedv1.ApplyTableRequest) (*watershedv1.ApplyTableResponse, error) {
	switch string(in.GetFile()) {
	case "other\n":
		return nil, status.Error(codes.FailedPrecondition, "table drivers is there with another meaning: ttl changed")
	case "same\n":
		return &watershedv1.ApplyTableResponse{Table: driversTable, Regions: []string{"us-east", "eu-west"}}, nil
	}
	return &watershedv1.ApplyTableResponse{Table: driversTable, Changed: true, Regions: []string{"us-east"}, Missing: []string{"eu-west"}}, nil
}

func (n fakeTables) List(context.Context, *watershedv1.ListTablesRequest) (*watershedv1.ListTablesResponse, error) {
	return &watershedv1.ListTablesResponse{Tables: []*watershedv1.Table{driversTable, visitsTable}}, nil
}

func (n fakeTables) Show(_ context.Context, in *watershedv1.ShowTableRequest) (*watershedv1.ShowTableResponse, error) {
	if in.GetName() != "drivers" {
		return nil, status.Errorf(codes.NotFound, "there is no table %q", in.GetName())
	}
	return &watershedv1.ShowTableResponse{Table: driversTable}, nil
}

func (n fakeTables) Drop(_ context.Context, in *watershedv1.DropTableRequest) (*watershedv1.DropTableResponse, error) {
	return &watershedv1.DropTableResponse{Existed: in.GetName() == "drivers", Missing: []string{"eu-west"}}, nil
}

func TestTableNamesAreCompleted(t *testing.T) {
	endpoint := (&fakeNode{}).serve(t)
	out, _, _ := watershed(t, "__complete", "table", "show", "--endpoint", endpoint, "")
	if got := strings.Join(strings.Fields(string(out)), " "); !strings.HasPrefix(got, "drivers visits :4") {
		t.Errorf("completed with %q", got)
	}
}
