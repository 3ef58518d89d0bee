package keyspace

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"pgregory.net/rapid"

	"github.com/watershed-db/watershed/crdt"
)

func storedOperand(lo, hi uint64, cell []byte) []byte {
	return append(appendOperandHead(nil, lo, hi), cell...)
}

// mergeTree merges ascending operands pairwise in a random order and from random sides, as compactions may.
func mergeTree(t *rapid.T, ops [][]byte) ([]byte, error) {
	ops = slices.Clone(ops)
	for len(ops) > 1 {
		i := rapid.IntRange(0, len(ops)-2).Draw(t, "at")
		n := rapid.IntRange(2, len(ops)-i).Draw(t, "run")
		first, rest := ops[i], ops[i+1:i+n]
		add := pebble.ValueMerger.MergeNewer
		if rapid.Bool().Draw(t, "from the newest") {
			first, rest = ops[i+n-1], slices.Clone(ops[i:i+n-1])
			slices.Reverse(rest)
			add = pebble.ValueMerger.MergeOlder
		}
		m, err := cellMerger.Merge(nil, first)
		for _, o := range rest {
			if err == nil {
				err = add(m, o)
			}
		}
		if err != nil {
			return nil, err
		}
		merged, _, err := m.Finish(false)
		if err != nil {
			return nil, err
		}
		ops = slices.Replace(ops, i, i+n, merged)
	}
	return ops[0], nil
}

// However a slot's operands are grouped, their merge is the sum of the cells, over the whole span.
func TestMergerIsAssociative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ops [][]byte
		var all []int64
		index, first := rapid.Uint64Range(1, 1<<40).Draw(t, "first"), uint64(0)
		for range rapid.IntRange(1, 6).Draw(t, "operands") {
			lo := index + rapid.Uint64Range(0, 3).Draw(t, "gap")
			hi := lo + rapid.Uint64Range(0, 3).Draw(t, "width")
			values := rapid.SliceOfN(rapid.Int64Range(-99, 99), 1, 3).Draw(t, "values")
			ops, all, index = append(ops, storedOperand(lo, hi, cellOf(values...))), append(all, values...), hi+1
			if first == 0 {
				first = lo
			}
		}
		got, err := mergeTree(t, ops)
		if want := storedOperand(first, index-1, cellOf(all...)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("merged %x %v, want %x", got, err, want)
		}
	})
}

// A repeated operand is never added again, whichever way it comes: dropped, or found as an overlap.
func TestMergerNeverAddsTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(t, "operands")
		var ops [][]byte
		var all []int64
		for i := range n {
			all = append(all, int64(i))
			ops = append(ops, storedOperand(uint64(2*i+1), uint64(2*i+2), cellOf(int64(i))))
		}
		from := rapid.IntRange(0, n-1).Draw(t, "replayed from")
		to := rapid.IntRange(from, n-1).Draw(t, "to")
		got, err := mergeTree(t, append(slices.Clone(ops), ops[from:to+1]...))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if want := storedOperand(1, uint64(2*n), cellOf(all...)); !bytes.Equal(got, want) {
			t.Fatalf("merged %x, want %x", got, want)
		}
	})
}

func TestMergerDropsRepeats(t *testing.T) {
	base, repeat := storedOperand(3, 9, cellOf(1, 2)), storedOperand(4, 9, cellOf(2))
	newer, _ := cellMerger.Merge(nil, base)
	older, _ := cellMerger.Merge(nil, repeat)
	if err := errors.Join(newer.MergeNewer(repeat), older.MergeOlder(base)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []pebble.ValueMerger{newer, older} {
		if got, _, _ := m.Finish(true); !bytes.Equal(got, base) {
			t.Errorf("merged %x, want %x", got, base)
		}
	}
}

func TestMergerRefusesOverlap(t *testing.T) {
	a, b := storedOperand(3, 9, cellOf(1)), storedOperand(9, 10, cellOf(2))
	newer, _ := cellMerger.Merge(nil, a)
	older, _ := cellMerger.Merge(nil, b)
	if err := newer.MergeNewer(b); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if err := older.MergeOlder(a); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

func FuzzStoredValue(f *testing.F) {
	f.Add(storedOperand(1, 1, cellOf(1)))
	f.Add(storedOperand(1<<40, 1<<50, cellOf(1, -5)))
	f.Add([]byte{operandVersion, 1})
	f.Add([]byte{operandVersion, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decodeOperand(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if o.lo == 0 || o.hi < o.lo {
			t.Fatalf("span %d..%d", o.lo, o.hi)
		}
		again, err := decodeOperand(storedOperand(o.lo, o.hi, o.cell))
		if err != nil || again.lo != o.lo || again.hi != o.hi || !bytes.Equal(again.cell, o.cell) {
			t.Fatalf("%+v written and read is %+v, %v", o, again, err)
		}
		if o.hi == 1<<64-1 {
			return
		}
		m, err := cellMerger.Merge(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		// Whatever the bytes claim to be, a merge with a good cell ends in a cell or in ErrCorrupt.
		if err := m.MergeNewer(storedOperand(o.hi+1, o.hi+1, cellOf(1))); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		merged, _, err := m.Finish(true)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := decodeOperand(merged)
		if err != nil || sum.lo != o.lo || sum.hi != o.hi+1 {
			t.Fatalf("merged span %d..%d, %v", sum.lo, sum.hi, err)
		}
		if _, err := crdt.DecodeCell(sum.cell); err != nil {
			t.Fatal(err)
		}
	})
}
