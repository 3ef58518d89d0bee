package probe

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func sampleRoom() Room {
	return Room{Identity: Identity("rides", "us-east"), Boot: 1 << 60, Sequence: 300, Node: "us-east-1", Free: 1 << 40, Floor: 1 << 30, Short: true}
}

func TestRoomRoundTrip(t *testing.T) {
	want := sampleRoom()
	raw := want.Append(nil)
	if got, err := DecodeRoom(raw); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := range raw {
		broken := append([]byte(nil), raw...)
		broken[i] ^= 0x10
		if _, err := DecodeRoom(broken); err == nil {
			t.Errorf("byte %d flipped is not seen", i)
		}
		if _, err := DecodeRoom(raw[:i]); err == nil {
			t.Errorf("%d bytes of %d pass", i, len(raw))
		}
	}
	raw[len(roomMagic)] = RoomVersion + 1
	text := fmt.Sprintf("%d, this build reads %d", RoomVersion+1, RoomVersion)
	if _, err := DecodeRoom(raw); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), text) {
		t.Errorf("a newer version gives %v", err)
	}
}

// A build that does not know Rooms must take none for a probe, and the other way round.
func TestRoomsAreNoPackets(t *testing.T) {
	r, p := sampleRoom(), sample()
	if _, err := Decode(r.Append(nil)); !errors.Is(err, ErrPacket) {
		t.Errorf("a Room as a Packet: %v", err)
	}
	if _, err := DecodeRoom(p.Append(nil)); !errors.Is(err, ErrPacket) {
		t.Errorf("a Packet as a Room: %v", err)
	}
}

func TestRoomsAreWhatWasToldLast(t *testing.T) {
	var r rooms
	now := time.Now()
	tell := func(boot, sequence uint64, short bool) int64 {
		r.note(now, Room{Node: "a", Boot: boot, Sequence: sequence, Short: short})
		return r.shorts.Load()
	}
	for i, x := range []struct {
		boot, sequence uint64
		short          bool
		want           int64
	}{{1, 5, true, 1}, {1, 4, false, 1}, {1, 6, false, 0}, {1, 7, true, 1}, {2, 1, false, 0}, {2, 2, true, 1}} {
		if got := tell(x.boot, x.sequence, x.short); got != x.want {
			t.Errorf("step %d: %d are short", i, got)
		}
	}
	all := func(string) bool { return true }
	if r.forget(now.Add(roomFor), all); r.shorts.Load() != 1 {
		t.Error("forgotten too early")
	}
	if r.forget(now.Add(roomFor+1), all); r.shorts.Load() != 0 {
		t.Error("what was told long ago counts")
	}
	tell(3, 1, true)
	if r.forget(now, func(string) bool { return false }); r.shorts.Load() != 0 {
		t.Error("a node that left the region counts")
	}
	for i := range MaxNodes + 10 {
		r.note(now, Room{Node: fmt.Sprint(i)})
	}
	if n := len(r.list()); n != MaxNodes {
		t.Errorf("%d nodes are kept", n)
	}
}

func TestProbersTellOfTheirDisks(t *testing.T) {
	var short atomic.Bool
	f := newFleetWith(t, func(o *Options) {
		if o.Node == "a" {
			o.Room = func() (free, floor uint64, lacks bool) { return 7, 9, short.Load() }
		}
	}, "a", "b")
	await := func(what string, holds func(map[string]Room) bool) {
		deadline := time.After(30 * time.Second)
		for !holds(f.probers["b"].Short()) {
			select {
			case <-deadline:
				t.Fatalf("waited in vain for %s", what)
			case <-time.After(time.Millisecond):
			}
		}
	}
	short.Store(true)
	await("the news", func(m map[string]Room) bool { return m["a"].Free == 7 && m["a"].Floor == 9 })
	short.Store(false)
	await("the good news", func(m map[string]Room) bool { return len(m) == 0 })
}

func FuzzDecodeRoom(f *testing.F) {
	r := sampleRoom()
	f.Add(r.Append(nil))
	f.Add((&Room{Node: "a"}).Append(nil))
	f.Add([]byte("WSPR\x01"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := DecodeRoom(raw)
		if err != nil {
			return
		}
		if again, err := DecodeRoom(r.Append(nil)); err != nil || again != r {
			t.Errorf("%+v reads back as %+v, %v", r, again, err)
		}
	})
}
