// Package wire takes encodings apart: the part that all of them have in common. Encoders append with encoding/binary; every
// value has one encoding alone, so that equal contents are equal bytes. Pure.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrEncoding marks bytes that are no encoding of what they were taken for.
var ErrEncoding = errors.New("malformed encoding")

// Reader takes an encoding apart from its front. Its first failure stays: every later call returns zero. What it returns
// shares the buffer's bytes, but for texts. It is for one goroutine.
type Reader struct {
	B    []byte // what is still to be taken; nothing after a failure
	Err  error  // the first failure
	Base error  // what failures wrap; ErrEncoding where it is nil
}

// Failed reports whether anything has failed.
func (r *Reader) Failed() bool { return r.Err != nil }

// Fail makes a failure, unless there is one.
func (r *Reader) Fail(format string, args ...any) {
	base := r.Base
	if base == nil {
		base = ErrEncoding
	}
	r.FailWith(fmt.Errorf("%w: %s", base, fmt.Sprintf(format, args...)))
}

// FailWith makes err the failure, unless there is one.
func (r *Reader) FailWith(err error) {
	if r.Err == nil {
		r.Err = err
	}
	r.B = nil
}

// Done returns the first failure; bytes left over are one.
func (r *Reader) Done() error {
	if r.Err == nil && len(r.B) > 0 {
		r.Fail("%d bytes left over", len(r.B))
	}
	return r.Err
}

// Byte takes one.
func (r *Reader) Byte() byte {
	if len(r.B) == 0 {
		r.Fail("cut short")
		return 0
	}
	c := r.B[0]
	r.B = r.B[1:]
	return c
}

// Uvarint takes a varint in its shortest form.
func (r *Reader) Uvarint() uint64 {
	if len(r.B) > 0 && r.B[0] < 0x80 {
		u := r.B[0]
		r.B = r.B[1:]
		return uint64(u)
	}
	return r.longUvarint()
}

func (r *Reader) longUvarint() uint64 {
	u, n := binary.Uvarint(r.B)
	if n <= 0 || n > 1 && r.B[n-1] == 0 {
		r.Fail("bad varint")
		return 0
	}
	r.B = r.B[n:]
	return u
}

// UvarintTo takes a varint of at most limit.
func (r *Reader) UvarintTo(limit uint64) uint64 {
	u := r.Uvarint()
	if u > limit {
		r.Fail("%d is above %d", u, limit)
		return 0
	}
	return u
}

// Varint takes a zigzag varint.
func (r *Reader) Varint() int64 {
	u := r.Uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// Take takes n bytes.
func (r *Reader) Take(n int) []byte {
	if n < 0 || n > len(r.B) {
		r.Fail("cut short")
		return nil
	}
	b := r.B[:n:n]
	r.B = r.B[n:]
	return b
}

// Fixed64 takes eight bytes, big-endian.
func (r *Reader) Fixed64() uint64 {
	if b := r.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Size takes a length, or a number of things of which each has at least one byte still to come.
func (r *Reader) Size() int {
	u := r.Uvarint()
	if u > uint64(len(r.B)) {
		r.Fail("cut short")
		return 0
	}
	return int(u)
}

// Count is Size of at most limit.
func (r *Reader) Count(limit int) int {
	n := r.Size()
	if n > limit {
		r.Fail("%d is above %d", n, limit)
		return 0
	}
	return n
}

// Bytes takes at most limit bytes behind their length.
func (r *Reader) Bytes(limit int) []byte { return r.Take(r.Count(limit)) }

// Text takes a text of at most limit bytes behind its length, and copies it.
func (r *Reader) Text(limit int) string { return string(r.Bytes(limit)) }

// Version takes the byte that an encoding begins with, and fails with other unless it is known.
func (r *Reader) Version(known byte, other error) {
	if v := r.Byte(); v != known && r.Err == nil {
		r.FailWith(fmt.Errorf("%w: %d, this build reads %d", other, v, known))
	}
}
