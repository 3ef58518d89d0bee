package shard

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/watershed-db/watershed/crdt/table"
	tabledef "github.com/watershed-db/watershed/keyspace/table"
)

func (a *args) tableType() table.Type {
	of, ok := table.ParseType(a.next())
	if !ok {
		a.t.Fatal("no such type of table")
	}
	return of
}

func (a *args) named64(name string, fallback int64) int64 {
	if text := a.named[name]; text != "" {
		return a.int(text)
	}
	return fallback
}

// id reads "born.nonce/sequence".
func (a *args) id(text string) table.ID {
	session, sequence, _ := strings.Cut(text, "/")
	born, nonce, _ := strings.Cut(session, ".")
	return table.ID{Session: table.SessionID{Born: a.int(born), Nonce: uint64(a.int(nonce))}, Sequence: uint64(a.int(sequence))}
}

// marks reads "actor:position:closed,...".
func (a *args) marks(text string) table.Marks {
	m := table.Marks{}
	for _, x := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		f := append(strings.Split(x, ":"), "0")
		m[table.Actor(a.int(f[0]))] = table.Mark{Position: uint64(a.int(f[1])), Closed: a.int(f[2])}
	}
	return m
}

// op reads "type key id kind [amount or data] [time=ms] [observed=id,...]".
func (a *args) op() *TableOp {
	o := &TableOp{Type: a.tableType()}
	o.Table, o.Key = simTable(int(o.Type)), keyOf(a.next())
	o.Op.ID = a.id(a.next())
	verb := a.next()
	for _, kind := range []table.Kind{table.Increment, table.Assign, table.Clear, table.Insert, table.Remove} {
		if kind.String() == verb {
			o.Op.Kind = kind
		}
	}
	switch o.Op.Kind {
	case table.Increment:
		o.Op.Amount = a.int(a.next())
	case table.Assign, table.Insert, table.Remove:
		o.Op.Data = []byte(a.next())
	}
	if at := a.named64("time", 0); at > 0 {
		o.Op.Time = table.TimeAt(at)
	}
	for _, id := range strings.FieldsFunc(a.named["observed"], func(r rune) bool { return r == ',' }) {
		o.Op.Observed = append(o.Op.Observed, a.id(id))
	}
	return o
}

// tableCommand reads the line of a command on tables; nil for another one:
//
//	write actor OP [now=ms] [open=n] [gaps=n]
//	forward actor:position:closed [OP]
//	close actor ms | begin actor [floor=ms] [need=MARKS] | raise ms need=MARKS
//	beside | row copy number OP | part copy number id,... | adopt copy chunks=n floor=ms marks=MARKS | merge size | leave copy
func tableCommand(verb string, a *args) Command {
	switch verb {
	case "write":
		c := &TableWrite{Actor: table.Actor(a.int(a.next()))}
		o := a.op()
		c.Table, c.Type, c.Key, c.Op, c.Now = o.Table, o.Type, o.Key, o.Op, a.named64("now", 2000)
		c.Limits = table.Limits{MaxAhead: 100, Open: int(a.named64("open", 3)), Gaps: int(a.named64("gaps", 2))}
		return c
	case "forward":
		c := &TableForward{}
		for actor, mark := range a.marks(a.next()) {
			c.Actor, c.Mark = actor, mark
		}
		if len(a.words) > 0 {
			c.Op = a.op()
		}
		return c
	case "close":
		return &TableClose{table.Actor(a.int(a.next())), a.int(a.next())}
	case "begin":
		return &TableBegin{table.Actor(a.int(a.next())), a.named64("floor", 0), a.marks(a.named["need"])}
	case "raise":
		return &TableFloor{a.int(a.next()), a.marks(a.named["need"])}
	case "types": // types at type...: tables named by their types, of values of 200 bytes
		c := &TellTables{At: simTable(int(a.int(a.next())))}
		for len(a.words) > 0 {
			of := a.tableType()
			c.Live = append(c.Live, LiveTable{simTable(int(of)), tabledef.Def{Name: of.String(), Type: tabledef.Type(of), MaxBytes: 200}})
		}
		return c
	case "beside":
		return &TableStage{}
	case "leave":
		return &TableAbandon{uint32(a.int(a.next()))}
	}
	return tableJoin(verb, a)
}

func tableJoin(verb string, a *args) Command {
	switch verb {
	case "row":
		c := &TableChunk{Copy: uint32(a.int(a.next())), Number: uint32(a.int(a.next()))}
		o := a.op()
		v := table.New(o.Type, a.named64("floor", 0))
		v.Apply(&o.Op)
		c.Rows = []TableRow{{RowName(o.Table, o.Key), v.Append(nil)}}
		return c
	case "part":
		c := &TableChunk{Copy: uint32(a.int(a.next())), Number: uint32(a.int(a.next()))}
		s := new(table.Sessions)
		for _, id := range strings.Split(a.next(), ",") {
			s.Add(a.id(id))
		}
		c.Sessions = s.Append(nil)
		return c
	case "adopt":
		c := &TableAdopt{Copy: uint32(a.int(a.next())), Chunks: uint32(a.named64("chunks", 0)), Floor: a.named64("floor", 0)}
		c.Marks = a.marks(a.named["marks"])
		return c
	case "merge":
		c := &TableMerge{Copy: uint32(a.int(a.next())), End: true}
		for _, of := range a.words {
			a.words = []string{of}
			t := a.tableType()
			c.Keys = append(c.Keys, RowName(simTable(int(t)), keyOf("k")))
			c.To = c.Keys[len(c.Keys)-1]
		}
		return c
	}
	return nil
}

func dumpTables(t *Tables) string {
	var b strings.Builder
	fmt.Fprintf(&b, "member %d begun %t floor %d closed %d open %d kept %d beyond %d\n", t.Actor, t.Begun, t.Floor, t.Closed,
		t.Open, t.Kept, t.Beyond)
	for _, a := range slices.Sorted(maps.Keys(t.Marks)) {
		fmt.Fprintf(&b, "  %d: %d closed %d\n", a, t.Marks[a].Position, t.Marks[a].Closed)
	}
	if x := t.Beside; x != nil {
		fmt.Fprintf(&b, "  beside: copy %d chunks %d adopted %t\n", x.Copy, x.Chunks, x.Adopted)
	}
	return b.String()
}
