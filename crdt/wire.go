package crdt

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrEncoding marks bytes that are not in an encoding of this package: cut short, out of bounds, out of order, of an
// unknown version, or not the one normal form of their content.
var ErrEncoding = errors.New("malformed encoding")

func appendUvarint(b []byte, u uint64) []byte { return binary.AppendUvarint(b, u) }

func appendVarint(b []byte, i int64) []byte { return binary.AppendVarint(b, i) }

func appendString(b []byte, s string) []byte { return append(appendUvarint(b, uint64(len(s))), s...) }

// appendWide appends u as a varint.
func appendWide(b []byte, u uint192) []byte {
	for u[2]|u[1] != 0 {
		b = append(b, byte(u[0])|0x80)
		u = uint192{u[0]>>7 | u[1]<<57, u[1]>>7 | u[2]<<57, u[2] >> 7}
	}
	return appendUvarint(b, u[0])
}

// reader takes an encoding apart. Its first failure stays: every later call returns zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) failed() bool { return r.err != nil }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrEncoding, fmt.Sprintf(format, args...))
		r.b = nil
	}
}

// done returns the first failure; bytes left over are one.
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

// uvarint takes a varint in its shortest form.
func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		u := r.b[0]
		r.b = r.b[1:]
		return uint64(u)
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() uint64 {
	u, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("bad varint")
		return 0
	}
	r.b = r.b[n:]
	return u
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// wide takes a varint of at most the given bits.
func (r *reader) wide(maxBits uint) uint192 {
	var u uint192
	if x, n := binary.Uvarint(r.b); n > 0 && (n == 1 || r.b[n-1] != 0) {
		r.b = r.b[n:] // nearly always it ends within 64 bits
		return uint192{x}
	}
	for shift := uint(0); shift < maxBits; shift += 7 {
		c := r.byte()
		w, s := shift/64, shift%64
		u[w] |= uint64(c&0x7f) << s
		over := uint64(c&0x7f) >> (64 - s)
		switch {
		case w+1 < 3:
			u[w+1] |= over
		case over != 0:
			r.fail("bad varint")
		}
		if c < 0x80 {
			if c == 0 && shift > 0 || maxBits == 128 && u[2] != 0 {
				r.fail("bad varint")
			}
			return u
		}
	}
	r.fail("bad varint")
	return uint192{}
}

// take takes n bytes, which stay the buffer's.
func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail("cut short")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// size takes a length or number of things, of which each has at least one byte still to come.
func (r *reader) size() int {
	u := r.uvarint()
	if u > uint64(len(r.b)) {
		r.fail("cut short")
		return 0
	}
	return int(u)
}

// bytes takes length-prefixed bytes, which stay the buffer's.
func (r *reader) bytes() []byte { return r.take(r.size()) }

// hash takes a Hash.
func (r *reader) hash() (h Hash) {
	copy(h[:], r.take(len(h)))
	return h
}

// version takes the version byte.
func (r *reader) version(known byte) {
	if v := r.byte(); v != known && !r.failed() {
		r.fail("version %d, this build reads %d", v, known)
	}
}
