package shard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace"
	tabledef "github.com/watershed-db/watershed/keyspace/table"
)

// TableID names a table for ever.
type TableID = tabledef.ID

// Tables say what the shard holds of tables that every region writes at once, beside the values themselves. They are
// immutable once they were handed out, but for the sessions behind them.
type Tables struct {
	// Actor is the number under which this region last began to write; Begun says that it ever did.
	Actor table.Actor
	Begun bool
	// Marks say how far each actor's history is held. Not to be changed.
	Marks table.Marks
	// Floor is the birth below which every session is complete in every region, Need what a copy had to hold to know so.
	Floor int64
	Need  table.Marks
	// Closed is the birth below which sessions take nothing more here. Open counts the sessions that live, Kept those and the
	// ones that have ended above the floor, Beyond the operations that are held beyond one that is missing.
	Closed             int64
	Open, Kept, Beyond int
	// Beside is another copy that is being taken, or taken in; nil for none.
	Beside *Beside
	// Taken counts the operations of this region's clients since the machine was opened, Followed those of other regions.
	Taken, Followed uint64

	copies uint32 // how many copies were ever begun

	sessions *table.Sessions // shared by all versions: only the applying goroutine may look inside
}

// Beside is a copy of another region that lies beside the shard's own. Until it is adopted it counts for nothing; from
// then on a key's value is the join of what both hold, until merging has passed the key.
type Beside struct {
	Copy    uint32
	Chunks  uint32
	Adopted bool
	// Own and Theirs are the floors of the two copies when it was adopted: a key that one lacks is empty there at its floor.
	Own, Theirs int64
	// Merged is the name up to which keys have been merged: those at or above it have not.
	Merged []byte
}

func newTables() *Tables { return &Tables{sessions: new(table.Sessions)} }

// Tables returns what the shard holds of tables that every region writes at once. It is never nil.
func (s *State) Tables() *Tables { return s.tables }

// note brings the figures up to the sessions.
func (t *Tables) note() {
	t.Floor, t.Closed, t.Open, t.Kept = t.sessions.Floor(), t.sessions.Closed(), t.sessions.Open(), t.sessions.Len()
}

// Names of rows, behind nameTable:
//
//	'h'                    head: actor, floor, the copy beside
//	'm' actor (2)          Marks of one actor
//	's' birth (8) nonce (8)  Sessions of one session
//	'v' table (16) key     a value
//	'w' table (16) key     a value of the copy beside
//	'x' chunk (4)          Sessions of the copy beside, a part of them
const (
	tableHead    = 'h'
	tableMark    = 'm'
	tableSession = 's'
	tableValue   = 'v'
	tableBeside  = 'w'
	tablePart    = 'x'
)

func tableName(kind byte, parts ...[]byte) []byte {
	return name(nameTable, append([][]byte{{kind}}, parts...)...)
}

func markKeyOf(a table.Actor) []byte {
	return tableName(tableMark, binary.BigEndian.AppendUint16(nil, uint16(a)))
}

func sessionKey(id table.SessionID) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(id.Born))
	return tableName(tableSession, binary.BigEndian.AppendUint64(b, id.Nonce))
}

func partKey(chunk uint32) []byte {
	return tableName(tablePart, binary.BigEndian.AppendUint32(nil, chunk))
}

// RowName returns what the rows of a key of a table are named by: their order is that of tables, then keys.
func RowName(id TableID, key []byte) []byte {
	return append(append(make([]byte, 0, 16+len(key)), id[:]...), key...)
}

// maxRowName bounds a RowName.
const maxRowName = 16 + keyspace.MaxUserKey

func (t *Tables) appendHead(b []byte) []byte {
	b = appendUvarint(appendBool(append(b, metaVersion), t.Begun), uint64(t.Actor))
	b = appendUvarint(appendBytes(appendUvarint(b, uint64(t.Floor)), t.Need.Append(nil)), uint64(t.copies))
	x := t.Beside
	if b = appendBool(b, x != nil); x == nil {
		return b
	}
	b = appendBool(appendUvarint(appendUvarint(b, uint64(x.Copy)), uint64(x.Chunks)), x.Adopted)
	return appendBytes(appendUvarint(appendUvarint(b, uint64(x.Own)), uint64(x.Theirs)), x.Merged)
}

