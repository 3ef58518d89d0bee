package dev

import (
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// echo answers what it is sent, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", local(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c) // until the other end is gone
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func newTestProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", local(0))
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(l, target)
	t.Cleanup(p.close)
	return p
}

func dial(t *testing.T, p *proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return guarded(t, c)
}

// broken fails unless a new connection is reset: at once, or as soon as it is used.
func broken(t *testing.T, p *proxy) {
	t.Helper()
	c, err := net.Dial("tcp", p.listener.Addr().String())
	if err == nil {
		err = echoes(guarded(t, c))
	}
	if err == nil || timedOut(err) {
		t.Errorf("a new connection: %v", err)
	}
}

func guarded(t *testing.T, c net.Conn) net.Conn {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// echoes says whether a word comes back.
func echoes(c net.Conn) error {
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	var b [4]byte
	_, err := io.ReadFull(c, b[:])
	return err
}

func TestProxyCutAndHeal(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after all other clean-ups
	p := newTestProxy(t, echo(t))
	c := dial(t, p)
	if err := echoes(c); err != nil {
		t.Fatal(err)
	}
	p.setCut(true)
	if err := echoes(c); err == nil || timedOut(err) {
		t.Errorf("a connection over a cut: %v", err)
	}
	broken(t, p)
	p.setCut(false)
	if err := echoes(c); err == nil {
		t.Error("a heal brought a connection back")
	}
	if err := echoes(dial(t, p)); err != nil {
		t.Errorf("after the heal: %v", err)
	}
	p.close()
	p.close()
}

func timedOut(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// The end of one direction is passed on while the other goes on.
func TestProxyPassesEndsOn(t *testing.T) {
	p := newTestProxy(t, echo(t))
	c := dial(t, p)
	if _, err := c.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != "all of it" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestProxyWithoutTarget(t *testing.T) {
	l, err := net.Listen("tcp", local(0))
	if err != nil {
		t.Fatal(err)
	}
	target := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	broken(t, newTestProxy(t, target))
}
