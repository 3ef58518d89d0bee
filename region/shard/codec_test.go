package shard

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/processor/job"
)

// examples holds a command of every kind.
func examples(tb testing.TB) []Command {
	tb.Helper()
	j, err := job.Parse("example", jobFile("{tumbling: 10ms}"))
	if err != nil {
		tb.Fatal(err)
	}
	id, s, t := GenerationOf(1<<16|3, 7), sourceOf("a", 0), sourceOf("a", 1)
	points := []SourcePoint{{s, crdt.FirstPoint(s, 4)}, {t, pointOf(t, "", 3, 99)}}
	marks := []SourceMark{{s, points[0].Point.Mark()}, {t, points[1].Point.Mark()}}
	deltas := []crdt.Delta{{Slot: crdt.Slot{Time: -10, Key: keyOf("k")}, Cell: cellOf(tb, j, 3, 4)},
		{Slot: crdt.Slot{Time: 10, Key: keyOf(""), Class: 2}, Cell: cellOf(tb, j, 5)}}
	advance := crdt.Advance{Generation: id, Group: "a", Deltas: deltas,
		Ranges: []crdt.Range{{Source: s, From: points[0].Point.Mark(), To: pointOf(s, "", 9, 50)}}}
	install := crdt.Install{Generation: id, Group: "a", Copy: 3, To: crdt.Frontier{s: points[0].Point, t: points[1].Point}, Horizon: -7}
	entry := Entry{Epoch: 1, Position: 2, Op: JobUpdated, Generation: id, Name: "n", File: []byte("f"), Meaning: [32]byte{1}}
	drivers := LiveTable{table.IDOf(1<<16, 3), table.Def{Name: "drivers", Type: table.Owned, Durability: table.Quorum, TTL: 1000, MaxBytes: 64}}
	tableEntry := Entry{Epoch: 1, Position: 3, Op: TableAdded, Generation: id, Name: "drivers", File: []byte("f"), Table: drivers.Def}
	return append([]Command{
		&AddGeneration{id, "count", []byte("file"), [32]byte{1, 2}, j.Builtins()},
		&UpdateGeneration{id, []byte("file"), [32]byte{3}},
		&DropGeneration{id},
		&AddSources{id, "a", points},
		&Advance{advance},
		&Horizon{id, -5},
		&Idle{id, marks, true},
		&Reach{[]crdt.RegionID{"a", "b"}, []Exclusion{{id, []crdt.RegionID{"b"}}}},
		&StageBegin{id, "a"},
		&StageChunk{id, "a", 3, 9, deltas},
		&StageAbandon{id, "a", 3},
		&Install{install, 2, marks},
		&Plan{id, 4, true, 70},
		&Done{id, 4, 1234, []DirtyMark{{End: 20, Key: keyOf("k")}, {End: crdt.MaxTime, Key: keyOf("l")}}},
		&JobApply{1 << 16, "count", []byte("file"), [32]byte{4}, j.Builtins()},
		&JobDelete{1 << 16, "count"},
		&RegistryCopy{[]Entry{entry, tableEntry}},
		&SourcesDecided{id, []Decided{{points[0], "topic"}, {points[1], ""}}},
		&SourceStopped{id, s, "gone"},
		&Check{77, crdt.Hash{9}},
		&Raise{1},
		&Note{"placement", 3, []byte("value")},
		&RegisterTable{1 << 16, []byte("file"), drivers.Def},
		&UnregisterTable{1 << 16, "drivers"},
		&TellTables{At: table.IDOf(1<<16, 9), Live: []LiveTable{drivers, {table.IDOf(1<<16, 9), table.Def{Name: "set", Type: table.Set, MaxBytes: 1}}}},
	}, append(exampleOwn(), tableExamples()...)...)
}

func TestEveryCommandComesBack(t *testing.T) {
	list := examples(t)
	for k := KindAddGeneration; k < kindEnd; k++ {
		c := list[k-KindAddGeneration]
		raw := Encode(c)
		if KindOf(raw) != k || c.kind() != k {
			t.Errorf("%T: kind %d, want %d", c, KindOf(raw), k)
		}
		got, err := Decode(raw)
		if err != nil {
			t.Errorf("%T: %v", c, err)
			continue
		}
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%T came back as\n%+v, was\n%+v", c, got, c)
		}
		for i := range raw {
			if _, err := Decode(raw[:i]); err == nil && i < len(raw) {
				t.Errorf("%T: %d of its %d bytes are taken for a command", c, i, len(raw))
			}
		}
		if _, err := Decode(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrCommand) {
			t.Errorf("%T with a byte behind it: %v", c, err)
		}
	}
	if blank(Kinds) != nil {
		t.Error("a kind of command without an example")
	}
}

