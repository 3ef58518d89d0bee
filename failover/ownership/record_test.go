package ownership

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// entry is one entry of a model's log.
type entry struct {
	epoch Epoch
	first bool // of its epoch: a control entry
}

// modelWrite returns the write that carries the entries of an owner's log behind a position.
func modelWrite(log []entry, prev int) Write {
	w := Write{Epoch: log[len(log)-1].epoch, Prev: Mark{log[prev-1].epoch, Position(prev)}, Last: Position(len(log))}
	for p := prev + 1; p <= len(log); p++ {
		if e := log[p-1]; e.first {
			w.Control = append(w.Control, Control{Mark{e.epoch, Position(p)}, NewConfig(Data, Data)})
		}
	}
	return w
}

// TestRecordAgainstEntries compares a Record, which knows the shape of its log alone, with lists of entries: owners begin
// epochs behind any entry that is not confirmed of any log there is, and their writes reach the member in any order.
func TestRecordAgainstEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Found(1, NewConfig(Data, Data))
		held := []entry{{0, true}}
		logs := [][]entry{{{0, true}}} // the log of each epoch's owner
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "begin") == 0 {
				from := logs[rapid.IntRange(0, len(logs)-1).Draw(t, "of")]
				keep := rapid.IntRange(1, len(from)).Draw(t, "keep")
				log := append(append([]entry{}, from[:keep]...), entry{EpochOf(uint64(len(logs)), 2), true})
				for range rapid.IntRange(0, 4).Draw(t, "entries") {
					log = append(log, entry{log[len(log)-1].epoch, false})
				}
				logs = append(logs, log)
			}
			owner := logs[rapid.IntRange(0, len(logs)-1).Draw(t, "owner")]
			prev := rapid.IntRange(1, len(owner)).Draw(t, "prev")
			upto := rapid.IntRange(prev, len(owner)).Draw(t, "upto")
			w := modelWrite(owner[:upto], prev)
			w.Epoch = owner[len(owner)-1].epoch
			before := r
			out := r.Apply(Command{Kind: Append, Write: w})
			fits := prev <= len(held) && held[prev-1] == owner[prev-1]
			switch {
			case w.Epoch < before.Promised:
				if out.Verdict != Refused || !reflect.DeepEqual(r, before) {
					t.Fatalf("below the promise: %+v", out)
				}
				continue
			case !fits:
				if out.Verdict != Gap || !reflect.DeepEqual(r, before) {
					t.Fatalf("does not fit: %+v", out)
				}
				continue
			}
			want := Range{}
			for p := prev; p < upto; p++ {
				if p < len(held) && held[p] != owner[p] {
					want = Range{Position(p + 1), Position(len(held))}
					held = held[:p:p]
				}
				if p >= len(held) {
					held = append(held[:p:p], owner[p])
				}
			}
			if out != (Outcome{Cut: want}) {
				t.Fatalf("wrote %v: %+v, want it to cut off %v", w, out, want)
			}
			if int(r.Last) != len(held) {
				t.Fatalf("holds %d entries, want %d", r.Last, len(held))
			}
			for i, e := range held {
				if m := r.markAt(Position(i + 1)); m.Epoch != e.epoch {
					t.Fatalf("entry %d is %v, want %v", i+1, m, e.epoch)
				}
			}
		}
	})
}

func TestNothingConfirmedIsCutOff(t *testing.T) {
	r := Found(1, NewConfig(Data, Data))
	log := []entry{{0, true}, {EpochOf(1, 2), true}, {EpochOf(1, 2), false}}
	w := modelWrite(log, 1)
	w.Confirmed = 3
	if out := r.Apply(Command{Kind: Append, Write: w}); out.Verdict != Applied || r.Confirmed != 3 {
		t.Fatalf("%+v, %+v", out, r)
	}
	before := r
	other := modelWrite([]entry{{0, true}, {EpochOf(1, 2), true}, {EpochOf(2, 3), true}}, 2)
	if out := r.Apply(Command{Kind: Append, Write: other}); out.Verdict != Broken || !reflect.DeepEqual(r, before) {
		t.Errorf("%+v, %+v", out, r)
	}
	for name, c := range map[string]Command{
		"a promise it has given":   {Kind: Promise, Epoch: EpochOf(1, 2)},
		"a state behind its log":   {Kind: Install, Epoch: EpochOf(3, 2), Mark: Mark{EpochOf(1, 2), 3}, Control: Control{Mark: Mark{EpochOf(1, 2), 2}}},
		"a state of an old owner":  {Kind: Install, Epoch: EpochOf(1, 1), Mark: Mark{EpochOf(1, 1), 9}, Control: Control{Mark: Mark{EpochOf(1, 1), 2}}},
		"a command of no kind":     {},
		"a command of a next kind": {Kind: Install + 1},
	} {
		if out := r.Apply(c); out.Verdict != Refused || !reflect.DeepEqual(r, before) {
			t.Errorf("%s: %+v, %+v", name, out, r)
		}
	}
}

