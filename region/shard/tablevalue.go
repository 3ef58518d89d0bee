package shard

import (
	"bytes"
	"fmt"

	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// besideAt returns the copy beside where it counts for a row: adopted, and not merged as far as that.
func (t *Tables) besideAt(row []byte) *Beside {
	if x := t.Beside; x != nil && (x.Adopted || mutant.On("table-values-joined-ahead")) && bytes.Compare(row, x.Merged) >= 0 {
		return x
	}
	return nil
}

// decodeRow decodes a stored value; one that is not there is empty at a floor. It is not ok where it is of another type.
func decodeRow(of table.Type, b []byte, there bool, floor int64) (v table.Value, ok bool, err error) {
	if !there {
		return table.New(of, floor), true, nil
	}
	if is, known := table.TypeOf(b); known && is != of && !(is == table.TypeUpDown && of == table.TypeCounter) {
		return nil, false, nil
	}
	v, err = table.Decode(of, b)
	return v, true, err
}

// joinRows returns the value that the rows of the own copy and of one beside, nil for none, make together.
func joinRows(of table.Type, t *Tables, x *Beside, row tableRow) (v table.Value, ok bool, err error) {
	if x == nil {
		return decodeRow(of, row.own, row.inOwn, t.Floor)
	}
	if v, ok, err = decodeRow(of, row.own, row.inOwn, x.Own); !ok || err != nil {
		return nil, ok, err
	}
	theirs, alike, err := decodeRow(of, row.beside, row.inBeside, x.Theirs)
	if alike && err == nil { // a peer that says otherwise is wrong
		v.Join(theirs)
	}
	return v, true, err
}

// tableRow is what the own copy and the one beside hold under one name.
type tableRow struct {
	own, beside     []byte
	inOwn, inBeside bool
}

// value returns a key's value, for changing. It is not ok where the key holds one of another type.
func (a *applier) value(row []byte, of table.Type) (v table.Value, ok bool) {
	x := a.st.tables.besideAt(row)
	var r tableRow
	r.own, r.inOwn = a.rows.get(tableName(tableValue, row))
	if x != nil {
		r.beside, r.inBeside = a.rows.get(tableName(tableBeside, row))
	}
	v, ok, err := joinRows(of, a.st.tables, x, r)
	if err != nil {
		a.rows.fail(fmt.Errorf("%w: value %x: %w", ErrState, row, err))
		return nil, false
	}
	return v, ok
}

// setValue stores a value; not one that says nothing, unless what lies beside would speak for it.
func (a *applier) setValue(row []byte, v table.Value) {
	key := tableName(tableValue, row)
	if a.st.tables.besideAt(row) == nil && v.Empty(a.st.tables.sessions.Floor()) {
		a.w.set(key, nil)
		return
	}
	a.w.set(key, v.Append(nil))
}
