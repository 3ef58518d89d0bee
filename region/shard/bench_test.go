package shard

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace"
)

// BenchmarkApply applies Advances of one source among many, each with 1,000 cells of 10,000 keys.
func BenchmarkApply(b *testing.B) {
	for _, sources := range []int32{1, 100, 1000} {
		b.Run(fmt.Sprint(sources, "-sources"), func(b *testing.B) {
			store, err := keyspace.Open(keyspace.Options{Dir: "store", FS: vfs.NewMem(), Fatal: func(err error) { b.Error(err) }})
			if err != nil {
				b.Fatal(err)
			}
			m, err := Open(Options{Config: twoRegions(), Store: store, Fatal: func(err error) { b.Error(err) }})
			if err != nil {
				b.Fatal(err)
			}
			defer closeMachine(b, m)
			id := startJob(b, m)
			c := &AddSources{Generation: id, Group: "a"}
			for p := int32(1); p < sources; p++ {
				s := sourceOf("a", p)
				c.Sources = append(c.Sources, SourcePoint{s, crdt.FirstPoint(s, 0)})
			}
			m.Apply(4, Encode(c))
			j := mustJob(b, jobFile("{tumbling: 10ms}"))
			s := sourceOf("a", 0)
			at, cell := crdt.FirstPoint(s, 0), cellOf(b, j, 5)
			var commands [][]byte
			for i := range b.N {
				to := at.After(at.Offset+999, crdt.Hash{byte(i)}, 1, crdt.Counted)
				x := &Advance{crdt.Advance{Generation: id, Group: "a", Ranges: []crdt.Range{{Source: s, From: at.Mark(), To: to}}}}
				for k := range 1000 {
					x.Deltas = append(x.Deltas, crdt.Delta{Slot: crdt.Slot{Time: 10, Key: keyOf(fmt.Sprint((i*1000 + k) % 10000))}, Cell: cell})
				}
				sortedDeltas(x.Deltas)
				commands, at = append(commands, Encode(x)), to
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i, raw := range commands {
				if res := m.Apply(uint64(i+5), raw).(Result); res.Outcome != Applied {
					b.Fatalf("%+v", res)
				}
			}
		})
	}
}

// BenchmarkTableWrite applies increments of one key of 10,000 each, by a session among as many as are open.
func BenchmarkTableWrite(b *testing.B) {
	for _, sessions := range []int{10, 1000, 50_000} {
		b.Run(fmt.Sprint(sessions, "-sessions"), func(b *testing.B) {
			store, err := keyspace.Open(keyspace.Options{Dir: "store", FS: vfs.NewMem(), Fatal: func(err error) { b.Error(err) }})
			if err != nil {
				b.Fatal(err)
			}
			m, err := Open(Options{Config: twoRegions(), Store: store, Fatal: func(err error) { b.Error(err) }})
			if err != nil {
				b.Fatal(err)
			}
			defer closeMachine(b, m)
			m.Apply(1, Encode(simTold()))
			m.Apply(2, Encode(&TableBegin{Actor: 1}))
			write := func(i int) []byte {
				id := table.ID{Session: table.SessionID{Born: 1000, Nonce: uint64(i % sessions)}, Sequence: uint64(i/sessions + 1)}
				return Encode(&TableWrite{1, simTable(0), table.TypeCounter, simKey(i % 10_000),
					table.Op{ID: id, Kind: table.Increment, Amount: 1}, 1000, table.Limits{Open: sessions, Gaps: 1}})
			}
			for i := range sessions {
				m.Apply(uint64(i+3), write(i))
			}
			var commands [][]byte
			for i := range b.N {
				commands = append(commands, write(i+sessions))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i, raw := range commands {
				if res := m.Apply(uint64(i+sessions+3), raw).(Result); res.Outcome != Applied {
					b.Fatalf("%+v", res)
				}
			}
		})
	}
}
