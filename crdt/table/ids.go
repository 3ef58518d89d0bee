package table

import (
	"encoding/binary"
	"slices"
)

// ids is a set of operations: all of the sessions born before floor, and of later sessions a prefix and single ones.
// What a prefix or the floor covers is a promise of whoever folded (Sessions): nothing else lies below it.
type ids struct {
	floor    int64
	sessions list[SessionID, run] // born at or after floor, none of them empty
}

type run struct {
	prefix uint64
	above  []uint64 // ascending, beyond prefix; never shared
}

func (s *ids) has(id ID) bool {
	if id.Session.Born < s.floor {
		return true
	}
	r, ok := s.sessions.get(id.Session)
	return ok && r.has(id.Sequence)
}

func (r run) has(sequence uint64) bool {
	if sequence <= r.prefix {
		return true
	}
	_, ok := slices.BinarySearch(r.above, sequence)
	return ok
}

// add reports whether id was new.
func (s *ids) add(id ID) bool {
	if s.has(id) {
		return false
	}
	r, _ := s.sessions.get(id.Session)
	i, _ := slices.BinarySearch(r.above, id.Sequence)
	r.above = slices.Insert(r.above, i, id.Sequence)
	s.sessions.set(id.Session, r)
	return true
}

// raise drops the sessions that a higher floor covers, and reports whether it is higher.
func (s *ids) raise(floor int64) bool {
	if floor <= s.floor {
		return false
	}
	s.floor = floor
	s.sessions = slices.Delete(s.sessions, 0, bornBelow(s.sessions, floor))
	return true
}

// bornBelow returns how many of the sessions were born below a floor.
func bornBelow[V any](sessions list[SessionID, V], floor int64) int {
	n, _ := sessions.find(SessionID{Born: floor})
	return n
}

// join adds what o holds, and reports whether s changed.
func (s *ids) join(o *ids) bool {
	raised := s.raise(o.floor)
	theirs := o.sessions[bornBelow(o.sessions, s.floor):]
	return s.sessions.join(theirs, func(_ SessionID, ours *run, theirs run) bool {
		if ours.covers(theirs) {
			return false
		}
		*ours = ours.join(theirs)
		return true
	}) || raised
}

// covers reports whether joining o would change nothing.
func (r run) covers(o run) bool {
	if o.prefix > r.prefix {
		return false
	}
	return !slices.ContainsFunc(o.above, func(sequence uint64) bool { return !r.has(sequence) })
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
	for i := range s.sessions {
		r := &s.sessions[i].value
		if len(r.above) == 0 {
			continue
		}
		if n := countTo(r.above, k.Prefix(s.sessions[i].key)); n > 0 {
			r.prefix = r.above[n-1]
			r.above = slices.Delete(r.above, 0, n)
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

// appendTo appends floor, number of sessions, and of each: id, prefix, number above, differences.
func (s *ids) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.floor))
	b = binary.AppendUvarint(b, uint64(len(s.sessions)))
	since := s.floor
	for _, p := range s.sessions {
		r := p.value
		b = binary.AppendUvarint(appendSession(b, p.key, since), r.prefix)
		b = binary.AppendUvarint(b, uint64(len(r.above)))
		last := r.prefix
		for _, sequence := range r.above {
			b = binary.AppendUvarint(b, sequence-last-1)
			last = sequence
		}
		since = p.key.Born
	}
	return b
}

func (r *reader) ids() ids {
	s := ids{floor: r.millis(0)}
	s.sessions = readSessions(r, s.floor, func() run {
		x := run{prefix: r.Uvarint()}
		n := r.sessionSize(x.prefix)
		last := x.prefix
		for i := 0; i < n && !r.Failed(); i++ {
			last = r.above(last)
			x.above = append(x.above, last)
		}
		return x
	})
	return s
}

// sessionSize takes how many sequences beyond its prefix a session has, which is not empty.
func (r *reader) sessionSize(prefix uint64) int {
	n := r.Size()
	if prefix == 0 && n == 0 {
		r.Fail("a session of nothing")
	}
	return n
}

// readSessions takes a number of sessions in order, born at or after floor, with the value that stands behind each.
func readSessions[V any](r *reader, floor int64, value func() V) list[SessionID, V] {
	last := SessionID{Born: floor}
	n := r.Size()
	l := make(list[SessionID, V], 0, min(n, len(r.B)/10)) // none takes less than 10 bytes
	for i := 0; i < n && !r.Failed(); i++ {
		id := r.session(last.Born)
		if i > 0 && last.Compare(id) >= 0 {
			r.Fail("sessions out of order")
			break
		}
		last = id
		l = append(l, pair[SessionID, V]{id, value()})
	}
	return l
}
