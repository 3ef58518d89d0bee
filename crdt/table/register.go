package table

import (
	"bytes"
	"encoding/binary"
)

// Register holds what was assigned last, by stamp. Of a Clear it keeps the stamp until every region has passed it.
type Register struct {
	floor int64
	last  write
	data  []byte // never changed
}

// write is the last thing done, by stamp.
type write struct {
	stamp   Stamp // zero where nothing was
	removed bool
}

// below reports whether a write lies below a floor: all such writes were made in sessions born below it, for no stamp is
// older than its session.
func (w write) below(floor int64) bool { return w.stamp.Time.Millis() < floor }

// forgotten reports whether a removal need not be kept: nothing that it could hide is still to come.
func (w write) forgotten(floor int64) bool { return w.removed && w.below(floor) }

// Get returns what the register holds, which must not be changed, and whether it holds anything.
func (r *Register) Get() ([]byte, bool) { return r.data, r.last.stamp != Stamp{} && !r.last.removed }

// Stamp returns the stamp of the last write that the register keeps: what a session's Clock observes when it reads.
func (r *Register) Stamp() Stamp { return r.last.stamp }

// Apply implements Value.
func (r *Register) Apply(o *Op) bool {
	return r.join(&Register{last: write{o.Stamp(), o.Kind == Clear}, data: o.Data})
}

// Join implements Value.
func (r *Register) Join(other Value) bool { return r.join(other.(*Register)) }

// join has the side with the higher floor decide all that lies below it: it has seen it all, and what it lacks was
// removed.
func (r *Register) join(o *Register) bool {
	floor := max(r.floor, o.floor)
	changed := floor > r.floor
	if r.floor < floor && r.last.below(floor) {
		r.last, r.data = write{}, nil
	}
	r.floor = floor
	if o.floor < floor && o.last.below(floor) || !o.last.after(r.last, bytes.Compare(o.data, r.data)) {
		return changed
	}
	r.last, r.data = o.last, o.data
	return true
}

// after reports whether w supersedes v. Equal stamps are of one operation; where a client has given one to two, the bytes
// decide, so that regions agree all the same.
func (w write) after(v write, data int) bool {
	c := w.stamp.Compare(v.stamp)
	if c == 0 && w.removed != v.removed {
		return w.removed
	}
	return c > 0 || c == 0 && data > 0
}

// Fold implements Value.
func (r *Register) Fold(s *Sessions) {
	r.floor = max(r.floor, s.Floor())
	if r.last.forgotten(r.floor) {
		r.last = write{}
	}
}

// Empty implements Value.
func (r *Register) Empty(floor int64) bool { return r.last == write{} && r.floor <= floor }

// appendWrite appends 0, or 1 or 2 and the stamp of a write or a removal.
func appendWrite(b []byte, w write) []byte {
	switch {
	case w == write{}:
		return append(b, 0)
	case w.removed:
		return appendStamp(append(b, 2), w.stamp)
	}
	return appendStamp(append(b, 1), w.stamp)
}

func (r *reader) write(floor int64) write {
	switch c := r.Byte(); c {
	case 0:
		return write{}
	case 1, 2:
		w := write{r.stamp(), c == 2}
		if w.stamp.Time.Millis() < w.stamp.ID.Session.Born {
			r.Fail("a stamp from before its session")
		}
		if w.forgotten(floor) {
			r.Fail("a removal from below the floor")
		}
		return w
	default:
		r.Fail("write of kind %d", c)
		return write{}
	}
}

// Append implements Value.
func (r *Register) Append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, version, kindRegister), uint64(r.floor))
	b = appendWrite(b, r.last)
	if _, ok := r.Get(); ok {
		b = append(binary.AppendUvarint(b, uint64(len(r.data))), r.data...)
	}
	return b
}

func (r *reader) register() *Register {
	r.head(version, kindRegister)
	x := &Register{floor: r.millis(0)}
	x.last = r.write(x.floor)
	if _, ok := x.Get(); ok {
		n := r.Size()
		if n > MaxValue {
			r.Fail("%d bytes, %d are allowed", n, MaxValue)
		}
		x.data = bytes.Clone(r.Take(n))
	}
	return x
}
