package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// preface is the first frame of every connection between nodes. Version 2:
//
//	offset  size  what
//	0       4     "WSRP"; "WSTP" where files of snapshots are to follow, which older builds don't take for a first frame
//	4       1     version
//	5       2     length of the rest, big-endian, at most maxPrefaceBody
//	7       4     shard, big-endian
//	11            deployment, region, node: each one byte of length and as many bytes
//	end-4   4     CRC-32C of the above, big-endian
//
// The listener answers with one byte, a verdict, before anything else is sent; where that is refusedVersion, with its own
// version behind it. All that follows travels in frames.
type preface struct {
	Deployment string
	Region     string
	Node       string // who dials
	Shard      uint32
	Kind       prefaceKind
}

// prefaceKind says what follows the first frame.
type prefaceKind byte

const (
	prefaceRaft   prefaceKind = iota // Raft's own messages
	prefaceTables                    // files of a snapshot, see tables.go
)

var prefaceMagics = [...]string{prefaceRaft: "WSRP", prefaceTables: "WSTP"}

const (
	prefaceVersion = 2
	prefaceHeader  = 7
	maxPrefaceBody = 4 + 3*(1+MaxName) + 4
)

// verdict is the listener's answer to a preface.
type verdict byte

const (
	accepted verdict = iota
	refusedVersion
	refusedFrame
	refusedDeployment
	refusedRegion
	refusedShard // not served here, or not yet
	refusedNode  // the one who dials was removed from the region
)

// String says why in a few words.
func (v verdict) String() string {
	switch v {
	case accepted:
		return "accepted"
	case refusedVersion:
		return "another protocol version"
	case refusedFrame:
		return "not a valid first frame"
	case refusedDeployment:
		return "another deployment"
	case refusedRegion:
		return "another region"
	case refusedShard:
		return "shard is not served here"
	case refusedNode:
		return "the node was removed from the region"
	default:
		return fmt.Sprintf("verdict %d", byte(v))
	}
}

var (
	errPreface        = errors.New("not a valid first frame")
	errPrefaceVersion = errors.New("another protocol version")
)

// appendTo appends the frame. The names must have at most MaxName bytes, as Config.Validate sees to.
func (p preface) appendTo(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, prefaceMagics[p.Kind]...)
	dst = append(dst, prefaceVersion)
	length := len(dst)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, p.Shard)
	for _, name := range [...]string{p.Deployment, p.Region, p.Node} {
		dst = append(dst, byte(len(name)))
		dst = append(dst, name...)
	}
	binary.BigEndian.PutUint16(dst[length:], uint16(len(dst)-length-2+4))
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// readPreface reads one frame and not a byte more. What is wrong with the bytes is errPreface or errPrefaceVersion.
func readPreface(r io.Reader) (preface, error) {
	var header [prefaceHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return preface{}, fmt.Errorf("read first frame: %w", err)
	}
	kind := slices.Index(prefaceMagics[:], string(header[:4]))
	if kind < 0 {
		return preface{}, errPreface
	}
	if header[4] != prefaceVersion {
		return preface{}, fmt.Errorf("%w: it speaks %d, this node %d", errPrefaceVersion, header[4], prefaceVersion)
	}
	size := int(binary.BigEndian.Uint16(header[5:]))
	if size < 8 || size > maxPrefaceBody {
		return preface{}, errPreface
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return preface{}, fmt.Errorf("read first frame: %w", err)
	}
	sum := crc32.Update(crc32.Checksum(header[:], castagnoli), castagnoli, body[:size-4])
	if sum != binary.BigEndian.Uint32(body[size-4:]) {
		return preface{}, errPreface
	}
	p := preface{Shard: binary.BigEndian.Uint32(body), Kind: prefaceKind(kind)}
	body = body[4 : size-4]
	for _, name := range [...]*string{&p.Deployment, &p.Region, &p.Node} {
		if len(body) == 0 || int(body[0]) > MaxName || len(body) < 1+int(body[0]) {
			return preface{}, errPreface
		}
		n := 1 + int(body[0])
		*name, body = string(body[1:n]), body[n:]
	}
	if len(body) != 0 {
		return preface{}, errPreface
	}
	return p, nil
}
