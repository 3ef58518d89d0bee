package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watershed-db/watershed/crdt"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/router"
)

// Server answers the leaders of other regions: PeerService.Pull and State. Summary and Submit are for the node to add. It
// is safe for any goroutine.
type Server struct {
	peerv1.UnimplementedPeerServiceServer

	id       Identity
	shard    func(number uint32) (*Shard, group.Member)
	address  func(node string) string
	logger   hclog.Logger
	queue    *limit.Limit
	refused  *refusals
	entries  atomic.Uint64
	bytes    atomic.Uint64
	quit     chan struct{}
	stopping sync.Once
	mu       sync.Mutex // held while a stream begins, and while closing
	streams  sync.WaitGroup
}

// NewServer returns a Server for the shards of a node. shard returns one by its number; where the node has none of it, who
// may lead it. address names the gRPC address of a node of the own region. queue bounds the bytes that wait for pullers, and
// what they have said that waits to be looked at; nil for no bound.
func NewServer(id Identity, shard func(number uint32) (*Shard, group.Member), address func(node string) string,
	queue *limit.Limit, logger hclog.Logger,
) *Server {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Server{
		id: id, shard: shard, address: address, logger: logger, queue: queue, refused: newRefusals(logger), quit: make(chan struct{}),
	}
}

// Refused returns how many calls of other regions were refused, by reason.
func (s *Server) Refused() map[string]uint64 { return s.refused.snapshot() }

// Sent returns how many commands were sent to other regions, and their bytes.
func (s *Server) Sent() (entries, bytes uint64) { return s.entries.Load(), s.bytes.Load() }

// Close ends all streams and turns later calls away. It does not wait: one that sends to a peer which is gone ends only
// with the gRPC server.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping.Do(func() { close(s.quit) })
}

// Wait returns when no stream uses a replica any more. It comes after Close and the end of the gRPC server, and before
// the replicas are closed.
func (s *Server) Wait() { s.streams.Wait() }

// enter counts a stream in; leave it when it ends.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.quit:
		return status.Error(codes.Unavailable, "the node is stopping")
	default:
		s.streams.Add(1)
		return nil
	}
}

// Check refuses a caller that does not belong to this deployment; the other methods of the service use it too.
func (s *Server) Check(h *peerv1.Hello) error {
	if reason, text := s.id.check(h); reason != "" {
		return s.refused.note(reason, text)
	}
	return nil
}

// admit returns the shard that a caller means, if this node may answer for it.
func (s *Server) admit(h *peerv1.Hello) (*Shard, error) {
	if err := s.Check(h); err != nil {
		return nil, err
	}
	sh, elsewhere := s.shard(h.Shard)
	if sh == nil {
		return nil, router.Status(&group.NotLeaderError{Leader: elsewhere}, s.address)
	}
	if r := sh.o.Replica; !r.IsLeader() {
		return nil, router.Status(&group.NotLeaderError{Leader: r.Leader()}, s.address)
	}
	return sh, nil
}

// Pull streams what a shard applied to a peer.
func (s *Server) Pull(stream grpc.BidiStreamingServer[peerv1.PullRequest, peerv1.PullResponse]) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.streams.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	in := newIntake(s.queue)
	defer in.close()
	go in.receive(stream)
	first, err := in.first(ctx, s.quit)
	if err != nil {
		return router.Status(err, s.address)
	}
	sh, err := s.admit(first.Hello)
	if err != nil {
		return err
	}
	f := &feed{server: s, shard: sh, stream: stream, in: in, registry: first.Registry, last: map[crdt.GenerationID]*Standing{}}
	f.out = &outlet{replica: sh.o.Replica, self: s.id.Self, forward: sh.o.Timing.Forward, book: newBook(), queue: s.queue,
		scanned: first.Cursor}
	err = f.run(ctx)
	if errors.Is(err, ErrProtocol) {
		return s.refused.note("protocol", fmt.Sprintf("region %s: %v", first.Hello.Region, err))
	}
	return router.Status(err, s.address)
}

// intake gathers what a puller says.
type intake struct {
	wake  chan struct{} // has a value when there is anything new
	queue *limit.Limit  // of bytes
	mu    sync.Mutex
	list  []*peerv1.PullRequest
	size  int64 // of list, in bytes
	err   error
}

// maxIntake bounds the messages of a puller that wait to be looked at.
const maxIntake = 1 << 10

func newIntake(queue *limit.Limit) *intake {
	return &intake{wake: make(chan struct{}, 1), queue: queue}
}

// add takes a message in, or what ended the stream.
func (in *intake) add(m *peerv1.PullRequest, err error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	size := int64(proto.Size(m))
	switch {
	case err != nil:
	case in.err != nil: // it is over
		err = in.err
	case len(in.list) == maxIntake:
		err = fmt.Errorf("%w: %d messages wait", ErrProtocol, maxIntake)
	default:
		err = in.queue.Take(size)
	}
	if in.err = err; err == nil {
		in.list, in.size = append(in.list, m), in.size+size
	}
	return err
}

// close has nothing more taken in.
func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.err = errors.Join(in.err, io.EOF)
	in.clear()
}

func (in *intake) clear() {
	in.queue.Give(in.size)
	in.list, in.size = nil, 0
}

// receive takes in the puller's messages until the stream ends.
func (in *intake) receive(stream grpc.BidiStreamingServer[peerv1.PullRequest, peerv1.PullResponse]) {
	for {
		err := in.add(stream.Recv())
		select {
		case in.wake <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// take returns what has come since the last call.
func (in *intake) take() ([]*peerv1.PullRequest, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	list := in.list
	in.clear()
	return list, in.err
}

// first waits for the first message, and puts it back.
func (in *intake) first(ctx context.Context, quit chan struct{}) (*peerv1.PullRequest, error) {
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	select {
	case <-in.wake:
	case <-patience.C:
		return nil, status.Error(codes.DeadlineExceeded, "no first message")
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-quit:
		return nil, status.Error(codes.Unavailable, "the node is stopping")
	}
	select {
	case in.wake <- struct{}{}:
	default: // another message has come
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.list) == 0 {
		return nil, in.err
	}
	return in.list[0], nil
}
