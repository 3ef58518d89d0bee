package log

import (
	"github.com/watershed-db/watershed/crdt"
)

// NoTimestamp is the Timestamp of a record whose log keeps none; whether such a record is implausible can't be judged.
const NoTimestamp = crdt.MinTime

// Record is one record of one partition. Its bytes (Key, Value, the headers and their values) belong to the reader that
// returned it and are valid until that reader's next Next, Read or Poll, or its Recycle or Close, whichever comes
// first: who keeps a record longer clones it.
type Record struct {
	// Offset is the record's place in its partition. Offsets rise, and may have gaps (transaction markers, aborted
	// records); in a file they are record numbers from 0.
	Offset int64
	// Timestamp is what the origin's log gave the record, in ms since the epoch, or NoTimestamp.
	Timestamp int64
	// Key and Value are nil where they are null, which is not the same as empty.
	Key, Value []byte
	// Headers are in the record's order.
	Headers []crdt.Header
	// Oversized says that the record is longer than its reader takes, and that Value holds no more than its beginning.
	// Such a record is invalid, whatever stands in it.
	Oversized bool
}

// Hash returns the hash of the record alone, as points carry it.
func (r *Record) Hash(h *crdt.Hasher) crdt.Hash {
	return h.Record(r.Offset, r.Timestamp, r.Key, r.Value, r.Headers)
}

// Clone returns a deep copy, which belongs to the caller.
func (r *Record) Clone() Record {
	c := *r
	c.Key, c.Value = cloneBytes(r.Key), cloneBytes(r.Value)
	if r.Headers != nil {
		c.Headers = make([]crdt.Header, len(r.Headers))
		for i, h := range r.Headers {
			c.Headers[i] = crdt.Header{Key: h.Key, Value: cloneBytes(h.Value)}
		}
	}
	return c
}

// cloneBytes keeps null apart from empty, as bytes.Clone does, and cuts the capacity to the length.
func cloneBytes(b []byte) []byte {
	if b == nil {
		return nil
	}
	c := make([]byte, len(b))
	copy(c, b)
	return c
}

// Reader reads one partition that has an end, in order.
type Reader interface {
	// Read fills dst with the next records and says how many it wrote: at least one if dst is not empty and err is
	// nil. At the end of the partition it returns 0 and io.EOF. Any other error means that the partition broke off
	// there; all records before that place have been returned by then. Not safe for concurrent use.
	Read(dst []Record) (n int, err error)
	// Close releases what the reader holds. It can be called twice.
	Close() error
}
