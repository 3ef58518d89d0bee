package probe

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func sample() Packet {
	return Packet{
		Identity: Identity("rides", "us-east"), Boot: 1 << 60, Sequence: 12345, Stalled: true, Node: "us-east-1",
		Views: []View{{"us-east-2", false}, {"us-east-3", true}},
		Groups: []Standing{
			{Shard: 0, Term: 9, LastTerm: 8, LastIndex: 1 << 40, Voters: 3, Votes: true, Leader: "us-east-3", Lost: true},
			{Shard: 17, Term: 1, LastTerm: 1, LastIndex: 1, Voters: 3, Votes: true, Leads: true, Leader: "us-east-1"},
			{Shard: 1 << 20, Voters: 5},
		},
	}
}

func TestPacketRoundTrip(t *testing.T) {
	want := sample()
	got, err := Decode(want.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestBrokenPacketsAreRefused(t *testing.T) {
	p := sample()
	raw := p.Append(nil)
	for i := range raw {
		broken := append([]byte(nil), raw...)
		broken[i] ^= 0x10
		if _, err := Decode(broken); err == nil {
			t.Errorf("byte %d flipped is not seen", i)
		}
		if _, err := Decode(raw[:i]); err == nil {
			t.Errorf("%d bytes of %d pass", i, len(raw))
		}
	}
}

// TestNewerIsRefused: a packet of a later version is refused, and the message says both.
func TestNewerIsRefused(t *testing.T) {
	p := sample()
	raw := p.Append(nil)
	raw[len(magic)] = Version + 1
	want := fmt.Sprintf("%d, this build reads %d", Version+1, Version)
	if _, err := Decode(raw); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), want) {
		t.Errorf("a newer version gives %v", err)
	}
}

func TestIdentitySplitsNames(t *testing.T) {
	if Identity("a b", "c") == Identity("a", "b c") {
		t.Error("two regions share an identity")
	}
}

func FuzzDecode(f *testing.F) {
	p := sample()
	f.Add(p.Append(nil))
	f.Add((&Packet{Node: "a"}).Append(nil))
	f.Add([]byte("WSPB\x01"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Decode(raw)
		if err != nil {
			return
		}
		again, err := Decode(p.Append(nil))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%+v reads back as %+v, %v", p, again, err)
		}
	})
}
