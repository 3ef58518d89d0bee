package keyspace

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/watershed-db/watershed/crdt"
)

// View is the state at one applied index. It never changes. Any number of goroutines may read from it at once; it must
// be closed, by one of them, after all have done so: an open View keeps old data on disk.
type View struct {
	tables []*table // frozen, newest first
	snap   *pebble.Snapshot
	engine *engine
	at     position
	closed func()
}

// View returns the state as it is now. It copies nothing and waits for no disk.
func (s *Store) View() (*View, error) {
	s.mu.Lock()
	if err := s.usableLocked(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	s.freezeLocked()
	frozen := s.mu.frozen
	fold := len(frozen)-s.mu.writing > foldAbove
	v := &View{snap: s.mu.engine.db.NewSnapshot(), engine: s.mu.engine.hold(), at: s.mu.applied, closed: s.views.Done}
	s.views.Add(1)
	s.mu.Unlock()

	// Between the writer's commit and its taking the tables away both hold the same: the snapshot says which it has.
	written, err := readPosition(v.snap)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open view: %w", err), v.Close())
	}
	for i := len(frozen) - 1; i >= 0 && frozen[i].last > written.index; i-- {
		v.tables = append(v.tables, frozen[i])
	}
	if n := len(v.tables); n > 0 && v.tables[n-1].first <= written.index {
		err := fmt.Errorf("%w: database at index %d, table from %d", ErrCorrupt, written.index, v.tables[n-1].first)
		return nil, errors.Join(err, v.Close())
	}
	if fold {
		s.foldFrozen()
	}
	return v, nil
}

// Close lets go of the View. It is called once.
func (v *View) Close() error {
	defer v.closed()
	return errors.Join(v.snap.Close(), v.engine.release())
}

// Index returns the applied index of the state.
func (v *View) Index() uint64 { return v.at.index }

// Chain returns the hash chain at Index.
func (v *View) Chain() crdt.Hash { return v.at.chain }

// Get returns a copy of the small value under a MetaKey or an OutKey, nil and false if there is none.
func (v *View) Get(key []byte) (value []byte, ok bool, err error) {
	if !isMeta(key) {
		return nil, false, fmt.Errorf("%w: %x is not for small values", ErrKey, key)
	}
	for _, t := range v.tables {
		if value, ok, known := t.meta.lookup(key); known {
			return value, ok, nil
		}
	}
	value, err = getCopy(v.snap, key)
	return value, value != nil, err
}

// Scan calls each with the small values whose keys are in [from, to), in the order of the keys, until it returns false.
// Both bounds are of one kind, MetaKey or OutKey. The arguments are valid during the call.
func (v *View) Scan(from, to []byte, each func(key, value []byte) bool) (err error) {
	if !isMeta(from) || bytes.Compare(to, []byte{from[0] + 1}) > 0 {
		return fmt.Errorf("%w: %x..%x is no range of small values", ErrKey, from, to)
	}
	over, keys := v.overlay(from, to)
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return fmt.Errorf("scan small values: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	ok := it.First()
	for ok || len(keys) > 0 {
		if len(keys) > 0 && (!ok || keys[0] <= string(it.Key())) {
			key := keys[0]
			keys = keys[1:]
			if ok && key == string(it.Key()) {
				ok = it.Next()
			}
			if op := over[key]; !op.deleted && !each([]byte(key), op.value) {
				return nil
			}
			continue
		}
		hidden := slices.ContainsFunc(v.tables, func(t *table) bool { return t.meta.hides(string(it.Key())) })
		if !hidden {
			value, err := it.ValueAndErr()
			if err != nil {
				return fmt.Errorf("scan small values: %w", err)
			}
			if !each(it.Key(), value) {
				return nil
			}
		}
		ok = it.Next()
	}
	return it.Error()
}

// overlay returns what the tables did last to the keys in [from, to), and those keys in order.
func (v *View) overlay(from, to []byte) (map[string]metaOp, []string) {
	over := map[string]metaOp{}
	for i, t := range v.tables {
		newer := v.tables[:i]
		for _, key := range t.meta.keys(from, to) {
			if _, done := over[key]; done {
				continue
			}
			op, ok := t.meta.get(key)
			if !ok || slices.ContainsFunc(newer, func(t *table) bool { return t.meta.hides(key) }) {
				continue
			}
			over[key] = op
		}
	}
	keys := make([]string, 0, len(over))
	for key := range over {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return over, keys
}

// Slot returns the encoded cell of a slot, false if there is none. The cell is not to be changed.
func (v *View) Slot(c Copy, s crdt.Slot) (cell []byte, ok bool, err error) {
	tail := appendTail(nil, s)
	var sum summing
	for _, t := range v.tables {
		if o, ok := t.slot(c, s.Time, tail); ok {
			sum.push(o)
		}
		if t.hides(c, s.Time) {
			return sum.result()
		}
	}
	value, err := getCopy(v.snap, AppendDataKey(nil, c, s))
	if err != nil {
		return nil, false, err
	}
	if value != nil {
		o, err := decodeOperand(value)
		if err != nil {
			return nil, false, err
		}
		sum.push(o)
	}
	return sum.result()
}

// summing merges what the layers of a View hold of one slot, newest first.
type summing struct {
	parts []operand
	buf   []byte
}

func (s *summing) push(o operand) { s.parts = append(s.parts, o) }

// result returns the encoded sum, valid until the next reset.
func (s *summing) result() (cell []byte, ok bool, err error) {
	switch len(s.parts) {
	case 0:
		return nil, false, nil
	case 1:
		return s.parts[0].cell, true, nil
	}
	for i, newer := range s.parts[:len(s.parts)-1] {
		if older := s.parts[i+1]; newer.lo <= older.hi {
			return nil, false, fmt.Errorf("%w: sums of indexes %d..%d and %d..%d overlap", ErrCorrupt,
				older.lo, older.hi, newer.lo, newer.hi)
		}
	}
	sum, err := crdt.DecodeCell(s.parts[0].cell)
	for _, o := range s.parts[1:] {
		if err == nil {
			err = sum.MergeEncoded(o.cell)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	s.buf = sum.AppendTo(s.buf[:0])
	return s.buf, true, nil
}

func (s *summing) reset() { s.parts = s.parts[:0] }
