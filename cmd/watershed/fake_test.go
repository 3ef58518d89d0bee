package main

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// fakeNode answers as a node of a deployment with one job, surge.
type fakeNode struct {
	watershedv1.UnimplementedStateServiceServer
	watershedv1.UnimplementedJobServiceServer
	watershedv1.UnimplementedTableServiceServer
	watershedv1.UnimplementedClusterServiceServer

	cut      bool // scans break off after the first rows
	watching func(watershedv1.StateService_WatchServer) error

	mu      sync.Mutex
	busy    int // calls that are UNAVAILABLE before one is answered
	scanned *watershedv1.ScanRequest
	written *watershedv1.WriteRequest
}

// serve starts the node and returns its endpoint.
func (n *fakeNode) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(func(
		ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
	) (any, error) {
		if n.isBusy() {
			return nil, status.Error(codes.Unavailable, "no leader\nyet")
		}
		return next(ctx, in)
	}))
	watershedv1.RegisterStateServiceServer(s, n)
	watershedv1.RegisterJobServiceServer(s, n)
	watershedv1.RegisterTableServiceServer(s, fakeTables{n})
	watershedv1.RegisterClusterServiceServer(s, n)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func (n *fakeNode) isBusy() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy--
	return n.busy >= 0
}

func text(s string) *watershedv1.Value {
	return &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: s}}
}

func integer(i int64) *watershedv1.Value {
	return &watershedv1.Value{Kind: &watershedv1.Value_Int{Int: i}}
}

func float(f float64) *watershedv1.Value {
	return &watershedv1.Value{Kind: &watershedv1.Value_Float{Float: f}}
}

var surgeColumns = &watershedv1.Columns{Key: []string{"cell", "vip"}, Values: []string{"requests", "surge"}}

// surgeRows have every kind of value.
var surgeRows = []*watershedv1.Row{
	{
		WindowStartMs: proto.Int64(0), WindowEndMs: proto.Int64(30_000), Key: []*watershedv1.Value{text("dr5reg"), {}},
		Values: []*watershedv1.Value{integer(3), float(1.5)}, Revision: 3, Complete: true, Shard: 1,
	},
	{
		WindowStartMs: proto.Int64(30_500), WindowEndMs: proto.Int64(60_500),
		Key:    []*watershedv1.Value{text("a\x1b[1m\n\"<é>"), {Kind: &watershedv1.Value_Bool{Bool: true}}},
		Values: []*watershedv1.Value{{Kind: &watershedv1.Value_Big{Big: "18446744073709551616"}}, float(1e21)}, Revision: 1, Shard: 0,
	},
	{Key: []*watershedv1.Value{text(""), text("null")}, Values: []*watershedv1.Value{integer(-1), {}}, Revision: 1},
}

func surgePoint(partition int32, offset int64) *watershedv1.SourcePoint {
	return &watershedv1.SourcePoint{
		Region: "us-east", Topic: "rides", Partition: partition, Offset: offset, WatermarkMs: 61_000,
		Counts: []uint64{5, 1, 2, 0, 3},
	}
}

var surgeShards = []*watershedv1.ShardState{
	{
		Shard: 0, Region: "us-east", AppliedIndex: 7, WatermarkMs: 61_000, HorizonMs: math.MinInt64,
		Points: []*watershedv1.SourcePoint{surgePoint(0, 11), surgePoint(1, 4)},
	},
	{
		Shard: 1, Region: "us-east", AppliedIndex: 9, WatermarkMs: 60_000, HorizonMs: 30_000, Missing: []string{"eu-west"},
		Points: []*watershedv1.SourcePoint{surgePoint(0, 10)}, StalenessMs: 12,
	},
}

var surgeJob = &watershedv1.Job{
	Name: "surge", Generation: []byte("\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02"), State: "running",
	File: []byte("name: surge\n"), Warnings: []string{"topic rides is small"},
	Sources: []*watershedv1.JobSource{
		{Point: surgePoint(0, 10), Worker: "us-east-1", LogEnd: 15},
		{Point: surgePoint(1, 4), LogEnd: -1, Stopped: "the log was cut"},
		{Point: &watershedv1.SourcePoint{Input: 1, Region: "eu-west", Topic: "rides", WatermarkMs: math.MinInt64, Incarnation: 1}, Idle: true, LogEnd: -1},
	},
}

func known404(name string) error {
	if name != "surge" {
		return status.Errorf(codes.NotFound, "there is no job %q", name)
	}
	return nil
}

