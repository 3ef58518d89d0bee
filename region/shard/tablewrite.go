package shard

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Bounds of what commands on tables may hold.
const (
	maxOp   = 2 << 20   // bytes of an encoded operation
	maxOpen = 1<<31 - 1 // sessions and gaps
)

// TableWrite is a client's operation on a key of a table that every region writes at once. It is applied, a duplicate where
// the shard holds it already, or refused with a Refusal.
type TableWrite struct {
	Actor  table.Actor // the proposing region's number: refused where the shard writes under another one
	Table  TableID
	Type   table.Type
	Key    []byte // one value as crdt.Value.AppendKey writes it
	Op     table.Op
	Now    int64 // the region's time, in ms
	Limits table.Limits
}

// TableForward is one entry of an actor's history as another region has it: an operation, or a beginning or closing. It is
// refused where it is not the next one, and a duplicate where it is held.
type TableForward struct {
	Actor table.Actor
	Mark  table.Mark // where the actor's history stood after it
	Op    *TableOp   // nil for a beginning or closing
}

// TableOp is an operation on a key of a table.
type TableOp struct {
	Table TableID
	Type  table.Type
	Key   []byte
	Op    table.Op
}

// TableClose ends the sessions born before a moment, for good: a promise to the other regions.
type TableClose struct {
	Actor table.Actor
	Born  int64 // in ms
}

// TableBegin has the region write under a new number, which it never did before (rules A12). Whoever decides floors knows
// of it: Floor is the one that was decided last, and Need what it was told with. It is refused while the shard lacks that.
type TableBegin struct {
	Actor table.Actor
	Floor int64
	Need  table.Marks
}

// TableFloor raises the birth below which every session is complete, where the shard holds what is needed for that.
type TableFloor struct {
	Floor int64
	Need  table.Marks
}

// Refusal says why an operation on a table was refused. The numbers travel between nodes.
type Refusal uint8

// The reasons to refuse an operation, which has left nothing.
const (
	RefusedOperation Refusal = iota + 1 // it does not fit the table's type, or is out of bounds
	RefusedAhead                        // its session's birth or its stamp lies too far ahead
	RefusedExpired                      // its session has ended: whether it was taken before is no longer known
	RefusedSessions                     // too many sessions are open
	RefusedGaps                         // its session holds too many operations beyond a missing one
	RefusedSize                         // the value would be too big
	RefusedActor                        // the region does not write under that number, or not yet
	RefusedDropped                      // the table was dropped
	RefusedUnknown                      // the shard has not been told of the table yet
)

var refusals = [...]string{"", "operation", "ahead", "expired", "sessions", "gaps", "size", "actor", "dropped", "unknown"}

// String returns the reason's name, for messages and metrics.
func (r Refusal) String() string {
	if r == 0 || int(r) >= len(refusals) {
		return fmt.Sprintf("refusal %d", uint8(r))
	}
	return refusals[r]
}

// refuse ends the command with a reason to refuse an operation.
func (a *applier) refuse(r Refusal, reason string, args ...any) {
	a.end(Refused, reason, args...)
	a.res.Refusal = r
}

// refusalOf says which of crdt/table's refusals err is.
func refusalOf(err error) Refusal {
	switch {
	case errors.Is(err, table.ErrAhead):
		return RefusedAhead
	case errors.Is(err, table.ErrExpired):
		return RefusedExpired
	case errors.Is(err, table.ErrFull):
		return RefusedSessions
	case errors.Is(err, table.ErrGaps):
		return RefusedGaps
	}
	return RefusedOperation
}

// dispatchTables reports whether a command is one on tables.
func (a *applier) dispatchTables(c Command) (known bool) {
	switch c := c.(type) {
	case *TableWrite:
		a.tableWrite(c)
	case *TableForward:
		a.tableForward(c)
	case *TableClose:
		a.tableClose(c)
	case *TableBegin:
		a.tableBegin(c)
	case *TableFloor:
		a.tableFloor(c)
	case *TableStage:
		a.tableStage(c)
	case *TableChunk:
		a.tableChunk(c)
	case *TableAdopt:
		a.tableAdopt(c)
	case *TableMerge:
		a.tableMerge(c)
	case *TableAbandon:
		a.tableAbandon(c)
	default:
		return false
	}
	return true
}

