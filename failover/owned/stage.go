package owned

import (
	"encoding/binary"
	"fmt"

	"github.com/watershed-db/watershed/failover/ownership"
)

// staged is a state that is being taken over: a copy beside the one in force.
type staged struct {
	copy   uint32 // 0 for none
	mark   ownership.Mark
	digest Digest
	chunks uint32
	head   Head // what was staged adds up to; whole when its time is known
	whole  bool
}

func (s staged) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.copy))
	if s.copy == 0 {
		return b
	}
	b = append(appendMark(b, s.mark), s.digest[:]...)
	b = binary.AppendUvarint(b, uint64(s.chunks))
	whole := byte(0)
	if s.whole {
		whole = 1
	}
	return appendBytes(append(b, whole), s.head.encode())
}

func (s *staged) read(d *reader) {
	if s.copy = uint32(d.UvarintTo(1<<32 - 1)); s.copy == 0 {
		return
	}
	s.mark = d.mark()
	copy(s.digest[:], d.Take(len(s.digest)))
	s.chunks = uint32(d.UvarintTo(1<<32 - 1))
	s.whole = d.flags(1) != 0
	var err error
	if b := d.Bytes(1 << 8); b == nil {
		d.Fail("no head")
	} else if s.head, err = decodeHead(b); err != nil {
		d.Fail("%v", err)
	}
}

// Stage opens a new copy of the state, to be filled by chunks with what another region held at a mark; one that was open
// before is dropped. It returns the copy's number.
func (l *Log) Stage(mark ownership.Mark, digest Digest) uint32 {
	l.Unstage(l.local.staged.copy)
	l.local.next++
	l.local.staged = staged{copy: l.local.next, mark: mark, digest: digest}
	return l.local.next
}

// Unstage drops the open copy, if it has that number.
func (l *Log) Unstage(number uint32) {
	if number != 0 && l.local.staged.copy == number {
		l.clear(copyKey(number))
		l.local.staged = staged{}
	}
}

// Fill adds a chunk, as Export made it, to the open copy. Chunks are numbered from 0 and taken each once, in order; false
// where this one isn't the next, or no chunk at all.
func (l *Log) Fill(number, chunk uint32, b []byte) bool {
	s := l.local.staged
	if s.copy == 0 || s.copy != number || s.chunks != chunk || s.whole {
		return false
	}
	list, err := decodeChunk(b)
	if err != nil {
		return false
	}
	s.chunks++
	for _, c := range list {
		full := copyKey(s.copy) + c.key
		if c.key[0] == keyHead {
			h, _ := decodeHead(c.value) // decodeChunk has looked
			s.head.Time, s.head.Closed, s.whole = h.Time, h.Closed, true
			continue
		}
		if c.key[0] == keyRow {
			if r, _ := decodeRow(c.value); r.Expires > 0 {
				l.set(copyKey(s.copy)+expiryKey(r.Expires, c.key), expires)
			}
		}
		s.head.count(c.key, c.value, 1)
		l.set(full, c.value)
	}
	if s.whole {
		l.set(copyKey(s.copy)+string(keyHead), s.head.encode())
	}
	l.local.staged = s
	return true
}

// Staged says whether the whole state at a mark stands in the open copy, as it was told.
func (l *Log) Staged(mark ownership.Mark) bool { return l.local.staged.ready(mark) }

func (s staged) ready(mark ownership.Mark) bool {
	return s.whole && s.mark == mark && s.head.Digest() == s.digest
}

// Install begins the log anew behind the state that was staged: see Staged. Before, what Outcome.Cut names is taken back.
// aside keeps the state that is replaced, for the ledger; by is the epoch whose owner has sent the new one.
func (l *Log) Install(mark ownership.Mark, aside bool, by ownership.Epoch) {
	if !l.Staged(mark) {
		l.broken("no state at %v is staged", mark)
		return
	}
	if aside {
		l.ledger(conflict{mark: mark, by: by, flags: flagAside, aside: l.local.copy}, ID{})
	} else {
		l.clear(copyKey(l.local.copy))
	}
	l.local.copy, l.local.staged = l.local.staged.copy, staged{}
	l.Rebase(mark.Position)
	l.reload()
	l.review()
}

// Rebase begins the log anew at a position, behind the state that is held, which stays: what was there before is neither
// taken back nor sent any more.
func (l *Log) Rebase(at ownership.Position) {
	for _, kind := range []byte{keyLog, keyBefore} {
		l.clear(string(kind))
	}
	l.local.last, l.local.dropped, l.local.gone = at, at, l.local.bytes
}

// chunks hold pairs of a key of the state and its value.

func appendPair(b []byte, key string, value []byte) []byte {
	return appendBytes(appendBytes(b, []byte(key)), value)
}

// maxStored bounds a stored value of the state: a row.
const maxStored = MaxValue + 64

// decodeChunk takes a chunk's bytes apart, and looks at every value.
func decodeChunk(b []byte) ([]change, error) {
	d := open(b)
	var list []change
	for len(d.B) > 0 && d.Err == nil {
		c := change{key: string(d.Bytes(maxState)), value: d.Bytes(maxStored)}
		if d.Err != nil {
			break
		}
		if err := checkPair(c.key, c.value); err != nil {
			d.Fail("%v", err)
		}
		list = append(list, c)
	}
	if err := d.Done(); err != nil {
		return nil, fmt.Errorf("chunk of a state: %w", err)
	}
	return list, nil
}

func checkPair(key string, value []byte) (err error) {
	size := map[byte]int{keySession: 1 + 16, keyOutcome: 1 + 24, keyHead: 1}
	switch {
	case key == "" || value == nil:
		return fmt.Errorf("pair %q is empty", key)
	case key[0] == keyRow:
		var r Row
		if r, err = decodeRow(value); err == nil && (r.deleted || len(key) < 1+len(TableID{})) {
			err = fmt.Errorf("row %q is none", key)
		}
		return err
	case size[key[0]] != len(key):
		return fmt.Errorf("key %q", key)
	case key[0] == keySession:
		_, _, err = decodeSession(value)
	case key[0] == keyOutcome:
		_, err = DecodeResult(value)
	default:
		_, err = decodeHead(value)
	}
	return err
}
