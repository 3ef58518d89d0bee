package owned

import (
	"encoding/binary"

	"github.com/watershed-db/watershed/crdt/wire"
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

// reader takes the encodings of this package apart.
type reader struct{ wire.Reader }

// open begins to read an encoding.
func open(b []byte) *reader {
	r := &reader{wire.Reader{B: b}}
	r.Version(Version, ownership.ErrVersion)
	return r
}

// flags takes a byte of which the given bits alone may be set.
func (r *reader) flags(known byte) byte {
	f := r.Byte()
	if f&^known != 0 {
		r.Fail("flags %#x", f)
	}
	return f & known
}

// optional takes at most limit bytes, which stay the buffer's; nil for none.
func (r *reader) optional(limit int) []byte {
	n := r.Count(limit)
	if n == 0 {
		return nil
	}
	return r.Take(n)
}

func (r *reader) millis() int64 { return int64(r.UvarintTo(MaxMillis)) }

func (r *reader) position() ownership.Position { return ownership.Position(r.UvarintTo(1<<63 - 1)) }

func (r *reader) epoch() ownership.Epoch { return ownership.Epoch(r.UvarintTo(1<<63 - 1)) }

func (r *reader) mark() ownership.Mark {
	e := r.epoch()
	return ownership.Mark{Epoch: e, Position: r.position()}
}

func (r *reader) table() (t TableID) {
	copy(t[:], r.Take(len(t)))
	return t
}

func (r *reader) session() Session {
	born := r.millis()
	return Session{born, r.Fixed64()}
}
