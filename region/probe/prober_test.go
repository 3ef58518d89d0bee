package probe

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is probers on real sockets, each of which believes that "a" leads its group.
type fleet struct {
	t         *testing.T
	addresses map[string]string
	probers   map[string]*Prober
	end       map[string]func()
	asked     chan string
}

func newFleet(t *testing.T, nodes ...string) *fleet {
	return newFleetWith(t, func(*Options) {}, nodes...)
}

func newFleetWith(t *testing.T, adjust func(*Options), nodes ...string) *fleet {
	f := &fleet{t: t, addresses: map[string]string{}, probers: map[string]*Prober{}, end: map[string]func(){},
		asked: make(chan string, 64)}
	conns := map[string]net.PacketConn{}
	for _, node := range nodes {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conns[node], f.addresses[node] = conn, conn.LocalAddr().String()
	}
	for _, node := range nodes {
		o := Options{
			Deployment: "rides", Region: "us-east", Node: node, Conn: conns[node],
			Peers: func() map[string]string {
				peers := map[string]string{}
				for n, a := range f.addresses {
					if n != node {
						peers[n] = a
					}
				}
				return peers
			},
			Groups: func() []Standing {
				return []Standing{{Shard: 1, Term: 2, Voters: 3, Votes: true, Leads: node == "a", Follows: node != "a", Leader: "a"}}
			},
			Stalled:  func() bool { return false },
			Campaign: func(uint32) { f.asked <- node },
		}
		adjust(&o)
		p, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		f.probers[node] = p
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		f.end[node] = func() { cancel(); running.Wait() }
		t.Cleanup(f.end[node])
	}
	return f
}

// knows waits until a node has heard of another.
func (f *fleet) knows(node, other string) {
	f.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p := f.probers[node]
		p.mu.Lock()
		known := p.mu.detector.Known(other)
		p.mu.Unlock()
		if known {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			f.t.Fatalf("%s never heard of %s", node, other)
		}
	}
}

func TestProbersFindADeadLeader(t *testing.T) {
	f := newFleet(t, "a", "b", "c")
	for _, node := range []string{"b", "c"} {
		f.knows(node, "a")
	}
	f.end["a"]()
	select {
	case node := <-f.asked:
		if node == "a" || !f.probers[node].Dead("a") {
			t.Errorf("%s asks for votes", node)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody asks for votes")
	}
}

func TestStrangersAreRefused(t *testing.T) {
	f := newFleet(t, "a", "b")
	conn, err := net.Dial("udp", f.addresses["b"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stranger := Packet{Identity: Identity("rides", "eu-west"), Node: "a"}
	unknown := Packet{Identity: Identity("rides", "us-east"), Node: "z"}
	newer := (&Packet{Identity: Identity("rides", "us-east"), Node: "a"}).Append(nil)
	newer[4]++
	for _, raw := range [][]byte{stranger.Append(nil), unknown.Append(nil), newer, []byte("garbage")} {
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
	}
	c := &f.probers["b"].counts
	deadline := time.Now().Add(30 * time.Second)
	for c.strangers.Load() != 2 || c.versions.Load() != 1 || c.broken.Load() != 1 {
		if time.Now().After(deadline) {
			t.Fatalf("strangers %d, versions %d, broken %d", c.strangers.Load(), c.versions.Load(), c.broken.Load())
		}
		<-time.After(time.Millisecond)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(f.probers["b"])
	if _, err := registry.Gather(); err != nil {
		t.Error(err)
	}
}
