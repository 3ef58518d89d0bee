package table

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"pgregory.net/rapid"
)

func TestAdmit(t *testing.T) {
	s := new(Sessions)
	l := Limits{MaxAhead: 10, Open: 2, Gaps: 2}
	a, b, late := SessionID{2000, 1}, SessionID{2005, 1}, SessionID{2500, 1}
	for _, id := range []ID{{a, 1}, {a, 2}, {a, 3}, {a, 7}, {a, 9}, {b, 5}} {
		s.Add(id)
	}
	s.Close(2001)
	s.Add(ID{SessionID{1999, 1}, 4}) // ended here, and sent by a peer
	for _, x := range []struct {
		name string
		id   ID
		now  int64
		held bool
		err  error
	}{
		{"no session was born then", ID{SessionID{-1, 1}, 1}, 2500, false, ErrOperation},
		{"nothing has sequence 0", ID{b, 0}, 2500, false, ErrOperation},
		{"held", ID{b, 5}, 2500, true, nil},
		{"held, of a session that has ended", ID{a, 2}, 2500, true, nil},
		{"of a session that has ended", ID{a, 4}, 2500, false, ErrExpired},
		{"of one never heard of that has ended", ID{SessionID{1, 1}, 1}, 2500, false, ErrExpired},
		{"born ahead", ID{late, 1}, 2489, false, ErrAhead},
		{"born a little ahead", ID{late, 1}, 2490, false, nil},
		{"the missing one", ID{b, 1}, 2500, false, nil},
		{"beyond a gap", ID{b, 6}, 2500, false, nil},
	} {
		if held, err := s.Admit(x.id, x.now, l); held != x.held || !errors.Is(err, x.err) {
			t.Errorf("%s: held %t, %v", x.name, held, err)
		}
	}
	s.Add(ID{b, 7})
	if _, err := s.Admit(ID{b, 9}, 2500, l); !errors.Is(err, ErrGaps) {
		t.Errorf("too many gaps: %v", err)
	}
	if _, err := s.Admit(ID{b, 1}, 2500, l); err != nil {
		t.Errorf("what closes a gap: %v", err)
	}
	s.Add(ID{late, 1})
	if _, err := s.Admit(ID{SessionID{2500, 2}, 1}, 2500, l); !errors.Is(err, ErrFull) {
		t.Errorf("too many sessions: %v", err)
	}
	if _, err := s.Admit(ID{late, 2}, 2500, l); err != nil {
		t.Errorf("an open session: %v", err)
	}
	s.Close(2006)
	if _, err := s.Admit(ID{SessionID{2500, 2}, 1}, 2500, l); err != nil {
		t.Errorf("room again: %v", err)
	}
	s.Raise(2004)
	if s.Len() != 2 || s.Floor() != 2004 || s.Closed() != 2006 {
		t.Errorf("%d sessions from %d on, closed below %d", s.Len(), s.Floor(), s.Closed())
	}
	if held, err := s.Admit(ID{a, 2}, 2500, l); held || !errors.Is(err, ErrExpired) {
		t.Errorf("below the floor: held %t, %v", held, err)
	}
	if s.Close(2005) || s.Close(2006) || !s.Close(math.MaxInt64) || s.Closed() != maxMillis {
		t.Error("what is closed opens again, or never closes")
	}
}

// TestSessionsHoldWhatWasAdded: held and prefix are those of the plain set of ids, in whatever order they came.
func TestSessionsHoldWhatWasAdded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := genHistory(TypeCounter).Draw(t, "history")
		x := h.genReplica().Draw(t, "x")
		closed := x.sessions.Floor()
		for _, id := range h.ids {
			held, err := x.sessions.Admit(id, 1000, Limits{MaxAhead: 0, Open: 100, Gaps: 100})
			switch {
			case id.Session.Born < closed:
				if held || !errors.Is(err, ErrExpired) {
					t.Fatalf("%s: %t, %v", id, held, err)
				}
				continue
			case err != nil || held != x.held[id]:
				t.Fatalf("%s: %t, %v", id, held, err)
			}
			prefix := uint64(0)
			for x.held[ID{id.Session, prefix + 1}] {
				prefix++
			}
			if got := x.sessions.Prefix(id.Session); got != prefix {
				t.Fatalf("%s: prefix %d, not %d", id.Session, got, prefix)
			}
			if x.sessions.Add(id) == x.held[id] {
				t.Fatalf("%s: new is %t", id, x.held[id])
			}
			x.held[id] = true
		}
	})
}

