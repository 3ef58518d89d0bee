package keyspace

import (
	"bytes"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
)

// Writes is what one applied command changes, in the order of the calls. It keeps its arguments' bytes without copying
// until Store.Apply, which copies what it keeps, has returned. The zero Writes with an Index is ready.
type Writes struct {
	// Index is the command's index in the replicated log: above that of every command applied before.
	Index uint64
	// Chain is the hash chain over the logical writes and effects of all commands up to this one.
	Chain crdt.Hash

	ops []write
}

type writeKind uint8

const (
	writeAdd writeKind = iota
	writeCut
	writeDropGeneration
	writePut
	writeDelete
	writeDeleteRange
)

// write is one call. Its fields mean what its kind says.
type write struct {
	kind       writeKind
	copy       Copy
	deltas     []crdt.Delta
	cut        int64
	key, value []byte // value is the bound of a writeDeleteRange
}

// Add merges encoded cells into slots of a copy. Cells come from outside validated (crdt.ValidateCell).
func (w *Writes) Add(c Copy, deltas []crdt.Delta) {
	if len(deltas) > 0 {
		w.ops = append(w.ops, write{kind: writeAdd, copy: c, deltas: deltas})
	}
}

// Cut deletes the slots of a copy whose time is at or below the horizon.
func (w *Writes) Cut(c Copy, horizon int64) {
	w.ops = append(w.ops, write{kind: writeCut, copy: c, cut: horizon})
}

// DropCopy deletes all slots of a copy.
func (w *Writes) DropCopy(c Copy) { w.Cut(c, crdt.MaxTime) }

// DropGeneration deletes all slots of all copies of a generation.
func (w *Writes) DropGeneration(g crdt.GenerationID) {
	w.ops = append(w.ops, write{kind: writeDropGeneration, copy: Copy{Generation: g}})
}

// Put sets a small value. key is a MetaKey or an OutKey.
func (w *Writes) Put(key, value []byte) {
	w.ops = append(w.ops, write{kind: writePut, key: key, value: value})
}

// Delete deletes a small value, if it is there. key is a MetaKey or an OutKey.
func (w *Writes) Delete(key []byte) {
	w.ops = append(w.ops, write{kind: writeDelete, key: key})
}

// DeleteRange deletes the small values whose keys are in [from, to). Both are of one kind, MetaKey or OutKey.
func (w *Writes) DeleteRange(from, to []byte) {
	w.ops = append(w.ops, write{kind: writeDeleteRange, key: from, value: to})
}

// Reset empties w for the next command and keeps its memory.
func (w *Writes) Reset(index uint64) {
	clear(w.ops)
	*w = Writes{Index: index, ops: w.ops[:0]}
}

// check finds what Apply must not meet half way: keys of other kinds or that are too long.
func (w *Writes) check() error {
	for i := range w.ops {
		op := &w.ops[i]
		switch op.kind {
		case writeAdd, writeCut:
			if len(op.copy.Group) > maxGroup {
				return fmt.Errorf("%w: group of %d bytes", ErrKey, len(op.copy.Group))
			}
			for j := range op.deltas {
				if n := len(op.deltas[j].Slot.Key); n > MaxUserKey {
					return fmt.Errorf("%w: user key of %d bytes, at most %d", ErrKey, n, MaxUserKey)
				}
			}
		case writePut, writeDelete:
			if !isMeta(op.key) {
				return fmt.Errorf("%w: %x is not for small values", ErrKey, op.key)
			}
		case writeDeleteRange:
			if !isMeta(op.key) || bytes.Compare(op.value, []byte{op.key[0] + 1}) > 0 {
				return fmt.Errorf("%w: %x..%x is no range of small values", ErrKey, op.key, op.value)
			}
		}
	}
	return nil
}
