package table

import (
	"encoding/binary"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// LWWSet is a set in which the last write of each element decides, by stamp. Of a removal it keeps the stamp until every
// region has passed it.
type LWWSet struct {
	floor    int64
	elements list[element, write]
}

// Elements returns the elements in order.
func (s *LWWSet) Elements() []string {
	var in []string
	for _, p := range s.elements {
		if !p.value.removed {
			in = append(in, string(p.key))
		}
	}
	return in
}

// Stamp returns the stamp of an element's last write, zero where none is kept, and whether the element is in the set.
func (s *LWWSet) Stamp(of []byte) (Stamp, bool) {
	w, ok := s.elements.get(element(of))
	return w.stamp, ok && !w.removed
}

// Apply implements Value.
func (s *LWWSet) Apply(o *Op) bool {
	w := write{o.Stamp(), o.Kind == Remove}
	if s.floor > 0 && w.below(s.floor) {
		return false
	}
	if last, _ := s.elements.get(element(o.Data)); !w.after(last, 0) {
		return false
	}
	s.elements.set(element(o.Data), w)
	return true
}

// Join implements Value. The side with the higher floor decides all that lies below it: it has seen it all, and what it
// lacks was removed.
func (s *LWWSet) Join(other Value) bool {
	o := other.(*LWWSet)
	raised := o.floor > s.floor
	if raised {
		s.elements.filter(func(_ element, w *write) bool { return !w.below(o.floor) })
		s.floor = o.floor
	}
	return s.elements.join(o.elements, func(_ element, ours *write, theirs write) bool {
		if o.floor < s.floor && theirs.below(s.floor) || !theirs.after(*ours, 0) {
			return false
		}
		*ours = theirs
		return true
	}) || raised
}

// Fold implements Value.
func (s *LWWSet) Fold(k *Sessions) {
	s.floor = max(s.floor, k.Floor())
	s.elements.filter(func(_ element, w *write) bool {
		return !w.forgotten(s.floor) && !(w.removed && mutant.On("removal-forgotten"))
	})
}

// Empty implements Value.
func (s *LWWSet) Empty(floor int64) bool { return len(s.elements) == 0 && s.floor <= floor }

// Append implements Value.
func (s *LWWSet) Append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, version, kindLWWSet), uint64(s.floor))
	b = binary.AppendUvarint(b, uint64(len(s.elements)))
	for _, p := range s.elements {
		b = appendWrite(appendString(b, string(p.key)), p.value)
	}
	return b
}

func (r *reader) lwwSet() *LWWSet {
	r.head(version, kindLWWSet)
	s := &LWWSet{floor: r.millis(0)}
	s.elements = readElements(r, func() write {
		w := r.write(s.floor)
		if w == (write{}) {
			r.Fail("an element that nothing wrote")
		}
		return w
	})
	return s
}
