package ownership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/watershed-db/watershed/crdt/wire"
)

// Version is that of all encodings of this package: their first byte. Numbers are varints in their shortest form, times
// are nanoseconds, and every value has one encoding alone.
const Version = 1

// ErrEncoding says that bytes are no encoding of what they were taken for.
var ErrEncoding = wire.ErrEncoding

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

// reader takes the encodings of this package apart.
type reader struct{ wire.Reader }

// open begins to read an encoding.
func open(b []byte) *reader {
	r := &reader{wire.Reader{B: b}}
	r.Version(Version, ErrVersion)
	return r
}

func (r *reader) epoch() Epoch { return Epoch(r.UvarintTo(1<<63 - 1)) }

func (r *reader) position() Position { return Position(r.UvarintTo(1<<63 - 1)) }

func (r *reader) member() MemberID { return MemberID(r.UvarintTo(1<<16 - 1)) }

func (r *reader) mark() Mark { return Mark{r.epoch(), r.position()} }

func (r *reader) duration(limit time.Duration) time.Duration {
	return time.Duration(r.UvarintTo(uint64(limit)))
}

func (r *reader) config() Config {
	c := Config{Number: r.UvarintTo(1<<63 - 1), Highest: r.member()}
	flags := r.Byte()
	if flags > flagForced {
		r.Fail("bad flags of a configuration")
	}
	c.Forced = flags == flagForced
	n := int(r.Byte())
	if n > MaxMembers {
		r.Fail("%d members", n)
	}
	for i := 0; i < n && r.Err == nil; i++ {
		m := Member{ID: r.member()}
		f := r.Byte()
		m.Joining, m.Behind = f&flagJoining != 0, f&flagBehind != 0
		m.Role = Role(f &^ (flagJoining | flagBehind))
		if m.Role > Witness || m.ID == 0 || m.ID > c.Highest || i > 0 && c.Members[i-1].ID >= m.ID {
			r.Fail("member %d of role %d", m.ID, m.Role)
		}
		m.Region = r.Text(MaxRegion)
		c.Members = append(c.Members, m)
	}
	n = int(r.Byte())
	if n > MaxMembers {
		r.Fail("%d members gone", n)
	}
	for i := 0; i < n && r.Err == nil; i++ {
		c.Gone = append(c.Gone, r.member())
	}
	c.Fork = r.position()
	return c
}

// controls takes control entries that come after a position, each after the one before, and up to another.
func (r *reader) controls(after, upto Position) []Control {
	n := r.UvarintTo(2 * MaxControl) // an owner may add to a claimant's
	if n > uint64(len(r.B)) {
		r.Fail("cut short")
		return nil
	}
	var list []Control
	for i := uint64(0); i < n && r.Err == nil; i++ {
		c := Control{Mark: r.mark(), Config: r.config()}
		if c.Mark.Position <= after || c.Mark.Position > upto || i > 0 && c.Mark.Epoch < list[i-1].Mark.Epoch {
			r.Fail("control entries out of order")
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
	if err := w.check(); err != nil && r.Err == nil {
		r.Fail("%v", err)
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
