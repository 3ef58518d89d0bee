package shard

import (
	"encoding/binary"

	"github.com/watershed-db/watershed/crdt"
)

// Writes is what one command does to the store: first the drops and clears, then the additions and sets. The store
// takes it whole, in one batch with the command's index, or not at all.
type Writes struct {
	Drops  []Drop
	Clears []Clear
	Adds   []Add
	Sets   []Set
}

// Drop removes slots of a generation.
type Drop struct {
	Generation crdt.GenerationID
	All        bool          // all of the generation; nothing below counts
	Group      crdt.RegionID // else of one copy of one group:
	Copy       uint32
	UpTo       int64 // slots whose Time is at or below it; crdt.MaxTime for all
}

// Add merges cells into one copy of a group.
type Add struct {
	Generation crdt.GenerationID
	Group      crdt.RegionID
	Copy       uint32
	Deltas     []crdt.Delta
}

// Clear removes small values whose keys are in [From, To).
type Clear struct{ From, To []byte }

// Set stores a small value; nil removes it.
type Set struct{ Key, Value []byte }

func (w *Writes) set(key, value []byte) { w.Sets = append(w.Sets, Set{key, value}) }

func (w *Writes) clear(from, to []byte) { w.Clears = append(w.Clears, Clear{from, to}) }

// appendTo appends a form of the writes that the hash chain covers, beside the command itself: of added cells, which are
// the command's own bytes, only where they go and how many the horizon left.
func (w *Writes) appendTo(b []byte) []byte {
	for _, d := range w.Drops {
		b = appendString(appendBool(append(append(b, 'd'), d.Generation[:]...), d.All), string(d.Group))
		b = binary.BigEndian.AppendUint64(appendUvarint(b, uint64(d.Copy)), uint64(d.UpTo))
	}
	for _, c := range w.Clears {
		b = appendBytes(appendBytes(append(b, 'c'), c.From), c.To)
	}
	for _, a := range w.Adds {
		b = appendString(append(append(b, 'a'), a.Generation[:]...), string(a.Group))
		b = appendUvarint(appendUvarint(b, uint64(a.Copy)), uint64(len(a.Deltas)))
	}
	for _, s := range w.Sets {
		b = appendBytes(appendBytes(append(b, 's'), s.Key), s.Value)
	}
	return b
}
