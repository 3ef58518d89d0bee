package peer_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/peer/peertest"
	"github.com/watershed-db/watershed/region/router"
)

// What is held back for a puller has a bound: past it the oldest goes out early, a puller for which there is no room at all
// is told when to come again, and it is served when the other one has gone.
func TestWhatWaitsForPullersIsBounded(t *testing.T) {
	const most, commands = 4000, 40
	queue := limit.New("peer_queue_bytes", "bytes", most, time.Second)
	w := peertest.New(t, peertest.Options{Timing: peer.Timing{Forward: time.Hour}, Queue: queue}, "a", "b")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	r, j := w.Region("a"), peertest.NewJob(t, 1, peertest.File())
	r.Must(j.Add, j.Sources("a", 1), j.Sources("b", 1))
	src := peertest.Source("b", 0)
	for i := range int64(commands) {
		r.Must(j.Step(src, "x", i, i+1, "k"))
	}
	ask := func(ctx context.Context) grpc.BidiStreamingClient[peerv1.PullRequest, peerv1.PullResponse] {
		stream, err := client(t, r).Pull(ctx)
		if err == nil {
			err = stream.Send(&peerv1.PullRequest{Hello: hello(), Credit: 1 << 20})
		}
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	early := func(stream grpc.BidiStreamingClient[peerv1.PullRequest, peerv1.PullResponse]) (n int) {
		for n < commands/2 {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if used := queue.Used(); used > most {
				t.Fatalf("%d bytes wait, at most %d may", used, most)
			}
			n += len(m.Entries)
		}
		return n
	}
	ctx, cancel := context.WithTimeout(t.Context(), peertest.Patience)
	defer cancel()
	first, leave := context.WithCancel(ctx)
	stream := ask(first)
	if n := early(stream); n >= commands {
		t.Errorf("%d of %d commands were sent, and none is held back", n, commands)
	}
	second := ask(ctx)
	_, err := second.Recv()
	for err == nil { // what it is told of the registry
		_, err = second.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted || router.RetryAfter(err) != time.Second {
		t.Errorf("a puller too many: %v", err)
	}
	leave()
	peertest.Await(t, "room", func() bool { return queue.Used() == 0 })
	early(ask(ctx))
}

// Regions that hold hardly anything back for each other converge all the same.
func TestConvergenceWithShortQueues(t *testing.T) {
	queue := limit.New("peer_queue_bytes", "bytes", 1500, 10*time.Millisecond)
	w := peertest.New(t, peertest.Options{Queue: queue}, "a", "b", "c")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	j := begin(t, w)
	a, b := peertest.Source("a", 0), peertest.Source("b", 0)
	for i := range int64(30) {
		w.Region("a").Must(j.Step(a, "x", i, i+1, "k"))
		w.Region("b").Must(j.Step(b, "x", i, i+1, "k"))
	}
	w.Region("a").AwaitOffset(j, b, 30)
	w.Region("b").AwaitOffset(j, a, 30)
	w.AwaitAlike(j)
}
