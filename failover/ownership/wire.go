package ownership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Version is that of all encodings of this package: their first byte. Numbers are varints in their shortest form, times
// are nanoseconds, and every value has one encoding alone.
const Version = 1

// ErrEncoding says that bytes are no encoding of what they were taken for.
var ErrEncoding = errors.New("not a valid encoding")

// ErrVersion says that bytes are of a version that this build does not read.
var ErrVersion = errors.New("encoding of another version")

func appendNumbers[T ~uint16 | ~uint64](b []byte, list ...T) []byte {
	for _, n := range list {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func appendMark(b []byte, m Mark) []byte {
	return appendNumbers(appendNumbers(b, m.Epoch), m.Position)
}

// The flags of a Config and of its members; the low bits of a member's hold its role.
const (
	flagForced  = 1
	flagJoining = 1 << 4
	flagBehind  = 1 << 5
)

func appendConfig(b []byte, c Config) []byte {
	b = append(appendNumbers(b, c.Number, uint64(c.Highest)), bit(c.Forced, flagForced), byte(len(c.Members)))
	for _, m := range c.Members {
		b = append(appendNumbers(b, m.ID), byte(m.Role)|bit(m.Joining, flagJoining)|bit(m.Behind, flagBehind))
		b = append(appendNumbers(b, uint64(len(m.Region))), m.Region...)
	}
	return appendNumbers(appendNumbers(append(b, byte(len(c.Gone))), c.Gone...), c.Fork)
}

func bit(on bool, mask byte) byte {
	if on {
		return mask
	}
	return 0
}

func appendControls(b []byte, list []Control) []byte {
	b = appendNumbers(b, uint64(len(list)))
	for _, c := range list {
		b = appendConfig(appendMark(b, c.Mark), c.Config)
	}
	return b
}

func appendWrite(b []byte, w Write) []byte {
	b = appendControls(appendMark(appendNumbers(b, w.Epoch), w.Prev), w.Control)
	return appendNumbers(b, w.Last, w.Confirmed, w.Floor)
}

// reader takes an encoding apart. Its first failure stays; every later call returns zero.
type reader struct {
	b   []byte
	err error
}

// open begins to read an encoding.
func open(b []byte) *reader {
	r := &reader{b: b}
	if v := r.byte(); r.err == nil && v != Version {
		r.err, r.b = fmt.Errorf("%w: %d, this build reads %d", ErrVersion, v, Version), nil
	}
	return r
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrEncoding, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes left over", len(r.b))
	}
	return r.err
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("cut short")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint(limit uint64) uint64 {
	u, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("bad number")
		return 0
	}
	if u > limit {
		r.fail("%d is above %d", u, limit)
		return 0
	}
	r.b = r.b[n:]
	return u
}

func (r *reader) text(limit uint64) string {
	n := int(r.uvarint(limit))
	if n > len(r.b) {
		r.fail("cut short")
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) epoch() Epoch { return Epoch(r.uvarint(1<<63 - 1)) }

func (r *reader) position() Position { return Position(r.uvarint(1<<63 - 1)) }

func (r *reader) member() MemberID { return MemberID(r.uvarint(1<<16 - 1)) }

func (r *reader) mark() Mark { return Mark{r.epoch(), r.position()} }

func (r *reader) duration(limit time.Duration) time.Duration {
	return time.Duration(r.uvarint(uint64(limit)))
}

func (r *reader) config() Config {
	c := Config{Number: r.uvarint(1<<63 - 1), Highest: r.member()}
	flags := r.byte()
	if flags > flagForced {
		r.fail("bad flags of a configuration")
	}
	c.Forced = flags == flagForced
	n := int(r.byte())
	if n > MaxMembers {
		r.fail("%d members", n)
	}
	for i := 0; i < n && r.err == nil; i++ {
		m := Member{ID: r.member()}
		f := r.byte()
		m.Joining, m.Behind = f&flagJoining != 0, f&flagBehind != 0
		m.Role = Role(f &^ (flagJoining | flagBehind))
		if m.Role > Witness || m.ID == 0 || m.ID > c.Highest || i > 0 && c.Members[i-1].ID >= m.ID {
			r.fail("member %d of role %d", m.ID, m.Role)
		}
		m.Region = r.text(MaxRegion)
		c.Members = append(c.Members, m)
	}
	n = int(r.byte())
	if n > MaxMembers {
		r.fail("%d members gone", n)
	}
	for i := 0; i < n && r.err == nil; i++ {
		c.Gone = append(c.Gone, r.member())
	}
	c.Fork = r.position()
	return c
}

// controls takes control entries that come after a position, each after the one before, and up to another.
func (r *reader) controls(after, upto Position) []Control {
	n := r.uvarint(2 * MaxControl) // an owner may add to a claimant's
	if n > uint64(len(r.b)) {
		r.fail("cut short")
		return nil
	}
	var list []Control
	for i := uint64(0); i < n && r.err == nil; i++ {
		c := Control{Mark: r.mark(), Config: r.config()}
		if c.Mark.Position <= after || c.Mark.Position > upto || i > 0 && c.Mark.Epoch < list[i-1].Mark.Epoch {
			r.fail("control entries out of order")
		}
		after = c.Mark.Position
		list = append(list, c)
	}
	return list
}

func (r *reader) write() Write {
	w := Write{Epoch: r.epoch(), Prev: r.mark()}
	w.Control = r.controls(w.Prev.Position, 1<<63-1)
	w.Last, w.Confirmed, w.Floor = r.position(), r.position(), r.position()
	if err := w.check(); err != nil && r.err == nil {
		r.fail("%v", err)
	}
	return w
}

// check says what no owner's log can be: its entries lie behind Prev, and none is of an epoch above the owner's.
func (w Write) check() error {
	last := w.Prev
	if n := len(w.Control); n > 0 {
		if w.Control[0].Mark.Epoch < w.Prev.Epoch {
			return errors.New("entries of an epoch below that of the entry before")
		}
		last = w.Control[n-1].Mark
	}
	if last.Position > w.Last || last.Epoch > w.Epoch {
		return fmt.Errorf("entries up to %d of epoch %v hold %v", w.Last, w.Epoch, last)
	}
	return nil
}
