package client

import (
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// defaultPatience is how long a call goes on where its context sets no earlier deadline.
	defaultPatience = 10 * time.Second
	// maxMessage bounds an answer in bytes.
	maxMessage = 64 << 20
	// maxConns bounds the connections: to the endpoints, and to nodes that were named by others.
	maxConns = 64
)

// Option changes how a Client works.
type Option func(*options)

type options struct {
	dial               []grpc.DialOption
	session            *Session
	patience           time.Duration
	minPause, maxPause time.Duration
}

// WithSession makes reads remember what they have seen in s, and refuse or repeat answers that are older than that.
func WithSession(s *Session) Option { return func(o *options) { o.session = s } }

// WithPatience sets how long a call goes on trying where its context sets no earlier deadline. For scans and watches it
// bounds the time until the answer begins, not the answer. Zero means 10 s.
func WithPatience(d time.Duration) Option {
	return func(o *options) {
		if d > 0 {
			o.patience = d
		}
	}
}

// WithPauses sets the shortest and the longest pause between rounds over all endpoints. A pause that isn't positive
// keeps its default, 50 ms and 1 s.
func WithPauses(shortest, longest time.Duration) Option {
	return func(o *options) {
		if shortest > 0 {
			o.minPause = shortest
		}
		if longest > 0 {
			o.maxPause = longest
		}
	}
}

// WithDialOptions adds gRPC dial options behind the Client's own, which they override.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, dial...) }
}

// Client calls a deployment. It is safe for concurrent use. Close it after the last call.
type Client struct {
	o         options
	endpoints []string
	writer    writer

	mu struct {
		sync.Mutex
		conns  map[string]*grpc.ClientConn // by address
		turn   int                         // index of the endpoint that answered last
		closed bool
	}
}

// New returns a client of the nodes at endpoints, each HOST:PORT, in the order in which they are tried. It connects when
// it is first used. It fails with ErrEndpoint.
func New(endpoints []string, opts ...Option) (*Client, error) {
	if len(endpoints) == 0 || len(endpoints) > maxConns/2 {
		return nil, fmt.Errorf("%w: %d were given, want 1 to %d", ErrEndpoint, len(endpoints), maxConns/2)
	}
	for _, e := range endpoints {
		host, port, err := net.SplitHostPort(e)
		if err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("%w: %q is not HOST:PORT", ErrEndpoint, e)
		}
	}
	c := &Client{endpoints: append([]string(nil), endpoints...)}
	c.o = options{patience: defaultPatience, minPause: 50 * time.Millisecond, maxPause: time.Second}
	for _, opt := range opts {
		opt(&c.o)
	}
	c.o.maxPause = max(c.o.maxPause, c.o.minPause)
	c.mu.conns = map[string]*grpc.ClientConn{}
	return c, nil
}

// Close ends all connections, and with them what is under way. It may be called twice.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closed = true
	var first error
	for address, conn := range c.mu.conns {
		if err := conn.Close(); err != nil && first == nil {
			first = fmt.Errorf("close connection to %s: %w", address, err)
		}
	}
	clear(c.mu.conns)
	return first
}

// conn returns the connection to an address, which stays the Client's.
func (c *Client) conn(address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, ErrClosed
	}
	if conn, ok := c.mu.conns[address]; ok {
		return conn, nil
	}
	if len(c.mu.conns) >= maxConns {
		return nil, fmt.Errorf("more than %d nodes were named", maxConns)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
	conn, err := grpc.NewClient(address, append(dial, c.o.dial...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c.mu.conns[address] = conn
	return conn, nil
}

func (c *Client) firstTurn() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.turn
}

func (c *Client) answered(turn int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.turn = turn
}
