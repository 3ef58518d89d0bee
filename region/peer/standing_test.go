package peer

import (
	"maps"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/watershed-db/watershed/crdt"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
)

func source(region string, partition int32) crdt.Source {
	return crdt.Source{Region: crdt.RegionID(region), Topic: "t", Partition: partition}
}

// What is told bit by bit adds up to the whole.
func TestStandingsAreToldByWhatChanged(t *testing.T) {
	a, b := source("a", 0), source("b", 0)
	first := &Standing{Generation: crdt.GenerationID{1}, Horizon: crdt.MinTime, Watermark: 5, Floor: crdt.MinTime,
		Frontier: crdt.Frontier{a: crdt.FirstPoint(a, 0), b: crdt.FirstPoint(b, 7)}}
	second := *first
	second.Frontier = maps.Clone(first.Frontier)
	second.Frontier[a] = first.Frontier[a].After(0, crdt.Hash{1}, 9, crdt.Counted)
	second.Declared, second.Idle, second.Floor = []crdt.RegionID{"a", "b"}, []crdt.Source{a}, 3

	book := newBook()
	last := map[crdt.GenerationID]*Standing{}
	for i, s := range []*Standing{first, &second} {
		list := appendChanged(nil, last, []*Standing{s})
		if err := book.take(list, uint64(10+i)); err != nil {
			t.Fatal(err)
		}
		if got := book.told[s.Generation]; !reflect.DeepEqual(got, s) {
			t.Errorf("told %+v, want %+v", got, s)
		}
		last[s.Generation] = s
	}
	if list := appendChanged(nil, last, []*Standing{&second}); len(list) > 0 {
		t.Errorf("nothing changed, and %v was told", list)
	}
	same := second
	same.Frontier = maps.Clone(second.Frontier)
	if list := appendChanged(nil, last, []*Standing{&same}); len(list) > 0 {
		t.Errorf("nothing changed, and %v was told", list)
	}
	if m := appendChanged(nil, map[crdt.GenerationID]*Standing{first.Generation: first}, []*Standing{&second}); len(m) != 1 {
		t.Fatal("a change was not told")
	} else if f, err := crdt.DecodeFrontier(m[0].Frontier); err != nil || len(f) != 1 {
		t.Errorf("%d sources were told, 1 has moved (%v)", len(f), err)
	}
	if at := book.changed[groupKey{first.Generation, "a"}]; at != 11 {
		t.Errorf("a changed at %d", at)
	}
}

func FuzzStanding(f *testing.F) {
	s := source("a", 0)
	m := (&Standing{Generation: crdt.GenerationID{1}, Declared: []crdt.RegionID{"a"}, Idle: []crdt.Source{s}}).
		encode(crdt.Frontier{s: crdt.FirstPoint(s, 3)})
	seed, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &peerv1.Standing{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		s, err := decodeStanding(m)
		if err != nil {
			return
		}
		again, err := decodeStanding(s.encode(s.Frontier))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v comes back as %+v (%v)", s, again, err)
		}
	})
}
