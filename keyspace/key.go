package keyspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
)

// Rows of a shard's store, by the first byte of their keys:
//
//	's' name                                      the store's own: format, applied index and chain
//	'm' name                                      small values of the shard's state, named by their owner (MetaKey)
//	'o' raft index (8)                            what the shard keeps by applied index (OutKey)
//	'd' generation (16) | group | copy (4) | time (8) | user key | class (2)      slots
//
// Integers are big-endian. A group is a length byte and the region's name. A time has its sign bit inverted, so that
// byte order is time order. User keys of one generation are encodings of equally many values, each of which says where
// it ends, so none is a prefix of another and byte order is (time, key, class).
const (
	rowSystem byte = 's'
	rowMeta   byte = 'm'
	rowOut    byte = 'o'
	rowData   byte = 'd'
)

const (
	// MaxUserKey is the greatest length of an encoded user key in bytes.
	MaxUserKey = 16 << 10
	// maxGroup is the greatest length of a region's name.
	maxGroup = 63

	generationSize = len(crdt.GenerationID{})
	timeSize       = 8
	classSize      = 2
)

// ErrKey marks bytes that are no key of the store, or a name or user key that is too long for one.
var ErrKey = errors.New("malformed store key")

// Copy names one copy of one group's slots of one generation: what a state join fills and switches to (rules A5).
// It is comparable.
type Copy struct {
	Generation crdt.GenerationID
	Group      crdt.RegionID
	Number     uint32
}

// String returns generation/group/number for messages.
func (c Copy) String() string { return fmt.Sprintf("%x/%s/%d", c.Generation, c.Group, c.Number) }

// MetaKey returns the key of the small value that its owner calls name.
func MetaKey(name []byte) []byte { return append([]byte{rowMeta}, name...) }

// OutKey returns the key of the small value kept for a Raft index. Byte order is index order.
func OutKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte{rowOut}, index) }

// ParseOutKey returns the Raft index of an OutKey. It fails with ErrKey.
func ParseOutKey(key []byte) (uint64, error) {
	if len(key) != 9 || key[0] != rowOut {
		return 0, fmt.Errorf("%w: %x is no key by index", ErrKey, key)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

// isMeta reports whether key is of a kind that owners put and delete.
func isMeta(key []byte) bool { return len(key) > 0 && (key[0] == rowMeta || key[0] == rowOut) }

// appendGeneration appends what keys of all slots of a generation begin with.
func appendGeneration(b []byte, g crdt.GenerationID) []byte {
	return append(append(b, rowData), g[:]...)
}

// appendCopy appends what keys of all slots of a copy begin with.
func appendCopy(b []byte, c Copy) []byte {
	b = appendGeneration(b, c.Generation)
	b = append(b, byte(len(c.Group)))
	b = append(b, c.Group...)
	return binary.BigEndian.AppendUint32(b, c.Number)
}

// appendTime appends a time so that byte order is time order.
func appendTime(b []byte, t int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(t)^1<<63) }

func readTime(b []byte) int64 { return int64(binary.BigEndian.Uint64(b) ^ 1<<63) }

// appendTail appends what follows the time in a slot's key.
func appendTail(b []byte, s crdt.Slot) []byte {
	return binary.BigEndian.AppendUint16(append(b, s.Key...), s.Class)
}

// slotOfTail returns the slot at time whose key ends with tail. Its Key shares tail's bytes.
func slotOfTail(time int64, tail []byte) crdt.Slot {
	n := len(tail) - classSize
	return crdt.Slot{Time: time, Class: binary.BigEndian.Uint16(tail[n:]), Key: tail[:n:n]}
}

// AppendDataKey appends the key of a slot.
func AppendDataKey(b []byte, c Copy, s crdt.Slot) []byte {
	return appendTail(appendTime(appendCopy(b, c), s.Time), s)
}

// ParseDataKey takes a slot's key apart. The slot's Key shares key's bytes. It fails with ErrKey.
func ParseDataKey(key []byte) (c Copy, s crdt.Slot, err error) {
	bad := func() (Copy, crdt.Slot, error) {
		return Copy{}, crdt.Slot{}, fmt.Errorf("%w: %x is no key of a slot", ErrKey, key)
	}
	b := key
	if len(b) < 1+generationSize+1 || b[0] != rowData {
		return bad()
	}
	c.Generation = crdt.GenerationID(b[1:])
	n, b := int(b[1+generationSize]), b[1+generationSize+1:]
	if n > maxGroup || len(b) < n+4+timeSize+classSize || len(b) > n+4+timeSize+classSize+MaxUserKey {
		return bad()
	}
	c.Group, b = crdt.RegionID(b[:n]), b[n:]
	c.Number, b = binary.BigEndian.Uint32(b), b[4:]
	return c, slotOfTail(readTime(b), b[timeSize:]), nil
}

// successor returns the least key above all keys that begin with prefix, whose last byte is not 0xff throughout.
func successor(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	panic("keyspace: no key follows a prefix of 0xff only")
}
