package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// MaxMessage bounds one gRPC message between nodes in bytes: a command of group.Config.MaxCommand and what goes round it.
const MaxMessage = 17 << 20

// DialOptions are those of every connection between nodes of a deployment: bounded messages, a short back-off,
// the version of what nodes of a region say to each other, and probes that find a node that is gone without a word.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithChainUnaryInterceptor(versionOfCall), grpc.WithChainStreamInterceptor(versionOfStream),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
	}
}

// Conns keeps one connection to each address, made at first use. It is safe for any goroutine.
type Conns struct {
	options []grpc.DialOption

	mu struct {
		sync.Mutex
		open   map[string]*grpc.ClientConn
		wires  map[string]map[net.Conn]struct{} // by address
		closed bool
	}
}

// NewConns returns an empty set whose connections are made with options, by default DialOptions.
func NewConns(options ...grpc.DialOption) *Conns {
	if len(options) == 0 {
		options = DialOptions()
	}
	c := &Conns{}
	c.options = append(slices.Clone(options), grpc.WithContextDialer(c.dial))
	c.mu.open, c.mu.wires = make(map[string]*grpc.ClientConn), make(map[string]map[net.Conn]struct{})
	return c
}

// To returns the connection to an address. It does not wait for it to stand.
func (c *Conns) To(address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.mu.open[address]; conn != nil {
		return conn, nil
	}
	if c.mu.closed {
		return nil, errors.New("connections are closed")
	}
	conn, err := grpc.NewClient("passthrough:///"+address, c.options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c.mu.open[address] = conn
	return conn, nil
}

// Break ends the TCP connections to an address: calls under way there fail as UNAVAILABLE at once, where they would wait
// for keepalive to find out. Later calls connect anew.
func (c *Conns) Break(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.mu.wires[address] {
		w.(*wire).Conn.Close()
	}
	delete(c.mu.wires, address)
}

// wire is a TCP connection that Conns knows of.
type wire struct {
	net.Conn
	conns   *Conns
	address string
}

func (w *wire) Close() error {
	w.conns.mu.Lock()
	delete(w.conns.mu.wires[w.address], w)
	w.conns.mu.Unlock()
	return w.Conn.Close()
}

func (c *Conns) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	w := &wire{conn, c, address}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.wires[address] == nil {
		c.mu.wires[address] = make(map[net.Conn]struct{})
	}
	c.mu.wires[address][w] = struct{}{}
	return w, nil
}

// Forget closes the connection to an address, if there is one. Calls under way fail.
func (c *Conns) Forget(address string) {
	c.mu.Lock()
	conn := c.mu.open[address]
	delete(c.mu.open, address)
	c.mu.Unlock()
	if conn != nil {
		conn.Close() // which closes wires, and those want the lock
	}
}

// Close closes all connections. Calls under way fail.
func (c *Conns) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	open := c.mu.open
	c.mu.open = nil
	c.mu.Unlock()
	var errs []error
	for _, conn := range open {
		errs = append(errs, conn.Close()) // which closes wires, and those want the lock
	}
	return errors.Join(errs...)
}
