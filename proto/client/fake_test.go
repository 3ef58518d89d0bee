package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// node is a node whose answers a test gives.
type node struct {
	watershedv1.UnimplementedStateServiceServer
	watershedv1.UnimplementedJobServiceServer
	watershedv1.UnimplementedClusterServiceServer
	address string
	server  *grpc.Server

	mu    sync.Mutex
	calls int
	answers
}

// answers are a node's answers, guarded by its mu once it serves.
type answers struct {
	topology func(context.Context) (*watershedv1.TopologyResponse, error)
	get      func(*watershedv1.GetRequest) (*watershedv1.GetResponse, error)
	scan     func(*watershedv1.ScanRequest, watershedv1.StateService_ScanServer) error
	watch    func(*watershedv1.WatchRequest, watershedv1.StateService_WatchServer) error
	value    func(*watershedv1.GetValueRequest) (*watershedv1.GetValueResponse, error)
	tables   *tables
	gone     bool // answers no more
}

// called counts a call and returns the answers as they are now.
func (n *node) called() answers {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	return n.answers
}

// change changes the answers.
func (n *node) change(f func(*answers)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.answers)
}

func (n *node) count() int { n.mu.Lock(); defer n.mu.Unlock(); return n.calls }

func (n *node) Topology(ctx context.Context, _ *watershedv1.TopologyRequest) (*watershedv1.TopologyResponse, error) {
	if answer := n.called().topology; answer != nil {
		return answer(ctx)
	}
	return &watershedv1.TopologyResponse{Node: n.address}, nil
}

func (n *node) Get(_ context.Context, in *watershedv1.GetRequest) (*watershedv1.GetResponse, error) {
	return n.called().get(in)
}

func (n *node) Scan(in *watershedv1.ScanRequest, out watershedv1.StateService_ScanServer) error {
	return n.called().scan(in, out)
}

func (n *node) Watch(in *watershedv1.WatchRequest, out watershedv1.StateService_WatchServer) error {
	return n.called().watch(in, out)
}

func (n *node) Validate(_ context.Context, in *watershedv1.ValidateJobRequest) (*watershedv1.ValidateJobResponse, error) {
	return &watershedv1.ValidateJobResponse{Name: in.GetFileName() + string(in.GetFile())}, nil
}

func (n *node) Apply(_ context.Context, in *watershedv1.ApplyJobRequest) (*watershedv1.ApplyJobResponse, error) {
	return &watershedv1.ApplyJobResponse{Job: &watershedv1.Job{Name: in.GetFileName() + string(in.GetFile())}}, nil
}

func (n *node) List(context.Context, *watershedv1.ListJobsRequest) (*watershedv1.ListJobsResponse, error) {
	return &watershedv1.ListJobsResponse{Jobs: []*watershedv1.Job{{Name: "a"}}}, nil
}

func (n *node) Show(_ context.Context, in *watershedv1.ShowJobRequest) (*watershedv1.ShowJobResponse, error) {
	return &watershedv1.ShowJobResponse{Job: &watershedv1.Job{Name: in.GetName()}}, nil
}

func (n *node) Delete(_ context.Context, in *watershedv1.DeleteJobRequest) (*watershedv1.DeleteJobResponse, error) {
	return &watershedv1.DeleteJobResponse{Existed: in.GetName() == "a"}, nil
}

// world is a network of nodes in memory.
type world map[string]*bufconn.Listener

// start adds a node.
func (w world) start(t *testing.T, address string) *node {
	n := &node{address: address, server: grpc.NewServer(
		// As a node does: the default forbids pings more often than every 5 minutes.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)}
	watershedv1.RegisterStateServiceServer(n.server, n)
	watershedv1.RegisterJobServiceServer(n.server, n)
	watershedv1.RegisterClusterServiceServer(n.server, n)
	l := bufconn.Listen(1 << 16)
	w[address] = l
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		n.server.Stop()
		<-done
	})
	return n
}

// client returns a client that reaches the nodes of w alone.
func (w world) client(t *testing.T, endpoints []string, opts ...Option) *Client {
	t.Helper()
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		if l := w[address]; l != nil {
			return l.DialContext(ctx)
		}
		return nil, errors.New("nobody listens on " + address)
	}
	c, err := New(endpoints, append(opts, WithDialOptions(grpc.WithContextDialer(dial), grpc.WithNoProxy()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func unavailable(leader string) error {
	s, err := status.New(codes.Unavailable, "not now").WithDetails(&watershedv1.ErrorDetail{Leader: leader})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

const a, b, c = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
