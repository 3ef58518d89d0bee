package file

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// unpack returns what f holds, unpacked if it is gzip: by its name or by its first bytes, with which neither JSON nor CSV
// begins. The closer, if there is one, is to be closed before f.
func unpack(path string, f io.Reader) (io.Reader, io.Closer, error) {
	var magic [2]byte
	n, err := io.ReadFull(f, magic[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, nil, err
	}
	whole := io.MultiReader(strings.NewReader(string(magic[:n])), f)
	if !strings.HasSuffix(path, ".gz") && magic != [2]byte{0x1f, 0x8b} {
		return whole, nil, nil
	}
	packed := bufio.NewReaderSize(whole, aheadSize)
	z, err := gzip.NewReader(packed)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, nil, ErrTruncated
	case err != nil:
		return nil, nil, fmt.Errorf("unpack: %w", err)
	}
	a := readAhead(unpacked{z})
	a.abandon = path == Stdin
	return a, a, nil
}

// unpacked names gzip's errors.
type unpacked struct{ z *gzip.Reader }

// Read implements io.Reader.
func (u unpacked) Read(p []byte) (int, error) {
	n, err := u.z.Read(p)
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // io.EOF is never wrapped by a Reader
		return n, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, ErrTruncated
	}
	return n, fmt.Errorf("unpack: %w", err)
}

const (
	// aheadSize is the size of the pieces that are unpacked ahead.
	aheadSize = 256 << 10
	// aheadPieces is how many of them there are.
	aheadPieces = 4
)

// ahead reads ahead on a goroutine of its own, so that unpacking and counting share the work of two processors.
type ahead struct {
	pieces  chan piece
	free    chan []byte
	stop    chan struct{}
	stopped sync.Once
	done    chan struct{}
	// abandon says not to wait for the goroutine on Close: a read of standard input can't be interrupted.
	abandon bool

	cur  piece
	rest []byte
}

type piece struct {
	b   []byte
	err error // behind b
}

func readAhead(src io.Reader) *ahead {
	a := &ahead{pieces: make(chan piece, aheadPieces), free: make(chan []byte, aheadPieces), stop: make(chan struct{}),
		done: make(chan struct{})}
	for range aheadPieces {
		a.free <- make([]byte, aheadSize)
	}
	go a.run(src)
	return a
}

func (a *ahead) run(src io.Reader) {
	defer close(a.done)
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		n, err := 0, error(nil)
		for n < len(b) && err == nil {
			var m int
			m, err = src.Read(b[n:])
			n += m
		}
		a.pieces <- piece{b[:n], err} // has room for all pieces there are
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.b != nil {
			a.free <- a.cur.b[:cap(a.cur.b)] // has room for all pieces there are
		}
		a.cur = <-a.pieces
		a.rest = a.cur.b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close stops reading ahead.
func (a *ahead) Close() error {
	a.stopped.Do(func() { close(a.stop) })
	if !a.abandon {
		<-a.done
	}
	return nil
}
