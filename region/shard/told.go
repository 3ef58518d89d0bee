package shard

import (
	"bytes"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/keyspace/table"
)

// MaxTables bounds the tables that are live at a time.
const MaxTables = 1024

// LiveTable is a live table.
type LiveTable struct {
	ID  table.ID
	Def table.Def
}

// RegisterTable enters a table into the registry. Only where the own region owns shard 0.
type RegisterTable struct {
	Epoch uint64 // of the owner
	File  []byte
	Def   table.Def // what the file says
}

// UnregisterTable takes a table out of the registry, with all its values.
type UnregisterTable struct {
	Epoch uint64
	Name  string
}

// TellTables tells the shard which tables are live, as the region's registry stood at an entry about a table. What the shard
// was told at a later one stays. A table that is not among them any more goes, with all its rows.
type TellTables struct {
	At   table.ID    // of the registry's last entry about a table
	Live []LiveTable // ascending by id
}

func (*RegisterTable) kind() Kind   { return KindRegisterTable }
func (*UnregisterTable) kind() Kind { return KindUnregisterTable }
func (*TellTables) kind() Kind      { return KindTellTables }

func blankTold(k Kind) Command {
	switch k {
	case KindRegisterTable:
		return &RegisterTable{}
	case KindUnregisterTable:
		return &UnregisterTable{}
	case KindTellTables:
		return &TellTables{}
	}
	return blankTable(k)
}

func (a *applier) dispatchTold(c Command) (known bool) {
	switch c := c.(type) {
	case *RegisterTable:
		a.tableApply(c)
	case *UnregisterTable:
		a.tableDrop(c)
	case *TellTables:
		a.tellTables(c)
	default:
		return false
	}
	return true
}

func appendDef(b []byte, d table.Def) []byte {
	b = append(appendString(b, d.Name), byte(d.Type), byte(d.Durability))
	return appendUvarint(appendUvarint(b, uint64(d.TTL)), uint64(d.MaxBytes))
}

func (r *reader) def() (d table.Def) {
	d.Name, d.Type, d.Durability = r.string(table.MaxName), table.Type(r.byte()), table.Durability(r.byte())
	d.TTL, d.MaxBytes = int64(r.uvarint(1<<63-1)), int(r.uvarint(table.MaxValueBytes))
	if r.err != nil {
		return table.Def{}
	}
	if err := d.Check(); err != nil {
		r.fail("%v", err)
	}
	return d
}

func (c *RegisterTable) appendBody(b []byte) []byte {
	return appendDef(appendBytes(appendUvarint(b, c.Epoch), c.File), c.Def)
}

func (c *RegisterTable) readBody(r *reader) {
	c.Epoch, c.File, c.Def = r.uint64(), r.bytes(table.MaxFileBytes), r.def()
}

func (c *UnregisterTable) appendBody(b []byte) []byte {
	return appendString(appendUvarint(b, c.Epoch), c.Name)
}

func (c *UnregisterTable) readBody(r *reader) { c.Epoch, c.Name = r.uint64(), r.string(MaxName) }

func (c *TellTables) appendBody(b []byte) []byte {
	b = appendUvarint(append(b, c.At[:]...), uint64(len(c.Live)))
	for _, t := range c.Live {
		b = appendDef(append(b, t.ID[:]...), t.Def)
	}
	return b
}

func (c *TellTables) readBody(r *reader) {
	c.At = r.hash16()
	last := table.ID{}
	for i, n := 0, r.count(MaxTables); i < n && r.err == nil; i++ {
		t := LiveTable{r.hash16(), r.def()}
		if i > 0 && bytes.Compare(last[:], t.ID[:]) >= 0 || bytes.Compare(t.ID[:], c.At[:]) > 0 {
			r.fail("tables out of order")
		}
		last = t.ID
		c.Live = append(c.Live, t)
	}
}

// TableID returns the id of the table that the entry is about.
func (e *Entry) TableID() table.ID { return table.ID(e.Generation) }

// Tables lists the live tables by name, each as it was added.
func (r *Registry) Tables() []Entry {
	list := make([]Entry, 0, len(r.tables))
	for _, name := range slices.Sorted(maps.Keys(r.tables)) {
		list = append(list, r.tables[name])
	}
	return list
}

// Table returns a live table.
func (r *Registry) Table(name string) (Entry, bool) {
	e, ok := r.tables[name]
	return e, ok
}

