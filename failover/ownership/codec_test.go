package ownership

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"
)

var exampleConfig = Config{Number: 7, Highest: 300, Forced: true, Members: []Member{{ID: 1, Region: "us-east"}, {ID: 2, Behind: true},
	{ID: 9, Role: Witness}, {ID: 300, Joining: true}}, Gone: []MemberID{7, 3}, Fork: 4}

var exampleControl = []Control{{Mark{EpochOf(2, 1), 5}, NewConfig(Data, Data)}, {Mark{EpochOf(3, 2), 9}, exampleConfig}}

func exampleWrite() Write {
	return Write{Epoch: EpochOf(4, 1), Prev: Mark{EpochOf(1, 1), 4}, Control: exampleControl, Last: 900, Confirmed: 4, Floor: 3}
}

func exampleRecords() []Record {
	return []Record{
		{}, {Self: 3}, Found(2, NewConfig(Data, Data, Witness)),
		{Self: 1, Promised: EpochOf(1<<40, 9), Control: exampleControl, Base: 5, Last: 1 << 50, Confirmed: 900},
		{Self: 4, Control: exampleControl, Base: 7, Last: 20}, // rejoined
	}
}

func exampleCommands() []Command {
	return []Command{
		{Kind: Promise, Epoch: EpochOf(3, 300)},
		{Kind: Append, Write: exampleWrite()},
		{Kind: Append, Write: Write{Epoch: EpochOf(4, 1), Prev: Mark{EpochOf(4, 1), 4}, Last: 4, Confirmed: 4}},
		{Kind: Install, Epoch: EpochOf(4, 1), Mark: Mark{EpochOf(2, 1), 8}, Control: exampleControl[0]},
	}
}

func exampleMessages() []Message {
	full := Message{From: 1, To: 300, OK: true, Epoch: EpochOf(4, 1), Promised: EpochOf(3, 2), Released: EpochOf(2, 2),
		Number: 7, Mark: Mark{EpochOf(3, 2), 77}}
	var list []Message
	for k := PreClaim; k <= Removed; k++ {
		m := full
		m.Kind = k
		switch k {
		case Entries:
			m.Write, m.Stamp, m.Led = exampleWrite(), 9, 8
		case Ack:
			m.Write.Confirmed, m.Stamp, m.Led = 66, 9, 8
		case StateAt:
			m.Write.Control = exampleControl[1:]
		case Ask, Grant:
			m.Stamp, m.Term, m.Led = 3*time.Hour, time.Second, 1<<63+5
		}
		list = append(list, m)
	}
	return list
}

func exampleLeases() Leases {
	l := Leases{}
	for i, m := range exampleMessages() {
		m.Stamp, m.Term = 3*time.Hour, time.Second
		if m.Kind = Grant; !l.Put(ShardID(i), m) {
			panic("a grant does not fit")
		}
	}
	return l
}

// comeBack tests a codec: what was encoded comes back, and neither less nor more of it is taken.
func comeBack[T any](t *testing.T, want T, raw []byte, decode func([]byte) (T, error)) {
	t.Helper()
	got, err := decode(raw)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v came back as %+v, %v", want, got, err)
	}
	for i := range raw {
		if _, err := decode(raw[:i]); !errors.Is(err, ErrEncoding) {
			t.Errorf("%d of %d bytes of %+v: %v", i, len(raw), want, err)
		}
	}
	if _, err := decode(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrEncoding) {
		t.Errorf("%+v and a byte: %v", want, err)
	}
	other := bytes.Clone(raw)
	other[0] = Version + 1
	if _, err := decode(other); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}

func TestEncodingsComeBack(t *testing.T) {
	for _, r := range exampleRecords() {
		comeBack(t, r, r.AppendTo(nil), DecodeRecord)
	}
	for _, c := range exampleCommands() {
		comeBack(t, c, c.Encode(), DecodeCommand)
	}
	for _, m := range exampleMessages() {
		comeBack(t, m, m.AppendTo(nil), DecodeMessage)
	}
	l := exampleLeases()
	comeBack(t, l, l.AppendTo(nil), DecodeLeases)
	if s, m := l.Message(3); s != 3 || m.Kind != Grant || m.Stamp != 3*time.Hour || !m.OK || m.To != 300 {
		t.Errorf("shard %d: %+v", s, m)
	}
}

