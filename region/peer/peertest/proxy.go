package peertest

import (
	"net"
	"sync"
	"testing"
)

// Proxy is a way between two regions that can be cut. It is safe for any goroutine.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	state way
	moved *sync.Cond // state has changed
	conns map[net.Conn]bool
}

type way int

const (
	open    way = iota
	refused     // connections break at once
	silent      // connections stand, and nothing comes through
	closed
)

func newProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, listener: l, conns: map[net.Conn]bool{}}
	p.moved = sync.NewCond(&p.mu)
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *Proxy) address() string { return p.listener.Addr().String() }

// Cut breaks all connections, and those to come.
func (p *Proxy) Cut() { p.set(refused) }

// Silence lets nothing through any more, without a word to either side.
func (p *Proxy) Silence() { p.set(silent) }

// Heal opens the way again. What was held back goes through.
func (p *Proxy) Heal() { p.set(open) }

func (p *Proxy) close() {
	p.set(closed)
	p.listener.Close()
	p.running.Wait()
}

func (p *Proxy) set(to way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = to
	p.moved.Broadcast()
	if to == refused || to == closed {
		for c := range p.conns {
			c.Close()
		}
		clear(p.conns)
	}
}

func (p *Proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil || !p.add(in, out) {
			in.Close()
			if out != nil {
				out.Close()
			}
			continue
		}
		p.running.Go(func() { p.copy(in, out) })
		p.running.Go(func() { p.copy(out, in) })
	}
}

func (p *Proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == refused || p.state == closed {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

func (p *Proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.state == silent {
			p.moved.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
