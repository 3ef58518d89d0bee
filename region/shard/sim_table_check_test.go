package shard

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
)

// restore loses a region's disks, and brings it back from an old checkpoint or from nothing, as a new actor.
func (w *tableWorld) restore(r *tableRegion) {
	old, others := r.held, map[table.ID]bool{}
	if n := len(r.copies); n > 0 && w.rng.IntN(4) > 0 {
		w.stats["restored"]++
		c := r.copies[w.rng.IntN(n)]
		w.need1(r.m.Restore(c.dir))
		r.raft, r.base = make([][]byte, c.index), c.index
		r.held = maps.Clone(c.held)
		r.cursor = map[*tableRegion]uint64{}
	} else {
		w.stats["rebuilt"]++
		closeMachine(w.t, r.m)
		r.empty()
	}
	for _, s := range w.regions {
		delete(s.cursor, r)
		for id := range s.held {
			others[id] = true
		}
	}
	for id := range old {
		if !others[id] {
			w.lost[id] = true
			w.stats["lost"]++
		}
	}
	r.copies = nil
	w.enter(r)
}

func (r *tableRegion) value(n, key int) table.Value {
	snap, err := r.m.Snapshot()
	r.w.need1(err)
	v, err := snap.TableValue(simTable(n), simTypes[n], simKey(key))
	r.w.need1(errors.Join(err, snap.Close()))
	return v
}

// check compares what a region's values read as with the operations that it holds.
func (w *tableWorld) check(r *tableRegion) {
	w.t.Helper()
	snap, err := r.m.Snapshot()
	w.need1(err)
	defer func() { w.need1(snap.Close()) }()
	for n, of := range simTypes {
		seen := map[string]string{}
		limit := 1 + w.rng.IntN(3)
		for from := []byte(nil); ; {
			next, err := snap.TableScan(simTable(n), of, from, limit, func(key []byte, v table.Value) error {
				seen[string(key)] = readTable(v)
				return nil
			})
			w.need1(err)
			if from = next; next == nil {
				break
			}
		}
		for key := range 2 {
			var ops []*simTableOp
			for _, op := range r.held {
				if op.table == n && op.key == key {
					ops = append(ops, op)
				}
			}
			v, err := snap.TableValue(simTable(n), of, simKey(key))
			w.need1(err)
			want := tableOracle(of, ops)
			if got := readTable(v); got != want {
				w.t.Fatalf("%s: key %d of the %s reads %s, its operations say %s", r.name, key, of, got, want)
			}
			if scanned, ok := seen[string(simKey(key))]; ok && scanned != want || !ok && want != readTable(table.New(of, 0)) {
				w.t.Fatalf("%s: key %d of the %s is scanned as %q, its operations say %s", r.name, key, of, scanned, want)
			}
		}
	}
}

func readTable(v table.Value) string {
	switch v := v.(type) {
	case *table.Counter:
		return v.Total().String()
	case *table.Register:
		data, ok := v.Get()
		return fmt.Sprintf("%q %t", data, ok)
	case *table.Set:
		return fmt.Sprint(v.Elements())
	case *table.LWWSet:
		return fmt.Sprint(v.Elements())
	}
	return "?"
}

// tableOracle reads a value off the operations on it.
func tableOracle(of table.Type, ops []*simTableOp) string {
	var total int64
	gone := map[table.ID]bool{}
	last := map[string]*simTableOp{}
	for _, op := range ops {
		total += op.Amount
		for _, id := range op.Observed {
			gone[id] = true
		}
		element := string(op.Data)
		if of == table.TypeRegister {
			element = ""
		}
		if was := last[element]; was == nil || was.Stamp().Compare(op.Stamp()) < 0 {
			last[element] = op
		}
	}
	var in []string
	for element, op := range last {
		switch {
		case of == table.TypeRegister && op.Kind == table.Assign:
			return fmt.Sprintf("%q true", op.Data)
		case of == table.TypeLWWSet && op.Kind == table.Insert:
			in = append(in, element)
		}
	}
	for _, op := range ops {
		if of == table.TypeSet && op.Kind == table.Insert && !gone[op.ID] {
			in = append(in, string(op.Data))
		}
	}
	slices.Sort(in)
	switch of {
	case table.TypeRegister:
		return `"" false`
	case table.TypeSet, table.TypeLWWSet:
		return fmt.Sprint(slices.Compact(in))
	}
	return fmt.Sprint(total)
}

// finish heals all, and compares before and after the floor has passed what it can.
func (w *tableWorld) finish() {
	w.quiet = true
	for _, r := range w.regions {
		r.cut = false
	}
	w.converge()
	for id := range w.acked {
		if w.regions[0].held[id] == nil && !w.lost[id] {
			w.t.Fatalf("%s was acknowledged and is nowhere", id)
		}
	}
	w.now += 10 * simDay
	for _, r := range w.regions {
		r.close()
	}
	w.converge()
	for _, r := range w.regions {
		if t := r.tables(); t.Kept != 0 || t.Beyond != 0 {
			w.t.Fatalf("%s keeps %d sessions below floor %d, %d operations beyond", r.name, t.Kept, t.Floor, t.Beyond)
		}
	}
}

func (w *tableWorld) converge() {
	for range 4 {
		for _, r := range w.regions {
			for r.tables().Beside != nil && r.tables().Beside.Adopted {
				r.merge(1 << 20)
			}
			for _, s := range w.regions {
				if r == s {
					continue
				}
				for r.pull(s) {
				}
				for tries := 0; !r.tables().Marks.Covers(s.tables().Marks) && tries < 100; tries++ {
					w.joinState(r, s)
					for r.tables().Beside != nil && r.tables().Beside.Adopted {
						r.merge(1 << 20)
					}
				}
			}
		}
		for _, r := range w.regions {
			w.raise(r)
		}
	}
	first := w.regions[0].digest()
	for _, r := range w.regions {
		w.check(r)
		if !r.begun() {
			w.t.Fatalf("%s never writes again", r.name)
		}
		if d := r.digest(); d != first {
			w.t.Fatalf("%s holds %x, %s %x", r.name, d, w.regions[0].name, first)
		}
	}
}

func (r *tableRegion) digest() crdt.Hash {
	snap, err := r.m.Snapshot()
	r.w.need1(err)
	d, err := snap.TableDigest()
	r.w.need1(errors.Join(err, snap.Close()))
	return d
}
