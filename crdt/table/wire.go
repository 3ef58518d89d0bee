package table

import (
	"encoding/binary"

	"github.com/watershed-db/watershed/crdt/wire"
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

// reader takes the encodings of this package apart.
type reader struct{ wire.Reader }

func open(b []byte) reader { return reader{wire.Reader{B: b}} }

// sum takes a varint of at most 128 bits.
func (r *reader) sum() Sum {
	var s Sum
	for shift := uint(0); shift < 133; shift += 7 {
		c := r.Byte()
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
	r.Fail("bad varint")
	return Sum{}
}

// millis takes a time as a difference from since.
func (r *reader) millis(since int64) int64 {
	u := r.Uvarint()
	if u > uint64(maxMillis-since) {
		r.Fail("time out of bounds")
		return 0
	}
	return since + int64(u)
}

func (r *reader) session(since int64) SessionID {
	s := SessionID{Born: r.millis(since)}
	if b := r.Take(8); b != nil {
		s.Nonce = binary.BigEndian.Uint64(b)
	}
	return s
}

func (r *reader) id() ID {
	id := ID{r.session(0), r.Uvarint()}
	if id.Sequence == 0 {
		r.Fail("sequence 0")
	}
	return id
}

func (r *reader) stamp() Stamp {
	t := Time(r.Uvarint())
	if t == 0 {
		r.Fail("no time")
	}
	return Stamp{t, r.id()}
}

// above takes a sequence as the difference from the last one that it follows, less one.
func (r *reader) above(last uint64) uint64 {
	next := last + r.Uvarint() + 1
	if next <= last {
		r.Fail("sequences out of order")
	}
	return next
}

// head takes version and kind of an encoding.
func (r *reader) head(version byte, kind byte) {
	if v := r.Byte(); v != version && !r.Failed() {
		r.Fail("version %d, this build reads %d", v, version)
	}
	if k := r.Byte(); k != kind && !r.Failed() {
		r.Fail("an encoding of kind %d, not %d", k, kind)
	}
}
