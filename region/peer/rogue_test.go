package peer_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/peer/peertest"
	"github.com/watershed-db/watershed/region/shard"
)

// rogue is a peer that says whatever it is told to.
type rogue struct {
	peerv1.UnimplementedPeerServiceServer
	say   *peerv1.PullResponse
	state []*peerv1.StateChunk
	asked chan struct{} // a value for each stream, as far as somebody wants it
}

func (r *rogue) note() {
	select {
	case r.asked <- struct{}{}:
	default:
	}
}

func (r *rogue) Pull(stream grpc.BidiStreamingServer[peerv1.PullRequest, peerv1.PullResponse]) error {
	if r.state == nil {
		r.note()
	}
	if err := stream.Send(r.say); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (r *rogue) State(_ *peerv1.StateRequest, stream grpc.ServerStreamingServer[peerv1.StateChunk]) error {
	r.note()
	for _, m := range r.state {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// Whatever a peer says, it is not taken unless it is sound, and it is asked again.
func TestRoguePeers(t *testing.T) {
	b, j := lonelyReceiver(t)
	a := peertest.Source("a", 0)
	other := j.Step(a, "x", 0, 3, "k")
	other.Deltas[0].Cell = []byte("nonsense")
	ahead := &peerv1.PullResponse{Applied: 5, StandingsIndex: 5, Standings: []*peerv1.Standing{{Generation: j.ID[:],
		Horizon: crdt.MinTime, Frontier: crdt.AppendFrontier(nil, crdt.Frontier{a: peertest.Point(a, "x", 3)})}}}
	head := &peerv1.StateChunk{Head: &peerv1.StateHead{Horizon: crdt.MinTime, AppliedIndex: 5,
		Frontier: crdt.AppendFrontier(nil, crdt.Frontier{a: peertest.Point(a, "x", 3)})}}
	entry := func(b []byte) *peerv1.PullResponse {
		return &peerv1.PullResponse{Entries: []*peerv1.Entry{{Index: 1, Command: b}}, Applied: 1}
	}
	for name, r := range map[string]*rogue{
		"garbage":           {say: entry([]byte("garbage"))},
		"another command":   {say: entry(shard.Encode(&shard.DropGeneration{ID: j.ID}))},
		"registry":          {say: &peerv1.PullResponse{Registry: [][]byte{[]byte("garbage")}}},
		"standing":          {say: &peerv1.PullResponse{Standings: []*peerv1.Standing{{}}}},
		"state cut short":   {say: ahead, state: []*peerv1.StateChunk{head}},
		"state of nonsense": {say: ahead, state: []*peerv1.StateChunk{head, {Cells: []byte("garbage")}}},
		"no head":           {say: ahead, state: []*peerv1.StateChunk{{End: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.Dump(j)
			r.asked = make(chan struct{})
			pullFrom(t, b, r)
			<-r.asked
			<-r.asked
			if after := b.Dump(j); after != before {
				t.Errorf("taken:\n%s", after)
			}
		})
	}
	t.Run("cells of another schema", func(t *testing.T) {
		sh := pullFrom(t, b, &rogue{say: entry(shard.Encode(other))})
		peertest.Await(t, "the entry", func() bool { return sh.Peers()[0].Entries > 0 })
		if n := b.Offset(j, a); n != 0 {
			t.Errorf("offset %d", n)
		}
	})
}

// lonelyReceiver is region b, which pulls from nobody by itself.
func lonelyReceiver(t *testing.T) (*peertest.Region, *peertest.Job) {
	t.Helper()
	w := peertest.New(t, peertest.Options{}, "a", "b")
	w.Between("a", "b", (*peertest.Proxy).Cut)
	j := peertest.NewJob(t, 1, peertest.File())
	w.Region("b").Must(j.Add, j.Sources("a", 1), j.Sources("b", 1))
	return w.Region("b"), j
}

// pullFrom has a region pull from a server as if that were region a, until the test ends.
func pullFrom(t *testing.T, b *peertest.Region, server peerv1.PeerServiceServer) *peer.Shard {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	peerv1.RegisterPeerServiceServer(g, server)
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Serve(l); err != nil {
			t.Error(err)
		}
	})
	id := b.ID
	id.Members = slices.Clone(id.Members)
	id.Members[0].Addresses = []string{l.Addr().String()}
	links := peer.NewLinks()
	sh := peer.New(peer.Options{Identity: id, Replica: b.Replica, Links: links, Timing: peer.Timing{Again: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { sh.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		links.Close()
		g.Stop()
		running.Wait()
	})
	return sh
}
