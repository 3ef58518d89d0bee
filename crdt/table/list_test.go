package table

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestListIsAMapInOrder: a list does what a map and a sort do.
func TestListIsAMapInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.MapOf(rapid.SampledFrom([]element{"", "a", "b", "c", "d", "e", "f", "g"}), rapid.IntRange(0, 9))
		ours, theirs := gen.Draw(t, "ours"), gen.Draw(t, "theirs")
		make := func(m map[element]int) (l list[element, int]) {
			for key, value := range m {
				l.set(key, value)
			}
			return l
		}
		same := func(what string, l list[element, int], m map[element]int) {
			var want list[element, int]
			for _, key := range slices.Sorted(maps.Keys(m)) {
				want = append(want, pair[element, int]{key, m[key]})
			}
			if !slices.Equal(l, want) {
				t.Fatalf("%s: %v, want %v", what, l, want)
			}
		}
		l, o := make(ours), make(theirs)
		same("set", l, ours)
		for _, key := range []element{"", "a", "h"} {
			got, ok := l.get(key)
			if want, there := ours[key]; got != want || ok != there {
				t.Fatalf("%q has %d, %t", key, got, ok)
			}
		}
		changed := l.join(o, func(_ element, x *int, y int) bool {
			if y <= *x { // of absent keys only what is not 0 is taken
				return false
			}
			*x = y
			return true
		})
		before := fmt.Sprint(ours)
		for key, value := range theirs {
			if value > ours[key] {
				ours[key] = value
			}
		}
		if changed == (before == fmt.Sprint(ours)) {
			t.Fatalf("the join says %t", changed)
		}
		same("join", l, ours)
		same("the other side of a join", o, theirs)
		l.filter(func(key element, value *int) bool { *value++; return key < "d" && *value > 3 })
		for key, value := range ours {
			if ours[key] = value + 1; key >= "d" || value+1 <= 3 {
				delete(ours, key)
			}
		}
		same("filter", l, ours)
	})
}
