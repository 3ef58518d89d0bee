package coordinator

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/watershed-db/watershed/crdt"
)

func task(generation, partition int) Task {
	return Task{crdt.GenerationID{15: byte(generation)}, crdt.Source{Region: "r", Topic: "t", Partition: int32(partition)}}
}

func TestAssignKeepsBalanceAndPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tasks []Task
		for g := range rapid.IntRange(1, 3).Draw(t, "generations") {
			for p := range rapid.IntRange(0, 9).Draw(t, "partitions") {
				tasks = append(tasks, task(g, p))
			}
		}
		workers := func(label string) []string {
			var out []string
			for i := range 4 {
				if rapid.Bool().Draw(t, fmt.Sprint(label, i)) {
					out = append(out, fmt.Sprint("w", i))
				}
			}
			return out
		}
		before := workers("before ")
		first := Assign(tasks, before, nil)
		after := workers("after ")
		second := Assign(rapid.Permutation(tasks).Draw(t, "order"), rapid.Permutation(after).Draw(t, "workers"), first)
		if len(after) == 0 {
			if len(second) != 0 {
				t.Fatalf("assigned %v to nobody", second)
			}
			return
		}
		count := map[crdt.GenerationID]map[string]int{}
		for _, x := range tasks {
			w, ok := second[x]
			if !ok {
				t.Fatalf("%v is assigned to nobody", x)
			}
			if count[x.Generation] == nil {
				count[x.Generation] = map[string]int{}
			}
			count[x.Generation][w]++
		}
		for g, of := range count {
			least, most := len(tasks), 0
			for _, w := range after {
				least, most = min(least, of[w]), max(most, of[w])
			}
			if most-least > 1 {
				t.Fatalf("generation %x: from %d to %d sources a worker", g, least, most)
			}
		}
		if again := Assign(tasks, after, second); !maps.Equal(again, second) {
			t.Fatalf("a second call moved sources: %v, then %v", second, again)
		}
	})
}

func TestAssignMovesOnlyWhatALostWorkerHad(t *testing.T) {
	var tasks []Task
	for p := range 6 {
		tasks = append(tasks, task(1, p))
	}
	first := Assign(tasks, []string{"a", "b", "c"}, nil)
	second := Assign(tasks, []string{"a", "b"}, first)
	for _, x := range tasks {
		if first[x] != "c" && second[x] != first[x] {
			t.Errorf("%v moved from %s to %s though its worker lives", x.Source, first[x], second[x])
		}
	}
}
