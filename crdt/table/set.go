package table

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Set is an observed-remove set: the inserts that are in it, and which inserts it has ever seen. An insert that was seen
// and is not in it was removed, so removals leave nothing behind.
type Set struct {
	seen     ids
	elements list[element, []ID] // inserts by element, ascending, never empty
}

type element string

// Compare orders elements by bytes.
func (e element) Compare(f element) int { return strings.Compare(string(e), string(f)) }

// Elements returns the elements in order.
func (s *Set) Elements() []string {
	var in []string
	for _, p := range s.elements {
		in = append(in, string(p.key))
	}
	return in
}

// Inserts returns the inserts that hold an element in the set, ascending: what an operation says it has observed. Empty
// means that the element is not in the set.
func (s *Set) Inserts(of []byte) []ID {
	inserts, _ := s.elements.get(element(of))
	return slices.Clone(inserts)
}

// Apply implements Value.
func (s *Set) Apply(o *Op) bool {
	of := element(o.Data)
	inserts, _ := s.elements.get(of)
	kept := without(inserts, o.Observed)
	dropped, unseen := len(inserts)-len(kept), 0
	for _, id := range o.Observed {
		if s.seen.add(id) {
			unseen++
		}
	}
	if o.Kind == Remove && mutant.On("remove-takes-unseen") {
		kept = nil
	}
	added := o.Kind == Insert && s.seen.add(o.ID)
	if added {
		kept = append(slices.Clip(kept), o.ID)
		slices.SortFunc(kept, ID.Compare)
	}
	if len(kept) > 0 {
		s.elements.set(of, kept)
	} else if i, ok := s.elements.find(of); ok {
		s.elements = slices.Delete(s.elements, i, i+1)
	}
	changed := added || dropped+unseen > 0
	if dropped+unseen < len(o.Observed) { // removed before; or, where the client errs, inserts of another element
		changed = s.drop(func(_ element, id ID) bool { return holds(o.Observed, id) }) || changed
	}
	return changed
}

// drop takes inserts out, and reports whether there were any.
func (s *Set) drop(gone func(element, ID) bool) bool {
	dropped := false
	s.elements.filter(func(of element, inserts *[]ID) bool {
		here := func(id ID) bool { return gone(of, id) }
		if slices.ContainsFunc(*inserts, here) {
			*inserts = slices.DeleteFunc(slices.Clone(*inserts), here)
			dropped = true
		}
		return len(*inserts) > 0
	})
	return dropped
}

// Join implements Value. An insert stays where both hold it or one has never seen it.
func (s *Set) Join(other Value) bool {
	o := other.(*Set)
	dropped := s.drop(func(of element, id ID) bool {
		if !o.seen.has(id) {
			return false
		}
		theirs, _ := o.elements.get(of)
		return !holds(theirs, id)
	})
	added := s.elements.join(o.elements, func(_ element, ours *[]ID, theirs []ID) bool {
		all := slices.Clip(*ours)
		for _, id := range theirs {
			if !s.seen.has(id) {
				all = append(all, id)
			}
		}
		if len(all) == len(*ours) {
			return false
		}
		slices.SortFunc(all, ID.Compare)
		*ours = all
		return true
	})
	return s.seen.join(&o.seen) || dropped || added
}

func holds(sorted []ID, id ID) bool {
	_, found := slices.BinarySearchFunc(sorted, id, ID.Compare)
	return found
}

// without returns the ids that are not among sorted ones, and leaves both as they are.
func without(ids, sorted []ID) []ID {
	if len(sorted) == 0 {
		return ids
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id ID) bool { return holds(sorted, id) })
}

// Fold implements Value.
func (s *Set) Fold(k *Sessions) { s.seen.fold(k) }

// Empty implements Value.
func (s *Set) Empty(floor int64) bool {
	return len(s.elements) == 0 && len(s.seen.sessions) == 0 && s.seen.floor <= floor
}

// Append implements Value.
func (s *Set) Append(b []byte) []byte {
	b = s.seen.appendTo(append(b, version, kindSet))
	b = binary.AppendUvarint(b, uint64(len(s.elements)))
	for _, p := range s.elements {
		b = appendIDs(appendString(b, string(p.key)), p.value)
	}
	return b
}

func (r *reader) set() *Set {
	r.head(version, kindSet)
	s := &Set{seen: r.ids()}
	s.elements = readElements(r, func() []ID {
		inserts := r.idList(len(r.B))
		if len(inserts) == 0 {
			r.Fail("an element that nothing inserted")
		}
		for _, id := range inserts {
			if !s.seen.has(id) {
				r.Fail("insert %s not seen", id)
			}
		}
		return inserts
	})
	return s
}

// readElements takes a number of elements in order, with the value that stands behind each.
func readElements[V any](r *reader, value func() V) list[element, V] {
	n := r.Size()
	l := make(list[element, V], 0, min(n, len(r.B)/10)) // none takes less than 10 bytes
	var last element
	for i := 0; i < n && !r.Failed(); i++ {
		e := element(r.Text(MaxElement))
		if i > 0 && last >= e {
			r.Fail("elements out of order")
			break
		}
		last = e
		l = append(l, pair[element, V]{e, value()})
	}
	return l
}
