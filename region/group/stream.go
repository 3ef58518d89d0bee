package group

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// maxDial bounds how long a connection may take to come about. A peer is in the same region.
const maxDial = time.Second

// maxTaken bounds the connections of one group that others have dialled: a member has one or two, and those of a process
// that ended may not have been found dead yet.
const maxTaken = 64

var errTaken = errors.New("a group has too many connections")

// dialError says that a peer could not be reached, or would not take the connection.
type dialError struct {
	address string
	err     error
}

func (e *dialError) Error() string { return fmt.Sprintf("dial %s: %v", e.address, e.err) }
func (e *dialError) Unwrap() error { return e.err }

// refusal is a listener's verdict other than accepted.
type refusal verdict

func (r refusal) Error() string { return "refused: " + verdict(r).String() }

// advertised is an address as the members know it.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// stream is one group's share of the listener, and its way to the peers. It is a raft.StreamLayer that knows its
// connections, so that closing it ends them all.
type stream struct {
	listener *listener
	shard    uint32
	address  advertised
	incoming chan net.Conn
	tables   func(conn net.Conn) // takes connections with files of snapshots; it must not wait
	lost     chan string         // nodes whose connections to here have ended; some may be left out while it is full
	closed   chan struct{}

	mu struct {
		sync.Mutex
		closed bool
		conns  map[*streamConn]struct{}
		taken  int // of conns, those that others have dialled
	}
}

var _ raft.StreamLayer = (*stream)(nil)

func newStream(l *listener, shard uint32, address string, tables func(conn net.Conn)) (*stream, error) {
	s := &stream{
		listener: l, shard: shard, address: advertised(address), tables: tables,
		incoming: make(chan net.Conn, backlog), lost: make(chan string, backlog), closed: make(chan struct{}),
	}
	s.mu.conns = make(map[*streamConn]struct{})
	if err := l.register(s); err != nil {
		return nil, err
	}
	return s, nil
}

// streamConn tells its stream when it is closed.
type streamConn struct {
	net.Conn
	stream *stream
	from   string // the node that dialled, empty for this one
}

func (c *streamConn) Close() error {
	c.stream.mu.Lock()
	if _, ok := c.stream.mu.conns[c]; ok && c.from != "" {
		c.stream.mu.taken--
	}
	delete(c.stream.mu.conns, c)
	c.stream.mu.Unlock()
	if c.from != "" {
		select {
		case c.stream.lost <- c.from:
		default:
		}
	}
	return c.Conn.Close()
}

// track takes conn among those that end with the stream, or closes it when that has been.
func (s *stream) track(conn net.Conn, from string) (net.Conn, error) {
	c := &streamConn{Conn: conn, stream: s, from: from}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	if from != "" && s.mu.taken >= maxTaken {
		conn.Close()
		return nil, errTaken
	}
	if from != "" {
		s.mu.taken++
	}
	s.mu.conns[c] = struct{}{}
	return c, nil
}

// deliver hands on a connection that a node has dialled: to Accept where it is Raft's. It doesn't wait: a group with a full
// backlog loses it.
func (s *stream) deliver(conn net.Conn, p preface) {
	tracked, err := s.track(conn, p.Node)
	if err != nil {
		return
	}
	if p.Kind == prefaceTables {
		s.tables(tracked)
		return
	}
	select {
	case s.incoming <- tracked:
	default:
		tracked.Close()
	}
}

// Accept returns the next connection that named this shard.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.incoming:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Addr returns this node's address as its peers dial it.
func (s *stream) Addr() net.Addr { return s.address }

// Close ends the stream and every connection of the group.
func (s *stream) Close() error {
	s.listener.unregister(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil
	}
	s.mu.closed = true
	close(s.closed)
	for c := range s.mu.conns {
		c.Conn.Close()
	}
	clear(s.mu.conns)
	s.mu.taken = 0
	return nil
}

// Dial connects to the same shard of another node. Its errors are *dialError.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	conn, err := s.dial(string(address), min(timeout, maxDial))
	if err != nil {
		return nil, &dialError{address: string(address), err: err}
	}
	return conn, nil
}

func (s *stream) dial(address string, timeout time.Duration) (net.Conn, error) {
	return s.dialFor(address, timeout, prefaceRaft)
}

func (s *stream) dialFor(address string, timeout time.Duration, kind prefaceKind) (net.Conn, error) {
	raw, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return nil, err
	}
	conn, err := s.track(s.listener.framed(raw), "")
	if err != nil {
		return nil, err
	}
	if err := s.introduce(raw, timeout, kind); err != nil { // before the first frame
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (s *stream) introduce(conn net.Conn, timeout time.Duration, kind prefaceKind) error {
	conn.SetDeadline(time.Now().Add(timeout))
	self := s.listener.self
	self.Shard, self.Kind = s.shard, kind
	if _, err := conn.Write(self.appendTo(nil)); err != nil {
		return fmt.Errorf("send first frame: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("await answer to the first frame: %w", err)
	}
	switch v := verdict(answer[0]); v {
	case accepted:
	case refusedVersion:
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			return refusal(v)
		}
		return fmt.Errorf("%w: it speaks %d, this node %d", refusal(v), answer[0], prefaceVersion)
	case refusedNode:
		s.listener.expelled()
		return refusal(v)
	default:
		return refusal(v)
	}
	conn.SetDeadline(time.Time{})
	return nil
}