func TestDecodersRefuse(t *testing.T) {
	w := func(change func(*Write)) []byte {
		x := exampleWrite()
		change(&x)
		return Command{Kind: Append, Write: x}.Encode()
	}
	for name, raw := range map[string][]byte{
		"an unknown kind":          {Version, 9},
		"control out of order":     w(func(x *Write) { x.Control = []Control{exampleControl[1], exampleControl[0]} }),
		"control before its entry": w(func(x *Write) { x.Prev.Position = 5 }),
		"control behind the end":   w(func(x *Write) { x.Last = 8 }),
		"an epoch above its own":   w(func(x *Write) { x.Epoch = EpochOf(2, 1) }),
		"an epoch that goes back":  w(func(x *Write) { x.Prev.Epoch = EpochOf(3, 1) }),
		"no number of a member": w(func(x *Write) {
			x.Control = []Control{{exampleControl[0].Mark, Config{Highest: 1, Members: []Member{{}}}}}
		}),
		"a number never given": w(func(x *Write) {
			x.Control = []Control{{exampleControl[0].Mark, Config{Highest: 1, Members: []Member{{ID: 2}}}}}
		}),
		"a member twice": w(func(x *Write) {
			x.Control = []Control{{exampleControl[0].Mark, Config{Highest: 1, Members: []Member{{ID: 1}, {ID: 1}}}}}
		}),
		"an unknown role": w(func(x *Write) {
			x.Control = []Control{{exampleControl[0].Mark, Config{Highest: 1, Members: []Member{{ID: 1, Role: 2}}}}}
		}),
		"a state of another epoch": Command{Kind: Install, Epoch: EpochOf(4, 1), Mark: Mark{EpochOf(3, 1), 8},
			Control: exampleControl[0]}.Encode(),
		"a state from the future": Command{Kind: Install, Epoch: EpochOf(1, 1), Mark: Mark{EpochOf(2, 1), 8},
			Control: exampleControl[0]}.Encode(),
	} {
		if c, err := DecodeCommand(raw); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for name, r := range map[string]Record{
		"confirmed beyond the end": {Self: 1, Control: exampleControl, Base: 5, Last: 9, Confirmed: 10},
		"base beyond the end":      {Self: 1, Control: exampleControl, Base: 10, Last: 9},
		"no epoch at the base":     {Self: 1, Control: exampleControl, Base: 4, Last: 9},
		"entries of no epoch":      {Self: 1, Last: 9},
	} {
		if r, err := DecodeRecord(r.AppendTo(nil)); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	full := exampleLeases()
	for _, m := range []Message{{Kind: Ask, Stamp: 3 * time.Hour, Term: time.Second}, {Kind: Grant, Term: time.Second},
		{Kind: Grant, Stamp: 3 * time.Hour}} {
		if full.Put(1, m) {
			t.Errorf("%+v goes with grants of another kind, stamp or term", m)
		}
	}
	l := Leases{Kind: Claim}
	if _, err := DecodeLeases(l.AppendTo(nil)); !errors.Is(err, ErrEncoding) {
		t.Errorf("leases of another kind: %v", err)
	}
}

// fuzz adds examples and demands that whatever is taken has no other encoding.
func fuzz[T any](f *testing.F, list []T, encode func(T) []byte, decode func([]byte) (T, error)) {
	for _, x := range list {
		f.Add(encode(x))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := decode(raw)
		if err != nil {
			if !errors.Is(err, ErrEncoding) && !errors.Is(err, ErrVersion) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if again := encode(x); !bytes.Equal(again, raw) {
			t.Fatalf("%+v of %x is encoded as %x", x, raw, again)
		}
	})
}

func FuzzRecord(f *testing.F) {
	fuzz(f, exampleRecords(), func(r Record) []byte { return r.AppendTo(nil) }, DecodeRecord)
}

func FuzzCommand(f *testing.F) { fuzz(f, exampleCommands(), Command.Encode, DecodeCommand) }

func FuzzMessage(f *testing.F) {
	fuzz(f, exampleMessages(), func(m Message) []byte { return m.AppendTo(nil) }, DecodeMessage)
}

func FuzzLeases(f *testing.F) {
	fuzz(f, []Leases{exampleLeases()}, func(l Leases) []byte { return l.AppendTo(nil) }, DecodeLeases)
}

// FuzzStep feeds a member whatever decodes, between ticks: it neither panics nor goes back on what it has promised or
// confirmed.
func FuzzStep(f *testing.F) {
	for _, m := range exampleMessages() {
		f.Add(m.AppendTo(nil), uint16(300))
	}
	f.Fuzz(func(t *testing.T, raw []byte, late uint16) {
		m, err := DecodeMessage(raw)
		if err != nil {
			return
		}
		m.To = 1
		for _, c := range []Config{NewConfig(Data, Data, Witness), NewConfig(Data)} { // one that claims, one that owns
			now := time.Second
			s := Lead(Found(1, c), Default(), 1, now)
			for _, e := range []Event{Tick{}, Receive{m}, Propose{3}, Receive{m}, Add{Role: Data}, Tick{}, Flip{2}, Receive{m}, Tick{},
				Force{[]MemberID{2, 3}}, Receive{m}} {
				now += time.Duration(late) * time.Millisecond
				before := s.Record
				s, _ = s.Step(e, now)
				if s.Record.Promised < before.Promised || s.Record.Confirmed < before.Confirmed {
					t.Fatalf("%+v, after %+v %+v", s.Record, e, before)
				}
			}
		}
	})
}
