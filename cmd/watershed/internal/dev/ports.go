package dev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// ErrPortInUse says that something else listens on a port that the deployment has had from its beginning.
var ErrPortInUse = errors.New("port is in use")

// Ports are taken from below those that systems give to outgoing connections, which could take one while the deployment
// is down.
const lowestPort, highestPort = 15000, 32000

// freePorts returns n ports of 127.0.0.1 on which nothing listens.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close() // nothing was ever accepted
		}
	}()
	start := rand.IntN(highestPort - lowestPort)
	for i := range highestPort - lowestPort {
		if len(ports) == n {
			return ports, nil
		}
		p := lowestPort + (start+i)%(highestPort-lowestPort)
		l, err := net.Listen("tcp", local(p))
		if err != nil {
			continue
		}
		held, ports = append(held, l), append(ports, p)
	}
	return nil, fmt.Errorf("found %d free ports from %d to %d, not %d", len(ports), lowestPort, highestPort, n)
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// listen takes one of the deployment's ports; what is it for messages.
func listen(what string, port int) (net.Listener, error) {
	l, err := net.Listen("tcp", local(port))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s: %w", what, local(port), ErrPortInUse)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return l, nil
}

// checkFree fails with ErrPortInUse where something listens already.
func checkFree(what string, port int) error {
	l, err := listen(what, port)
	if err != nil {
		return err
	}
	return l.Close()
}
