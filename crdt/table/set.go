package table

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Set is an observed-remove set: the inserts that are in it, and which inserts it has ever seen. An insert that was seen
// and is not in it was removed, so removals leave nothing behind.
type Set struct {
	seen     ids
	elements map[string][]ID // inserts by element, ascending, never empty
}

// Elements returns the elements in order.
func (s *Set) Elements() []string { return slices.Sorted(maps.Keys(s.elements)) }

// Inserts returns the inserts that hold an element in the set, ascending: what an operation says it has observed. Empty
// means that the element is not in the set.
func (s *Set) Inserts(element []byte) []ID { return slices.Clone(s.elements[string(element)]) }

// Apply implements Value.
func (s *Set) Apply(o *Op) bool {
	element := string(o.Data)
	dropped, unseen := s.drop(element, o.Observed), 0
	for _, id := range o.Observed {
		if s.seen.add(id) {
			unseen++
		}
	}
	changed := dropped+unseen > 0
	if dropped+unseen < len(o.Observed) { // removed before; or, where the client errs, inserts of another element
		for other := range s.elements {
			changed = s.drop(other, o.Observed) > 0 || changed
		}
	}
	if o.Kind == Remove && mutant.On("remove-takes-unseen") {
		s.set(element, nil)
	}
	if o.Kind == Insert && s.seen.add(o.ID) {
		inserts := append(slices.Clone(s.elements[element]), o.ID)
		slices.SortFunc(inserts, ID.Compare)
		s.set(element, inserts)
		changed = true
	}
	return changed
}

// drop takes inserts out of an element, and returns how many of them were in it.
func (s *Set) drop(element string, inserts []ID) int {
	ours := s.elements[element]
	kept := slices.DeleteFunc(slices.Clone(ours), func(id ID) bool { return holds(inserts, id) })
	if len(kept) < len(ours) {
		s.set(element, kept)
	}
	return len(ours) - len(kept)
}

// Join implements Value. An insert stays where both hold it or one has never seen it.
func (s *Set) Join(other Value) bool {
	o := other.(*Set)
	changed := false
	for element, ours := range s.elements {
		theirs := o.elements[element]
		gone := func(id ID) bool { return o.seen.has(id) && !holds(theirs, id) }
		if slices.ContainsFunc(ours, gone) {
			s.set(element, slices.DeleteFunc(slices.Clone(ours), gone))
			changed = true
		}
	}
	for element, theirs := range o.elements {
		inserts := s.elements[element]
		for _, id := range theirs {
			if !s.seen.has(id) {
				inserts = append(slices.Clip(inserts), id)
			}
		}
		if len(inserts) > len(s.elements[element]) {
			slices.SortFunc(inserts, ID.Compare)
			s.set(element, inserts)
			changed = true
		}
	}
	return s.seen.join(&o.seen) || changed
}

func holds(sorted []ID, id ID) bool {
	_, found := slices.BinarySearchFunc(sorted, id, ID.Compare)
	return found
}

func (s *Set) set(element string, inserts []ID) {
	if len(inserts) == 0 {
		delete(s.elements, element)
		return
	}
	if s.elements == nil {
		s.elements = make(map[string][]ID)
	}
	s.elements[element] = inserts
}

// Fold implements Value.
func (s *Set) Fold(k *Sessions) { s.seen.fold(k) }

// Empty implements Value.
func (s *Set) Empty() bool { return len(s.elements) == 0 && len(s.seen.sessions) == 0 }

// Append implements Value.
func (s *Set) Append(b []byte) []byte {
	b = s.seen.appendTo(append(b, version, kindSet))
	b = binary.AppendUvarint(b, uint64(len(s.elements)))
	for _, element := range s.Elements() {
		b = appendIDs(appendString(b, element), s.elements[element])
	}
	return b
}

func (r *reader) set() *Set {
	r.head(version, kindSet)
	s := &Set{seen: r.ids()}
	r.elements(func(element string) {
		inserts := r.idList(len(r.b))
		if len(inserts) == 0 {
			r.fail("an element that nothing inserted")
		}
		for _, id := range inserts {
			if !s.seen.has(id) {
				r.fail("insert %s not seen", id)
			}
		}
		if !r.failed() {
			s.set(element, inserts)
		}
	})
	return s
}

// elements takes a number of elements in order, with what body takes behind each.
func (r *reader) elements(body func(string)) {
	n := r.size()
	last := ""
	for i := 0; i < n && !r.failed(); i++ {
		element := r.string(MaxElement)
		if i > 0 && last >= element {
			r.fail("elements out of order")
			return
		}
		last = element
		body(element)
	}
}
