package shard

import (
	"errors"
	"testing"

	"github.com/watershed-db/watershed/crdt/table"
)

// tableExamples holds a command of every kind on tables.
func tableExamples() []Command {
	session := table.SessionID{Born: 1000, Nonce: 7}
	o := table.Op{ID: table.ID{Session: session, Sequence: 3}, Kind: table.Insert, Data: []byte("e"),
		Observed: []table.ID{{Session: session, Sequence: 1}}}
	op := TableOp{TableID(GenerationOf(1, 2)), table.TypeSet, keyOf("k"), o}
	sessions := new(table.Sessions)
	sessions.Add(o.ID)
	set := table.New(table.TypeSet, 5)
	set.Apply(&o)
	marks := table.Marks{1: {Position: 4, Closed: 5}, 300: {Position: 1}}
	row := RowName(op.Table, op.Key)
	return []Command{
		&TableWrite{1, op.Table, op.Type, op.Key, o, 2000, table.Limits{MaxAhead: 100, Open: 5, Gaps: 6}},
		&TableForward{2, table.Mark{Position: 9, Closed: 4}, &op},
		&TableClose{2, 1500},
		&TableBegin{2, 1100, marks},
		&TableFloor{1200, marks},
		&TableStage{},
		&TableChunk{2, 1, []TableRow{{row, set.Append(nil)}}, sessions.Append(nil)},
		&TableAdopt{2, 3, 1100, marks},
		&TableMerge{2, []byte{0}, row, true, [][]byte{row}},
		&TableAbandon{2},
	}
}

// increment is an increment of a session by one.
func increment(sequence uint64) table.Op {
	return table.Op{ID: table.ID{Session: table.SessionID{Born: 1000, Nonce: 7}, Sequence: sequence}, Kind: table.Increment, Amount: 1}
}

func TestDecodeRefusesTables(t *testing.T) {
	id := TableID(GenerationOf(1, 1))
	for name, raw := range map[string][]byte{
		"a row without a table":   Encode(&TableChunk{Rows: []TableRow{{[]byte("k"), table.New(table.TypeSet, 0).Append(nil)}}}),
		"a row of no type":        Encode(&TableChunk{Rows: []TableRow{{RowName(id, keyOf("k")), []byte("value")}}}),
		"a key that is two":       Encode(&TableForward{1, table.Mark{}, &TableOp{id, table.TypeCounter, append(keyOf("k"), keyOf("l")...), increment(1)}}),
		"an operation of no type": Encode(&TableForward{1, table.Mark{}, &TableOp{id, 77, keyOf("k"), increment(1)}}),
		"keys to merge in disorder": Encode(&TableMerge{To: RowName(id, keyOf("l")),
			Keys: [][]byte{RowName(id, keyOf("l")), RowName(id, keyOf("k"))}}),
		"keys to merge beyond the last": Encode(&TableMerge{To: RowName(id, keyOf("k")), Keys: [][]byte{RowName(id, keyOf("l"))}}),
		"parts that are no sessions":    Encode(&TableChunk{Sessions: []byte("sessions")}),
	} {
		if c, err := Decode(raw); !errors.Is(err, ErrCommand) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}
