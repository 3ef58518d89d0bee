package keyspace

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/watershed-db/watershed/crdt"
)

// table is a stretch of commands held in memory: what they added and deleted since the table before it. While it is
// active one goroutine writes to it; frozen, it never changes again but for what is derived from it at the first read.
//
// Deletions are kept apart from what was added: everything a table holds is newer than its own deletions, which speak
// of older tables and the database only.
type table struct {
	first, last uint64 // applied indexes of its commands; both 0 while it is empty
	chain       crdt.Hash
	bytes       int64 // held, roughly

	copies  map[Copy]*copyTable
	dropped map[crdt.GenerationID]struct{}
	meta    metaTable
	arena   arena
}

// copyTable is what a table holds of one copy.
type copyTable struct {
	isCut bool
	cut   int64 // older slots at or below this time are deleted, if isCut
	times map[int64]*timeTable
}

// timeTable is what a table holds of one copy's slots of one time. It may be shared by frozen tables.
type timeTable struct {
	index   map[string]int32 // slot keys' tails -> entry; nil if the entries are in order
	entries []entry
	bytes   int64

	mu    sync.Mutex // guards, once frozen, order and the entries' cell and enc
	order []int32    // entries in the order of their tails, made at the first read
}

// entry is the sum of what a table's commands added to a slot.
type entry struct {
	tail   string
	lo, hi uint64     // applied indexes of the first and the last of them
	enc    []byte     // the encoded sum, if cell is nil
	cell   *crdt.Cell // the sum, once there are two to add
}

// Rough sizes of what holds an entry, in bytes, with its share of maps and slices.
const (
	entryBytes = 120
	cellBytes  = 200
	metaBytes  = 100
)

func newTable() *table {
	return &table{copies: map[Copy]*copyTable{}, dropped: map[crdt.GenerationID]struct{}{}, meta: newMetaTable()}
}

func (t *table) isEmpty() bool { return t.last == 0 }

// apply folds a command in. Its keys must have been checked. After an error the table is spoilt.
func (t *table) apply(w *Writes) error {
	if t.first == 0 {
		t.first = w.Index
	}
	t.last, t.chain = w.Index, w.Chain
	for i := range w.ops {
		op := &w.ops[i]
		switch op.kind {
		case writeAdd:
			c := t.copyTable(op.copy)
			for j := range op.deltas {
				if err := t.add(c, &op.deltas[j], w.Index); err != nil {
					return fmt.Errorf("add to slot %d/%x of %s: %w", op.deltas[j].Slot.Time, op.deltas[j].Slot.Key, op.copy, err)
				}
			}
		case writeCut:
			t.cutCopy(op.copy, op.cut)
		case writeDropGeneration:
			t.dropGeneration(op.copy.Generation)
		case writePut:
			t.bytes += t.meta.set(op.key, metaOp{value: t.arena.copy(op.value)})
		case writeDelete:
			t.bytes += t.meta.set(op.key, metaOp{deleted: true})
		case writeDeleteRange:
			t.bytes += t.meta.deleteRange(op.key, op.value)
		}
	}
	return nil
}

func (t *table) copyTable(c Copy) *copyTable {
	ct := t.copies[c]
	if ct == nil {
		ct = &copyTable{times: map[int64]*timeTable{}}
		t.copies[c] = ct
		t.bytes += entryBytes
	}
	return ct
}

