package peer

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/watershed-db/watershed/region/router"
)

// Links are the connections to nodes of other regions, one to each address, made at first use and shared by all shards.
// It is safe for any goroutine.
type Links struct {
	options []grpc.DialOption

	mu     sync.Mutex
	open   map[string]*link
	closed bool
}

// link is a connection. Streams that share it note when they heard something.
type link struct {
	*grpc.ClientConn
	heard atomic.Int64 // Unix milliseconds
}

func (l *link) hear() { l.heard.Store(time.Now().UnixMilli()) }

// NewLinks returns an empty set. The options come on top of those of all connections between nodes.
func NewLinks(options ...grpc.DialOption) *Links {
	// A cut that ends is to be noticed within about a second, so connecting never waits longer than half of one.
	quick := grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
		MinConnectTimeout: time.Second,
	})
	return &Links{options: append(append(router.DialOptions(), quick), options...), open: map[string]*link{}}
}

func (l *Links) to(address string) (*link, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn := l.open[address]; conn != nil {
		return conn, nil
	}
	if l.closed {
		return nil, errors.New("links are closed")
	}
	conn, err := grpc.NewClient("passthrough:///"+address, l.options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	at := &link{ClientConn: conn}
	at.hear()
	l.open[address] = at
	return at, nil
}

// drop closes a connection on which nobody has heard anything for a while, so that the next use makes a new one: one whose
// packets were lost would take long to find out that they no longer are.
func (l *Links) drop(address string, conn *link, silence time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[address] == conn && time.Now().UnixMilli()-conn.heard.Load() >= silence.Milliseconds() {
		delete(l.open, address)
		conn.Close()
	}
}

// Forget closes the connection to an address, if there is one. Calls under way fail.
func (l *Links) Forget(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn := l.open[address]; conn != nil {
		delete(l.open, address)
		conn.Close()
	}
}

// Close closes all connections. Calls under way fail.
func (l *Links) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for address, conn := range l.open {
		errs = append(errs, conn.Close())
		delete(l.open, address)
	}
	return errors.Join(errs...)
}
