package shard

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/processor/job"
)

// EntryOp says what a registry entry did.
type EntryOp uint8

// What registry entries do. The numbers are on disk.
const (
	JobAdded   EntryOp = iota + 1 // a new generation: its id is the entry's (Epoch, Position)
	JobUpdated                    // another file of the same meaning
	JobDeleted
	TableAdded // a new table: its id is the entry's (Epoch, Position)
	TableDropped
)

// Entry is one entry of the registry, in the order of the owner region's shard 0. Entries are immutable.
type Entry struct {
	Epoch, Position uint64 // Position counts from 1 without gaps
	Op              EntryOp
	Generation      crdt.GenerationID // which one it is about, or which table by the bytes of its id
	Name            string
	File            []byte
	Table           table.Def // of an entry about a table; what follows is of jobs alone
	Meaning         [32]byte
	Pinned          []job.Pinned
}

// GenerationOf returns the id of the generation that the entry at (epoch, position) began (rules A10).
func GenerationOf(epoch, position uint64) (id crdt.GenerationID) {
	binary.BigEndian.PutUint64(id[:8], epoch)
	binary.BigEndian.PutUint64(id[8:], position)
	return id
}

// AppendTo appends the entry's encoding.
func (e Entry) AppendTo(b []byte) []byte {
	b = append(appendUvarint(appendUvarint(b, e.Epoch), e.Position), byte(e.Op))
	b = appendString(append(b, e.Generation[:]...), e.Name)
	b = appendBytes(b, e.File)
	if e.Op == TableAdded || e.Op == TableDropped {
		return appendDef(b, e.Table)
	}
	return appendPins(append(b, e.Meaning[:]...), e.Pinned)
}

// DecodeEntry takes one whole encoded entry. It shares no bytes with b. It fails with ErrCommand.
func DecodeEntry(b []byte) (Entry, error) {
	r := reader{b: bytes.Clone(b)}
	e := r.entry()
	return e, r.done()
}

func (r *reader) entry() (e Entry) {
	e.Epoch, e.Position, e.Op = r.uint64(), r.uint64(), EntryOp(r.byte())
	if e.Op < JobAdded || e.Op > TableDropped {
		r.fail("registry entry of kind %d", e.Op)
	}
	e.Generation, e.Name, e.File = r.hash16(), r.string(MaxName), r.bytes(MaxFile)
	if e.Op == TableAdded || e.Op == TableDropped {
		if e.Table = r.def(); e.Table.Name != e.Name {
			r.fail("an entry of table %q about %q", e.Table.Name, e.Name)
		}
		return e
	}
	e.Meaning, e.Pinned = r.hash32(), r.pins()
	return e
}

// Stopped is a source that its region has stopped.
type Stopped struct {
	Source crdt.Source
	Reason string
}

// Registry is a region's copy of the registry and what the region itself has recorded beside it. It is immutable once
// handed out; callers change nothing in it.
type Registry struct {
	entries []Entry
	live    map[string]Entry // name to the entry as it stands: file of the last update, Generation of the first
	decided map[crdt.GenerationID][]Decided
	stopped map[crdt.GenerationID][]Stopped
	tables  map[string]Entry // the live ones by name, each as it was added
	tableAt table.ID         // of the last entry about a table
}

// Position returns the position of the last entry, 0 before the first.
func (r *Registry) Position() uint64 { return uint64(len(r.entries)) }

// After lists the entries above a position.
func (r *Registry) After(position uint64) []Entry {
	return r.entries[min(position, r.Position()):]
}

// Jobs lists the live jobs by name, each as its last entry left it.
func (r *Registry) Jobs() []Entry {
	list := make([]Entry, 0, len(r.live))
	for _, name := range slices.Sorted(maps.Keys(r.live)) {
		list = append(list, r.live[name])
	}
	return list
}

// Live returns how many jobs are live.
func (r *Registry) Live() int { return len(r.live) }

// Job returns a live job.
func (r *Registry) Job(name string) (Entry, bool) {
	e, ok := r.live[name]
	return e, ok
}

// Decided lists the own region's sources of a generation with their first points, in source order (rules A2).
func (r *Registry) Decided(id crdt.GenerationID) []Decided { return r.decided[id] }

// Stopped lists the stopped sources of a generation, in source order.
func (r *Registry) Stopped(id crdt.GenerationID) []Stopped { return r.stopped[id] }

func (r *Registry) clone() *Registry {
	c := &Registry{slices.Clip(r.entries), maps.Clone(r.live), maps.Clone(r.decided), maps.Clone(r.stopped),
		maps.Clone(r.tables), r.tableAt}
	if c.live == nil {
		c.live = map[string]Entry{}
	}
	if c.decided == nil {
		c.decided = map[crdt.GenerationID][]Decided{}
	}
	if c.stopped == nil {
		c.stopped = map[crdt.GenerationID][]Stopped{}
	}
	if c.tables == nil {
		c.tables = map[string]Entry{}
	}
	return c
}

// enter appends an entry; the registry must be a clone.
func (r *Registry) enter(e Entry) {
	r.entries = append(r.entries, e)
	switch e.Op {
	case JobAdded, JobUpdated:
		r.live[e.Name] = e
	case JobDeleted:
		delete(r.live, e.Name)
		delete(r.decided, e.Generation)
		delete(r.stopped, e.Generation)
	case TableAdded, TableDropped:
		r.enterTable(e)
	}
}

