package group

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// prefaceTimeout is how long a new connection has for its first frame, and a dialled one for the answer.
	prefaceTimeout = 5 * time.Second
	// maxPrefaces is how many new connections may be without their first frame at a time; more wait to be accepted.
	maxPrefaces = 128
	// backlog is how many connections a group may leave unaccepted; more are closed.
	backlog = 16
)

// listener is the one listener of a node. Connections name their shard in the first frame and are handed to its stream.
type listener struct {
	net      net.Listener
	self     preface // what this node says of itself; its shard is not used
	logger   hclog.Logger
	book     *book
	refused  [refusedNode + 1]atomic.Uint64
	damaged  atomic.Uint64 // frames that came in and did not have their checksums
	slots    chan struct{} // bounds the connections without a first frame
	repeats  repeats
	expelled func() // called when another node says that this one was removed
	closed   chan struct{}
	done     sync.WaitGroup

	mu struct {
		sync.Mutex
		streams map[uint32]*stream
		pending map[net.Conn]struct{} // without a first frame
		closed  bool
	}
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: %w", address, ErrPortInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

func newListener(l net.Listener, self preface, book *book, expelled func(), logger hclog.Logger) *listener {
	if expelled == nil {
		expelled = func() {}
	}
	m := &listener{net: l, self: self, book: book, expelled: sync.OnceFunc(expelled), logger: logger, slots: make(chan struct{}, maxPrefaces), closed: make(chan struct{})}
	m.mu.streams = make(map[uint32]*stream)
	m.mu.pending = make(map[net.Conn]struct{})
	m.repeats.mu.last = make(map[string]time.Time)
	m.done.Go(m.run)
	return m
}

// close stops the listener and waits for its goroutines. Streams are closed by their owners.
func (m *listener) close() error {
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		return nil
	}
	m.mu.closed = true
	close(m.closed)
	for conn := range m.mu.pending {
		conn.Close()
	}
	m.mu.Unlock()
	err := m.net.Close()
	m.done.Wait()
	return err
}

func (m *listener) run() {
	for {
		select {
		case m.slots <- struct{}{}:
		case <-m.closed:
			return
		}
		conn, err := m.net.Accept()
		if err != nil {
			<-m.slots
			select {
			case <-m.closed:
				return
			case <-time.After(50 * time.Millisecond): // out of descriptors, say
			}
			if m.repeats.due("accept", time.Now()) {
				m.logger.Warn("accepting a connection failed", "error", err)
			}
			continue
		}
		m.done.Go(func() {
			defer func() { <-m.slots }()
			m.greet(conn)
		})
	}
}

// greet reads the first frame, answers it, and hands the connection to its group.
func (m *listener) greet(conn net.Conn) {
	if !m.setPending(conn, true) {
		conn.Close()
		return
	}
	defer m.setPending(conn, false)
	conn.SetDeadline(time.Now().Add(prefaceTimeout))
	p, err := readPreface(conn)
	v, s := m.judge(p, err)
	if v != accepted {
		m.refuse(conn, p, v, err)
	}
	answer := []byte{byte(v)}
	if v == refusedVersion {
		answer = append(answer, prefaceVersion)
	}
	if _, err := conn.Write(answer); err != nil || v != accepted {
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	s.deliver(m.framed(conn), p)
}

// framed puts frames round what goes over a connection from now on.
func (m *listener) framed(conn net.Conn) net.Conn {
	return newFramed(conn, &m.damaged, func() {
		if m.repeats.due("frame", time.Now()) {
			m.logger.Error("a damaged frame came in: its connection is closed", "from", conn.RemoteAddr().String())
		}
	})
}

func (m *listener) judge(p preface, err error) (verdict, *stream) {
	switch {
	case errors.Is(err, errPrefaceVersion):
		return refusedVersion, nil
	case err != nil:
		return refusedFrame, nil
	case p.Deployment != m.self.Deployment:
		return refusedDeployment, nil
	case p.Region != m.self.Region:
		return refusedRegion, nil
	case m.book.isRemoved(p.Node):
		return refusedNode, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.mu.streams[p.Shard]; s != nil {
		return accepted, s
	}
	return refusedShard, nil
}

func (m *listener) refuse(conn net.Conn, p preface, v verdict, err error) {
	m.refused[v].Add(1)
	if v == refusedShard { // usual while a node starts or stops
		return
	}
	if m.repeats.due(v.String(), time.Now()) {
		reason := v.String()
		if v == refusedVersion {
			reason = err.Error()
		}
		m.logger.Warn("refused a connection", "reason", reason, "from", conn.RemoteAddr().String(),
			"deployment", p.Deployment, "region", p.Region, "node", p.Node)
	}
}

func (m *listener) setPending(conn net.Conn, pending bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !pending {
		delete(m.mu.pending, conn)
		return true
	}
	if m.mu.closed {
		return false
	}
	m.mu.pending[conn] = struct{}{}
	return true
}

func (m *listener) register(s *stream) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return net.ErrClosed
	}
	if m.mu.streams[s.shard] != nil {
		return fmt.Errorf("shard %d is already served", s.shard)
	}
	m.mu.streams[s.shard] = s
	return nil
}

func (m *listener) unregister(s *stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.streams[s.shard] == s {
		delete(m.mu.streams, s.shard)
	}
}

// hangUp ends the connections that removed nodes have dialled.
func (m *listener) hangUp(removed []string) {
	m.mu.Lock()
	streams := make([]*stream, 0, len(m.mu.streams))
	for _, s := range m.mu.streams {
		streams = append(streams, s)
	}
	m.mu.Unlock()
	for _, s := range streams {
		s.mu.Lock()
		for c := range s.mu.conns {
			if slices.Contains(removed, c.from) {
				c.Conn.Close()
			}
		}
		s.mu.Unlock()
	}
}

// connections counts those that others have dialled, and returns how many there may be.
func (m *listener) connections() (n, most int64) {
	m.mu.Lock()
	streams := make([]*stream, 0, len(m.mu.streams))
	for _, s := range m.mu.streams {
		streams = append(streams, s)
	}
	n, most = int64(len(m.mu.pending)), maxPrefaces+maxTaken*int64(len(streams))
	m.mu.Unlock()
	for _, s := range streams {
		s.mu.Lock()
		n += int64(s.mu.taken)
		s.mu.Unlock()
	}
	return n, most
}
