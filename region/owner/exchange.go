package owner

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// ExchangeOptions says what an Exchange works on.
type ExchangeOptions struct {
	Self    crdt.RegionID
	Regions []crdt.RegionID // all of the deployment
	// Hello returns what a node of a region says of itself: of this one, and of the ones whose messages are sent on.
	Hello func(of crdt.RegionID) *peerv1.Hello
	// Check refuses a caller that does not belong to the deployment.
	Check func(*peerv1.Hello) error
	// Addresses returns where another region's nodes are dialed by now, in the order to be tried.
	Addresses func(crdt.RegionID) []string
	// Conn returns a connection to an address of another region, Forget closes it; Near is Conn for the own region.
	Conn, Near func(address string) (*grpc.ClientConn, error)
	Forget     func(address string)
	// Shard returns a shard that is on this node, nil where it isn't.
	Shard func(keyspace.ShardID) *Shard
	// Leader returns the address of the node of this region that leads a shard, as far as this one knows; "" for this one
	// itself and where none is known.
	Leader func(keyspace.ShardID) string
	Shards int
	Logger hclog.Logger // default: none
}

// Exchange carries messages between the leaders of shards in different regions, of all shards that a node leads together.
// It is safe for any goroutine.
type Exchange struct {
	o       ExchangeOptions
	dropped atomic.Uint64
	taken   atomic.Uint64 // messages
	sent    atomic.Uint64
	ctx     context.Context
	end     context.CancelFunc
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		ended bool
		lanes map[route]*lane
	}
}

// route is where a lane leads, and on whose behalf.
type route struct {
	to   string // a region's name, or the address of a node of the own region
	near bool
	from crdt.RegionID
}

// NewExchange returns an Exchange. Close ends it.
func NewExchange(o ExchangeOptions) *Exchange {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	x := &Exchange{o: o}
	x.ctx, x.end = context.WithCancel(context.Background())
	x.mu.lanes = map[route]*lane{}
	return x
}

// Close ends all lanes. What waits is dropped.
func (x *Exchange) Close() {
	x.mu.Lock()
	x.mu.ended = true
	x.mu.Unlock()
	x.end()
	x.running.Wait()
}

// Dropped returns how many messages were dropped because too many waited or they made no sense, Sent how many were sent,
// and Taken how many came.
func (x *Exchange) Dropped() uint64 { return x.dropped.Load() }

// Sent is explained with Dropped.
func (x *Exchange) Sent() uint64 { return x.sent.Load() }

// Taken is explained with Dropped.
func (x *Exchange) Taken() uint64 { return x.taken.Load() }

// Send has a message of this region brought to another region's leader of a shard.
func (x *Exchange) Send(to crdt.RegionID, id keyspace.ShardID, m ownership.Message, entries [][]byte) {
	if l := x.lane(route{to: string(to), from: x.o.Self}); l != nil {
		x.sent.Add(1)
		l.put(uint32(id), m, entries)
	}
}

// maxLanes bounds the lanes of a node: to each region, and from each region to each node of the own one.
const maxLanes = 1 << 12

func (x *Exchange) lane(r route) *lane {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.mu.lanes[r]
	if l != nil || x.mu.ended {
		return l
	}
	if len(x.mu.lanes) >= maxLanes {
		x.dropped.Add(1)
		return nil
	}
	l = newLane(&peerv1.OwnRequest{Hello: x.o.Hello(r.from), Forwarded: r.near}, &x.dropped)
	l.conn, l.forget, l.addresses = x.o.Conn, x.o.Forget, func() []string { return x.o.Addresses(crdt.RegionID(r.to)) }
	if r.near {
		l.conn, l.forget, l.addresses = x.o.Near, func(string) {}, func() []string { return []string{r.to} }
	}
	x.mu.lanes[r] = l
	x.running.Go(func() { l.run(x.ctx) })
	return l
}

// Own serves another node's lane.
func (x *Exchange) Own(stream grpc.BidiStreamingServer[peerv1.OwnRequest, peerv1.OwnResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := x.o.Check(first.GetHello()); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- x.receive(stream, first) }()
	select {
	case err := <-ended:
		return err
	case <-x.ctx.Done():
		return status.Error(codes.Unavailable, "the node is stopping")
	}
}

// receive takes what a lane brings, until it ends.
func (x *Exchange) receive(stream grpc.BidiStreamingServer[peerv1.OwnRequest, peerv1.OwnResponse], first *peerv1.OwnRequest) (err error) {
	from := crdt.RegionID(first.GetHello().GetRegion())
	for m := first; ; {
		if err := x.take(from, m, first.GetForwarded()); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		if err := stream.Send(&peerv1.OwnResponse{}); err != nil {
			return err
		}
		if m, err = stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// take gives what came to the shards that it is for.
func (x *Exchange) take(from crdt.RegionID, in *peerv1.OwnRequest, forwarded bool) error {
	for _, raw := range in.GetLeases() {
		list, err := ownership.DecodeLeases(raw)
		if err != nil {
			return err
		}
		for i := range list.Shards {
			id, m := list.Message(i)
			x.deliver(from, uint32(id), m, nil, forwarded)
		}
	}
	for _, raw := range in.GetMessages() {
		m, err := ownership.DecodeMessage(raw.GetMessage())
		if err != nil {
			return err
		}
		if m.Kind != ownership.Entries && len(raw.GetEntries()) > 0 {
			return errors.New("entries with a message that has none")
		}
		size := 0
		for _, e := range raw.GetEntries() {
			if size += len(e); len(e) > shard.MaxOwnEntry || size > shard.MaxOwnBytes {
				return errors.New("entries that are too large")
			}
		}
		x.deliver(from, raw.GetShard(), m, raw.GetEntries(), forwarded)
	}
	return nil
}

func (x *Exchange) deliver(from crdt.RegionID, id uint32, m ownership.Message, entries [][]byte, forwarded bool) {
	if int(id) >= x.o.Shards {
		x.dropped.Add(1)
		return
	}
	x.taken.Add(1)
	at := keyspace.ShardID(id)
	if s := x.o.Shard(at); s != nil && s.Offer(from, m, entries) {
		return
	}
	leader := x.o.Leader(at)
	if forwarded || leader == "" {
		x.dropped.Add(1)
		return
	}
	if l := x.lane(route{to: leader, near: true, from: from}); l != nil {
		l.put(id, m, entries)
	}
}
