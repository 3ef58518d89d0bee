package owned

import (
	"encoding/binary"
	"fmt"

	"github.com/watershed-db/watershed/failover/ownership"
)

// Version is that of all encodings of this package: their first byte. Numbers are varints in their shortest form, and every
// value has one encoding alone.
const Version = 1

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendMark(b []byte, m ownership.Mark) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(m.Epoch)), uint64(m.Position))
}

func appendNumbers(b []byte, list ...uint64) []byte {
	for _, n := range list {
		b = binary.AppendUvarint(b, n)
	}
	return b
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
		r.err, r.b = fmt.Errorf("%w: %d, this build reads %d", ownership.ErrVersion, v, Version), nil
	}
	return r
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ownership.ErrEncoding, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

// done returns the first failure; bytes left over are one.
func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes left over", len(r.b))
	}
	return r.err
}

// take takes n bytes, which stay the buffer's.
func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("cut short")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// flags takes a byte of which the given bits alone may be set.
func (r *reader) flags(known byte) byte {
	f := r.byte()
	if f&^known != 0 {
		r.fail("flags %#x", f)
	}
	return f & known
}

func (r *reader) uint64() uint64 {
	u, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return u
}

func (r *reader) number(limit uint64) uint64 {
	u := r.uint64()
	if u > limit {
		r.fail("%d is above %d", u, limit)
		return 0
	}
	return u
}

// list takes a number of things, of which each has at least one byte still to come.
func (r *reader) list(limit int) int {
	n := int(r.number(uint64(limit)))
	if n > len(r.b) {
		r.fail("cut short")
		return 0
	}
	return n
}

// bytes takes at most limit bytes, which stay the buffer's; nil for none.
func (r *reader) bytes(limit int) []byte {
	n := r.list(limit)
	if n == 0 {
		return nil
	}
	return r.take(n)
}

func (r *reader) millis() int64 { return int64(r.number(MaxMillis)) }

func (r *reader) position() ownership.Position { return ownership.Position(r.number(1<<63 - 1)) }

func (r *reader) epoch() ownership.Epoch { return ownership.Epoch(r.number(1<<63 - 1)) }

func (r *reader) mark() ownership.Mark {
	e := r.epoch()
	return ownership.Mark{Epoch: e, Position: r.position()}
}

func (r *reader) table() (t TableID) {
	copy(t[:], r.take(len(t)))
	return t
}

func (r *reader) fixed64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) session() Session {
	born := r.millis()
	return Session{born, r.fixed64()}
}
