// Package file reads lines of JSON and CSV files as the records of a log that has an end: for bounded runs.
//
// A record's offset is its number, from 0. Blank lines are skipped and have none, a byte order mark at the start and the
// carriage return before a newline belong to no record, and the last line needs no newline. In CSV the first line is the
// header, which is no record, and a quoted field may hold newlines.
package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/watershed-db/watershed/log"
)

// Format says how a file's bytes fall into records.
type Format uint8

const (
	// JSONL has a record a line. A line of nothing but spaces and tabs is blank.
	JSONL Format = iota
	// CSV is RFC 4180 with a header line. Only an empty line is blank. A quote opens a quoted field at the field's
	// beginning alone; one that is still open where the file or MaxRecord ends opens none, and its line is a record.
	CSV
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

const (
	// DefaultMaxRecord is the longest record that is read, in bytes, unless Options say otherwise.
	DefaultMaxRecord = 16 << 20
	// firstBuffer is what is read at a time, and the size of the buffer until a longer record comes.
	firstBuffer = 512 << 10
	// oversizedPrefix is how much an oversized record keeps of itself.
	oversizedPrefix = 1 << 10
)

// Options say how a file is read.
type Options struct {
	Format Format
	// RecordTime is the log timestamp of all records; zero is none.
	RecordTime time.Time
	// MaxRecord bounds a record, in bytes; 0 is DefaultMaxRecord. A longer one is returned as Oversized, with its
	// beginning alone, and takes no more memory than that bound.
	MaxRecord int

	buffer int // the first buffer's size; tests make it small
}

// Error is where and why a file broke off. Place is in the unpacked text.
type Error struct {
	Path string
	Line int64 // of the line that could not be read whole, from 1
	Byte int64 // how much had been read, in bytes
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("read %s: line %d, after %d bytes: %v", e.Path, e.Line, e.Byte, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrTruncated is a compressed file that ends before its data does.
var ErrTruncated = errors.New("gzip data is truncated")

// Reader reads one file. It implements log.Reader and is not safe for concurrent use.
type Reader struct {
	path    string
	options Options
	src     io.Reader
	closers []io.Closer

	buf  []byte
	r, w int   // the unread bytes are buf[r:w]
	base int64 // the place of buf[0] in the file
	eof  bool
	err  error // sticky
	scan scan

	line      int64 // lines before r
	recLine   int64
	offset    int64
	timestamp int64
	header    []byte
	one       [1]log.Record
}

var _ log.Reader = (*Reader)(nil)

// Open opens the file at path, or standard input for Stdin. A name that ends in .gz, or a beginning that looks like it, is
// unpacked on the way. For CSV it reads the header, so it fails where that breaks off. An empty file has no records, and
// as CSV no header.
func Open(path string, options Options) (*Reader, error) {
	f := os.Stdin
	if path != Stdin {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
	}
	r, err := newReader(path, f, options)
	if err != nil {
		_ = f.Close() // the first error counts
		return nil, err
	}
	return r, nil
}

func newReader(path string, f io.ReadCloser, options Options) (*Reader, error) {
	if options.MaxRecord <= 0 {
		options.MaxRecord = DefaultMaxRecord
	}
	if options.buffer <= 0 {
		options.buffer = firstBuffer
	}
	src, unpacker, err := unpack(path, f)
	if err != nil {
		return nil, &Error{Path: path, Line: 1, Err: err}
	}
	r := &Reader{path: path, options: options, src: src, timestamp: log.NoTimestamp,
		buf: make([]byte, options.buffer)}
	if unpacker != nil {
		r.closers = append(r.closers, unpacker)
	}
	if path != Stdin {
		r.closers = append(r.closers, f)
	}
	if !options.RecordTime.IsZero() {
		r.timestamp = options.RecordTime.UnixMilli()
	}
	r.skipMark()
	if options.Format == CSV {
		r.readHeader()
	}
	if r.err != nil {
		err := r.err
		_ = r.Close() // the first error counts
		return nil, err
	}
	return r, nil
}

// skipMark steps over a byte order mark.
func (r *Reader) skipMark() {
	for r.w-r.r < 3 && !r.eof && r.err == nil {
		r.fill()
	}
	if bytes.HasPrefix(r.buf[r.r:r.w], []byte("\xef\xbb\xbf")) {
		r.r += 3
	}
}

func (r *Reader) readHeader() {
	var rec log.Record
	if !r.frame(&rec) {
		return
	}
	if rec.Oversized {
		r.err = &Error{Path: r.path, Line: 1, Byte: r.base + int64(r.r), Err: errors.New("the header line is too long")}
		return
	}
	r.header = bytes.Clone(rec.Value)
	r.offset = 0
}

// Header returns the header line of a CSV file without its line end, nil if the file is empty. It stays valid.
func (r *Reader) Header() []byte { return r.header }

// Line returns the line, from 1, on which the last record of the last Next or Read begins.
func (r *Reader) Line() int64 { return r.recLine }

// Next returns the next record, which is valid until the next Next, Read or Close, or io.EOF at the end.
func (r *Reader) Next() (*log.Record, error) {
	if _, err := r.Read(r.one[:]); err != nil {
		return nil, err
	}
	return &r.one[0], nil
}

// Read implements log.Reader. It returns what is at hand, so often less than dst would hold.
func (r *Reader) Read(dst []log.Record) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	if !r.frame(&dst[0]) {
		if r.err != nil {
			return 0, r.err
		}
		return 0, io.EOF
	}
	n := 1
	for n < len(dst) && r.buffered(&dst[n]) {
		n++
	}
	return n, nil
}

// frame takes the next record, reading as it must. It returns false at the end and on an error.
func (r *Reader) frame(rec *log.Record) bool {
	for !r.buffered(rec) {
		if r.err != nil {
			return false
		}
		win := r.window()
		full := len(win) == r.limit()
		switch {
		case !full && !r.eof:
			r.fill()
		case len(win) == 0:
			return false
		case r.scan.takeBack(win):
		case full:
			return r.oversized(rec)
		case r.consume(len(win), len(win), rec):
			return true
		}
	}
	return true
}

// buffered takes the next record if all of it, with its newline, stands in the buffer. Nothing in the buffer moves.
func (r *Reader) buffered(rec *log.Record) bool {
	for {
		end := r.scan.end(r.window(), r.options.Format == CSV)
		if end < 0 {
			return false
		}
		if r.consume(end, end+1, rec) {
			return true
		}
	}
}

// limit is how long a record with its line end can be.
func (r *Reader) limit() int { return r.options.MaxRecord + len("\r\n") }

// window is what the next record can consist of, as far as it has been read.
func (r *Reader) window() []byte { return r.buf[r.r:min(r.w, r.r+r.limit())] }

// consume steps over size bytes and makes a record of the first length of them, unless they are blank.
func (r *Reader) consume(length, size int, rec *log.Record) bool {
	line := r.buf[r.r : r.r+length : r.r+length]
	r.stepOver(size)
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if r.blank(line) {
		return false
	}
	if len(line) > r.options.MaxRecord {
		r.emit(rec, bytes.Clone(line[:min(len(line), oversizedPrefix)]), true)
		return true
	}
	r.emit(rec, line, false)
	return true
}

func (r *Reader) stepOver(size int) {
	r.recLine = r.line + 1
	r.line += int64(r.scan.newlines) + 1
	r.r += size
	r.scan = scan{}
}

func (r *Reader) emit(rec *log.Record, value []byte, oversized bool) {
	*rec = log.Record{Offset: r.offset, Timestamp: r.timestamp, Value: value, Oversized: oversized}
	r.offset++
}

func (r *Reader) blank(line []byte) bool {
	if len(line) == 0 {
		return true
	}
	if r.options.Format == CSV || line[0] > ' ' {
		return false
	}
	return len(bytes.TrimLeft(line, " \t\r")) == 0
}

// oversized steps over a record that fills the window, up to the next newline, whatever its quotes say.
func (r *Reader) oversized(rec *log.Record) bool {
	win := r.window()
	prefix := bytes.Clone(win[:min(len(win), oversizedPrefix)])
	r.stepOver(len(win))
	for {
		if i := bytes.IndexByte(r.buf[r.r:r.w], '\n'); i >= 0 {
			r.r += i + 1
			break
		}
		r.r = r.w
		if r.eof {
			break
		}
		if r.fill(); r.err != nil {
			return false
		}
	}
	r.emit(rec, prefix, true)
	return true
}

// fill reads once, behind what is unread, which it moves to the front or into a larger buffer if there is no room.
func (r *Reader) fill() {
	if r.r == r.w {
		r.base += int64(r.r)
		r.r, r.w = 0, 0
	}
	if len(r.buf)-r.w < r.options.buffer/2 {
		to := r.buf
		if size := min(2*len(r.buf), r.limit()+r.options.buffer); r.w-r.r > len(r.buf)/2 && size > len(r.buf) {
			to = make([]byte, size)
		}
		copy(to, r.buf[r.r:r.w])
		r.base += int64(r.r)
		r.buf, r.r, r.w = to, 0, r.w-r.r
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		switch {
		case errors.Is(err, io.EOF):
			r.eof = true
			return
		case err != nil:
			r.err = &Error{Path: r.path, Line: r.line + 1 + int64(bytes.Count(r.buf[r.r:r.w], []byte{'\n'})),
				Byte: r.base + int64(r.w), Err: err}
			return
		case n > 0:
			return
		}
	}
	r.err = &Error{Path: r.path, Line: r.line + 1, Byte: r.base + int64(r.w), Err: io.ErrNoProgress}
}

// Close implements log.Reader. It does not close standard input.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	r.closers = nil
	if r.err == nil {
		r.err = os.ErrClosed
	}
	r.r, r.w = 0, 0
	return errors.Join(errs...)
}
