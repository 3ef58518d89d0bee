package peer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/region/peer"
)

func newDirectory() *peer.Directory {
	return peer.NewDirectory(peer.Identity{Self: "a", Members: []peer.Member{
		{Region: "a", Number: 1, Addresses: []string{"a:1"}}, {Region: "b", Number: 2, Addresses: []string{"b:1", "b:2"}},
	}})
}

// TestDirectoryUsesWhatHasAnswered: configured addresses are always used, told ones once they have answered and for as long
// as they are told.
func TestDirectoryUsesWhatHasAnswered(t *testing.T) {
	d := newDirectory()
	expect := func(want ...string) {
		t.Helper()
		if got := d.Addresses("b"); !slices.Equal(got, want) {
			t.Fatalf("dials %v, want %v", got, want)
		}
	}
	if got := d.Regions(); len(got) != 1 || got[0] != "b" {
		t.Fatalf("regions %v", got)
	}
	expect("b:1", "b:2")
	d.Answered("b", "b:9") // which nobody told
	d.Tell("b", 5, []string{"b:2", "b:3", "b:4"})
	expect("b:1", "b:2")
	d.Answered("b", "b:3")
	expect("b:3", "b:1", "b:2")
	d.Answered("b", "b:2")
	expect("b:2", "b:3", "b:1")
	if gone := d.Tell("b", 4, []string{"b:1"}); gone != nil {
		t.Fatalf("an older list removes %v", gone)
	}
	d.Tell("b", 6, nil)
	expect("b:2", "b:3", "b:1")
	if gone := d.Tell("b", 6, []string{"b:4"}); !slices.Equal(gone, []string{"b:3"}) {
		t.Fatalf("%v are gone", gone)
	}
	expect("b:2", "b:1")
	if got := d.Unproven("b"); !slices.Equal(got, []string{"b:4"}) {
		t.Fatalf("unproven %v", got)
	}
	if gone := d.Tell("b", 7, []string{"b:5"}); gone != nil { // b:4 never answered: nothing was dialed there for b
		t.Fatalf("%v are gone", gone)
	}
	if d.Tell("c", 1, []string{"c:1"}); d.Addresses("c") != nil {
		t.Fatal("a region that is no member has addresses")
	}
}

// TestDirectoryIsBounded: whatever a peer tells, no more than so many addresses are tried.
func TestDirectoryIsBounded(t *testing.T) {
	d := newDirectory()
	list := []string{"", "nonsense", ":1", "b:", strings.Repeat("b", 300) + ":1"}
	for i := range 10 * peer.MaxLearned {
		list = append(list, fmt.Sprintf("b:%d", 1000+i), fmt.Sprintf("b:%d", 1000+i))
	}
	for revision := range uint64(3) {
		d.Tell("b", revision, list)
		if got := d.Unproven("b"); len(got) != peer.MaxLearned || got[0] != "b:1000" {
			t.Fatalf("%d addresses are to be tried, from %s on", len(got), got[0])
		}
	}
	for _, a := range list {
		d.Answered("b", a)
	}
	if got := len(d.Addresses("b")); got != peer.MaxLearned+2 {
		t.Fatalf("%d addresses are dialed", got)
	}
	slices.Reverse(list)
	d.Tell("b", 9, list)
	if got := len(d.Addresses("b")); got > peer.MaxLearned+2 {
		t.Fatalf("%d addresses are dialed", got)
	}
}