func (t *table) add(c *copyTable, d *crdt.Delta, index uint64) error {
	tt := c.times[d.Slot.Time]
	if tt == nil {
		tt = newTimeTable()
		c.times[d.Slot.Time] = tt
		t.bytes += entryBytes
	}
	var room [64]byte
	tail := appendTail(room[:0], d.Slot)
	grown := int64(0)
	if i, ok := tt.index[string(tail)]; ok {
		e := &tt.entries[i]
		if e.cell == nil {
			cell, err := crdt.DecodeCell(e.enc)
			if err != nil {
				return err
			}
			e.cell, e.enc = cell, nil
			grown += cellBytes
		}
		if err := e.cell.MergeEncoded(d.Cell); err != nil {
			return err
		}
		e.hi = index
		grown += int64(len(d.Cell))
	} else {
		key := t.arena.copy(tail)
		s := unsafe.String(unsafe.SliceData(key), len(key)) // the arena never writes a byte twice
		tt.index[s] = int32(len(tt.entries))
		tt.entries = append(tt.entries, entry{tail: s, lo: index, hi: index, enc: t.arena.copy(d.Cell)})
		grown += entryBytes + int64(len(tail)+len(d.Cell))
	}
	tt.bytes += grown
	t.bytes += grown
	return nil
}

// cutCopy deletes the slots at or below a time.
func (t *table) cutCopy(c Copy, at int64) {
	ct := t.copyTable(c)
	for time, tt := range ct.times {
		if time <= at {
			t.bytes -= tt.bytes
			delete(ct.times, time)
		}
	}
	if !ct.isCut || ct.cut < at {
		ct.isCut, ct.cut = true, at
	}
}

func (t *table) dropGeneration(g crdt.GenerationID) {
	for c, ct := range t.copies {
		if c.Generation != g {
			continue
		}
		for _, tt := range ct.times {
			t.bytes -= tt.bytes
		}
		delete(t.copies, c)
	}
	t.dropped[g] = struct{}{}
	t.bytes += entryBytes
}

// hides reports whether t deletes what older tables and the database hold in a slot.
func (t *table) hides(c Copy, time int64) bool {
	if _, ok := t.dropped[c.Generation]; ok {
		return true
	}
	ct := t.copies[c]
	return ct != nil && ct.isCut && time <= ct.cut
}

// slot returns what t added to a slot.
func (t *table) slot(c Copy, time int64, tail []byte) (o operand, ok bool) {
	ct := t.copies[c]
	if ct == nil {
		return o, false
	}
	tt := ct.times[time]
	if tt == nil {
		return o, false
	}
	i, ok := tt.find(tail)
	if !ok {
		return o, false
	}
	return tt.operand(i), true
}

// find returns the number of the entry with a tail.
func (tt *timeTable) find(tail []byte) (i int32, ok bool) {
	if tt.index != nil {
		i, ok = tt.index[string(tail)]
		return i, ok
	}
	at, ok := slices.BinarySearchFunc(tt.entries, unsafe.String(unsafe.SliceData(tail), len(tail)),
		func(e entry, tail string) int { return strings.Compare(e.tail, tail) })
	return int32(at), ok
}

func newTimeTable() *timeTable { return &timeTable{index: map[string]int32{}} }

// operand returns entry i of a frozen table. The cell's bytes never change.
func (tt *timeTable) operand(i int32) operand {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	e := &tt.entries[i]
	if e.cell != nil {
		e.enc, e.cell = e.cell.AppendTo(nil), nil
	}
	return operand{e.lo, e.hi, e.enc}
}

// sorted returns the numbers of a frozen table's entries in the order of their tails.
func (tt *timeTable) sorted() []int32 {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	if tt.order == nil {
		tt.order = make([]int32, len(tt.entries))
		for i := range tt.order {
			tt.order[i] = int32(i)
		}
		if tt.index == nil {
			return tt.order
		}
		slices.SortFunc(tt.order, func(a, b int32) int {
			return strings.Compare(tt.entries[a].tail, tt.entries[b].tail)
		})
	}
	return tt.order
}

// arena hands out copies of small byte strings from big pieces. It never writes a byte twice.
type arena struct{ free []byte }

const arenaPiece = 32 << 10

func (a *arena) copy(b []byte) []byte {
	if len(b) > arenaPiece/8 {
		return bytes.Clone(b)
	}
	if len(b) > cap(a.free)-len(a.free) {
		a.free = make([]byte, 0, arenaPiece)
	}
	n := len(a.free)
	a.free = append(a.free, b...)
	return a.free[n:len(a.free):len(a.free)]
}
