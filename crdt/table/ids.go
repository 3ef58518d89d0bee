package table

import (
	"encoding/binary"
	"maps"
	"slices"
)

// ids is a set of operations: all of the sessions born before floor, and of later sessions a prefix and single ones.
// What a prefix or the floor covers is a promise of whoever folded (Sessions): nothing else lies below it.
type ids struct {
	floor    int64
	sessions map[SessionID]run // born at or after floor, none of them empty
}

type run struct {
	prefix uint64
	above  []uint64 // ascending, beyond prefix; never shared
}

func (s *ids) has(id ID) bool {
	if id.Session.Born < s.floor {
		return true
	}
	r, ok := s.sessions[id.Session]
	if !ok || id.Sequence <= r.prefix {
		return ok
	}
	_, ok = slices.BinarySearch(r.above, id.Sequence)
	return ok
}

// add reports whether id was new.
func (s *ids) add(id ID) bool {
	if s.has(id) {
		return false
	}
	r := s.sessions[id.Session]
	i, _ := slices.BinarySearch(r.above, id.Sequence)
	r.above = slices.Insert(r.above, i, id.Sequence)
	s.put(id.Session, r)
	return true
}

func (s *ids) put(session SessionID, r run) {
	if s.sessions == nil {
		s.sessions = make(map[SessionID]run)
	}
	s.sessions[session] = r
}

// raise drops the sessions that a higher floor covers, and reports whether it is higher.
func (s *ids) raise(floor int64) bool {
	if floor <= s.floor {
		return false
	}
	s.floor = floor
	maps.DeleteFunc(s.sessions, func(id SessionID, _ run) bool { return id.Born < floor })
	return true
}

// join adds what o holds, and reports whether s changed.
func (s *ids) join(o *ids) bool {
	changed := s.raise(o.floor)
	for id, theirs := range o.sessions {
		if id.Born < s.floor {
			continue
		}
		if ours := s.sessions[id]; !ours.covers(theirs) {
			s.put(id, ours.join(theirs))
			changed = true
		}
	}
	return changed
}

// covers reports whether joining o would change nothing.
func (r run) covers(o run) bool {
	if o.prefix > r.prefix {
		return false
	}
	return !slices.ContainsFunc(o.above, func(sequence uint64) bool {
		_, found := slices.BinarySearch(r.above, sequence)
		return sequence > r.prefix && !found
	})
}

func (r run) join(o run) run {
	prefix := max(r.prefix, o.prefix)
	above := append(slices.Clone(r.above), o.above...)
	slices.Sort(above)
	above = slices.Compact(above)
	i, _ := slices.BinarySearch(above, prefix+1)
	return run{prefix, above[i:]}
}

// fold moves what k has in its prefix and floor into s's own. A prefix ends with an operation of s, so that equal sets
// folded by the same k are equal.
func (s *ids) fold(k *Sessions) {
	s.raise(k.Floor())
	for id, r := range s.sessions {
		if n := countTo(r.above, k.Prefix(id)); n > 0 {
			r.prefix = r.above[n-1]
			r.above = slices.Delete(r.above, 0, n)
			s.sessions[id] = r
		}
	}
}

// countTo returns how many of ascending numbers are at or below limit.
func countTo(above []uint64, limit uint64) int {
	i, found := slices.BinarySearch(above, limit)
	if found {
		i++
	}
	return i
}

// inOrder returns a map's sessions in order.
func inOrder[V any](m map[SessionID]V) []SessionID {
	return slices.SortedFunc(maps.Keys(m), SessionID.Compare)
}

// appendTo appends floor, number of sessions, and of each: id, prefix, number above, differences.
func (s *ids) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.floor))
	b = binary.AppendUvarint(b, uint64(len(s.sessions)))
	since := s.floor
	for _, id := range inOrder(s.sessions) {
		r := s.sessions[id]
		b = binary.AppendUvarint(appendSession(b, id, since), r.prefix)
		b = binary.AppendUvarint(b, uint64(len(r.above)))
		last := r.prefix
		for _, sequence := range r.above {
			b = binary.AppendUvarint(b, sequence-last-1)
			last = sequence
		}
		since = id.Born
	}
	return b
}

func (r *reader) ids() ids {
	s := ids{floor: r.millis(0)}
	r.sessions(s.floor, func(id SessionID) {
		x := run{prefix: r.uvarint()}
		n := r.size()
		if x.prefix == 0 && n == 0 {
			r.fail("a session of nothing")
		}
		last := x.prefix
		for i := 0; i < n && !r.failed(); i++ {
			last = r.above(last)
			x.above = append(x.above, last)
		}
		s.put(id, x)
	})
	return s
}

// sessions takes a number of sessions in order, born at or after floor, with what body takes behind each.
func (r *reader) sessions(floor int64, body func(SessionID)) {
	last := SessionID{Born: floor}
	n := r.size()
	for i := 0; i < n && !r.failed(); i++ {
		id := r.session(last.Born)
		if i > 0 && last.Compare(id) >= 0 {
			r.fail("sessions out of order")
			return
		}
		last = id
		body(id)
	}
}
