package processor

import (
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/watershed-db/watershed/crdt"
)

// Batch gathers what records contribute to one shard: a cell for each slot they touched. It is not safe for concurrent
// use.
type Batch struct {
	schema *crdt.Schema
	table  []uint64 // open addressing, a power of two: the hash's high half and index+1 into slots; 0 where free
	slots  []entry
	keys   []byte // current block of the entries' keys
	bytes  int
	grows  bool // cells grow beyond their first size
}

type entry struct {
	hash uint64
	slot crdt.Slot
	cell *crdt.Cell
	size int // of the cell when it was last measured
}

const (
	entrySize  = 80       // of an entry and its part of the table, in bytes
	keyBlock   = 64 << 10 // keys are copied into blocks of this size
	tableStart = 64
	keepSlots  = 1024 // so many slots are kept for the next content, however few this one had
	// measureEach is how many records a cell takes between two measurements, but for its first ones.
	measureEach = 16
)

// NewBatch returns an empty batch of cells of that schema.
func NewBatch(s *crdt.Schema) *Batch {
	b := &Batch{schema: s, table: make([]uint64, tableStart)}
	for _, op := range s.Ops {
		b.grows = b.grows || op != crdt.OpRecords && op != crdt.OpCount
	}
	return b
}

// Len returns the number of slots touched.
func (b *Batch) Len() int { return len(b.slots) }

// Size returns about how many bytes of memory the batch takes.
func (b *Batch) Size() int { return b.bytes }

// Fold adds the record that o counted last.
func (b *Batch) Fold(o *Operator) {
	e := b.entry(o.slot)
	o.Fold(e.cell)
	// Measuring costs as much as folding: a cell that holds much is measured now and then.
	if n := e.cell.Records; b.grows && (n < measureEach || n%measureEach == 0) {
		b.measure(e)
	}
}

func (b *Batch) measure(e *entry) {
	size := e.cell.Size()
	b.bytes += size - e.size
	e.size = size
}

// Merge adds a delta, whose cell must be of the batch's schema. It keeps nothing of it.
func (b *Batch) Merge(d crdt.Delta) error {
	e := b.entry(d.Slot)
	if err := e.cell.MergeEncoded(d.Cell); err != nil {
		return fmt.Errorf("merge delta: %w", err)
	}
	if b.grows {
		b.measure(e)
	}
	return nil
}

// entry returns the entry of a slot, a new one if the batch has none. The slot's key is copied. It is valid until the
// next.
func (b *Batch) entry(s crdt.Slot) *entry {
	h := xxh3.HashSeed(s.Key, uint64(s.Time)*0x9e3779b97f4a7c15+uint64(s.Class))
	mask := uint64(len(b.table) - 1)
	i := h & mask
	for ; b.table[i] != 0; i = (i + 1) & mask {
		if t := b.table[i]; t>>32 == h>>32 {
			e := &b.slots[uint32(t)-1]
			if e.slot.Time == s.Time && e.slot.Class == s.Class && string(e.slot.Key) == string(s.Key) {
				return e
			}
		}
	}
	c := crdt.NewCell(b.schema)
	s.Key = b.keep(s.Key)
	b.slots = append(b.slots, entry{h, s, c, c.Size()})
	b.table[i] = h>>32<<32 | uint64(len(b.slots))
	b.bytes += entrySize + len(s.Key) + c.Size()
	if len(b.slots)*4 > len(b.table)*3 {
		b.grow()
	}
	return &b.slots[len(b.slots)-1]
}

// keep copies a key into the current block.
func (b *Batch) keep(key []byte) []byte {
	if len(b.keys)+len(key) > cap(b.keys) {
		b.keys = make([]byte, 0, max(keyBlock, len(key)))
	}
	start := len(b.keys)
	b.keys = append(b.keys, key...)
	return b.keys[start:len(b.keys):len(b.keys)]
}

func (b *Batch) grow() {
	b.table = make([]uint64, 2*len(b.table))
	mask := uint64(len(b.table) - 1)
	for k := range b.slots {
		i := b.slots[k].hash & mask
		for b.table[i] != 0 {
			i = (i + 1) & mask
		}
		b.table[i] = b.slots[k].hash>>32<<32 | uint64(k+1)
	}
}

// Drain returns the batch's content in slot order and empties the batch.
func (b *Batch) Drain() []crdt.Delta {
	slices.SortFunc(b.slots, func(x, y entry) int { return crdt.CompareSlots(x.slot, y.slot) })
	deltas := make([]crdt.Delta, len(b.slots))
	ends := make([]int, len(b.slots))
	cells := make([]byte, 0, 24*len(b.slots))
	for i := range b.slots {
		cells = b.slots[i].cell.AppendTo(cells)
		ends[i] = len(cells)
	}
	start := 0
	for i, end := range ends {
		deltas[i] = crdt.Delta{Slot: b.slots[i].slot, Cell: cells[start:end:end]}
		start = end
	}
	b.Reset()
	return deltas
}

// Reset empties the batch. What Drain returned before stays valid.
func (b *Batch) Reset() {
	if len(b.slots) == 0 {
		return
	}
	if cap(b.slots) > max(4*len(b.slots), keepSlots) {
		b.slots, b.table = nil, make([]uint64, tableStart)
	}
	clear(b.slots)
	clear(b.table)
	b.slots, b.keys, b.bytes = b.slots[:0], nil, 0
}
