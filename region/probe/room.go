package probe

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Room is what a node tells the others of its disk, in a datagram of its own beside the probes. Its wire format, version 1:
// numbers are varints but for the fixed ones, which are big-endian; a name is one byte of length and as many bytes.
//
//	4 bytes   "WSPR"
//	1         version
//	8         identity of deployment and region
//	8         boot: differs from start to start
//	varint    sequence: rises while the node runs
//	name      of the sender
//	varint    bytes that are free
//	varint    bytes that are kept free
//	1         1 where the node takes no new writes for want of room, else 0
//	4         CRC-32C of the above
type Room struct {
	Identity    uint64
	Boot        uint64
	Sequence    uint64
	Node        string
	Free, Floor uint64
	Short       bool
}

const (
	roomMagic = "WSPR"
	// RoomVersion is that of Rooms.
	RoomVersion = 1
	// roomEach is how many probes apart a Room is sent, where nothing has changed.
	roomEach = 10
	// roomFor is for how long a Room counts. A node that is not heard of has other worries.
	roomFor = 5 * time.Second
)

// Append appends the Room's bytes.
func (r *Room) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(append(dst, roomMagic...), RoomVersion)
	dst = binary.BigEndian.AppendUint64(dst, r.Identity)
	dst = binary.BigEndian.AppendUint64(dst, r.Boot)
	dst = binary.AppendUvarint(dst, r.Sequence)
	dst = appendName(dst, r.Node)
	dst = binary.AppendUvarint(dst, r.Free)
	dst = binary.AppendUvarint(dst, r.Floor)
	dst = append(dst, asByte(r.Short))
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// isRoom says whether a datagram is a Room rather than a Packet.
func isRoom(raw []byte) bool {
	return len(raw) >= len(roomMagic) && string(raw[:len(roomMagic)]) == roomMagic
}

// DecodeRoom reads a whole datagram. Its errors are ErrPacket and ErrVersion, which says both versions.
func DecodeRoom(raw []byte) (Room, error) {
	const fixed = len(roomMagic) + 1
	if len(raw) < fixed+4 || !isRoom(raw) {
		return Room{}, ErrPacket
	}
	if v := raw[len(roomMagic)]; v != RoomVersion {
		return Room{}, fmt.Errorf("%w: %d, this build reads %d", ErrVersion, v, RoomVersion)
	}
	body, sum := raw[:len(raw)-4], binary.BigEndian.Uint32(raw[len(raw)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return Room{}, fmt.Errorf("%w: checksum", ErrPacket)
	}
	const all = 1<<64 - 1
	d := decoder{rest: body[fixed:]}
	r := Room{
		Identity: d.fixed(), Boot: d.fixed(), Sequence: d.number(all), Node: d.name(), Free: d.number(all), Floor: d.number(all),
		Short: d.byte(1) == 1,
	}
	if d.bad || len(d.rest) != 0 || r.Node == "" {
		return Room{}, ErrPacket
	}
	return r, nil
}

// rooms is what was heard of the disks of other nodes. It is safe for any goroutine.
type rooms struct {
	shorts atomic.Int64 // entries of heard that are short

	mu    sync.Mutex
	heard map[string]heardRoom
}

type heardRoom struct {
	Room
	at time.Time
}

// note takes a Room of another node. One that was overtaken by a later one of the same start is dropped.
func (r *rooms) note(now time.Time, x Room) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.heard[x.Node]; ok && was.Boot == x.Boot && x.Sequence <= was.Sequence || !ok && len(r.heard) >= MaxNodes {
		return
	}
	if r.heard == nil {
		r.heard = map[string]heardRoom{}
	}
	r.heard[x.Node] = heardRoom{x, now}
	r.countLocked()
}

// forget drops what keep does not name, and what is too old.
func (r *rooms) forget(now time.Time, keep func(node string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.heard, func(node string, x heardRoom) bool { return !keep(node) || now.Sub(x.at) > roomFor })
	r.countLocked()
}

func (r *rooms) countLocked() {
	n := int64(0)
	for _, x := range r.heard {
		if x.Short && !mutant.On("followers-disks-ignored") {
			n++
		}
	}
	r.shorts.Store(n)
}

// list returns what is known of every other node.
func (r *rooms) list() map[string]Room {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]Room, len(r.heard))
	for node, x := range r.heard {
		out[node] = x.Room
	}
	return out
}

// Short returns the nodes that have told lately that they lack room on their disks; nil where none has. It costs nothing
// then.
func (p *Prober) Short() map[string]Room {
	if p.rooms.shorts.Load() == 0 {
		return nil
	}
	out := p.rooms.list()
	maps.DeleteFunc(out, func(_ string, r Room) bool { return !r.Short })
	return out
}

// tellRoom tells the others of this node's disk, now and then and whenever it falls short or no longer does.
func (p *Prober) tellRoom(sequence uint64, names []string, peers map[string]string) {
	if p.o.Room == nil {
		return
	}
	r := Room{Identity: p.identity, Boot: p.boot, Sequence: sequence, Node: p.o.Node}
	r.Free, r.Floor, r.Short = p.o.Room()
	if r.Short == p.toldShort && sequence%roomEach != 1 {
		return
	}
	p.toldShort = r.Short
	raw := r.Append(nil)
	for _, name := range names {
		if a := p.mu.addresses[name]; a.name == peers[name] && a.at.IsValid() {
			_, _ = p.conn.WriteTo(raw, net.UDPAddrFromAddrPort(a.at)) // or the next one
		}
	}
}

// hearRoom takes a datagram that is a Room.
func (p *Prober) hearRoom(raw []byte) error {
	r, err := DecodeRoom(raw)
	if err == nil && (r.Identity != p.identity || p.o.Peers()[r.Node] == "") {
		err = errStranger
	}
	if err == nil {
		p.rooms.note(time.Now(), r)
	}
	return err
}