func TestDecodeRefuses(t *testing.T) {
	id := GenerationOf(1, 1)
	s := sourceOf("a", 0)
	p := SourcePoint{s, crdt.FirstPoint(s, 0)}
	for name, raw := range map[string][]byte{
		"nothing":             nil,
		"a kind alone":        {byte(KindHorizon)},
		"an unknown kind":     {200, 1},
		"an unknown format":   {byte(KindHorizon), Format + 1},
		"no format":           {byte(KindHorizon), 0},
		"a source twice":      Encode(&AddSources{id, "a", []SourcePoint{p, p}}),
		"regions in disorder": Encode(&Reach{Unreachable: []crdt.RegionID{"b", "a"}}),
		"pins in disorder":    Encode(&JobApply{Pinned: []job.Pinned{{Name: "b"}, {Name: "a"}}}),
		"a file too long":     Encode(&JobApply{File: make([]byte, MaxFile+1)}),
		"a name too long":     Encode(&JobDelete{Name: strings.Repeat("x", MaxName+1)}),
		"an entry of no kind": Encode(&RegistryCopy{[]Entry{{Position: 1}}}),
		"a table of no type":  Encode(&RegisterTable{Def: table.Def{Name: "a", MaxBytes: 1}}),
		"a table twice": Encode(&TellTables{At: table.IDOf(1, 9), Live: []LiveTable{{table.IDOf(1, 3), table.Def{Name: "a", Type: table.Set, MaxBytes: 1}},
			{table.IDOf(1, 3), table.Def{Name: "b", Type: table.Set, MaxBytes: 1}}}}),
		"a table of later":   Encode(&TellTables{At: table.IDOf(1, 2), Live: []LiveTable{{table.IDOf(1, 3), table.Def{Name: "a", Type: table.Set, MaxBytes: 1}}}}),
		"a payload too many": Encode(&Own{Change: ownership.Command{Kind: ownership.Promise, Epoch: 9}, Entries: [][]byte{{1}}}),
		"a payload too large": Encode(&Own{Change: ownership.Command{Kind: ownership.Append, Write: ownership.Write{Epoch: 9, Last: 1}},
			Entries: [][]byte{make([]byte, MaxOwnEntry+1)}}),
		"payloads too large": Encode(&Own{Change: ownership.Command{Kind: ownership.Append, Write: ownership.Write{Epoch: 9, Last: 9}},
			Entries: slices.Repeat([][]byte{make([]byte, MaxOwnEntry)}, 9)}),
		"a change of the owned log that is none": append(Encode(&Own{})[:3], 2, 9, 9, 0),
		"member 0":                               Encode(&Rejoin{}),
		"a count beyond the end": append(Encode(&DropGeneration{id})[:2],
			append(append([]byte{}, id[:]...), 1, 'a', 0xff, 0xff, 3)...),
		"a chunk that moves points": append(append(Encode(&StageChunk{})[:2], 1, 1), Encode(examples(t)[KindAdvance-1])[2:]...),
	} {
		if c, err := Decode(raw); !errors.Is(err, ErrCommand) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, c := range examples(f) {
		f.Add(Encode(c))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Decode(raw)
		if err != nil {
			if !errors.Is(err, ErrCommand) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if again := Encode(c); !bytes.Equal(again, raw) {
			t.Fatalf("%T of %x is encoded as %x", c, raw, again)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(Entry{Epoch: 1, Position: 1, Op: TableDropped, Name: "a", Table: table.Def{Name: "a", Type: table.Set, MaxBytes: 9}}.AppendTo(nil))
	f.Add(Entry{Epoch: 1, Position: 1, Op: JobAdded, Name: "n", File: []byte("f")}.AppendTo(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := DecodeEntry(raw)
		if err == nil && !bytes.Equal(e.AppendTo(nil), raw) {
			t.Fatalf("%+v of %x is encoded as %x", e, raw, e.AppendTo(nil))
		}
	})
}