// TellTables returns what shards are to be told of tables, nil where there is nothing to tell yet.
func (r *Registry) TellTables() *TellTables {
	if r.tableAt == (table.ID{}) {
		return nil
	}
	c := &TellTables{At: r.tableAt}
	for _, e := range r.tables {
		c.Live = append(c.Live, LiveTable{e.TableID(), e.Table})
	}
	slices.SortFunc(c.Live, func(a, b LiveTable) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return c
}

// enterTable takes an entry about a table; the registry must be a clone.
func (r *Registry) enterTable(e Entry) {
	r.tableAt = table.IDOf(e.Epoch, e.Position)
	if e.Op == TableAdded {
		r.tables[e.Name] = e
	} else {
		delete(r.tables, e.Name)
	}
}

// ownsRegistry ends the command where this is not the shard and region that write the registry.
func (a *applier) ownsRegistry() bool {
	if a.holdsRegistry() && !a.st.Owns() {
		a.end(Elsewhere, "another region owns the registry")
	}
	return a.cfg.Shard == 0 && a.st.Owns()
}

func (a *applier) tableApply(c *RegisterTable) {
	if !a.ownsRegistry() {
		return
	}
	r := a.st.registry
	live, there := r.tables[c.Def.Name]
	switch {
	case there && live.Table != c.Def:
		a.res.Generation = live.Generation
		a.end(Refused, "the table's meaning has changed")
	case there:
		a.res.Generation = live.Generation
		a.end(Duplicate, "")
	case len(r.tables) >= MaxTables:
		a.end(Refused, "there are %d tables, and no more may be", MaxTables)
	default:
		r = a.editRegistry()
		e := Entry{Epoch: c.Epoch, Position: r.Position() + 1, Op: TableAdded, Name: c.Def.Name, File: bytes.Clone(c.File), Table: c.Def}
		e.Generation = GenerationOf(e.Epoch, e.Position)
		a.enter(r, e)
		a.res.Generation = e.Generation
		a.end(Applied, "")
	}
}

func (a *applier) tableDrop(c *UnregisterTable) {
	if !a.ownsRegistry() {
		return
	}
	live, ok := a.st.registry.tables[c.Name]
	if !ok {
		a.end(Duplicate, "there is no such table")
		return
	}
	r := a.editRegistry()
	live.Epoch, live.Position, live.Op, live.File = c.Epoch, r.Position()+1, TableDropped, nil
	a.enter(r, live)
	a.res.Generation = live.Generation
	a.end(Applied, "")
}

// ToldTables are the tables that a shard was told of. It is immutable.
type ToldTables struct {
	at   table.ID
	live map[table.ID]table.Def
}

// At returns how far the shard was told: every table of this id or a lower one is live or was dropped.
func (t *ToldTables) At() table.ID { return t.at }

// Behind reports whether the shard has yet to be told of an entry that a registry has about a table.
func (t *ToldTables) Behind(r *Registry) bool { return bytes.Compare(t.at[:], r.tableAt[:]) < 0 }

// Get returns a live table. A write to any other is refused, not guessed at (rules A10).
func (t *ToldTables) Get(id table.ID) (table.Def, bool) {
	d, ok := t.live[id]
	return d, ok
}

// Dropped reports whether a table was dropped. One that is neither live nor dropped, the shard has yet to be told of.
func (t *ToldTables) Dropped(id table.ID) bool {
	_, live := t.live[id]
	return !live && bytes.Compare(id[:], t.at[:]) <= 0
}

// Live lists the live tables, ascending by id.
func (t *ToldTables) Live() []LiveTable {
	list := make([]LiveTable, 0, len(t.live))
	for id, d := range t.live {
		list = append(list, LiveTable{id, d})
	}
	slices.SortFunc(list, func(a, b LiveTable) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return list
}

func toldKey(id table.ID) []byte { return name(nameTold, id[:]) }

// tellTables takes the list of live tables. Whoever keeps rows of tables on the shard clears those of one that was dropped
// here, in the same command.
func (a *applier) tellTables(c *TellTables) {
	told := a.st.told
	if bytes.Compare(c.At[:], told.at[:]) <= 0 {
		a.end(Duplicate, "")
		return
	}
	next := &ToldTables{at: c.At, live: make(map[table.ID]table.Def, len(c.Live))}
	for _, t := range c.Live {
		if d, ok := told.live[t.ID]; ok && d != t.Def || !ok && told.Dropped(t.ID) {
			a.end(Malformed, "table %s is another than was told", t.ID)
			return
		}
		next.live[t.ID] = t.Def
	}
	for _, t := range c.Live {
		if _, known := told.live[t.ID]; !known {
			a.w.set(toldKey(t.ID), appendDef([]byte{metaVersion}, t.Def))
		}
	}
	for _, t := range told.Live() {
		if _, live := next.live[t.ID]; !live {
			a.w.set(toldKey(t.ID), nil)
		}
	}
	a.w.set(name(nameTold), append([]byte{metaVersion}, c.At[:]...))
	a.clearTables(told, next)
	a.st.told = next
	a.end(Applied, "")
}

// tellTable loads what the shard was told of tables.
func (l *loader) tellTable(name, value *reader) {
	value.version()
	t := l.st.told
	if len(name.b) == 0 {
		t.at = value.hash16()
		return
	}
	if t.live == nil {
		t.live = map[table.ID]table.Def{}
	}
	t.live[name.hash16()] = value.def()
}
