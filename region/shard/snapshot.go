package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace"
)

// Snapshot is a shard's state, slots and small values at one applied index. It never changes; any number of goroutines
// may read it. It must be closed by one of them, after all have done so.
type Snapshot struct {
	*State
	cfg    *Config
	view   *keyspace.View
	closed func() // tells the machine
}

// ErrUnknownGeneration marks a read of a generation that the shard does not hold.
var ErrUnknownGeneration = errors.New("the shard does not hold this generation")

// Close lets go of the snapshot.
func (s *Snapshot) Close() error {
	defer s.closed()
	return s.view.Close()
}

// Slots calls each with the slots of a group whose times are in [from, to], in the order of time, key, class, until it
// returns false. Its arguments are valid during the call.
func (s *Snapshot) Slots(g *Generation, group crdt.RegionID, from, to int64,
	each func(slot crdt.Slot, cell []byte) bool) (err error) {
	it, err := s.view.Iter(g.current(group), from, to)
	if err != nil {
		return fmt.Errorf("scan slots: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		if !each(it.Slot(), it.Cell()) {
			break
		}
	}
	return nil
}

// DirtyMarks lists the dirty marks of a generation in order of window end and key, at most limit.
func (s *Snapshot) DirtyMarks(g *Generation, limit int) ([]DirtyMark, error) {
	var list []DirtyMark
	var bad error
	from, to := prefixRange(name(nameDirty, g.ID[:]))
	err := s.view.Scan(from, to, func(key, value []byte) bool {
		index, n := binary.Uvarint(value)
		if rest := key[len(from):]; n > 0 && len(rest) >= 8 && len(list) < limit {
			end := int64(binary.BigEndian.Uint64(rest) ^ 1<<63)
			list = append(list, DirtyMark{end, append([]byte{}, rest[8:]...), index})
			return true
		}
		if n <= 0 {
			bad = fmt.Errorf("%w: dirty mark %x", ErrState, key)
		}
		return false
	})
	return list, errors.Join(err, bad)
}

// Stood reports whether the shard has stood at a mark of a source, as far back as marks are kept: false does not say
// that it has not. It confirms lower points (rules A5).
func (s *Snapshot) Stood(g *Generation, sm SourceMark) (bool, error) {
	st, ok := g.Standing(sm.Source)
	if !ok || sm.Mark.Offset > st.Point.Offset {
		return false, nil
	}
	first := st.Kept - min(st.Kept, KeptMarks)
	var err error
	at := func(n uint64) (m crdt.Mark) {
		if err != nil {
			return m
		}
		value, found, e := s.view.Get(keptKey(g.ID, sm.Source, n))
		if err = e; err == nil && !found {
			err = fmt.Errorf("%w: mark %d of %v is missing", ErrState, n, sm.Source)
		}
		if err == nil {
			r := reader{b: value}
			m = r.mark()
			err = r.done()
		}
		return m
	}
	kept := int(st.Kept - first)
	i := sort.Search(kept, func(i int) bool { return at(first+uint64(i)).Offset >= sm.Mark.Offset })
	if err != nil || i == kept {
		return false, err
	}
	return at(first+uint64(i)) == sm.Mark, err
}

// Out is a command that other regions want, by its index in the shard's log.
type Out struct {
	Index uint64
	Kind  OutKind
	Actor table.Actor // OutTable: whose entry the command is
	Mark  table.Mark  // and where that one's history stands after it
}

// append appends all but the index.
func (o Out) append(b []byte) []byte {
	if b = append(b, byte(o.Kind)); o.Kind != OutTable {
		return b
	}
	return appendTableMark(appendUvarint(b, uint64(o.Actor)), o.Mark)
}

func readOut(index uint64, value []byte) (Out, error) {
	r := reader{b: value}
	o := Out{Index: index, Kind: OutKind(r.byte())}
	if o.Kind == OutTable {
		o.Actor, o.Mark = r.actor(), r.tableMark()
	}
	return o, r.done()
}

// OutAfter lists, in order, at most limit of the commands above an index that other regions want. Complete is false
// where markers that far back are gone: then the group's state is to be taken.
func (s *Snapshot) OutAfter(index uint64, limit int) (list []Out, complete bool, err error) {
	if s.Index > KeptOut && index < s.Index-KeptOut {
		return nil, false, nil
	}
	err = s.view.Scan(keyspace.OutKey(index+1), keyspace.OutKey(s.Index+1), func(key, value []byte) bool {
		if len(list) == limit {
			return false
		}
		i, e := keyspace.ParseOutKey(key)
		out, e2 := readOut(i, value)
		if e = errors.Join(e, e2); e != nil {
			err = fmt.Errorf("%w: out marker %x: %w", ErrState, key, e)
			return false
		}
		list = append(list, out)
		return true
	})
	return list, true, err
}
