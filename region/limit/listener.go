package limit

import (
	"net"
	"sync"
)

// Listener returns l with no more connections at a time than max lets in: one past that is closed as soon as it is
// accepted, so that those who wait in line find out.
func Listener(l net.Listener, most *Limit) net.Listener { return &listener{l, most} }

type listener struct {
	net.Listener
	most *Limit
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.most.Take(1) != nil {
			c.Close()
			continue
		}
		return &conn{Conn: c, give: sync.OnceFunc(func() { l.most.Give(1) })}, nil
	}
}

type conn struct {
	net.Conn
	give func()
}

func (c *conn) Close() error {
	c.give()
	return c.Conn.Close()
}
