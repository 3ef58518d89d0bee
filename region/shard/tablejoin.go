package shard

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt/table"
)

// Bounds of what a copy of tables is taken by.
const (
	MaxTableJoined = 14 << 20 // bytes of a value in a TableChunk: what regions hold of one between them
	maxChunkRows   = 1 << 16
	maxParts       = 1 << 20 // chunks of a copy
)

// TableRow is a value of a copy as it is stored there.
type TableRow struct {
	Row   []byte // RowName
	Value []byte // as crdt/table writes it
}

// TableStage opens a copy beside the shard's own, to be filled by chunks; one that was open before is dropped. The
// result's Copy is its number. It is refused while an adopted one is being merged.
type TableStage struct{}

// TableChunk adds values to the copy beside, or a part of its sessions. Chunks are numbered from 0 and taken each once, in
// order.
type TableChunk struct {
	Copy, Number uint32
	Rows         []TableRow // in order of their names
	Sessions     []byte     // encoded table.Sessions; nil for none
}

// TableAdopt takes a filled copy in, with the marks and the floor that speak of it: from here on a key's value is the join
// of what both copies hold.
type TableAdopt struct {
	Copy, Chunks uint32
	Floor        int64
	Marks        table.Marks
}

// TableMerge makes one of what both copies hold of the next keys: all from From up to To, or to the end. Keys are those
// that either holds.
type TableMerge struct {
	Copy     uint32
	From, To []byte // names of rows: From as Beside.Merged says, To is merged with it
	End      bool   // To is the last
	Keys     [][]byte
}

// TableAbandon drops the copy beside, if it has that number and was not adopted.
type TableAbandon struct{ Copy uint32 }

func (a *applier) tableStage(*TableStage) {
	if x := a.st.tables.Beside; x != nil && x.Adopted {
		a.end(Refused, "copy %d is being merged", x.Copy)
		return
	}
	a.unstageTables()
	t := a.setHead()
	t.copies++
	t.Beside = &Beside{Copy: t.copies}
	a.res.Copy = t.copies
	a.end(Applied, "")
}

// unstageTables drops what the copy beside holds, if there is one.
func (a *applier) unstageTables() {
	if a.st.tables.Beside == nil {
		return
	}
	a.setHead().Beside = nil
	for _, kind := range []byte{tableBeside, tablePart} {
		a.w.clear(prefixRange(tableName(kind)))
	}
}

// staging returns the copy that is being filled, if it has a number; nil after it has ended the command.
func (a *applier) staging(copy uint32) *Beside {
	x := a.st.tables.Beside
	if x == nil || x.Copy != copy || x.Adopted {
		a.end(Refused, "copy %d is not open", copy)
		return nil
	}
	return x
}

func (a *applier) tableChunk(c *TableChunk) {
	x := a.staging(c.Copy)
	switch {
	case x == nil:
		return
	case c.Number < x.Chunks:
		a.end(Duplicate, "")
		return
	case c.Number > x.Chunks:
		a.end(Refused, "chunk %d is missing", x.Chunks)
		return
	}
	for _, row := range c.Rows {
		if !a.st.told.Dropped(TableID(row.Row[:16])) {
			a.w.set(tableName(tableBeside, row.Row), row.Value)
		}
	}
	if c.Sessions != nil {
		a.w.set(partKey(c.Number), c.Sessions)
	}
	next := *x
	next.Chunks++
	a.setHead().Beside = &next
	a.end(Applied, "")
}

func (a *applier) tableAbandon(c *TableAbandon) {
	if x := a.st.tables.Beside; x == nil || x.Copy != c.Copy || x.Adopted {
		a.end(Duplicate, "")
		return
	}
	a.unstageTables()
	a.end(Applied, "")
}

func (a *applier) tableAdopt(c *TableAdopt) {
	x := a.staging(c.Copy)
	switch {
	case x == nil:
		return
	case x.Chunks != c.Chunks:
		a.end(Refused, "copy %d has %d chunks, not %d", x.Copy, x.Chunks, c.Chunks)
		return
	case a.st.tables.Marks.Covers(c.Marks) && c.Floor <= a.st.tables.sessions.Floor():
		a.unstageTables()
		a.end(Duplicate, "")
		return
	}
	t := a.setHead()
	next := *x
	next.Adopted, next.Own, next.Theirs = true, t.sessions.Floor(), c.Floor
	t.Beside = &next
	a.raiseTables(c.Floor)
	for i := range x.Chunks {
		if b, ok := a.rows.get(partKey(i)); ok {
			a.joinSessions(b)
		}
	}
	a.w.clear(prefixRange(tableName(tablePart)))
	marks := table.Marks{}
	marks.Join(t.Marks)
	marks.Join(c.Marks)
	for _, actor := range slices.Sorted(maps.Keys(c.Marks)) {
		a.w.set(markKeyOf(actor), table.Marks{actor: marks[actor]}.Append(nil))
	}
	t.Marks = marks
	a.end(Applied, "")
}

// joinSessions adds a part of another copy's sessions. Those below the floor are complete.
func (a *applier) joinSessions(b []byte) {
	t := a.editTables()
	part, err := table.DecodeSessions(b)
	if err != nil {
		a.rows.fail(fmt.Errorf("%w: sessions of the copy beside: %w", ErrState, err))
		return
	}
	part.Raise(t.sessions.Floor())
	before := map[table.SessionID]string{}
	for id := range part.All() {
		before[id] = string(t.sessions.AppendOne(nil, id))
		t.Beyond -= t.sessions.Beyond(id)
	}
	t.sessions.Join(part)
	for id := range part.All() {
		t.Beyond += t.sessions.Beyond(id)
		if after := t.sessions.AppendOne(nil, id); string(after) != before[id] {
			a.w.set(sessionKey(id), after)
		}
	}
}

func (a *applier) tableMerge(c *TableMerge) {
	t := a.st.tables
	x := t.Beside
	if x == nil || x.Copy != c.Copy || !x.Adopted || !bytes.Equal(x.Merged, c.From) {
		a.end(Refused, "copy %d is not merged up to there", c.Copy)
		return
	}
	values := make([]table.Value, len(c.Keys))
	for i, row := range c.Keys {
		values[i] = a.merged(x, row)
	}
	next := *x
	next.Merged = append(bytes.Clone(c.To), 0)
	from := tableName(tableBeside, c.From)
	a.w.clear(from, tableName(tableBeside, next.Merged))
	t = a.setHead()
	t.Beside = &next
	if c.End {
		a.unstageTables()
	}
	for i, row := range c.Keys {
		if v := values[i]; v != nil {
			v.Fold(t.sessions)
			a.setValue(row, v)
		}
	}
	a.end(Applied, "")
}

// merged returns what both copies hold of a row, nil where neither does any more.
func (a *applier) merged(x *Beside, row []byte) table.Value {
	var r tableRow
	r.own, r.inOwn = a.rows.get(tableName(tableValue, row))
	r.beside, r.inBeside = a.rows.get(tableName(tableBeside, row))
	of, ok := table.TypeOf(r.own)
	if !ok {
		of, ok = table.TypeOf(r.beside)
	}
	if !ok {
		return nil
	}
	v, _, err := joinRows(of, a.st.tables, x, r)
	if err != nil {
		a.rows.fail(fmt.Errorf("%w: value %x: %w", ErrState, row, err))
		return nil
	}
	return v
}
