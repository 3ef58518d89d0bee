package upkeep

import (
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Verdict says what a comparison of the replicas' hash chains at one index came to.
type Verdict uint8

// The verdicts.
const (
	Undecided Verdict = iota // fewer than a majority are known to agree: nobody can say who is wrong
	Right                    // a majority holds what the leader does: whoever differs is to stop
	Wrong                    // a majority holds something else than the leader, which is to stop
)

// Judge compares the leader's chain with those that the other replicas told, of as many replicas as there are, with a vote or without;
// those that told none count for nobody.
func Judge(own crdt.Hash, told []crdt.Hash, replicas int) Verdict {
	if mutant.On("leader-is-right") {
		return Right
	}
	count := map[crdt.Hash]int{own: 1}
	for _, chain := range told {
		count[chain]++
	}
	for chain, n := range count {
		switch {
		case 2*n <= replicas:
		case chain == own:
			return Right
		default:
			return Wrong
		}
	}
	return Undecided
}
