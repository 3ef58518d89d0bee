package crdt

import (
	"encoding/binary"

	"github.com/watershed-db/watershed/crdt/wire"
)

// ErrEncoding marks bytes that are not in an encoding of this package: cut short, out of bounds, out of order, of an
// unknown version, or not the one normal form of their content.
var ErrEncoding = wire.ErrEncoding

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

// reader takes the encodings of this package apart.
type reader struct{ wire.Reader }

func open(b []byte) reader { return reader{wire.Reader{B: b}} }

// version takes the version byte.
func (r *reader) version(known byte) {
	if v := r.Byte(); v != known && !r.Failed() {
		r.Fail("version %d, this build reads %d", v, known)
	}
}

// wide takes a varint of at most the given bits.
func (r *reader) wide(maxBits uint) uint192 {
	var u uint192
	if x, n := binary.Uvarint(r.B); n > 0 && (n == 1 || r.B[n-1] != 0) {
		r.B = r.B[n:] // nearly always it ends within 64 bits
		return uint192{x}
	}
	for shift := uint(0); shift < maxBits; shift += 7 {
		c := r.Byte()
		w, s := shift/64, shift%64
		u[w] |= uint64(c&0x7f) << s
		over := uint64(c&0x7f) >> (64 - s)
		switch {
		case w+1 < 3:
			u[w+1] |= over
		case over != 0:
			r.Fail("bad varint")
		}
		if c < 0x80 {
			if c == 0 && shift > 0 || maxBits == 128 && u[2] != 0 {
				r.Fail("bad varint")
			}
			return u
		}
	}
	r.Fail("bad varint")
	return uint192{}
}

// bytes takes length-prefixed bytes, which stay the buffer's.
func (r *reader) bytes() []byte { return r.Take(r.Size()) }

// hash takes a Hash.
func (r *reader) hash() (h Hash) {
	copy(h[:], r.Take(len(h)))
	return h
}
