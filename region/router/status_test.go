package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/shard"
)

func address(node string) string { return node + ":1" }

func member(address string) group.Member {
	if address == "" {
		return group.Member{}
	}
	return group.Member{ID: address[:len(address)-2]}
}

// Every error of a leader says the same after it has crossed a connection.
func TestStatusCrossesAConnection(t *testing.T) {
	for name, x := range map[string]struct {
		err  error
		code codes.Code
		is   []error
	}{
		"not leader": {&group.NotLeaderError{Leader: group.Member{ID: "n2"}}, codes.Unavailable, []error{group.ErrNotLeader}},
		"no leader":  {&group.NotLeaderError{}, codes.Unavailable, []error{group.ErrNotLeader}},
		"indefinite": {fmt.Errorf("%w: lost", group.ErrIndefinite), codes.Unavailable, []error{group.ErrIndefinite}},
		"stopped":    {group.ErrStopped, codes.Unavailable, []error{group.ErrUnavailable}},
		"no majority": {fmt.Errorf("%w: x", group.ErrUnavailable), codes.Unavailable,
			[]error{group.ErrUnavailable}},
		"too large": {group.ErrTooLarge, codes.ResourceExhausted, []error{group.ErrTooLarge}},
		"exhausted": {&limit.Exhausted{What: "disk", Wait: 2 * time.Second}, codes.ResourceExhausted, []error{limit.ErrExhausted}},
		"invalid":   {shard.ErrInvalid, codes.InvalidArgument, []error{shard.ErrInvalid}},
		"malformed": {shard.ErrCommand, codes.InvalidArgument, []error{shard.ErrInvalid}},
		"deadline":  {context.DeadlineExceeded, codes.DeadlineExceeded, []error{group.ErrIndefinite, group.ErrUnavailable}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Status(fmt.Errorf("shard 3: %w", x.err), address)
			if status.Code(s) != x.code {
				t.Fatalf("%v is %v", x.err, status.Code(s))
			}
			if Status(s, address) != s {
				t.Fatal("a status changed")
			}
			back := fromStatus(s, member)
			for _, want := range x.is {
				if !errors.Is(back, want) {
					t.Fatalf("%v came back as %v", x.err, back)
				}
			}
			var was, is *group.NotLeaderError
			if errors.As(x.err, &was) && (!errors.As(back, &is) || is.Leader != was.Leader) {
				t.Fatalf("the leader %v came back as %v", was.Leader, back)
			}
		})
	}
	if Status(nil, address) != nil || fromStatus(nil, member) != nil {
		t.Fatal("nothing became an error")
	}
	if s := Status(errors.New("x"), address); status.Code(s) != codes.Internal {
		t.Fatal(s)
	}
}

func TestResultCrossesAConnection(t *testing.T) {
	s := crdt.Source{Region: "a", Topic: "t", Partition: 3}
	want := shard.Result{
		Index: 9, Outcome: shard.Refused, Reason: "because", Copy: 4, Generation: crdt.GenerationID{15: 2},
		Points:  []shard.SourcePoint{{Source: s, Point: crdt.FirstPoint(s, 7)}},
		Sources: []crdt.Source{s}, Refusal: shard.RefusedGaps,
	}
	got, err := DecodeResult(EncodeResult(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v became %+v: %v", want, got, err)
	}
}

func TestDecodeResultRefuses(t *testing.T) {
	g := make([]byte, 16)
	for name, m := range map[string]*regionv1.Result{
		"nothing":    nil,
		"outcome":    {Outcome: 0, Generation: g},
		"generation": {Outcome: 1, Generation: g[:3]},
		"refusal":    {Outcome: 1, Generation: g, Refusal: 256},
		"point":      {Outcome: 1, Generation: g, Points: [][]byte{{1}}},
		"source":     {Outcome: 1, Generation: g, Sources: [][]byte{append(crdt.AppendSource(nil, crdt.Source{Region: "a", Topic: "t"}), 1)}},
	} {
		if r, err := DecodeResult(m); err == nil {
			t.Errorf("%s: taken as %+v", name, r)
		}
	}
}

func FuzzDecodeResult(f *testing.F) {
	s := crdt.AppendSource(nil, crdt.Source{Region: "a", Topic: "t"})
	f.Add(uint32(3), make([]byte, 16), crdt.AppendPoint(s, crdt.Point{Offset: 7}), s)
	f.Add(uint32(0), []byte{1}, []byte{}, []byte{255})
	f.Fuzz(func(t *testing.T, outcome uint32, generation, point, source []byte) {
		m := &regionv1.Result{Outcome: outcome, Generation: generation, Points: [][]byte{point}, Sources: [][]byte{source}}
		r, err := DecodeResult(m)
		if err != nil {
			return
		}
		again, err := DecodeResult(EncodeResult(r))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v became %+v: %v", r, again, err)
		}
	})
}

// What a leader says of the time to wait reaches who asked, once.
func TestTheTimeToWaitCrossesConnections(t *testing.T) {
	err := error(&limit.Exhausted{What: "disk: 5 bytes are free", Wait: 2 * time.Second})
	for range 3 {
		err = fromStatus(Status(err, address), member)
	}
	var e *limit.Exhausted
	if !errors.As(err, &e) || e.Wait != 2*time.Second || e.What != "disk: 5 bytes are free" {
		t.Errorf("%v", err)
	}
}

// A call to a node that answers nothing ends when the connections to it are broken, and another is made afterwards.
func TestBreakEndsCallsUnderWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hanging := make(chan struct{}, 1)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		hanging <- struct{}{}
		<-stream.Context().Done()
		return stream.Context().Err()
	}))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	conns := NewConns()
	defer func() {
		if err := conns.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		serving.Wait()
	}()
	for range 2 {
		conn, err := conns.To(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := regionv1.NewShardServiceClient(conn).Points(context.Background(), &regionv1.PointsRequest{}, grpc.WaitForReady(true))
			done <- err
		}()
		<-hanging
		conns.Break(l.Addr().String())
		if err := <-done; status.Code(err) != codes.Unavailable {
			t.Errorf("the call ends with %v", err)
		}
	}
}
