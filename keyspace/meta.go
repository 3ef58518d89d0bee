package keyspace

import (
	"bytes"
	"maps"
	"slices"
	"sync"
)

// metaTable is what a table holds of small values. Deletions of ranges are kept beside the values, each with a number
// that says which of the values came after it: so deleting a range costs nothing in the number of values.
type metaTable struct {
	ops  map[string]metaOp
	cuts []metaCut
	seq  uint64

	derived *metaOrder
}

// metaOp is the last thing done to a key: a value set, or the key deleted.
type metaOp struct {
	value   []byte
	deleted bool
	seq     uint64
}

// metaCut is a deletion of the keys in [from, to).
type metaCut struct {
	from, to []byte
	seq      uint64
}

func (c *metaCut) covers(key string) bool { return string(c.from) <= key && key < string(c.to) }

// metaOrder holds a frozen metaTable's keys in order, made at the first scan.
type metaOrder struct {
	once sync.Once
	keys []string
}

func newMetaTable() metaTable { return metaTable{ops: map[string]metaOp{}, derived: new(metaOrder)} }

// set keeps op, and not key's bytes. It returns by how many bytes the table has grown.
func (m *metaTable) set(key []byte, op metaOp) int64 {
	m.seq++
	op.seq = m.seq
	old, ok := m.ops[string(key)]
	m.ops[string(key)] = op
	if ok {
		return int64(len(op.value) - len(old.value))
	}
	return metaBytes + int64(len(key)+len(op.value))
}

// deleteRange drops the earlier deletions that it covers. It returns by how many bytes the table has grown.
func (m *metaTable) deleteRange(from, to []byte) int64 {
	m.seq++
	grown := metaBytes + int64(len(from)+len(to))
	m.cuts = slices.DeleteFunc(m.cuts, func(c metaCut) bool {
		covered := bytes.Compare(from, c.from) <= 0 && bytes.Compare(c.to, to) <= 0
		if covered {
			grown -= metaBytes + int64(len(c.from)+len(c.to))
		}
		return covered
	})
	m.cuts = append(m.cuts, metaCut{bytes.Clone(from), bytes.Clone(to), m.seq})
	return grown
}

// hides reports whether a deletion of a range covers the key, whatever came after it.
func (m *metaTable) hides(key string) bool { return m.hiddenSince(key, 0) }

func (m *metaTable) hiddenSince(key string, seq uint64) bool {
	for i := range m.cuts {
		if m.cuts[i].seq > seq && m.cuts[i].covers(key) {
			return true
		}
	}
	return false
}

// get returns the last thing done to a key since the last deletion of a range that covers it.
func (m *metaTable) get(key string) (op metaOp, ok bool) {
	if op, ok = m.ops[key]; ok && m.hiddenSince(key, op.seq) {
		return metaOp{}, false
	}
	return op, ok
}

// lookup returns a copy of the value under a key, whether there is one, and whether the table knows that at all.
func (m *metaTable) lookup(key []byte) (value []byte, ok, known bool) {
	if op, ok := m.get(string(key)); ok {
		return append([]byte{}, op.value...), !op.deleted, true
	}
	return nil, false, m.hides(string(key))
}

// keys returns a frozen table's keys in [from, to), in order, with those that get no longer finds.
func (m *metaTable) keys(from, to []byte) []string {
	d := m.derived
	d.once.Do(func() { d.keys = slices.Sorted(maps.Keys(m.ops)) })
	lo, _ := slices.BinarySearch(d.keys, string(from))
	hi, _ := slices.BinarySearch(d.keys, string(to))
	return d.keys[lo:max(lo, hi)]
}

// fold adds what a newer frozen table holds.
func (m *metaTable) fold(newer *metaTable) {
	for _, c := range newer.cuts {
		m.deleteRange(c.from, c.to)
	}
	for key := range newer.ops {
		if op, ok := newer.get(key); ok {
			m.seq++
			op.seq = m.seq
			m.ops[key] = op
		}
	}
}

// clone returns a copy that can be written to.
func (m *metaTable) clone() metaTable {
	return metaTable{ops: maps.Clone(m.ops), cuts: slices.Clone(m.cuts), seq: m.seq, derived: new(metaOrder)}
}