func (a *applier) tableWrite(c *TableWrite) {
	t := a.st.tables
	if !t.Begun || t.Actor != c.Actor {
		a.refuse(RefusedActor, "the region does not write as member %d on this shard yet", c.Actor)
		return
	}
	held, err := t.sessions.Admit(c.Op.ID, c.Now, c.Limits)
	if held {
		a.end(Duplicate, "")
		return
	}
	if err == nil {
		err = c.Op.Validate(c.Type, c.Now, c.Limits.MaxAhead)
	}
	if err != nil {
		a.refuse(refusalOf(err), "%v", err)
		return
	}
	def, live := a.st.told.Get(c.Table)
	switch of, _ := def.Type.CRDT(); {
	case a.st.told.Dropped(c.Table):
		a.refuse(RefusedDropped, "the table was dropped")
		return
	case !live:
		a.refuse(RefusedUnknown, "the shard has not been told of table %s", c.Table)
		return
	case of != c.Type:
		a.refuse(RefusedOperation, "table %s holds values of type %s, not %s", def.Name, def.Type, c.Type)
		return
	}
	o := &TableOp{c.Table, c.Type, c.Key, c.Op}
	v, ok := a.applyOp(o)
	if !ok {
		a.refuse(RefusedOperation, "the table holds values of another type than %s", c.Type)
		return
	}
	if n := len(v.Append(nil)); n > def.MaxBytes {
		a.refuse(RefusedSize, "the value would have %d bytes, %d are allowed", n, def.MaxBytes)
		return
	}
	a.editTables().Taken++
	a.keepOp(o, v)
	a.takeOwn(0)
	a.end(Applied, "")
}

// takeOwn numbers one more thing that this region's actor took.
func (a *applier) takeOwn(closed int64) {
	t := a.editTables()
	marks := withMark(t.Marks, t.Actor, t.Marks[t.Actor])
	marks.Take(t.Actor, closed)
	a.setMarks(marks, t.Actor)
}

// setMarks stores an actor's mark and has other regions told.
func (a *applier) setMarks(m table.Marks, actor table.Actor) {
	t := a.editTables()
	stored := m[actor]
	if mutant.On("table-marks-apart") {
		stored = t.Marks[actor] // the next command brings it
	}
	t.Marks = m
	a.w.set(markKeyOf(actor), table.Marks{actor: stored}.Append(nil))
	a.outTable(actor, m[actor])
}

// Forward returns what another region is told of a command, given its out marker: a TableForward. It is nil for a command
// that is none on tables.
func Forward(c Command, o Out) *TableForward {
	switch c := c.(type) {
	case *TableWrite:
		return &TableForward{o.Actor, o.Mark, &TableOp{c.Table, c.Type, c.Key, c.Op}}
	case *TableForward:
		return c
	case *TableClose, *TableBegin:
		return &TableForward{Actor: o.Actor, Mark: o.Mark}
	}
	return nil
}

// applyOp returns a key's value with an operation applied. It is not ok where the key holds one of another type.
func (a *applier) applyOp(o *TableOp) (v table.Value, ok bool) {
	if v, ok = a.value(RowName(o.Table, o.Key), o.Type); ok {
		v.Apply(&o.Op)
		v.Fold(a.st.tables.sessions)
	}
	return v, ok
}

// keepOp stores the value that an operation has led to, nil where its table was dropped, and the operation's id.
func (a *applier) keepOp(o *TableOp, v table.Value) {
	t, session := a.editTables(), o.Op.ID.Session
	before := t.sessions.Beyond(session)
	t.sessions.Add(o.Op.ID)
	t.Beyond += t.sessions.Beyond(session) - before
	a.w.set(sessionKey(session), t.sessions.AppendOne(nil, session))
	if v != nil {
		a.setValue(RowName(o.Table, o.Key), v)
	}
}

