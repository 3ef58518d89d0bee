package group

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// A key of the log store is the shard's number and the entry's index, both big-endian.
const (
	shardKeySize = 4
	logKeySize   = shardKeySize + 8
)

// A value of the log store, version 1:
//
//	offset  size     what
//	0       1        version
//	1       1        raft.LogType
//	2       8        term, big-endian
//	10      8        time the leader appended it, nanoseconds since 1970, big-endian; 0 for none
//	18      4        length of the extensions, big-endian
//	22      n        extensions
//	22+n    to end   data
const (
	logVersion    = 1
	logHeaderSize = 22
)

func appendShardKey(dst []byte, shard uint32) []byte {
	return binary.BigEndian.AppendUint32(dst, shard)
}

func appendLogKey(dst []byte, shard uint32, index uint64) []byte {
	return binary.BigEndian.AppendUint64(appendShardKey(dst, shard), index)
}

func logIndexOf(key []byte) (uint64, error) {
	if len(key) != logKeySize {
		return 0, fmt.Errorf("%w log key: %d bytes", ErrCorrupt, len(key))
	}
	return binary.BigEndian.Uint64(key[shardKeySize:]), nil
}

func logValueSize(entry *raft.Log) int {
	return logHeaderSize + len(entry.Extensions) + len(entry.Data)
}

// putLogValue writes the value of entry into dst, which has logValueSize bytes.
func putLogValue(dst []byte, entry *raft.Log) {
	dst[0], dst[1] = logVersion, byte(entry.Type)
	binary.BigEndian.PutUint64(dst[2:], entry.Term)
	var appended int64
	if !entry.AppendedAt.IsZero() {
		appended = entry.AppendedAt.UnixNano()
	}
	binary.BigEndian.PutUint64(dst[10:], uint64(appended))
	binary.BigEndian.PutUint32(dst[18:], uint32(len(entry.Extensions)))
	n := copy(dst[logHeaderSize:], entry.Extensions)
	copy(dst[logHeaderSize+n:], entry.Data)
}

// decodeLogValue fills entry, but for its index, with copies of what value holds.
func decodeLogValue(value []byte, entry *raft.Log) error {
	if len(value) < logHeaderSize {
		return fmt.Errorf("%w log entry: %d bytes", ErrCorrupt, len(value))
	}
	if err := checkVersion("log entry", int(value[0]), logVersion); err != nil {
		return err
	}
	extensions := uint64(binary.BigEndian.Uint32(value[18:]))
	rest := value[logHeaderSize:]
	if extensions > uint64(len(rest)) {
		return fmt.Errorf("%w log entry: extensions of %d bytes in %d", ErrCorrupt, extensions, len(rest))
	}
	entry.Type = raft.LogType(value[1])
	entry.Term = binary.BigEndian.Uint64(value[2:])
	entry.AppendedAt = time.Time{}
	if appended := int64(binary.BigEndian.Uint64(value[10:])); appended != 0 {
		entry.AppendedAt = time.Unix(0, appended)
	}
	entry.Extensions = nil
	if extensions > 0 {
		entry.Extensions = append([]byte(nil), rest[:extensions]...)
	}
	entry.Data = append([]byte(nil), rest[extensions:]...)
	return nil
}
