package table

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// LWWSet is a set in which the last write of each element decides, by stamp. Of a removal it keeps the stamp until every
// region has passed it.
type LWWSet struct {
	floor    int64
	elements map[string]write
}

// Elements returns the elements in order.
func (s *LWWSet) Elements() []string {
	var in []string
	for element, w := range s.elements {
		if !w.removed {
			in = append(in, element)
		}
	}
	slices.Sort(in)
	return in
}

// Stamp returns the stamp of an element's last write, zero where none is kept, and whether the element is in the set.
func (s *LWWSet) Stamp(element []byte) (Stamp, bool) {
	w, ok := s.elements[string(element)]
	return w.stamp, ok && !w.removed
}

// Apply implements Value.
func (s *LWWSet) Apply(o *Op) bool {
	return s.put(string(o.Data), write{o.Stamp(), o.Kind == Remove}, 0)
}

// put takes a write from a copy whose floor was the given one, not above s's own.
func (s *LWWSet) put(element string, w write, floor int64) bool {
	if floor < s.floor && w.below(s.floor) || !w.after(s.elements[element], 0) {
		return false
	}
	if s.elements == nil {
		s.elements = make(map[string]write)
	}
	s.elements[element] = w
	return true
}

// Join implements Value. The side with the higher floor decides all that lies below it: it has seen it all, and what it
// lacks was removed.
func (s *LWWSet) Join(other Value) bool {
	o := other.(*LWWSet)
	changed := o.floor > s.floor
	if changed {
		maps.DeleteFunc(s.elements, func(_ string, w write) bool { return w.below(o.floor) })
		s.floor = o.floor
	}
	for element, w := range o.elements {
		if s.put(element, w, o.floor) {
			changed = true
		}
	}
	return changed
}

// Fold implements Value.
func (s *LWWSet) Fold(k *Sessions) {
	s.floor = max(s.floor, k.Floor())
	maps.DeleteFunc(s.elements, func(_ string, w write) bool {
		return w.forgotten(s.floor) || w.removed && mutant.On("removal-forgotten")
	})
}

// Empty implements Value.
func (s *LWWSet) Empty() bool { return len(s.elements) == 0 }

// Append implements Value.
func (s *LWWSet) Append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, version, kindLWWSet), uint64(s.floor))
	b = binary.AppendUvarint(b, uint64(len(s.elements)))
	for _, element := range slices.Sorted(maps.Keys(s.elements)) {
		b = appendWrite(appendString(b, element), s.elements[element])
	}
	return b
}

func (r *reader) lwwSet() *LWWSet {
	r.head(version, kindLWWSet)
	s := &LWWSet{floor: r.millis(0)}
	r.elements(func(element string) {
		w := r.write(s.floor)
		if w == (write{}) {
			r.fail("an element that nothing wrote")
		}
		if !r.failed() {
			s.put(element, w, s.floor)
		}
	})
	return s
}