func (n *fakeNode) Scan(in *watershedv1.ScanRequest, out watershedv1.StateService_ScanServer) error {
	n.mu.Lock()
	n.scanned = in
	n.mu.Unlock()
	if err := known404(in.GetSelection().GetJob()); err != nil {
		return err
	}
	rows := &watershedv1.Rows{Rows: surgeRows}
	if in.GetSelection().GetClosed() {
		rows.Rows = nil
	}
	parts := []*watershedv1.ScanResponse{
		{Part: &watershedv1.ScanResponse_Columns{Columns: surgeColumns}},
		{Part: &watershedv1.ScanResponse_Rows{Rows: rows}},
		{Part: &watershedv1.ScanResponse_Summary{Summary: &watershedv1.ScanSummary{Shards: surgeShards}}},
	}
	for i, m := range parts {
		if n.cut && i == 2 {
			return status.Error(codes.Unavailable, "shard 1 has lost its leader")
		}
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (n *fakeNode) Watch(in *watershedv1.WatchRequest, out watershedv1.StateService_WatchServer) error {
	if err := known404(in.GetSelection().GetJob()); err != nil {
		return err
	}
	if err := out.Send(&watershedv1.WatchResponse{Columns: surgeColumns}); err != nil {
		return err
	}
	gone := proto.CloneOf(surgeRows[0])
	gone.Retracted, gone.Values, gone.Revision = true, nil, 4
	if err := out.Send(&watershedv1.WatchResponse{Rows: []*watershedv1.Row{surgeRows[0], gone}}); err != nil {
		return err
	}
	return n.watching(out)
}

func (n *fakeNode) Validate(_ context.Context, in *watershedv1.ValidateJobRequest) (*watershedv1.ValidateJobResponse, error) {
	if string(in.GetFile()) == "bad\n" {
		return &watershedv1.ValidateJobResponse{Problems: []string{in.GetFileName() + ":1:1: no job; expected a job"}}, nil
	}
	return &watershedv1.ValidateJobResponse{Name: "surge", Warnings: []string{"topic rides does not exist"}}, nil
}

func (n *fakeNode) Apply(_ context.Context, in *watershedv1.ApplyJobRequest) (*watershedv1.ApplyJobResponse, error) {
	switch string(in.GetFile()) {
	case "other\n":
		return nil, status.Error(codes.FailedPrecondition, "job surge runs with another meaning: window changed")
	case "same\n":
		return &watershedv1.ApplyJobResponse{Job: surgeJob, Regions: []string{"us-east", "eu-west"}}, nil
	}
	return &watershedv1.ApplyJobResponse{
		Job: surgeJob, Changed: true, Regions: []string{"us-east"}, Missing: []string{"eu-west"}, Warnings: surgeJob.GetWarnings(),
	}, nil
}

func (n *fakeNode) List(context.Context, *watershedv1.ListJobsRequest) (*watershedv1.ListJobsResponse, error) {
	return &watershedv1.ListJobsResponse{Jobs: []*watershedv1.Job{surgeJob, {Name: "zero", State: "running"}}}, nil
}

func (n *fakeNode) Show(_ context.Context, in *watershedv1.ShowJobRequest) (*watershedv1.ShowJobResponse, error) {
	return &watershedv1.ShowJobResponse{Job: surgeJob, Shards: surgeShards}, known404(in.GetName())
}

func (n *fakeNode) Delete(_ context.Context, in *watershedv1.DeleteJobRequest) (*watershedv1.DeleteJobResponse, error) {
	return &watershedv1.DeleteJobResponse{Existed: in.GetName() == "surge", Missing: []string{"eu-west"}}, nil
}

func (n *fakeNode) Raise(_ context.Context, in *watershedv1.RaiseRequest) (*watershedv1.RaiseResponse, error) {
	if in.GetFormat() > 2 {
		return nil, status.Error(codes.FailedPrecondition, "node us-east-1 knows formats up to 2, not 3")
	}
	return &watershedv1.RaiseResponse{}, nil
}

func (n *fakeNode) Topology(context.Context, *watershedv1.TopologyRequest) (*watershedv1.TopologyResponse, error) {
	return &watershedv1.TopologyResponse{
		Deployment: "rides", Region: "us-east", Node: "us-east-1", Shards: 2, Version: "v1",
		Regions: []*watershedv1.Region{
			{
				Name: "us-east", Member: 1, Reachable: true,
				Nodes: []*watershedv1.Node{{Id: "us-east-1", Grpc: "h:1", Http: "h:2", Up: true, Format: 2}, {Id: "us-east-2", Grpc: "h:3", Http: "h:4"}},
				Shards: []*watershedv1.Shard{
					{
						Shard: 0, Leader: "us-east-1", Term: 3, AppliedIndex: 12, Owner: "us-east", Epoch: 65537, Format: 2,
						Lag: []*watershedv1.PeerLag{{Region: "eu-west", Reachable: true, RecordsBehind: 5}, {Region: "ap-south", SilentMs: 61_500, RecordsBehind: -1}},
					},
					{Shard: 1, Owner: "us-east", Epoch: 65537, Format: 1},
				},
			},
			{Name: "ap-south", Member: 2, Note: "cannot be reached: refused"},
		},
	}, nil
}
