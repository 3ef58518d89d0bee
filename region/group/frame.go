package group

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// What two nodes say to each other after the first frame travels in frames, since TCP's own checksum lets one damaged
// segment in some tens of thousands pass. Numbers are big-endian, checksums CRC-32C:
//
//	offset  size  what
//	0       4     length of the payload, 1 to maxFrame
//	4       4     checksum of the payload
//	8       4     checksum of the above
//	12      n     payload
//
// A frame that does not have its checksums ends the connection: nothing of it is handed on.
const (
	frameHeader = 12
	maxFrame    = 64 << 10
)

var errFrame = fmt.Errorf("%w frame", ErrCorrupt)

// framed is a connection whose bytes travel in frames. Like any net.Conn it bears one reader and one writer at a time.
type framed struct {
	net.Conn
	damaged *atomic.Uint64 // counts frames that do not have their checksums
	said    func()         // told of the same, once

	reading struct {
		sync.Mutex
		from *bufio.Reader
		buf  []byte // one frame's payload
		left []byte // of it
		err  error  // all later reads fail with it, one that came too late also
	}
	writing struct {
		sync.Mutex
		buf []byte
	}
}

func newFramed(conn net.Conn, damaged *atomic.Uint64, said func()) *framed {
	f := &framed{Conn: conn, damaged: damaged, said: said}
	f.reading.from = bufio.NewReaderSize(conn, 4<<10)
	return f
}

// Read yields bytes of frames that are whole.
func (f *framed) Read(p []byte) (int, error) {
	r := &f.reading
	r.Lock()
	defer r.Unlock()
	if len(r.left) == 0 && r.err == nil {
		r.err = f.next()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// next reads one frame.
func (f *framed) next() error {
	r := &f.reading
	var header [frameHeader]byte
	if _, err := io.ReadFull(r.from, header[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(header[:])
	checked := !mutant.On("frame-unchecked")
	if checked && crc32.Checksum(header[:8], castagnoli) != binary.BigEndian.Uint32(header[8:]) || size == 0 || size > maxFrame {
		return f.damage()
	}
	if cap(r.buf) < int(size) {
		r.buf = make([]byte, size, max(int(size), 4<<10))
	}
	payload := r.buf[:size]
	if _, err := io.ReadFull(r.from, payload); err != nil {
		return noEOF(err)
	}
	if checked && crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(header[4:]) {
		return f.damage()
	}
	r.left = payload
	return nil
}

func (f *framed) damage() error {
	f.damaged.Add(1)
	f.said()
	f.Conn.Close()
	return errFrame
}

// Write sends p in as many frames as it takes.
func (f *framed) Write(p []byte) (written int, err error) {
	w := &f.writing
	w.Lock()
	defer w.Unlock()
	for len(p) > 0 {
		payload := p[:min(len(p), maxFrame)]
		w.buf = appendFrame(w.buf[:0], payload)
		if _, err := f.Conn.Write(w.buf); err != nil {
			return written, err
		}
		written, p = written+len(payload), p[len(payload):]
	}
	return written, nil
}

func appendFrame(dst, payload []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(payload, castagnoli))
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	return append(dst, payload...)
}
