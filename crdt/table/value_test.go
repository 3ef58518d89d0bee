package table

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"pgregory.net/rapid"
)

func forAllTypes(t *testing.T, check func(t *rapid.T, h history)) {
	for _, of := range allTypes {
		t.Run(of.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { check(t, genHistory(of).Draw(t, "history")) })
		})
	}
}

// TestValueIsAFunctionOfOperations: whatever order, retries and foldings a copy has seen, it reads as the operations say,
// and its bytes are those of any other copy with the same operations and floor.
func TestValueIsAFunctionOfOperations(t *testing.T) {
	forAllTypes(t, func(t *rapid.T, h history) {
		x := h.genReplica().Draw(t, "x")
		if got, want := read(x.value), oracle(h.of, x.ops()); got != want {
			t.Fatalf("reads %s, the operations say %s", got, want)
		}
		var order []ID
		for id := range x.held {
			order = append(order, id)
		}
		slices.SortFunc(order, func(a, b ID) int { return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), a.Compare(b)) })
		y := h.replica(t, order, x.sessions.Floor())
		if x.bytes() != y.bytes() {
			t.Fatalf("the same operations are %x in one order and %x in another", x.bytes(), y.bytes())
		}
		z := x.clone()
		if z.bytes() != x.bytes() || read(z.value) != read(x.value) {
			t.Fatalf("%x decoded and encoded is %x", x.bytes(), z.bytes())
		}
		for id := range x.held {
			z.take(id)
		}
		if z.bytes() != x.bytes() {
			t.Fatal("a retry changed something")
		}
	})
}

// TestJoinLaws: joins of copies, of whatever part and folded however far, are those of their operations.
func TestJoinLaws(t *testing.T) {
	forAllTypes(t, func(t *rapid.T, h history) {
		a, b, c := h.genReplica().Draw(t, "a"), h.genReplica().Draw(t, "b"), h.genReplica().Draw(t, "c")
		before := b.bytes()
		ab := a.join(b)
		if b.bytes() != before {
			t.Fatal("the argument changed")
		}
		if got, want := read(ab.value), oracle(h.of, ab.ops()); got != want {
			t.Fatalf("reads %s, the operations say %s", got, want)
		}
		if a.join(a).bytes() != a.bytes() || ab.join(b).bytes() != ab.bytes() {
			t.Fatal("not idempotent")
		}
		if ba := b.join(a); ba.bytes() != ab.bytes() {
			t.Fatalf("not commutative: %x and %x", ab.bytes(), ba.bytes())
		}
		if l, r := ab.join(c), a.join(b.join(c)); l.bytes() != r.bytes() {
			t.Fatalf("not associative: %x and %x", l.bytes(), r.bytes())
		}
		var order []ID
		for id := range ab.held {
			order = append(order, id)
		}
		slices.SortFunc(order, ID.Compare)
		whole := h.replica(t, order, ab.sessions.Floor())
		ab.value.Fold(ab.sessions)
		if whole.bytes() != ab.bytes() {
			t.Fatalf("joined: %x, taken one by one: %x", ab.bytes(), whole.bytes())
		}
	})
}

// TestDeltaJoinIsStateJoin: an operation applied is the join of a value that holds it alone, and what a join says of
// changes is what the bytes say.
func TestDeltaJoinIsStateJoin(t *testing.T) {
	forAllTypes(t, func(t *rapid.T, h history) {
		x, y := h.genReplica().Draw(t, "x"), h.genReplica().Draw(t, "y")
		for id := range y.held {
			o := h.ops[id]
			if o == nil {
				continue
			}
			if err := o.Validate(h.of, 1000, 0); err != nil {
				t.Fatal(err)
			}
			delta, joined, before := New(h.of, 0), x.clone(), x.value.Append(nil)
			delta.Apply(o)
			changed := joined.value.Join(delta)
			if applied := x.value.Apply(o); applied != changed || changed == bytes.Equal(before, x.value.Append(nil)) {
				t.Fatalf("%+v: applied %t, joined %t", o, applied, changed)
			}
			if !bytes.Equal(joined.value.Append(nil), x.value.Append(nil)) {
				t.Fatalf("%+v: applied %x, joined %x", o, x.value.Append(nil), joined.value.Append(nil))
			}
		}
		before := x.value.Append(nil)
		if changed := x.value.Join(y.value); changed == bytes.Equal(before, x.value.Append(nil)) {
			t.Fatalf("the join says %t", changed)
		}
	})
}

// TestEmptyIsNew: a value that says it is empty may be dropped, and joins meet the same in its place.
func TestEmptyIsNew(t *testing.T) {
	forAllTypes(t, func(t *rapid.T, h history) {
		x, y := h.genReplica().Draw(t, "x"), h.genReplica().Draw(t, "y")
		if !x.value.Empty(x.sessions.Floor()) {
			return
		}
		fresh := x.clone()
		fresh.value = New(h.of, x.sessions.Floor())
		if fresh.bytes() != x.bytes() || fresh.join(y).bytes() != x.join(y).bytes() {
			t.Fatalf("%x is not %x", x.bytes(), fresh.bytes())
		}
	})
}

