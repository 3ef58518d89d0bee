package peer_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/peer/peertest"
	"github.com/watershed-db/watershed/region/shard"
)

// client returns a client of a region's server, without any of this package's care.
func client(t *testing.T, r *peertest.Region) peerv1.PeerServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(r.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return peerv1.NewPeerServiceClient(conn)
}

func hello() *peerv1.Hello {
	return &peerv1.Hello{Deployment: "test", Region: "b", Member: 2, Shard: 0, Shards: 1, Version: peer.Version}
}

// ask opens a Pull with one request.
func ask(t *testing.T, r *peertest.Region, m *peerv1.PullRequest) grpc.BidiStreamingClient[peerv1.PullRequest, peerv1.PullResponse] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), peertest.Patience)
	t.Cleanup(cancel)
	stream, err := client(t, r).Pull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(m); err != nil {
		t.Fatal(err)
	}
	return stream
}

// lonely is region a, which nobody pulls from.
func lonely(t *testing.T, timing peer.Timing) (*peertest.Region, *peertest.Job) {
	t.Helper()
	w := peertest.New(t, peertest.Options{Timing: timing}, "a", "b")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	j := peertest.NewJob(t, 1, peertest.File())
	w.Region("a").Must(j.Add, j.Sources("a", 1), j.Sources("b", 1))
	return w.Region("a"), j
}

func TestForeignPeersAreRefused(t *testing.T) {
	r, j := lonely(t, peer.Timing{})
	for name, change := range map[string]func(*peerv1.Hello){
		"version":    func(h *peerv1.Hello) { h.Version++ },
		"deployment": func(h *peerv1.Hello) { h.Deployment = "other" },
		"region":     func(h *peerv1.Hello) { h.Region = "nowhere" },
		"itself":     func(h *peerv1.Hello) { h.Region, h.Member = "a", 1 },
		"member":     func(h *peerv1.Hello) { h.Member = 7 },
		"shards":     func(h *peerv1.Hello) { h.Shards = 2 },
		"shard":      func(h *peerv1.Hello) { h.Shard = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			h := hello()
			change(h)
			_, err := ask(t, r, &peerv1.PullRequest{Hello: h}).Recv()
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("Pull: %v", err)
			}
			state, err := client(t, r).State(t.Context(), &peerv1.StateRequest{Hello: h, Generation: j.ID[:], Group: "a"})
			if err == nil {
				_, err = state.Recv()
			}
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("State: %v", err)
			}
		})
	}
	if _, err := ask(t, r, &peerv1.PullRequest{}).Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("without a hello: %v", err)
	}
	total := uint64(0)
	for _, n := range r.Server.Refused() {
		total += n
	}
	if total != 15 {
		t.Errorf("%d refusals counted: %v", total, r.Server.Refused())
	}
}

func TestNonsenseEndsTheStream(t *testing.T) {
	r, _ := lonely(t, peer.Timing{})
	for name, m := range map[string]*peerv1.PullRequest{
		"credit":     {Hello: hello(), Credit: 1 << 62},
		"generation": {Hello: hello(), Standings: []*peerv1.Standing{{Generation: []byte("short")}}},
		"frontier":   {Hello: hello(), Standings: []*peerv1.Standing{{Generation: make([]byte, 16), Frontier: []byte("nonsense")}}},
	} {
		t.Run(name, func(t *testing.T) {
			stream := ask(t, r, m)
			for {
				if _, err := stream.Recv(); err != nil {
					if status.Code(err) != codes.PermissionDenied {
						t.Error(err)
					}
					return
				}
			}
		})
	}
}

// entries receives until n entries have come.
func entries(t *testing.T, stream grpc.BidiStreamingClient[peerv1.PullRequest, peerv1.PullResponse], n int) (list []*peerv1.Entry) {
	t.Helper()
	for len(list) < n {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d entries: %v", len(list), err)
		}
		list = append(list, m.Entries...)
	}
	return list
}

