package keyspace

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/watershed-db/watershed/crdt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sums is the schema of the tests' cells.
var sums = &crdt.Schema{Ops: []crdt.Op{crdt.OpSum}, Spans: true}

// cellOf returns the encoded cell of some records of one event time each.
func cellOf(values ...int64) []byte {
	c := crdt.NewCell(sums)
	for _, v := range values {
		c.Touch(v)
		c.Add(0, crdt.Int(v), crdt.Order{})
	}
	return c.AppendTo(nil)
}

func testOptions(tb testing.TB, fs vfs.FS) Options {
	return Options{
		Dir: "/store/0", FS: fs, TableBytes: 2 << 10, MaxAge: time.Hour,
		Fatal: func(err error) { tb.Errorf("fatal: %v", err) },
	}
}

type failer interface{ Fatal(args ...any) }

func must[T any](t failer) func(T, error) T {
	return func(v T, err error) T {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t failer, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// slotID and twin are the obvious store: maps, written to command by command.
type slotID struct {
	copy  Copy
	time  int64
	key   string
	class uint16
}

type twin struct {
	slots map[slotID][]byte
	meta  map[string]string
}

func twinOf(history []*Writes) *twin {
	w := &twin{map[slotID][]byte{}, map[string]string{}}
	for _, h := range history {
		for _, op := range h.ops {
			w.apply(op)
		}
	}
	return w
}

func (w *twin) apply(op write) {
	switch op.kind {
	case writeAdd:
		for _, d := range op.deltas {
			id := slotID{op.copy, d.Slot.Time, string(d.Slot.Key), d.Slot.Class}
			if old, ok := w.slots[id]; ok {
				sum, err := crdt.MergeCells(nil, old, d.Cell)
				if err != nil {
					panic(err)
				}
				w.slots[id] = sum
			} else {
				w.slots[id] = d.Cell
			}
		}
	case writeCut:
		maps.DeleteFunc(w.slots, func(id slotID, _ []byte) bool { return id.copy == op.copy && id.time <= op.cut })
	case writeDropGeneration:
		maps.DeleteFunc(w.slots, func(id slotID, _ []byte) bool { return id.copy.Generation == op.copy.Generation })
	case writePut:
		w.meta[string(op.key)] = string(op.value)
	case writeDelete:
		delete(w.meta, string(op.key))
	case writeDeleteRange:
		maps.DeleteFunc(w.meta, func(k, _ string) bool { return string(op.key) <= k && k < string(op.value) })
	}
}

var (
	testCopies = []Copy{
		{crdt.GenerationID{1}, "a", 0}, {crdt.GenerationID{1}, "a", 1}, {crdt.GenerationID{1}, "ab", 0},
		{crdt.GenerationID{2}, "a", 0},
	}
	testTimes = []int64{-10, 0, 10, 20, crdt.MaxTime}
	testKeys  = []string{"k1", "k2", "k3", "k4"}
	metaKeys  = [][]byte{MetaKey(nil), MetaKey([]byte("a")), MetaKey([]byte("b")), OutKey(1), OutKey(2), OutKey(300)}
)

func genDelta() *rapid.Generator[crdt.Delta] {
	return rapid.Custom(func(t *rapid.T) crdt.Delta {
		return crdt.Delta{
			Slot: crdt.Slot{
				Time: rapid.SampledFrom(testTimes).Draw(t, "time"), Class: rapid.Uint16Range(0, 2).Draw(t, "class"),
				Key: []byte(rapid.SampledFrom(testKeys).Draw(t, "key")),
			},
			Cell: cellOf(rapid.SliceOfN(rapid.Int64Range(-9, 9), 1, 2).Draw(t, "values")...),
		}
	})
}

func compareDeltas(a, b crdt.Delta) int {
	return cmp.Or(cmp.Compare(a.Slot.Time, b.Slot.Time), bytes.Compare(a.Slot.Key, b.Slot.Key),
		cmp.Compare(a.Slot.Class, b.Slot.Class))
}

// genWrites draws a command; most add, some delete.
func genWrites(index uint64) *rapid.Generator[*Writes] {
	return rapid.Custom(func(t *rapid.T) *Writes {
		w := &Writes{Index: index, Chain: crdt.Hash{0: byte(index), 15: byte(rapid.Byte().Draw(t, "chain"))}}
		for range rapid.IntRange(0, 4).Draw(t, "ops") {
			c := rapid.SampledFrom(testCopies).Draw(t, "copy")
			key := rapid.SampledFrom(metaKeys).Draw(t, "meta key")
			switch rapid.SampledFrom([]string{"add", "add", "add", "cut", "drop", "generation", "put", "put", "delete", "range"}).Draw(t, "op") {
			case "add":
				deltas := rapid.SliceOfNDistinct(genDelta(), 1, 8, func(d crdt.Delta) string {
					return fmt.Sprint(d.Slot)
				}).Draw(t, "deltas")
				slices.SortFunc(deltas, compareDeltas)
				w.Add(c, deltas)
			case "cut":
				w.Cut(c, rapid.SampledFrom(testTimes).Draw(t, "horizon"))
			case "drop":
				w.DropCopy(c)
			case "generation":
				w.DropGeneration(c.Generation)
			case "put":
				w.Put(key, []byte(rapid.StringN(0, 3, 9).Draw(t, "value")))
			case "delete":
				w.Delete(key)
			case "range":
				to := rapid.SampledFrom([][]byte{append(bytes.Clone(key), 0), {key[0] + 1}, OutKey(2)}).Draw(t, "to")
				if to[0] > key[0]+1 || to[0] == rowOut && key[0] == rowMeta && len(to) > 1 {
					to = []byte{key[0] + 1}
				}
				w.DeleteRange(key, to)
			}
		}
		return w
	})
}

// compare reads a view in every way and holds it against the twin.
func (w *twin) compare(t *rapid.T, v *View) {
	for _, c := range testCopies {
		from, to := rapid.SampledFrom(testTimes).Draw(t, "from"), rapid.SampledFrom(testTimes).Draw(t, "to")
		if rapid.Bool().Draw(t, "all") {
			from, to = crdt.MinTime, crdt.MaxTime
		}
		var want []crdt.Delta
		for id, cell := range w.slots {
			if id.copy == c && from <= id.time && id.time <= to {
				want = append(want, crdt.Delta{Slot: crdt.Slot{Time: id.time, Class: id.class, Key: []byte(id.key)}, Cell: cell})
			}
		}
		slices.SortFunc(want, compareDeltas)
		it := must[*Iter](t)(v.Iter(c, from, to))
		defer func() { check(t, it.Close()) }()
		if rapid.Bool().Draw(t, "seek") {
			at := genDelta().Draw(t, "seek to")
			i, _ := slices.BinarySearchFunc(want, at, compareDeltas)
			if got := it.SeekGE(at.Slot); got != (i < len(want)) {
				t.Fatalf("%s: seek %+v: %v, want %d of %d", c, at.Slot, got, i, len(want))
			} else if got {
				compareSlot(t, it, want[i])
				compareRest(t, it, want[i+1:])
			}
		} else {
			compareRest(t, it, want)
		}
		for _, d := range want {
			cell, ok, err := v.Slot(c, d.Slot)
			if err != nil || !ok || !bytes.Equal(cell, d.Cell) {
				t.Fatalf("%s: slot %+v: %x %v %v, want %x", c, d.Slot, cell, ok, err, d.Cell)
			}
		}
		absent := genDelta().Draw(t, "probe").Slot
		_, held := w.slots[slotID{c, absent.Time, string(absent.Key), absent.Class}]
		if _, ok, err := v.Slot(c, absent); err != nil || ok != held {
			t.Fatalf("%s: slot %+v: %v %v, want %v", c, absent, ok, err, held)
		}
	}
	w.compareMeta(t, v)
}

func compareSlot(t *rapid.T, it *Iter, want crdt.Delta) {
	s := it.Slot()
	if compareDeltas(crdt.Delta{Slot: s}, want) != 0 || !bytes.Equal(it.Cell(), want.Cell) {
		t.Fatalf("got slot %+v with %x, want %+v with %x", s, it.Cell(), want.Slot, want.Cell)
	}
}

func compareRest(t *rapid.T, it *Iter, want []crdt.Delta) {
	for _, d := range want {
		if !it.Next() {
			t.Fatalf("end before %+v: %v", d.Slot, it.Err())
		}
		compareSlot(t, it, d)
	}
	if it.Next() {
		t.Fatalf("got slot %+v, want the end", it.Slot())
	}
}

// compareGet compares what a command that is applied next would read.
func (w *twin) compareGet(t *rapid.T, s *Store) {
	for _, key := range metaKeys {
		value, ok, err := s.Get(key)
		if want, held := w.meta[string(key)]; err != nil || ok != held || string(value) != want {
			t.Fatalf("key %x is %q %v %v, want %q %v", key, value, ok, err, want, held)
		}
	}
}

func (w *twin) compareMeta(t *rapid.T, v *View) {
	got := map[string]string{}
	for _, kind := range []byte{rowMeta, rowOut} {
		var last []byte
		check(t, v.Scan([]byte{kind}, []byte{kind + 1}, func(key, value []byte) bool {
			if last != nil && bytes.Compare(key, last) <= 0 {
				t.Fatalf("key %x after %x", key, last)
			}
			last = bytes.Clone(key)
			got[string(key)] = string(value)
			return true
		}))
	}
	if !maps.Equal(got, w.meta) {
		t.Fatalf("small values %q, want %q", got, w.meta)
	}
	for _, key := range metaKeys {
		value, ok, err := v.Get(key)
		if want, held := w.meta[string(key)]; err != nil || ok != held || string(value) != want {
			t.Fatalf("key %x is %q %v %v, want %q %v", key, value, ok, err, want, held)
		}
	}
}

// held is a view kept open, and the commands it must show for ever.
type held struct {
	view    *View
	history []*Writes
}

// storeModel drives a store by random actions beside the history of commands that it has applied.
type storeModel struct {
	tb          testing.TB
	tableBytes  int64
	fs          *vfs.MemFS
	store       *Store
	history     []*Writes // the replicated log: entry i has index i+1
	views       []held
	checkpoints [][]*Writes // the history of checkpoint i
}

func (m *storeModel) open(t *rapid.T) {
	o := testOptions(m.tb, m.fs)
	o.TableBytes = m.tableBytes
	m.store = must[*Store](t)(Open(o))
}

func (m *storeModel) closeViews(t *rapid.T) {
	for _, h := range m.views {
		check(t, h.view.Close())
	}
	m.views = nil
}

// replay applies what the store has lost, as the replicated log would.
func (m *storeModel) replay(t *rapid.T) {
	index, chain := m.store.AppliedIndex()
	if index > uint64(len(m.history)) {
		t.Fatalf("store at %d, log ends at %d", index, len(m.history))
	}
	if index > 0 && m.history[index-1].Chain != chain {
		t.Fatalf("chain %x at %d, want %x", chain, index, m.history[index-1].Chain)
	}
	for _, w := range m.history[index:] {
		check(t, m.store.Apply(w))
	}
}

func (m *storeModel) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"apply": func(t *rapid.T) {
			w := genWrites(uint64(len(m.history))+1).Draw(t, "command")
			check(t, m.store.Apply(w))
			m.history = append(m.history, w)
		},
		"apply many": func(t *rapid.T) {
			views := rapid.Bool().Draw(t, "with views")
			for range rapid.IntRange(1, 20).Draw(t, "commands") {
				w := genWrites(uint64(len(m.history))+1).Draw(t, "command")
				check(t, m.store.Apply(w))
				m.history = append(m.history, w)
				if views { // leaves a table behind
					check(t, must[*View](t)(m.store.View()).Close())
				}
			}
		},
		"view": func(t *rapid.T) {
			v := must[*View](t)(m.store.View())
			defer func() { check(t, v.Close()) }()
			if v.Index() != uint64(len(m.history)) {
				t.Fatalf("view at %d, want %d", v.Index(), len(m.history))
			}
			twinOf(m.history).compare(t, v)
		},
		"hold view": func(t *rapid.T) {
			m.views = append(m.views, held{must[*View](t)(m.store.View()), slices.Clone(m.history)})
		},
		"look at held view": func(t *rapid.T) {
			if len(m.views) == 0 {
				t.Skip("none")
			}
			h := m.views[0]
			twinOf(h.history).compare(t, h.view)
			m.views = m.views[1:]
			check(t, h.view.Close())
		},
		"get":          func(t *rapid.T) { twinOf(m.history).compareGet(t, m.store) },
		"write behind": func(t *rapid.T) { must[uint64](t)(m.store.writeBehind()) },
		"flush":        func(t *rapid.T) { check(t, m.store.mu.engine.db.Flush()) },
		"restart": func(t *rapid.T) {
			m.closeViews(t)
			check(t, m.store.Close())
			m.open(t)
			if index, _ := m.store.AppliedIndex(); index != uint64(len(m.history)) {
				t.Fatalf("closed at %d, opened at %d", len(m.history), index)
			}
		},
		"crash": func(t *rapid.T) {
			survive := rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "survive")
			after := m.fs.CrashClone(vfs.CrashCloneCfg{
				UnsyncedDataPercent: survive, RNG: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
			})
			m.closeViews(t)
			check(t, m.store.Close())
			m.fs = after
			m.open(t)
			m.replay(t)
		},
		"checkpoint": func(t *rapid.T) {
			index, chain, err := m.store.Checkpoint(fmt.Sprintf("/checkpoints/%d", len(m.checkpoints)))
			check(t, err)
			if index != uint64(len(m.history)) || index > 0 && chain != m.history[index-1].Chain {
				t.Fatalf("checkpoint at %d, want %d", index, len(m.history))
			}
			m.checkpoints = append(m.checkpoints, slices.Clone(m.history))
		},
		"restore": func(t *rapid.T) {
			if len(m.checkpoints) == 0 {
				t.Skip("none")
			}
			i := rapid.IntRange(0, len(m.checkpoints)-1).Draw(t, "checkpoint")
			check(t, m.store.Restore(fmt.Sprintf("/checkpoints/%d", i)))
			m.history = slices.Clone(m.checkpoints[i])
		},
	}
}

// Whatever is done to a store, it holds what its commands say, once.
func TestStoreModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]int64{2 << 10, 1 << 20}).Draw(rt, "table bytes")
		m := &storeModel{tb: t, tableBytes: size, fs: vfs.NewCrashableMem()}
		m.open(rt)
		defer func() {
			m.closeViews(rt)
			check(rt, m.store.Close())
		}()
		rt.Repeat(m.actions())
		v := must[*View](rt)(m.store.View())
		defer func() { check(rt, v.Close()) }()
		twinOf(m.history).compare(rt, v)
	})
}