func (t *Tables) readHead(r *reader) {
	r.version()
	t.Begun, t.Actor = r.bool(), r.actor()
	t.sessions.Raise(r.millis())
	t.Need, t.copies = r.marks(), r.uint32()
	if !r.bool() {
		return
	}
	x := &Beside{Copy: r.uint32(), Chunks: r.uint32(), Adopted: r.bool(), Own: r.millis(), Theirs: r.millis()}
	x.Merged = bytes.Clone(r.bytes(maxRowName + 1))
	t.Beside = x
}

// loadTables reads all but the values: the floor before the sessions above it.
func (l *loader) loadTables() {
	t := l.st.tables
	l.scanName(tableName(tableHead), func(_, value *reader) { t.readHead(value) })
	l.scanName(tableName(tableMark), func(name, value *reader) {
		m, err := table.DecodeMarks(value.rest())
		value.crdt(err)
		for a, mark := range m {
			t.Marks = withMark(t.Marks, a, mark)
			if !bytes.Equal(name.rest(), markKeyOf(a)[len(tableName(tableMark)):]) {
				name.fail("the mark of actor %d", a)
			}
		}
	})
	l.scanName(tableName(tableSession), func(name, value *reader) {
		name.take(16)
		value.crdt(t.sessions.Load(value.rest()))
	})
	if t.Begun {
		t.sessions.Close(t.Marks[t.Actor].Closed)
	}
	for id := range t.sessions.All() {
		t.Beyond += t.sessions.Beyond(id)
	}
	t.note()
}

// withMark returns marks with one more. What was handed out stays.
func withMark(m table.Marks, a table.Actor, to table.Mark) table.Marks {
	next := maps.Clone(m)
	if next == nil {
		next = table.Marks{}
	}
	next[a] = to
	return next
}

// editTables returns the tables of the next state, free to change.
func (a *applier) editTables() *Tables {
	if !a.tablesEdited {
		t := *a.st.tables
		a.st.tables, a.tablesEdited = &t, true
	}
	return a.st.tables
}

// setHead has the head written when the command is done.
func (a *applier) setHead() *Tables {
	a.tableHeadChanged = true
	return a.editTables()
}

// finishTables writes what was edited.
func (a *applier) finishTables() {
	if a.tablesEdited {
		a.st.tables.note()
	}
	if a.tableHeadChanged {
		a.w.set(tableName(tableHead), a.st.tables.appendHead(nil))
	}
}

func (r *reader) actor() table.Actor { return table.Actor(r.uvarint(1<<16 - 1)) }

// maxMillis is the latest time that births and stamps may have.
const maxMillis = 1<<48 - 1

func (r *reader) millis() int64 { return int64(r.uvarint(maxMillis)) }

func (r *reader) tableMark() table.Mark { return table.Mark{Position: r.uint64(), Closed: r.millis()} }

func appendTableMark(b []byte, m table.Mark) []byte {
	return appendUvarint(appendUvarint(b, m.Position), uint64(m.Closed))
}

// maxMarks bounds encoded Marks: all actors that there can be.
const maxMarks = 1 << 21

func (r *reader) marks() table.Marks {
	b := r.bytes(maxMarks)
	if r.err != nil {
		return nil
	}
	m, err := table.DecodeMarks(b)
	r.crdt(err)
	return m
}

func (r *reader) tableType() table.Type {
	t := table.Type(r.byte())
	if t < table.TypeCounter || t > table.TypeLWWSet {
		r.fail("table of type %d", t)
	}
	return t
}

// rowKey takes the encoded key of a row: one value.
func (r *reader) rowKey() []byte {
	b := r.bytes(keyspace.MaxUserKey)
	if r.err == nil {
		if err := checkRowKey(b); err != nil {
			r.fail("%v", err)
		}
	}
	return b
}

func checkRowKey(b []byte) error {
	_, rest, err := crdt.CutKey(b)
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("a key that is not one value: %x", b)
	}
	return nil
}