// What the horizon has passed is forwarded all the same, as it was proposed: a region whose horizon is lower needs it.
func TestAdvancesAreForwardedUncut(t *testing.T) {
	r, j := lonely(t, peer.Timing{})
	step := j.Step(peertest.Source("a", 0), "x", 0, 20, "k")
	r.Must(step, &shard.Horizon{Generation: j.ID, H: 2000})
	list := entries(t, ask(t, r, &peerv1.PullRequest{Hello: hello(), Credit: 1 << 20}), 2)
	if got := list[len(list)-1].Command; !bytes.Equal(got, shard.Encode(step)) {
		t.Errorf("%d bytes were forwarded, %d proposed", len(got), len(shard.Encode(step)))
	}
}

// Nothing is sent beyond the credit, and it goes on when there is more.
func TestCreditBoundsWhatIsSent(t *testing.T) {
	r, j := lonely(t, peer.Timing{})
	a := peertest.Source("a", 0)
	size := 0
	for i := range int64(10) {
		step := j.Step(a, "x", i, i+1, "k")
		size = len(shard.Encode(step))
		r.Must(step)
	}
	stream := ask(t, r, &peerv1.PullRequest{Hello: hello(), Credit: uint64(3 * size)})
	got, beats := 0, 0
	for beats < 3 { // messages without entries
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got += len(m.Entries); len(m.Entries) == 0 {
			beats++
		}
	}
	if got == 0 || got > 4 {
		t.Fatalf("%d entries came for a credit of 3", got)
	}
	if err := stream.Send(&peerv1.PullRequest{Credit: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	entries(t, stream, 11-got)
}

// What the puller has told that it has is not sent to it, and what came from elsewhere is held back for a while.
func TestFilterAndHold(t *testing.T) {
	r, j := lonely(t, peer.Timing{Forward: 700 * time.Millisecond})
	a, b := peertest.Source("a", 0), peertest.Source("b", 0)
	r.Must(j.Step(b, "x", 0, 3, "k"), j.Step(a, "x", 0, 3, "k"), j.Step(a, "x", 3, 5, "k"))
	stream := ask(t, r, &peerv1.PullRequest{Hello: hello(), Credit: 1 << 20, Standings: []*peerv1.Standing{{
		Generation: j.ID[:], Declared: []string{"a", "b"},
		Frontier: crdt.AppendFrontier(nil, crdt.Frontier{a: peertest.Point(a, "x", 3), b: crdt.FirstPoint(b, 0)}),
	}}})
	list := entries(t, stream, 2)
	var order []string
	for _, e := range list {
		c, err := shard.Decode(e.Command)
		if err != nil {
			t.Fatal(err)
		}
		x := c.(*shard.Advance).Ranges[0]
		order = append(order, fmt.Sprintf("%s %d-%d", x.Source.Region, x.From.Offset, x.To.Offset))
	}
	if want := "[a 3-5 b 0-3]"; fmt.Sprint(order) != want {
		t.Errorf("sent %v, want %s", order, want)
	}
}

// A state is not told to one whose points lie beyond it, or on no history known here.
func TestStateConfirmsPoints(t *testing.T) {
	r, j := lonely(t, peer.Timing{})
	a := peertest.Source("a", 0)
	r.Must(j.Step(a, "x", 0, 3, "k"), j.Step(a, "x", 3, 7, "k"))
	for name, c := range map[string]struct {
		have        crdt.Point
		code        codes.Code
		unconfirmed int
	}{
		"a mark it stood at":   {peertest.Point(a, "x", 3), codes.OK, 0},
		"the same point":       {peertest.Point(a, "x", 7), codes.OK, 0},
		"between marks":        {peertest.Point(a, "x", 5), codes.OK, 1},
		"another history":      {peertest.Point(a, "y", 3), codes.OK, 1},
		"another at the point": {peertest.Point(a, "y", 7), codes.OK, 1},
		"beyond":               {peertest.Point(a, "x", 8), codes.FailedPrecondition, 0},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := client(t, r).State(t.Context(), &peerv1.StateRequest{Hello: hello(), Generation: j.ID[:], Group: "a",
				Have: crdt.AppendFrontier(nil, crdt.Frontier{a: c.have})})
			if err != nil {
				t.Fatal(err)
			}
			m, err := stream.Recv()
			if status.Code(err) != c.code {
				t.Fatalf("%v, want %v", err, c.code)
			}
			if n := len(m.GetHead().GetUnconfirmed()); n != c.unconfirmed {
				t.Errorf("%d unconfirmed, want %d", n, c.unconfirmed)
			}
		})
	}
}