// TestObservedRemove: what a remove has not observed stays, and what it has observed goes also where it comes later.
func TestObservedRemove(t *testing.T) {
	at := func(s uint64, n uint64) ID { return ID{SessionID{1, s}, n} }
	first := &Op{ID: at(1, 1), Kind: Insert, Data: []byte("e")}
	unseen := &Op{ID: at(2, 1), Kind: Insert, Data: []byte("e")}
	remove := &Op{ID: at(3, 1), Kind: Remove, Data: []byte("e"), Observed: []ID{first.ID}}
	replace := &Op{ID: at(4, 1), Kind: Insert, Data: []byte("e"), Observed: []ID{first.ID, unseen.ID}}
	elsewhere := &Op{ID: at(5, 1), Kind: Remove, Data: []byte("f"), Observed: []ID{first.ID}}
	for _, x := range []struct {
		name string
		ops  []*Op
		want []ID
	}{
		{"observed", []*Op{first, remove}, nil},
		{"retried after", []*Op{first, remove, first}, nil},
		{"remove first", []*Op{remove, first}, nil},
		{"unseen stays", []*Op{first, unseen, remove}, []ID{unseen.ID}},
		{"unseen after", []*Op{first, remove, unseen}, []ID{unseen.ID}},
		{"replaced", []*Op{first, unseen, replace, unseen}, []ID{replace.ID}},
		{"of another element", []*Op{first, unseen, elsewhere}, []ID{unseen.ID}},
	} {
		s := new(Set)
		for _, o := range x.ops {
			s.Apply(o)
		}
		if got := s.Inserts([]byte("e")); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

// TestRemovalIsKeptUntilEveryRegionPassed: an older insert that comes late does not bring an element back, before the floor
// passes the removal and after.
func TestRemovalIsKeptUntilEveryRegionPassed(t *testing.T) {
	insert := &Op{ID: ID{SessionID{100, 1}, 1}, Kind: Insert, Time: TimeAt(110), Data: []byte("e")}
	remove := &Op{ID: ID{SessionID{100, 2}, 1}, Kind: Remove, Time: TimeAt(120), Data: []byte("e")}
	behind := new(LWWSet) // a region that was away
	behind.Apply(insert)
	s, sessions := new(LWWSet), new(Sessions)
	s.Apply(remove)
	for _, floor := range []int64{0, 100, 120, 121} {
		sessions.Raise(floor)
		s.Fold(sessions)
		if s.Empty(floor) != (floor > 120) {
			t.Errorf("at floor %d the removal is kept: %t", floor, !s.Empty(floor))
		}
		if s.Apply(insert) || s.Join(behind) || len(s.Elements()) > 0 {
			t.Fatalf("at floor %d the element is back", floor)
		}
	}
	if s.Empty(120) {
		t.Error("what passed 121 is said to be nothing at 120")
	}
	if !behind.Join(s) || !behind.Empty(121) {
		t.Error("the region that was away keeps the element")
	}
}

func TestSum(t *testing.T) {
	var s Sum
	for range 3 {
		s = s.plus(sumOf(1<<63 - 1))
	}
	if _, fits := s.Int64(); fits || s.String() != "27670116110564327421" {
		t.Error(s)
	}
	for range 5 {
		s = s.plus(sumOf(-1 << 63))
	}
	if s.String() != "-18446744073709551619" || s.unzigzag() == s || s.zigzag().unzigzag() != s {
		t.Error(s)
	}
	if i, fits := s.plus(Sum{1, 0}).Int64(); !fits || i != -3 {
		t.Error(i, fits)
	}
	for _, s := range []Sum{{}, {0, 1}, {1 << 63, 0}, {1<<63 - 1, 1<<64 - 1}, {1<<64 - 1, 1<<64 - 1}, s} {
		r := open(appendSum(nil, s))
		if got := r.sum(); got != s || r.Done() != nil {
			t.Errorf("%s decodes as %s, %v", s, got, r.Err)
		}
	}
	for _, b := range [][]byte{nil, {0x80, 0}, bytes.Repeat([]byte{0xff}, 19), append(bytes.Repeat([]byte{0xff}, 18), 4)} {
		r := open(b)
		if r.sum(); !errors.Is(r.Err, crdt.ErrEncoding) {
			t.Errorf("%x is taken", b)
		}
	}
}

func TestParseType(t *testing.T) {
	for _, of := range allTypes {
		if got, ok := ParseType(of.String()); !ok || got != of {
			t.Errorf("%s parses as %s", of, got)
		}
	}
	if _, ok := ParseType("owned"); ok {
		t.Error("an owned table is none of these")
	}
}
