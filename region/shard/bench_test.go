package shard

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/crdt"
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