// holdsRegistry ends the command where this shard is not the registry's.
func (a *applier) holdsRegistry() bool {
	if a.cfg.Shard != 0 {
		a.end(Malformed, "the registry is on shard 0")
	}
	return a.cfg.Shard == 0
}

func (a *applier) enter(r *Registry, e Entry) {
	r.enter(e)
	a.w.set(entryKey(e.Position), e.AppendTo(nil))
	if e.Op == JobDeleted {
		a.w.clear(prefixRange(decidedKey(e.Generation, nil)))
		a.w.clear(prefixRange(stoppedKey(e.Generation, nil)))
	}
}

func (a *applier) jobApply(c *JobApply) {
	if !a.holdsRegistry() {
		return
	}
	if !a.st.Owns() {
		a.end(Elsewhere, "another region owns the registry")
		return
	}
	r := a.editRegistry()
	e := Entry{Epoch: c.Epoch, Position: r.Position() + 1, Op: JobAdded, Name: c.Name, File: bytes.Clone(c.File),
		Meaning: c.Meaning, Pinned: c.Pinned}
	e.Generation = GenerationOf(e.Epoch, e.Position)
	if live, ok := r.live[c.Name]; ok {
		a.res.Generation = live.Generation
		switch {
		case live.Meaning != c.Meaning:
			a.end(Refused, "the job's meaning has changed")
			return
		case bytes.Equal(live.File, c.File):
			a.end(Duplicate, "")
			return
		}
		e.Op, e.Generation, e.Pinned = JobUpdated, live.Generation, live.Pinned
	}
	a.enter(r, e)
	a.res.Generation = e.Generation
	a.end(Applied, "")
}

func (a *applier) jobDelete(c *JobDelete) {
	if !a.holdsRegistry() {
		return
	}
	if !a.st.Owns() {
		a.end(Elsewhere, "another region owns the registry")
		return
	}
	r := a.editRegistry()
	live, ok := r.live[c.Name]
	if !ok {
		a.end(Duplicate, "there is no such job")
		return
	}
	live.Epoch, live.Position, live.Op, live.File = c.Epoch, r.Position()+1, JobDeleted, nil
	a.enter(r, live)
	a.res.Generation = live.Generation
	a.end(Applied, "")
}

func (a *applier) registryCopy(c *RegistryCopy) {
	if !a.holdsRegistry() {
		return
	}
	if a.st.Owns() {
		a.end(Refused, "this region owns the registry")
		return
	}
	next := a.st.registry.Position() + 1
	fresh := slices.Clone(c.Entries)
	fresh = slices.DeleteFunc(fresh, func(e Entry) bool { return e.Position < next })
	if len(fresh) == 0 {
		a.end(Duplicate, "")
		return
	}
	for i, e := range fresh {
		if e.Position != next+uint64(i) {
			a.end(Refused, "entry %d is missing", next+uint64(i))
			return
		}
	}
	r := a.editRegistry()
	for _, e := range fresh {
		e.File = bytes.Clone(e.File)
		a.enter(r, e)
	}
	a.end(Applied, "")
}

func (a *applier) sourcesDecided(c *SourcesDecided) {
	if !a.holdsRegistry() {
		return
	}
	r := a.editRegistry()
	list, known := slices.Clone(r.decided[c.Generation]), len(r.decided[c.Generation])
	var mismatched []crdt.Source
	for _, d := range c.Sources {
		i, ok := slices.BinarySearchFunc(list, d.Source, func(x Decided, s crdt.Source) int {
			return crdt.CompareSources(x.Source, s)
		})
		switch {
		case d.Source.Region != a.cfg.Self:
			a.end(Malformed, "%v is not of this region", d.Source)
			return
		case !ok:
			list = slices.Insert(list, i, d)
		case list[i].Point != d.Point:
			mismatched = append(mismatched, d.Source)
			a.res.Points = append(a.res.Points, list[i].SourcePoint)
		}
	}
	switch {
	case !slices.ContainsFunc(r.Jobs(), func(e Entry) bool { return e.Generation == c.Generation }):
		a.unknown()
	case len(mismatched) > 0:
		a.end(Mismatch, "begun at another point")
		a.res.Sources = mismatched
	case len(list) == known:
		a.end(Duplicate, "")
	default:
		r.decided[c.Generation] = list
		for _, d := range list { // one that was there stays as it was decided
			a.w.set(decidedKey(c.Generation, &d.Source), d.append(nil))
		}
		a.end(Applied, "")
	}
}

func (a *applier) sourceStopped(c *SourceStopped) {
	if !a.holdsRegistry() {
		return
	}
	r := a.editRegistry()
	list := slices.Clone(r.stopped[c.Generation])
	i, ok := slices.BinarySearchFunc(list, c.Source, func(x Stopped, s crdt.Source) int {
		return crdt.CompareSources(x.Source, s)
	})
	if ok {
		a.end(Duplicate, "")
		return
	}
	r.stopped[c.Generation] = slices.Insert(list, i, Stopped{c.Source, c.Reason})
	a.w.set(stoppedKey(c.Generation, &c.Source), []byte(c.Reason))
	a.end(Applied, "")
}
