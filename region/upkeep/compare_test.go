package upkeep

import (
	"testing"

	"github.com/watershed-db/watershed/crdt"
)

func TestTheMajorityDecides(t *testing.T) {
	a, b, c := crdt.Hash{1}, crdt.Hash{2}, crdt.Hash{3}
	for _, test := range []struct {
		name   string
		told   []crdt.Hash
		voters int
		want   Verdict
	}{
		{"alone", nil, 1, Right},
		{"nobody answers", nil, 3, Undecided},
		{"all agree", []crdt.Hash{a, a}, 3, Right},
		{"one is down", []crdt.Hash{a}, 3, Right},
		{"one differs", []crdt.Hash{a, b}, 3, Right},
		{"the leader differs", []crdt.Hash{b, b}, 3, Wrong},
		{"all differ", []crdt.Hash{b, c}, 3, Undecided},
		{"one differs, one is down", []crdt.Hash{b}, 3, Undecided},
		{"two of five differ", []crdt.Hash{a, b, a, b}, 5, Right},
		{"three of five differ from the leader", []crdt.Hash{b, b, b, a}, 5, Wrong},
		{"three of five differ in two ways", []crdt.Hash{b, b, c, a}, 5, Undecided},
	} {
		if got := Judge(a, test.told, test.voters); got != test.want {
			t.Errorf("%s: %v, wanted %v", test.name, got, test.want)
		}
	}
}