func TestClock(t *testing.T) {
	c := Clock{MaxAhead: 100}
	next := func(now int64, want Time) {
		t.Helper()
		if got, err := c.Next(now); err != nil || got != want {
			t.Fatalf("%s at %d ms, %v; want %s", got, now, err, want)
		}
	}
	next(1000, TimeAt(1000))
	next(1000, TimeAt(1000)+1)
	next(990, TimeAt(1000)+2)
	next(1001, TimeAt(1001))
	if err := c.Observe(TimeAt(1101)+7, 1001); err != nil {
		t.Fatal(err)
	}
	next(1001, TimeAt(1101)+8)
	if err := c.Observe(TimeAt(1102), 1001); !errors.Is(err, ErrAhead) {
		t.Fatalf("pulled 101 ms ahead: %v", err)
	}
	if err := c.Observe(TimeAt(3), 1001); err != nil {
		t.Fatal(err)
	}
	next(1001, TimeAt(1101)+9)
	if got, err := c.Next(1000); !errors.Is(err, ErrAhead) {
		t.Fatalf("%s, 101 ms ahead: %v", got, err)
	}
	c.last = TimeAt(1101) - 1 // the counter is used up
	next(1001, TimeAt(1101))
	for _, now := range []int64{-1, 900} {
		if got, err := c.Next(now); !errors.Is(err, ErrAhead) {
			t.Fatalf("%s at %d ms: %v", got, now, err)
		}
	}
}

