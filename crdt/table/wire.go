package table

import (
	"encoding/binary"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
)

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSum(b []byte, s Sum) []byte {
	for s = s.zigzag(); s.hi != 0; s = (Sum{s.hi >> 7, s.lo>>7 | s.hi<<57}) {
		b = append(b, byte(s.lo)|0x80)
	}
	return binary.AppendUvarint(b, s.lo)
}

// appendSession appends a session whose birth is written as a difference from since, which is not above it.
func appendSession(b []byte, s SessionID, since int64) []byte {
	b = binary.AppendUvarint(b, uint64(s.Born-since))
	return binary.BigEndian.AppendUint64(b, s.Nonce)
}

func appendID(b []byte, id ID) []byte {
	return binary.AppendUvarint(appendSession(b, id.Session, 0), id.Sequence)
}

func appendStamp(b []byte, s Stamp) []byte {
	return appendID(binary.AppendUvarint(b, uint64(s.Time)), s.ID)
}

// reader takes an encoding apart. Its first failure stays: every later call returns zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) failed() bool { return r.err != nil }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", crdt.ErrEncoding, fmt.Sprintf(format, args...))
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

// uvarint takes a varint in its shortest form.
func (r *reader) uvarint() uint64 {
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

// sum takes a varint of at most 128 bits.
func (r *reader) sum() Sum {
	var s Sum
	for shift := uint(0); shift < 133; shift += 7 {
		c := r.byte()
		if shift == 126 && c > 3 || shift > 0 && c == 0 {
			break
		}
		if part := uint64(c & 0x7f); shift < 64 {
			s.lo |= part << shift
			s.hi |= part >> (64 - shift)
		} else {
			s.hi |= part << (shift - 64)
		}
		if c < 0x80 {
			return s.unzigzag()
		}
	}
	r.fail("bad varint")
	return Sum{}
}

// size takes a number of things, of which each has at least one byte still to come.
func (r *reader) size() int {
	u := r.uvarint()
	if u > uint64(len(r.b)) {
		r.fail("cut short")
		return 0
	}
	return int(u)
}

// string takes a text of at most limit bytes, which it copies.
func (r *reader) string(limit int) string {
	n := r.size()
	if n > limit {
		r.fail("%d bytes, %d are allowed", n, limit)
		return ""
	}
	return string(r.take(n))
}

// millis takes a time as a difference from since.
func (r *reader) millis(since int64) int64 {
	u := r.uvarint()
	if u > uint64(maxMillis-since) {
		r.fail("time out of bounds")
		return 0
	}
	return since + int64(u)
}

func (r *reader) session(since int64) SessionID {
	s := SessionID{Born: r.millis(since)}
	if b := r.take(8); b != nil {
		s.Nonce = binary.BigEndian.Uint64(b)
	}
	return s
}

func (r *reader) id() ID {
	id := ID{r.session(0), r.uvarint()}
	if id.Sequence == 0 {
		r.fail("sequence 0")
	}
	return id
}

func (r *reader) stamp() Stamp {
	t := Time(r.uvarint())
	if t == 0 {
		r.fail("no time")
	}
	return Stamp{t, r.id()}
}

// above takes a sequence as the difference from the last one that it follows, less one.
func (r *reader) above(last uint64) uint64 {
	next := last + r.uvarint() + 1
	if next <= last {
		r.fail("sequences out of order")
	}
	return next
}

// head takes version and kind of an encoding.
func (r *reader) head(version byte, kind byte) {
	if v := r.byte(); v != version && !r.failed() {
		r.fail("version %d, this build reads %d", v, version)
	}
	if k := r.byte(); k != kind && !r.failed() {
		r.fail("an encoding of kind %d, not %d", k, kind)
	}
}
