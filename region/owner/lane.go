package owner

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/failover/ownership"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
)

const (
	// Bounds of what waits for a lane; what comes on top is dropped, which members bear.
	maxLaneBytes    = 16 << 20
	maxLaneMessages = 1 << 13
	maxLaneLeases   = 64 // messages, each of up to ownership.MaxLeases shards
	// requestBytes is about how much one message of the stream carries.
	requestBytes = 2 << 20
	// linger is how long leases wait for those of other shards, to go in one message.
	linger = time.Millisecond
	// unheard is for how long a node may leave a message without a word before another one is tried.
	unheard = 600 * time.Millisecond
	// openWithin is the same for its first, for which a connection may have to be made.
	openWithin = 1500 * time.Millisecond
	// lanePause is between tries of a region of which no node answers.
	lanePause = 50 * time.Millisecond
)

// lane carries messages to one region, by whichever of its nodes answers, or to one node of the own region.
type lane struct {
	addresses func() []string
	conn      func(address string) (*grpc.ClientConn, error)
	forget    func(address string)
	first     *peerv1.OwnRequest // without messages: what a stream begins with
	dropped   *atomic.Uint64
	up        atomic.Bool

	mu struct {
		sync.Mutex
		leases   []ownership.Leases
		messages []*peerv1.OwnMessage
		bytes    int
	}
	wake chan struct{}
}

func newLane(first *peerv1.OwnRequest, dropped *atomic.Uint64) *lane {
	return &lane{first: first, dropped: dropped, wake: make(chan struct{}, 1)}
}

// put has a message wait to be sent.
func (l *lane) put(shard uint32, m ownership.Message, entries [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Kind == ownership.Ask || m.Kind == ownership.Grant {
		l.putLease(ownership.ShardID(shard), m)
	} else {
		x := &peerv1.OwnMessage{Shard: shard, Message: m.AppendTo(nil), Entries: entries}
		size := len(x.Message) + 16
		for _, e := range entries {
			size += len(e)
		}
		if len(l.mu.messages) >= maxLaneMessages || l.mu.bytes+size > maxLaneBytes {
			l.dropped.Add(1)
			return
		}
		l.mu.messages, l.mu.bytes = append(l.mu.messages, x), l.mu.bytes+size
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) putLease(shard ownership.ShardID, m ownership.Message) {
	for i := range l.mu.leases {
		if l.mu.leases[i].Put(shard, m) {
			return
		}
	}
	if len(l.mu.leases) >= maxLaneLeases { // the oldest are of least use
		l.dropped.Add(uint64(len(l.mu.leases[0].Shards)))
		l.mu.leases = l.mu.leases[1:]
	}
	var fresh ownership.Leases
	fresh.Put(shard, m)
	l.mu.leases = append(l.mu.leases, fresh)
}

// take returns what one message of the stream carries of what waits, nil where nothing does.
func (l *lane) take() *peerv1.OwnRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.leases) == 0 && len(l.mu.messages) == 0 {
		return nil
	}
	out := &peerv1.OwnRequest{}
	for i := range l.mu.leases {
		out.Leases = append(out.Leases, l.mu.leases[i].AppendTo(nil))
	}
	l.mu.leases = nil
	size, n := 0, 0
	for n < len(l.mu.messages) && size < requestBytes {
		x := l.mu.messages[n]
		size += len(x.Message) + 16
		for _, e := range x.Entries {
			size += len(e)
		}
		n++
	}
	out.Messages = append(out.Messages, l.mu.messages[:n]...)
	l.mu.messages = l.mu.messages[n:]
	if l.mu.bytes -= size; len(l.mu.messages) == 0 {
		l.mu.messages = nil
	}
	return out
}

// urgent says whether anything waits that leases should not hold up.
func (l *lane) urgent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.messages) > 0
}

// run keeps a stream open until ctx ends.
func (l *lane) run(ctx context.Context) {
	for next := 0; ctx.Err() == nil; next++ {
		addresses := l.addresses()
		if len(addresses) == 0 {
			if rest(ctx, lanePause) != nil {
				return
			}
			continue
		}
		address := addresses[next%len(addresses)]
		err := l.stream(ctx, address)
		l.up.Store(false)
		if errors.Is(err, errUnheard) {
			l.forget(address)
		}
		if (next+1)%len(addresses) == 0 && rest(ctx, lanePause) != nil {
			return
		}
	}
}

// errUnheard says that a node took messages without a word.
var errUnheard = errors.New("the node does not answer")

// stream sends to one node until it fails.
func (l *lane) stream(ctx context.Context, address string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := l.conn(address)
	if err != nil {
		return err
	}
	var open atomic.Int64 // messages without a word
	watchdog := time.AfterFunc(openWithin, func() { cancel(errUnheard) })
	defer watchdog.Stop()
	stream, err := peerv1.NewPeerServiceClient(conn).Own(ctx)
	if err == nil {
		open.Add(1)
		err = stream.Send(l.first)
	}
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel(nil)
	reading.Go(func() {
		for {
			if _, err := stream.Recv(); err != nil {
				cancel(err)
				return
			}
			if open.Add(-1) == 0 {
				watchdog.Stop()
				if open.Load() > 0 { // sent meanwhile
					watchdog.Reset(unheard)
				}
			} else {
				watchdog.Reset(unheard)
			}
			l.up.Store(true)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.wake:
		}
		if !l.urgent() && rest(ctx, linger) != nil {
			return context.Cause(ctx)
		}
		for x := l.take(); x != nil; x = l.take() {
			if open.Add(1) == 1 {
				watchdog.Reset(unheard)
			}
			if err := stream.Send(x); err != nil {
				return errors.Join(err, context.Cause(ctx))
			}
		}
	}
}
