package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
)

// load reads the state that a store holds.
func load(cfg *Config, v *keyspace.View) (*State, error) {
	st := newState()
	st.Index, st.Chain = v.Index(), v.Chain()
	format, known, err := v.Get(formatKey())
	if err != nil {
		return nil, err
	}
	if st.Format, err = readFormat(format, known); err != nil {
		return nil, err
	}
	id, known, err := v.Get(identityKey())
	if err != nil {
		return nil, err
	}
	if known != (st.Index > 0) {
		return nil, fmt.Errorf("%w: index %d, but identity %q", ErrState, st.Index, id)
	}
	if known && !bytes.Equal(id, cfg.identity()) {
		return nil, fmt.Errorf("%w: it is of another shard, region or set of regions than shard %d of %d in %s of %s",
			ErrState, cfg.Shard, cfg.Shards, cfg.Self, cfg.Regions)
	}
	own, known, err := v.Get(ownKey())
	if err != nil {
		return nil, err
	}
	if st.own, err = readOwnership(cfg, own, known, st.Index); err != nil {
		return nil, err
	}
	st.restored = st.own.Incarnation != cfg.founding().Incarnation
	reach, known, err := v.Get(reachKey())
	if err != nil {
		return nil, err
	}
	if known {
		r := reader{b: reach}
		r.version()
		st.Unreachable = r.regions()
		if err := r.done(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	l := loader{st: st, v: v}
	l.scan(nameGeneration, l.generation)
	l.scan(nameGroup, l.group)
	l.scan(nameStanding, l.standing)
	l.scan(nameDirty, l.dirty)
	st.registry = st.registry.clone()
	l.scan(nameEntry, l.entry)
	l.scan(nameDecided, l.decided)
	l.scan(nameStopped, l.stopped)
	l.scan(nameNote, l.note)
	l.scan(nameTold, l.tellTable)
	l.loadTables()
	for _, g := range st.generations {
		g.Outbox.note()
	}
	for _, list := range st.registry.decided {
		slices.SortFunc(list, func(a, b Decided) int { return crdt.CompareSources(a.Source, b.Source) })
	}
	for _, list := range st.registry.stopped {
		slices.SortFunc(list, func(a, b Stopped) int { return crdt.CompareSources(a.Source, b.Source) })
	}
	return st, l.err
}

// loader builds a state from the store's small values, kind by kind. Its first error stays.
type loader struct {
	st  *State
	v   *keyspace.View
	err error
}

// scan hands f each value of a kind, by what its name has behind the kind.
func (l *loader) scan(kind byte, f func(name, value *reader)) { l.scanName(name(kind), f) }

// scanName hands f each value whose name begins with prefix, by what it has behind that.
func (l *loader) scanName(prefix []byte, f func(name, value *reader)) {
	if l.err != nil {
		return
	}
	from, to := prefixRange(prefix)
	err := l.v.Scan(from, to, func(key, value []byte) bool {
		n, v := &reader{b: bytes.Clone(key[len(from):])}, &reader{b: bytes.Clone(value)}
		f(n, v)
		if err := errors.Join(n.done(), v.done()); err != nil {
			l.err = fmt.Errorf("%w: record %q: %w", ErrState, key, err)
		}
		return l.err == nil
	})
	l.err = errors.Join(l.err, err)
}

func (l *loader) generation(name, value *reader) {
	g := &Generation{ID: name.hash16(), groups: map[crdt.RegionID]*group{}}
	g.Outbox.marks = newMarks()
	g.readHead(value)
	file, _, err := l.v.Get(fileKey(g.ID))
	if err == nil && value.err == nil {
		g.Job, err = job.Parse(g.Name, bytes.Clone(file))
	}
	if err != nil {
		value.fail("file of generation %x: %v", g.ID, err)
	}
	l.st.generations[g.ID] = g
}

// of returns the generation that a name begins with.
func (l *loader) of(name *reader) *Generation {
	g := l.st.generations[name.hash16()]
	if g == nil {
		name.fail("of no generation")
		g = &Generation{groups: map[crdt.RegionID]*group{}, Outbox: Outbox{marks: newMarks()}}
	}
	return g
}

func (l *loader) group(name, value *reader) {
	g, grp := l.of(name), &group{}
	grp.readHead(value)
	g.groups[crdt.RegionID(name.rest())] = grp
}

func (l *loader) standing(name, value *reader) {
	g := l.of(name)
	st := Standing{Source: name.source()}
	st.read(value)
	grp := g.groups[st.Source.Region]
	if grp == nil {
		name.fail("of no group")
		return
	}
	grp.put(st)
}

func (l *loader) dirty(name, value *reader) {
	g := l.of(name)
	var end [8]byte
	copy(end[:], name.take(8))
	k := markKey{int64(binary.BigEndian.Uint64(end[:]) ^ 1<<63), string(name.rest())}
	g.Outbox.marks.put(k, value.uint64())
}

func (l *loader) entry(name, value *reader) {
	e := value.entry()
	name.take(8)
	if r := l.st.registry; value.err == nil && e.Position == r.Position()+1 {
		r.enter(e)
		return
	}
	value.fail("registry entry %d out of order", e.Position)
}

func (l *loader) decided(name, value *reader) {
	id := crdt.GenerationID(name.hash16())
	d := Decided{SourcePoint: SourcePoint{Source: name.source()}}
	d.read(value)
	l.st.registry.decided[id] = append(l.st.registry.decided[id], d)
}

func (l *loader) stopped(name, value *reader) {
	id := crdt.GenerationID(name.hash16())
	x := Stopped{name.source(), string(value.rest())}
	l.st.registry.stopped[id] = append(l.st.registry.stopped[id], x)
}
