package keyspace

import (
	"bytes"
	"cmp"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/watershed-db/watershed/crdt"
)

func genCopy() *rapid.Generator[Copy] {
	return rapid.Custom(func(t *rapid.T) Copy {
		return Copy{
			Generation: crdt.GenerationID{15: byte(rapid.IntRange(0, 2).Draw(t, "generation"))},
			Group:      crdt.RegionID(rapid.SampledFrom([]string{"a", "ab", "b", "us-east"}).Draw(t, "group")),
			Number:     rapid.SampledFrom([]uint32{0, 1, 255, 256, 1 << 31}).Draw(t, "copy"),
		}
	})
}

func genValue() *rapid.Generator[crdt.Value] {
	return rapid.OneOf(
		rapid.Just(crdt.Null()),
		rapid.Map(rapid.Bool(), crdt.Bool),
		rapid.Map(rapid.Int64(), crdt.Int),
		rapid.Map(rapid.StringMatching("[a\x00\xc3\xa9]{0,3}"), func(s string) crdt.Value { return crdt.Text(s) }),
	)
}

func genTime() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64(), rapid.Int64Range(-2, 2), rapid.SampledFrom([]int64{crdt.MinTime, crdt.MaxTime}))
}

func compareValues(a, b []crdt.Value) int {
	for i := range a {
		if c := crdt.Compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// Byte order of slot keys is (generation, group, copy, time, user key, class), and parsing gives back what went in.
func TestDataKeyOrder(t *testing.T) {
	type row struct {
		copy   Copy
		values []crdt.Value
		slot   crdt.Slot
	}
	rapid.Check(t, func(t *rapid.T) {
		arity := rapid.IntRange(0, 3).Draw(t, "arity")
		draw := func(name string) row {
			r := row{copy: genCopy().Draw(t, name), values: rapid.SliceOfN(genValue(), arity, arity).Draw(t, name)}
			r.slot = crdt.Slot{Time: genTime().Draw(t, name), Class: rapid.Uint16Range(0, MaxSlices).Draw(t, name), Key: []byte{}}
			for _, v := range r.values {
				r.slot.Key = v.AppendKey(r.slot.Key)
			}
			return r
		}
		a, b := draw("a"), draw("b")
		if rapid.Bool().Draw(t, "same copy") {
			b.copy = a.copy
			if rapid.Bool().Draw(t, "same time") {
				b.slot.Time = a.slot.Time
			}
		}
		ka, kb := AppendDataKey(nil, a.copy, a.slot), AppendDataKey(nil, b.copy, b.slot)
		want := cmp.Or(
			bytes.Compare(a.copy.Generation[:], b.copy.Generation[:]),
			cmp.Compare(len(a.copy.Group), len(b.copy.Group)), cmp.Compare(a.copy.Group, b.copy.Group),
			cmp.Compare(a.copy.Number, b.copy.Number), cmp.Compare(a.slot.Time, b.slot.Time),
			compareValues(a.values, b.values), cmp.Compare(a.slot.Class, b.slot.Class))
		if got := bytes.Compare(ka, kb); got != want {
			t.Fatalf("%+v and %+v compare %d, want %d", a, b, got, want)
		}
		c, s, err := ParseDataKey(ka)
		if err != nil || c != a.copy || s.Time != a.slot.Time || s.Class != a.slot.Class || !bytes.Equal(s.Key, a.slot.Key) {
			t.Fatalf("parsed %v %+v %v", c, s, err)
		}
	})
}

func TestOutKey(t *testing.T) {
	if i, err := ParseOutKey(OutKey(1 << 40)); i != 1<<40 || err != nil {
		t.Fatal(i, err)
	}
	if bytes.Compare(OutKey(255), OutKey(256)) >= 0 {
		t.Fatal("keys by index are out of order")
	}
	if _, err := ParseOutKey(MetaKey([]byte("12345678"))); !errors.Is(err, ErrKey) {
		t.Fatal(err)
	}
}

func TestShardOf(t *testing.T) {
	counts := make([]int, 7)
	for i := range 7000 {
		counts[ShardOf(crdt.Int(int64(i)).AppendKey(nil), len(counts))]++
	}
	for s, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("shard %d got %d of 7000 keys", s, n)
		}
	}
	// The place of a key is stored state: it must never change.
	for key, want := range map[string]ShardID{"": 10, "rider-1": 44, "rider-2": 63} {
		if got := ShardOf(crdt.Text(key).AppendKey(nil), 64); got != want {
			t.Errorf("text %q is on shard %d of 64, was on %d", key, got, want)
		}
	}
}

func FuzzDataKey(f *testing.F) {
	f.Add(AppendDataKey(nil, Copy{Group: "us-east", Number: 3}, crdt.Slot{Time: -5, Class: 2, Key: []byte{1}}))
	f.Add([]byte("d"))
	f.Fuzz(func(t *testing.T, key []byte) {
		c, s, err := ParseDataKey(key)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatal(err)
			}
			return
		}
		if again := AppendDataKey(nil, c, s); !bytes.Equal(again, key) {
			t.Fatalf("%x parsed and written again is %x", key, again)
		}
	})
}