func (a *applier) tableForward(c *TableForward) {
	t := a.st.tables
	marks := withMark(t.Marks, c.Actor, t.Marks[c.Actor])
	if !marks.Follow(c.Actor, c.Mark) {
		if c.Mark.Position <= t.Marks[c.Actor].Position {
			a.end(Duplicate, "")
			return
		}
		a.end(Refused, "entry %d of member %d is missing", t.Marks[c.Actor].Position+1, c.Actor)
		return
	}
	if o := c.Op; o != nil {
		if err := o.Op.Validate(o.Type, maxMillis, maxMillis); err != nil {
			a.end(Malformed, "%v", err)
			return
		}
		var v table.Value
		if !a.st.told.Dropped(o.Table) {
			var ok bool
			if v, ok = a.applyOp(o); !ok {
				a.end(Malformed, "the table holds values of another type than %s", o.Type)
				return
			}
		}
		a.editTables().Followed++
		a.keepOp(o, v)
	}
	a.setMarks(marks, c.Actor)
	a.end(Applied, "")
}

func (a *applier) tableClose(c *TableClose) {
	t := a.st.tables
	switch {
	case !t.Begun || t.Actor != c.Actor:
		a.refuse(RefusedActor, "the region does not write as member %d on this shard yet", c.Actor)
	case !t.sessions.Close(c.Born):
		a.end(Duplicate, "")
	default:
		a.takeOwn(t.sessions.Closed())
		a.end(Applied, "")
	}
}

func (a *applier) tableBegin(c *TableBegin) {
	t := a.st.tables
	if t.Begun && t.Actor == c.Actor {
		a.end(Duplicate, "")
		return
	}
	if !t.Marks.Covers(c.Need) && !mutant.On("table-begins-uncovered") {
		a.refuse(RefusedActor, "the shard does not hold yet what its floor was told with")
		return
	}
	marks := withMark(t.Marks, c.Actor, t.Marks[c.Actor])
	if t.Marks[c.Actor] == (table.Mark{}) {
		delete(marks, c.Actor)
	}
	floor := max(c.Floor, t.sessions.Floor())
	if _, err := marks.Begin(c.Actor, floor); err != nil {
		a.refuse(RefusedActor, "%v", err)
		return
	}
	if c.Floor > t.sessions.Floor() {
		a.raiseTables(c.Floor)
		a.editTables().Need = c.Need
	}
	t = a.setHead()
	t.Actor, t.Begun = c.Actor, true
	a.setMarks(marks, c.Actor)
	a.end(Applied, "")
}

func (a *applier) tableFloor(c *TableFloor) {
	t := a.st.tables
	switch {
	case c.Floor <= t.sessions.Floor():
		a.end(Duplicate, "")
	case !t.Marks.Covers(c.Need):
		a.end(Refused, "the shard does not hold yet what the floor was told with")
	default:
		t = a.setHead()
		a.raiseTables(c.Floor)
		t.Need = c.Need
		a.end(Applied, "")
	}
}

// raiseTables forgets the sessions below a floor.
func (a *applier) raiseTables(floor int64) {
	t := a.setHead()
	for id := range t.sessions.All() {
		if id.Born >= floor {
			break
		}
		t.Beyond -= t.sessions.Beyond(id)
	}
	if t.sessions.Raise(floor) {
		a.w.clear(sessionKey(table.SessionID{}), sessionKey(table.SessionID{Born: floor}))
	}
}

// clearTables clears the values of tables that were dropped, given what the shard was told before and is told now. Other
// regions may have known of tables that it never did.
func (a *applier) clearTables(told, next *ToldTables) {
	t := a.st.tables
	if len(t.Marks) == 0 && t.Beside == nil {
		return // nothing was ever written
	}
	clear := func(from, to []byte) {
		a.w.clear(tableName(tableValue, from), tableName(tableValue, to))
		a.w.clear(tableName(tableBeside, from), tableName(tableBeside, to))
	}
	for _, x := range told.Live() {
		if _, live := next.live[x.ID]; !live {
			clear(prefixRange(x.ID[:]))
		}
	}
	from := afterTable(told.at)
	for _, x := range next.Live() {
		if bytes.Compare(x.ID[:], told.at[:]) > 0 {
			clear(from, x.ID[:])
			from = afterTable(x.ID)
		}
	}
	if end := afterTable(next.at); bytes.Compare(from, end) < 0 {
		clear(from, end)
	}
}

// afterTable returns what is above the names of all rows of a table, and of none of a later one.
func afterTable(id TableID) []byte {
	if _, hi := prefixRange(append([]byte{0}, id[:]...)); hi[0] == 0 {
		return hi[1:]
	}
	return lastRow
}
