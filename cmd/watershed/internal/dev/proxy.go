package dev

import (
	"io"
	"net"
	"sync"
	"time"
)

// dialWithin bounds how long a proxy tries to reach its target.
const dialWithin = 2 * time.Second

// proxy carries the connections of one directed link to one node. While it is cut it carries none: those there were are
// reset, and new ones are as soon as they are made.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup
	mu       struct {
		sync.Mutex
		cut, closed bool
		conns       map[net.Conn]struct{}
	}
}

// newProxy serves what arrives at listener, which it closes in the end.
func newProxy(listener net.Listener, target string) *proxy {
	p := &proxy{listener: listener, target: target}
	p.mu.conns = make(map[net.Conn]struct{})
	p.wg.Go(p.accept)
	return p
}

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			p.mu.Lock()
			closed := p.mu.closed
			p.mu.Unlock()
			if closed {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, say: others will be closed
			continue
		}
		p.wg.Go(func() { p.carry(in) })
	}
}

// carry joins a connection to a new one to the target, until either ends.
func (p *proxy) carry(in net.Conn) {
	if !p.hold(in) {
		return
	}
	defer p.drop(in)
	out, err := net.DialTimeout("tcp", p.target, dialWithin)
	if err != nil || !p.hold(out) {
		reset(in)
		return
	}
	defer p.drop(out)
	var both sync.WaitGroup
	both.Go(func() { flow(out, in) })
	both.Go(func() { flow(in, out) })
	both.Wait()
}

// flow copies one direction and passes its end on.
func flow(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err != nil {
		reset(to)
		reset(from)
		return
	}
	if t, ok := to.(*net.TCPConn); ok {
		_ = t.CloseWrite() // the other direction shows what became of it
	}
}

// hold takes a connection into what a cut resets, or resets it at once.
func (p *proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.cut || p.mu.closed {
		reset(c)
		return false
	}
	p.mu.conns[c] = struct{}{}
	return true
}

func (p *proxy) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.mu.conns, c)
	p.mu.Unlock()
	_ = c.Close() // it may be closed already
}

// setCut cuts the link or heals it.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.cut = cut; cut {
		p.resetAllLocked()
	}
}

func (p *proxy) resetAllLocked() {
	for c := range p.mu.conns {
		reset(c)
	}
}

// close ends everything and waits for it. It can be called twice.
func (p *proxy) close() {
	p.mu.Lock()
	p.mu.closed = true
	p.resetAllLocked()
	p.mu.Unlock()
	_ = p.listener.Close() // a second time is an error
	p.wg.Wait()
}

// reset closes a connection so that the other end notices at once.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it may be closed already
	}
	_ = c.Close()
}
