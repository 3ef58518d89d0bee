package peer

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// chunkBytes is about how much of a group's cells one chunk holds.
const chunkBytes = 256 << 10

// State streams a group as one snapshot has it (rules A5).
func (s *Server) State(req *peerv1.StateRequest, stream grpc.ServerStreamingServer[peerv1.StateChunk]) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.streams.Done()
	sh, err := s.admit(req.GetHello())
	if err != nil {
		return err
	}
	have, err := crdt.DecodeFrontier(req.Have)
	if err != nil || len(req.Generation) != len(crdt.GenerationID{}) {
		return s.refused.note("protocol", fmt.Sprintf("region %s asks for a state with a malformed request", req.Hello.Region))
	}
	return router.Status(s.state(sh, crdt.GenerationID(req.Generation), crdt.RegionID(req.Group), have, stream), s.address)
}

func (s *Server) state(sh *Shard, id crdt.GenerationID, region crdt.RegionID, have crdt.Frontier,
	stream grpc.ServerStreamingServer[peerv1.StateChunk]) (err error) {
	snap, err := sh.o.Replica.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	g := snap.Generation(id)
	if g == nil {
		return status.Errorf(codes.NotFound, "generation %x is unknown here", id)
	}
	head, err := stateHead(snap, g, region, have)
	if err != nil {
		return err
	}
	if err := stream.Send(&peerv1.StateChunk{Head: head}); err != nil {
		return err
	}
	if len(head.Unconfirmed) > 0 {
		return nil // the receiver must not take it
	}
	return s.cells(snap, g, region, stream)
}

// stateHead says where a group stands, and which of the receiver's points are not known to lie on the way there.
func stateHead(snap *shard.Snapshot, g *shard.Generation, region crdt.RegionID, have crdt.Frontier) (*peerv1.StateHead, error) {
	head := &peerv1.StateHead{Horizon: g.Horizon, AppliedIndex: snap.Index, Declared: g.Declared(region)}
	frontier := crdt.Frontier{}
	for _, st := range g.Standings(region) {
		frontier[st.Source] = st.Point
	}
	head.Frontier = crdt.AppendFrontier(nil, frontier)
	for _, src := range have.Sources() {
		p, own := have[src], frontier[src]
		switch _, ok := frontier[src]; {
		case !ok || p.Offset > own.Offset:
			return nil, status.Errorf(codes.FailedPrecondition, "source %v stands below the receiver's point", src)
		case p.Offset == own.Offset && p.Chain == own.Chain:
			continue
		}
		stood, err := snap.Stood(g, shard.SourceMark{Source: src, Mark: p.Mark()})
		if err != nil {
			return nil, err
		}
		if !stood && !mutant.On("join-unconfirmed") {
			head.Unconfirmed = append(head.Unconfirmed, crdt.AppendSource(nil, src))
		}
	}
	return head, nil
}

// cells streams the cells of a group in chunks, and the end.
func (s *Server) cells(snap *shard.Snapshot, g *shard.Generation, region crdt.RegionID,
	stream grpc.ServerStreamingServer[peerv1.StateChunk]) error {
	chunk, size := &crdt.Advance{Generation: g.ID, Group: region}, 0
	var failed error
	send := func() {
		failed = stream.Send(&peerv1.StateChunk{Cells: chunk.AppendTo(nil)})
		chunk.Deltas, size = chunk.Deltas[:0], 0
	}
	err := snap.Slots(g, region, crdt.MinTime, crdt.MaxTime, func(slot crdt.Slot, cell []byte) bool {
		select {
		case <-s.quit:
			failed = status.Error(codes.Unavailable, "the node is stopping")
			return false
		default:
		}
		slot.Key = append([]byte(nil), slot.Key...)
		chunk.Deltas = append(chunk.Deltas, crdt.Delta{Slot: slot, Cell: append([]byte(nil), cell...)})
		if size += len(slot.Key) + len(cell) + 16; size >= chunkBytes {
			send()
		}
		return failed == nil
	})
	if err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if len(chunk.Deltas) > 0 {
		if send(); failed != nil {
			return failed
		}
	}
	return stream.Send(&peerv1.StateChunk{End: true})
}

var errUnconfirmed = errors.New("the peer can't tell whether this shard's points lie on its history")

// join takes a group as a peer has it, through the shard's own log into a new copy, and switches to it. It returns
// errUnconfirmed where that might replace one history by another.
func (p *puller) join(ctx context.Context, conn *link, key groupKey) (err error) {
	p.shard.joining.Lock()
	defer p.shard.joining.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := p.replica.State().Generation(key.generation)
	if g == nil {
		return nil
	}
	have := crdt.Frontier{}
	for _, st := range g.Standings(key.group) {
		have[st.Source] = st.Point
	}
	stream, err := peerv1.NewPeerServiceClient(conn).State(ctx, &peerv1.StateRequest{
		Hello: p.shard.o.Hello(p.replica.Config().Shard), Generation: key.generation[:], Group: string(key.group),
		Have: crdt.AppendFrontier(nil, have),
	})
	if err != nil {
		return fmt.Errorf("ask for state: %w", err)
	}
	first, err := receiveWithin(stream, cancel, p.timing.Silence)
	if err != nil {
		return fmt.Errorf("ask for state: %w", err)
	}
	j := &joining{puller: p, key: key, head: first.GetHead()}
	if err := j.check(have); err != nil {
		return err
	}
	if err := j.stage(ctx, func() (*peerv1.StateChunk, error) { return receiveWithin(stream, cancel, p.timing.Silence) }); err != nil {
		return err
	}
	return j.install(ctx, have)
}
