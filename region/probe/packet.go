package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/zeebo/xxh3"
)

// Standing is how one group stands on one node.
type Standing struct {
	Shard     uint32
	Term      uint64 // the term the node is at
	LastTerm  uint64 // of the last entry of its log
	LastIndex uint64
	Voters    int    // of the group
	Votes     bool   // the node is a voter of the group
	Follows   bool   // the node waits for a leader to tell it something; not in packets
	Leads     bool   // the node believes that it leads
	Leader    string // the member that leads, as far as the node knows
	Lost      bool   // the leader that the node knows, if any, does not serve: what Tick finds
}

// View is what a node has seen of another.
type View struct {
	Node string
	Dead bool
}

// Packet is what a node tells the others. Its wire format, version 1: numbers are varints but for the fixed ones, which
// are big-endian; a name is one byte of length and as many bytes.
//
//	4 bytes   "WSPB"
//	1         version
//	8         identity of deployment and region
//	8         boot: differs from start to start
//	varint    sequence: rises while the node runs
//	1         1 where the node's disk has stalled, else 0
//	name      of the sender
//	varint    number of views; each a name and one byte, 1 for dead
//	varint    number of standings; each shard, term, last term, last index, voters, flags, leader: 0 for none, 1 for the
//	          sender, else 2 + the place among the views
//	4         CRC-32C of the above
type Packet struct {
	Identity uint64
	Boot     uint64
	Sequence uint64
	Stalled  bool
	Node     string
	Views    []View
	Groups   []Standing
}

const (
	magic = "WSPB"
	// Version is that of packets.
	Version = 1

	// MaxNodes and MaxGroups bound what a packet may name; MaxName bounds the bytes of a node's name.
	MaxNodes  = 64
	MaxGroups = 1024
	MaxName   = 128
	// MaxPacket is more than the longest packet takes that Append makes of sane numbers, and less than a datagram holds.
	MaxPacket = 60 << 10
)

const (
	flagVotes = 1 << iota
	flagLeads
	flagLost
	flagsAll = flagVotes | flagLeads | flagLost
)

var (
	// ErrPacket says that the bytes are no packet.
	ErrPacket = errors.New("not a valid probe")
	// ErrVersion says that a packet is of a version that this build does not read.
	ErrVersion = errors.New("probe of another version")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Identity tells the probes of one region from those of others.
func Identity(deployment, region string) uint64 {
	return xxh3.HashString(fmt.Sprintf("%d %s %s", len(deployment), deployment, region))
}

// Append appends the packet's bytes. A leader that is none of the views is left out.
func (p *Packet) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(append(dst, magic...), Version)
	dst = binary.BigEndian.AppendUint64(dst, p.Identity)
	dst = binary.BigEndian.AppendUint64(dst, p.Boot)
	dst = binary.AppendUvarint(dst, p.Sequence)
	dst = append(dst, asByte(p.Stalled))
	dst = appendName(dst, p.Node)
	dst = binary.AppendUvarint(dst, uint64(len(p.Views)))
	for _, v := range p.Views {
		dst = append(appendName(dst, v.Node), asByte(v.Dead))
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.Groups)))
	for i := range p.Groups {
		g := &p.Groups[i]
		for _, n := range [...]uint64{uint64(g.Shard), g.Term, g.LastTerm, g.LastIndex, uint64(g.Voters)} {
			dst = binary.AppendUvarint(dst, n)
		}
		dst = append(dst, asByte(g.Votes)*flagVotes|asByte(g.Leads)*flagLeads|asByte(g.Lost)*flagLost)
		dst = binary.AppendUvarint(dst, p.place(g.Leader))
	}
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

func (p *Packet) place(leader string) uint64 {
	switch leader {
	case "":
		return 0
	case p.Node:
		return 1
	}
	for i, v := range p.Views {
		if v.Node == leader {
			return uint64(i) + 2
		}
	}
	return 0
}

func asByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendName(dst []byte, name string) []byte {
	return append(append(dst, byte(len(name))), name...)
}

// Decode reads a whole datagram. Its errors are ErrPacket and ErrVersion, which says both versions.
func Decode(raw []byte) (Packet, error) {
	const fixed = len(magic) + 1
	if len(raw) < fixed+4 || len(raw) > MaxPacket || string(raw[:len(magic)]) != magic {
		return Packet{}, ErrPacket
	}
	if v := raw[len(magic)]; v != Version {
		return Packet{}, fmt.Errorf("%w: %d, this build reads %d", ErrVersion, v, Version)
	}
	body, sum := raw[:len(raw)-4], binary.BigEndian.Uint32(raw[len(raw)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return Packet{}, fmt.Errorf("%w: checksum", ErrPacket)
	}
	d := decoder{rest: body[fixed:]}
	p := Packet{Identity: d.fixed(), Boot: d.fixed(), Sequence: d.number(1<<64 - 1), Stalled: d.byte(1) == 1, Node: d.name()}
	for range d.number(MaxNodes) {
		p.Views = append(p.Views, View{Node: d.name(), Dead: d.byte(1) == 1})
	}
	for range d.number(MaxGroups) {
		p.Groups = append(p.Groups, d.standing(&p))
	}
	if d.bad || len(d.rest) != 0 || p.Node == "" {
		return Packet{}, ErrPacket
	}
	return p, nil
}

// decoder reads from rest; once something was wrong it is bad for good, and gives zeros.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad, d.rest = true, nil
		return make([]byte, n)
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) fixed() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

func (d *decoder) byte(most byte) byte {
	b := d.take(1)[0]
	d.bad = d.bad || b > most
	return b
}

func (d *decoder) number(most uint64) uint64 {
	n, size := binary.Uvarint(d.rest)
	if d.bad || size <= 0 || n > most {
		d.bad = true
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) name() string {
	n := int(d.byte(MaxName))
	if d.bad {
		return ""
	}
	return string(d.take(n))
}

func (d *decoder) standing(p *Packet) Standing {
	const all = 1<<64 - 1
	g := Standing{
		Shard: uint32(d.number(1<<32 - 1)), Term: d.number(all), LastTerm: d.number(all), LastIndex: d.number(all),
		Voters: int(d.number(MaxNodes)),
	}
	flags := d.byte(flagsAll)
	g.Votes, g.Leads, g.Lost = flags&flagVotes != 0, flags&flagLeads != 0, flags&flagLost != 0
	switch place := d.number(uint64(len(p.Views)) + 1); {
	case place == 1:
		g.Leader = p.Node
	case place > 1:
		g.Leader = p.Views[place-2].Node
	}
	return g
}