func TestValidate(t *testing.T) {
	session := SessionID{500, 1}
	id, other := ID{session, 2}, ID{session, 1}
	at := TimeAt(600)
	for _, x := range []struct {
		name string
		of   Type
		op   Op
		err  error
	}{
		{"up", TypeCounter, Op{ID: id, Kind: Increment, Amount: 1}, nil},
		{"down", TypeUpDown, Op{ID: id, Kind: Increment, Amount: -1}, nil},
		{"down where it only grows", TypeCounter, Op{ID: id, Kind: Increment, Amount: -1}, ErrOperation},
		{"no id", TypeCounter, Op{Kind: Increment, Amount: 1}, ErrOperation},
		{"assign", TypeRegister, Op{ID: id, Kind: Assign, Time: at, Data: make([]byte, MaxValue)}, nil},
		{"value too long", TypeRegister, Op{ID: id, Kind: Assign, Time: at, Data: make([]byte, MaxValue+1)}, ErrOperation},
		{"clear", TypeRegister, Op{ID: id, Kind: Clear, Time: at}, nil},
		{"clear with a value", TypeRegister, Op{ID: id, Kind: Clear, Time: at, Data: []byte{1}}, ErrOperation},
		{"insert into a register", TypeRegister, Op{ID: id, Kind: Insert, Time: at}, ErrOperation},
		{"no stamp", TypeRegister, Op{ID: id, Kind: Assign}, ErrOperation},
		{"a stamp from before the session", TypeRegister, Op{ID: id, Kind: Assign, Time: TimeAt(499)}, ErrOperation},
		{"a stamp at the bound", TypeLWWSet, Op{ID: id, Kind: Insert, Time: TimeAt(1010) + 9}, nil},
		{"a stamp ahead", TypeLWWSet, Op{ID: id, Kind: Insert, Time: TimeAt(1011)}, ErrAhead},
		{"an amount", TypeLWWSet, Op{ID: id, Kind: Insert, Time: at, Amount: 1}, ErrOperation},
		{"observed by stamp", TypeLWWSet, Op{ID: id, Kind: Remove, Time: at, Observed: []ID{other}}, ErrOperation},
		{"element too long", TypeSet, Op{ID: id, Kind: Insert, Data: make([]byte, MaxElement+1)}, ErrOperation},
		{"a stamp in a set", TypeSet, Op{ID: id, Kind: Insert, Time: at}, ErrOperation},
		{"observed", TypeSet, Op{ID: id, Kind: Remove, Observed: []ID{other, {session, 3}}}, nil},
		{"observed out of order", TypeSet, Op{ID: id, Kind: Remove, Observed: []ID{{session, 3}, other}}, ErrOperation},
		{"observed itself", TypeSet, Op{ID: id, Kind: Insert, Observed: []ID{id}}, ErrOperation},
		{"observed what can't be", TypeSet, Op{ID: id, Kind: Remove, Observed: []ID{{session, 0}}}, ErrOperation},
		{"observed the future", TypeSet, Op{ID: id, Kind: Remove, Observed: []ID{{SessionID{1011, 1}, 1}}}, ErrAhead},
		{"observed too much", TypeSet, Op{ID: id, Kind: Remove, Observed: slices.Repeat([]ID{other}, MaxObserved+1)}, ErrOperation},
		{"unknown", TypeSet, Op{ID: id, Kind: 9}, ErrOperation},
		{"of no type", 9, Op{ID: id, Kind: Insert}, ErrOperation},
	} {
		if err := x.op.Validate(x.of, 1000, 10); !errors.Is(err, x.err) || (err == nil) != (x.err == nil) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

func TestMarks(t *testing.T) {
	m := Marks{}
	if m.Floor(nil) != 0 || m.Floor([]Actor{1}) != 0 {
		t.Error("a floor without marks")
	}
	if got, err := m.Begin(3, 50); err != nil || got != (Mark{1, 50}) {
		t.Fatal(got, err)
	}
	if got := m.Take(3, 0); got != (Mark{2, 50}) {
		t.Errorf("an operation moves the mark to %v", got)
	}
	if got := m.Take(3, 70); got != (Mark{3, 70}) {
		t.Errorf("a closing moves the mark to %v", got)
	}
	if _, err := m.Begin(3, 90); !errors.Is(err, ErrActor) || m[3] != (Mark{3, 70}) {
		t.Errorf("an actor begins twice: %v, %v", err, m[3])
	}
	n := Marks{4: {5, 60}}
	for _, x := range []struct {
		to   Mark
		want bool
	}{{Mark{2, 50}, false}, {Mark{1, 50}, true}, {Mark{1, 50}, false}, {Mark{2, 50}, true}, {Mark{3, 70}, true}, {Mark{5, 90}, false}} {
		if got := n.Follow(3, x.to); got != x.want {
			t.Errorf("follows to %v: %t", x.to, got)
		}
	}
	if !n.Covers(m) || m.Covers(n) || !m.Covers(Marks{9: {}}) {
		t.Error("covers")
	}
	m.Join(n)
	if len(m) != 2 || !m.Covers(n) || m.Floor([]Actor{3, 4}) != 60 || m.Floor([]Actor{3}) != 70 || m.Floor([]Actor{3, 4, 5}) != 0 {
		t.Errorf("joined: %v", m)
	}
}

// Sessions that are stored one by one come back as they were.
func TestSessionsOneByOne(t *testing.T) {
	var s Sessions
	s.Raise(50)
	for _, id := range []ID{{SessionID{100, 1}, 1}, {SessionID{100, 1}, 2}, {SessionID{100, 1}, 5}, {SessionID{70, 9}, 3}} {
		s.Add(id)
	}
	s.Close(90)
	again := new(Sessions)
	again.Raise(50)
	for id := range s.All() {
		if err := again.Load(s.AppendOne(nil, id)); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if err := again.Load(s.AppendOne(nil, id)); !errors.Is(err, crdt.ErrEncoding) {
			t.Fatalf("%s twice: %v", id, err)
		}
	}
	if err := again.Load(s.Append(nil)); !errors.Is(err, crdt.ErrEncoding) {
		t.Errorf("more than one: %v", err)
	}
	again.Close(90)
	if !bytes.Equal(again.Append(nil), s.Append(nil)) || again.Open() != 1 || s.Open() != 1 {
		t.Errorf("%x with %d open, was %x with %d", again.Append(nil), again.Open(), s.Append(nil), s.Open())
	}
	if s.Beyond(SessionID{100, 1}) != 1 || s.Beyond(SessionID{1, 1}) != 0 {
		t.Error("operations beyond a prefix")
	}
}

func TestTypeOf(t *testing.T) {
	for _, of := range []Type{TypeCounter, TypeUpDown, TypeRegister, TypeSet, TypeLWWSet} {
		got, ok := TypeOf(New(of, 3).Append(nil))
		if _, err := Decode(got, New(of, 3).Append(nil)); !ok || err != nil || got != of && of != TypeCounter {
			t.Errorf("a %s is taken for a %s: %v", of, got, err)
		}
	}
	for _, b := range [][]byte{nil, {version}, {version, kindOp}, {version + 1, kindSet}} {
		if of, ok := TypeOf(b); ok {
			t.Errorf("%x is taken for a %s", b, of)
		}
	}
}
