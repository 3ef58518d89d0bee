package keyspace

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/watershed-db/watershed/crdt"
)

// advances returns commands of 1,000 cells each over keys drawn by next, in slot order as Advances have them.
func advances(n int, next func() uint64) []*Writes {
	out := make([]*Writes, n)
	cell := cellOf(1)
	for i := range out {
		seen := map[uint64]bool{}
		deltas := make([]crdt.Delta, 0, 1000)
		for range 1000 {
			k := next()
			if seen[k] {
				continue
			}
			seen[k] = true
			slot := crdt.Slot{Time: 5000, Key: crdt.Int(int64(k)).AppendKey(nil)}
			deltas = append(deltas, crdt.Delta{Slot: slot, Cell: cell})
		}
		out[i] = new(Writes)
		out[i].Add(testCopies[0], deltas)
		out[i].Put(MetaKey([]byte("points")), binary.BigEndian.AppendUint64(nil, uint64(i)))
	}
	return out
}

func benchStore(b *testing.B) *Store {
	b.Helper()
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	o := Options{Dir: b.TempDir() + "/store", FS: vfs.Default, Cache: cache, Fatal: func(err error) { b.Error(err) }}
	return must[*Store](b)(Open(o))
}

// BenchmarkApply counts updates of slots, each command's cells and what writes them behind.
func BenchmarkApply(b *testing.B) {
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.1, 1, 1<<20)
	for name, next := range map[string]func() uint64{
		"uniform-1M": func() uint64 { return rand.Uint64N(1 << 20) },
		"zipf-1M":    zipf.Uint64,
	} {
		for _, reads := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/view-each-ms=%v", name, reads), func(b *testing.B) {
				commands := advances(500, next)
				s := benchStore(b)
				b.ResetTimer()
				updates, last := 0, time.Now()
				for i := range b.N {
					w := commands[i%len(commands)]
					w.Index = uint64(i) + 1
					check(b, s.Apply(w))
					updates += len(w.ops[0].deltas)
					if reads && time.Since(last) > time.Millisecond {
						last = time.Now()
						check(b, must[*View](b)(s.View()).Close())
					}
				}
				must[uint64](b)(s.writeBehind())
				b.ReportMetric(float64(updates)/b.Elapsed().Seconds(), "updates/s")
				b.StopTimer()
				check(b, s.Close())
			})
		}
	}
}

// BenchmarkView opens a view after each command and reads one slot, or a window of 1,000 slots.
func BenchmarkView(b *testing.B) {
	for _, slots := range []int{1, 1000} {
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			next := uint64(0)
			commands := advances(1, func() uint64 { next++; return next % 1000 })
			s := benchStore(b)
			for i := range b.N {
				w := commands[0]
				w.Index = uint64(i) + 1
				check(b, s.Apply(w))
				v := must[*View](b)(s.View())
				if slots == 1 {
					_, ok, err := v.Slot(testCopies[0], crdt.Slot{Time: 5000, Key: crdt.Int(7).AppendKey(nil)})
					if !ok || err != nil {
						b.Fatal(ok, err)
					}
				} else {
					n := must[uint64](b)(records(v, testCopies[0]))
					if n == 0 {
						b.Fatal("empty view")
					}
				}
				check(b, v.Close())
			}
			b.StopTimer()
			check(b, s.Close())
		})
	}
}