func TestStepLeavesItsStateAlone(t *testing.T) {
	now := time.Second
	s := Lead(Found(1, NewConfig(Data)), Default(), 1, now)
	s, _ = s.Step(Tick{}, now)
	if s.Standing() != Owning || !s.Serves(now) {
		t.Fatalf("a region alone is %v", s.Standing())
	}
	asking, _ := Lead(Found(1, NewConfig(Data, Data, Data)), Default(), 1, now).Step(Tick{}, now)
	yes := Message{Kind: PreVote, From: 2, To: 1, OK: true, Epoch: EpochOf(1, 1)}
	for _, s := range []State{s, asking} {
		copied := s
		copied.peers, copied.Record.Control = slices.Clone(s.peers), slices.Clone(s.Record.Control)
		for _, e := range []Event{Receive{yes}, Propose{5}, Add{Role: Data}, Tick{}, Distrust{}} {
			s.Step(e, now)
			if !reflect.DeepEqual(s, copied) {
				t.Errorf("%T changed the state it was taken on", e)
			}
		}
	}
	a, _ := s.Step(Propose{1}, now)
	b, _ := s.Step(Propose{2}, now)
	if a.Record.Last+1 != b.Record.Last {
		t.Errorf("two steps on one state end at %d and %d", a.Record.Last, b.Record.Last)
	}
}

func TestSettings(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Settings){
		"Lease is 0s":           func(s *Settings) { s.Lease = 0 },
		"Margin is -1ns":        func(s *Settings) { s.Margin = -1 },
		"Margin is 1s":          func(s *Settings) { s.Margin = s.Lease },
		"Longest is 1ms":        func(s *Settings) { s.Longest = time.Millisecond },
		"Longest is 1h0m0s":     func(s *Settings) { s.Longest = time.Hour },
		"ClaimAfter is 0s":      func(s *Settings) { s.ClaimAfter = 0 },
		"Stagger is 0s":         func(s *Settings) { s.Stagger = 0 },
		"Alone is 0s":           func(s *Settings) { s.Alone = 0 },
		"Flip is 0s":            func(s *Settings) { s.Flip = 0 },
		"Resend is 0s":          func(s *Settings) { s.Resend = 0 },
		"Batch, Unconfirmed":    func(s *Settings) { s.Batch = 0 },
		"Span is 65536, and mu": func(s *Settings) { s.Span = s.Unconfirmed },
	} {
		s := Default()
		change(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestNeed holds the numbers of copies against their reason: whoever can win an election has, or is voted for by, one of
// those that hold what is confirmed.
func TestNeed(t *testing.T) {
	for data := 1; data <= 5; data++ {
		for witnesses := range 3 {
			for behind := range data {
				roles := append(make([]Role, data), make([]Role, witnesses)...)
				for i := range witnesses {
					roles[data+i] = Witness
				}
				c := NewConfig(roles...)
				for i := range behind {
					c.Members[i].Behind = true
				}
				for holders := range 1 << (data + witnesses) { // any copies that confirm, any voters that elect
					for voters := range 1 << (data + witnesses) {
						if count(c, holders, Member.copies) != ones(holders) || ones(holders) < c.Need() ||
							ones(voters) < c.Majority() || count(c, voters, Member.copies) == 0 {
							continue
						}
						if holders&voters == 0 {
							t.Fatalf("%v: %b confirm, %b elect", c, holders, voters)
						}
					}
				}
			}
		}
	}
}

func ones(mask int) (n int) {
	for ; mask > 0; mask &= mask - 1 {
		n++
	}
	return n
}

// count returns how many of a set of members are of a kind.
func count(c Config, mask int, of func(Member) bool) (n int) {
	for i, m := range c.Members {
		if mask&(1<<i) != 0 && of(m) {
			n++
		}
	}
	return n
}

// TestFoundOwned: the first owner leads at once, and serves when the others have granted it a lease; they claim nothing
// meanwhile.
func TestFoundOwned(t *testing.T) {
	c := NewConfig(Data, Data)
	c.Members[0].Region, c.Members[1].Region = "a", "b"
	if m, ok := c.Member("b"); !ok || m.ID != 2 {
		t.Fatalf("region b is member %d, %v", m.ID, ok)
	}
	owner, other := Lead(FoundOwned(2, c, 2), Default(), 1, 0), Lead(FoundOwned(1, c, 2), Default(), 1, 0)
	if !owner.Record.Owns() || other.Record.Owns() || owner.Standing() != Owning || other.Standing() != Following {
		t.Fatalf("%v and %v", owner.Standing(), other.Standing())
	}
	if owner.Serves(0) {
		t.Error("the owner serves before anybody has granted it a lease")
	}
	owner, asks := owner.Step(Tick{}, 1)
	for _, m := range asks.Messages {
		var answers Effects
		other, answers = other.Step(Receive{m}, 2)
		for _, a := range append(answers.Messages, answers.Proved...) {
			owner, _ = owner.Step(Receive{a}, 3)
		}
	}
	if !owner.Serves(3) {
		t.Error("the owner does not serve though all have granted it a lease")
	}
	if id, e := other.Owner(); id != 2 || e != EpochOf(1, 2) {
		t.Errorf("the other takes member %d with epoch %v for the owner", id, e)
	}
}
