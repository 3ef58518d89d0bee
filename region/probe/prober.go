package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options says what a Prober works with.
type Options struct {
	Deployment, Region, Node string
	// Listen is the UDP address to listen at. Conn, where set, is used instead; the Prober owns it.
	Listen string
	Conn   net.PacketConn
	// Peers gives the other nodes of the region and the UDP addresses of their Probers. It may change from call to call.
	Peers func() map[string]string
	// Groups tells how this node's groups stand, at most MaxGroups.
	Groups func() []Standing
	// Room, where set, tells what is free and what is kept free of this node's disk, in bytes, and whether it lacks room.
	Room func() (free, floor uint64, short bool)
	// Stalled says whether this node's disk hangs.
	Stalled func() bool
	// Campaign has this node's group of a shard ask for votes. It is called by a goroutine of its own.
	Campaign func(shard uint32)
	// Lost, where set, is told once each time that a node is not heard of any more. It must not block.
	Lost   func(node string)
	Timing Timing       // default: DefaultTiming
	Logger hclog.Logger // default: none
}

// Prober exchanges probes with the region's other nodes. Its methods may be called by any goroutine.
type Prober struct {
	o        Options
	conn     net.PacketConn
	identity uint64
	boot     uint64
	counts   counts
	rooms    rooms

	toldShort bool // of Run

	mu struct {
		sync.Mutex
		detector  *Detector
		dead      map[string]bool // as it was logged
		warned    map[string]bool // that nothing was ever heard of it
		addresses map[string]address
	}
}

// address is what a peer's name was resolved to.
type address struct {
	name  string
	at    netip.AddrPort
	until time.Time
}

const (
	resolveEach = 10 * time.Second
	warnAfter   = 10 * time.Second
)

// Open listens. Nothing is sent before Run.
func Open(o Options) (*Prober, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Timing == (Timing{}) {
		o.Timing = DefaultTiming()
	}
	p := &Prober{o: o, conn: o.Conn, identity: Identity(o.Deployment, o.Region), boot: rand.Uint64()}
	if p.conn == nil {
		conn, err := net.ListenPacket("udp", o.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen for probes: %w", err)
		}
		p.conn = conn
	}
	p.mu.detector = NewDetector(o.Node, o.Timing)
	p.mu.dead, p.mu.warned, p.mu.addresses = map[string]bool{}, map[string]bool{}, map[string]address{}
	return p, nil
}

// Close ends Run's reading, and lets go of the address. It may be called twice.
func (p *Prober) Close() error {
	if err := p.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close probes: %w", err)
	}
	return nil
}

// Run sends and reads probes until ctx ends, and closes the Prober.
func (p *Prober) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	defer p.Close()
	running.Go(func() { p.read(ctx) })
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sequence := uint64(1); ; sequence++ {
		// At moments that are the same for all, where clocks agree: a node is woken for all its probes at once.
		timer.Reset(p.o.Timing.Interval - time.Duration(time.Now().UnixNano())%p.o.Timing.Interval)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		for _, shard := range p.tick(sequence, began) {
			p.counts.campaigns.Add(1)
			running.Go(func() { p.o.Campaign(shard) })
		}
	}
}

// tick decides, tells the others how things stand, and returns the shards to campaign for.
func (p *Prober) tick(sequence uint64, began time.Time) []uint32 {
	peers, own, stalled := p.o.Peers(), p.o.Groups(), p.o.Stalled()
	names := make([]string, 0, len(peers))
	for name := range peers {
		names = append(names, name)
	}
	slices.Sort(names)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	d := p.mu.detector
	d.Forget(func(node string) bool { return peers[node] != "" })
	campaign := d.Tick(now, own, stalled)
	packet := Packet{
		Identity: p.identity, Boot: p.boot, Sequence: sequence, Stalled: stalled, Node: p.o.Node,
		Views: d.Views(now, names), Groups: own,
	}
	raw := packet.Append(nil)
	for _, name := range names {
		p.send(now, raw, name, peers[name])
		p.report(now, name, now.Sub(began))
	}
	p.counts.late.Store(d.Late())
	p.tellRoom(sequence, names, peers)
	p.rooms.forget(now, func(node string) bool { return peers[node] != "" })
	return campaign
}

// send sends to one peer. What is lost on the way is not sent again.
func (p *Prober) send(now time.Time, raw []byte, node, name string) {
	a := p.mu.addresses[node]
	if a.name != name || now.After(a.until) {
		a = address{name: name, until: now.Add(resolveEach)}
		if udp, err := net.ResolveUDPAddr("udp", name); err == nil {
			a.at = udp.AddrPort()
		}
		p.mu.addresses[node] = a
	}
	if !a.at.IsValid() {
		p.counts.unsent.Add(1)
		return
	}
	if _, err := p.conn.WriteTo(raw, net.UDPAddrFromAddrPort(a.at)); err != nil {
		p.counts.unsent.Add(1)
		return
	}
	p.counts.sent.Add(1)
}

// report logs what has changed with a peer.
func (p *Prober) report(now time.Time, node string, running time.Duration) {
	dead := p.mu.detector.Dead(now, node)
	switch {
	case dead && !p.mu.dead[node]:
		p.o.Logger.Warn("a node is not heard of any more", "node", node)
		if p.o.Lost != nil {
			p.o.Lost(node)
		}
	case !dead && p.mu.dead[node]:
		p.o.Logger.Info("a node is heard of again", "node", node)
	}
	p.mu.dead[node] = dead
	if running > warnAfter && !p.mu.warned[node] && !p.mu.detector.Known(node) {
		p.mu.warned[node] = true
		p.o.Logger.Warn("no probe of a node was ever heard: if it runs, datagrams to its Raft port or from it are blocked, "+
			"and its failover waits for Raft's heartbeat timeout", "node", node)
	}
}

// read takes datagrams until the connection is closed.
func (p *Prober) read(ctx context.Context) {
	buf := make([]byte, MaxPacket+1)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // such as a port that nothing listens at, which some systems tell the sender
		}
		hear := p.hear
		if isRoom(buf[:n]) {
			hear = p.hearRoom
		}
		switch err := hear(buf[:n]); {
		case errors.Is(err, ErrVersion):
			p.counts.versions.Add(1)
		case errors.Is(err, errStranger):
			p.counts.strangers.Add(1)
		case err != nil:
			p.counts.broken.Add(1)
		}
	}
}

var errStranger = errors.New("not of this region")

// hear takes a datagram that is a Packet.
func (p *Prober) hear(raw []byte) error {
	packet, err := Decode(raw)
	if err != nil {
		return err
	}
	if packet.Identity != p.identity || p.o.Peers()[packet.Node] == "" {
		return errStranger
	}
	p.counts.heard.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.detector.Heard(time.Now(), packet)
	return nil
}

// Dead says whether a node has been heard of, and no more for a while. One that was never heard of is not dead, but
// unknown.
func (p *Prober) Dead(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.detector.Dead(time.Now(), node)
}
