package owned

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/watershed-db/watershed/failover/ownership"
)

// Keys, by their first byte; integers are big-endian:
//
//	'h'                                    local: what this copy of the log holds
//	'l' position (8)                       an entry: epoch, payload
//	'b' position (8)                       what the rows were that the entry changed
//	'c' id (8)                             ledger entry
//	'i' born (8) nonce (8) sequence (8)    the ledger entry that holds this operation
//	'm' epoch (8) position (8)             the ledger entry that this entry of the log went to
//	'e' slot (1)                           head at one of the last control entries
//	's' copy (4) ...                       the state, one copy in force and one that is being filled:
//
//	    'h'                                    Head
//	    't' table (16) key                     Row
//	    'x' expires (8) table (16) key         empty: a row that will expire
//	    'n' born (8) nonce (8)                 greatest sequence of a session
//	    'o' born (8) nonce (8) sequence (8)    Result of an operation
const (
	keyLocal  = 'h'
	keyLog    = 'l'
	keyBefore = 'b'
	keyLedger = 'c'
	keyIndex  = 'i'
	keyMark   = 'm'
	keyTurn   = 'e'
	keyState  = 's'

	keyHead    = 'h'
	keyRow     = 't'
	keyExpiry  = 'x'
	keySession = 'n'
	keyOutcome = 'o'

	copySize = 5 // bytes that a key of the state has before its own
	maxState = 1 + 16 + 8 + MaxKey
)

func numbered(kind byte, n uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte{kind}, n))
}

func logKey(p ownership.Position) string    { return numbered(keyLog, uint64(p)) }
func beforeKey(p ownership.Position) string { return numbered(keyBefore, uint64(p)) }
func ledgerKey(id uint64) string            { return numbered(keyLedger, id) }

func copyKey(n uint32) string {
	return string(binary.BigEndian.AppendUint32([]byte{keyState}, n))
}

func rowKey(t TableID, key []byte) string { return string(keyRow) + string(t[:]) + string(key) }

func expiryKey(at int64, row string) string { return numbered(keyExpiry, uint64(at)) + row[1:] }

func sessionSuffix(s Session) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(s.Born)), s.Nonce)
}

func sessionKey(s Session) string { return string(keySession) + string(sessionSuffix(s)) }

func outcomeKey(i ID) string {
	return string(keyOutcome) + string(binary.BigEndian.AppendUint64(sessionSuffix(i.Session), i.Sequence))
}

func markKey(m ownership.Mark) string {
	return string(binary.BigEndian.AppendUint64([]byte(numbered(keyMark, uint64(m.Epoch))), uint64(m.Position)))
}

func indexKey(i ID) string { return string(keyIndex) + outcomeKey(i)[1:] }

func parseSession(suffix []byte) Session {
	return Session{int64(binary.BigEndian.Uint64(suffix)), binary.BigEndian.Uint64(suffix[8:])}
}

// successor returns the least key above all that begin with prefix, which is not 0xff throughout.
func successor(prefix string) []byte {
	b := []byte(prefix)
	for i := len(b) - 1; ; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
}

// Row is a row of a table as it is stored.
type Row struct {
	Version ownership.Mark // the entry that wrote it: never given twice
	Expires int64          // in ms, 0 for never
	Value   []byte

	// deleted marks a row that the entry Version removed, for as long as the log reaches back to it: what was confirmed
	// before it is found from here.
	deleted bool
}

// live says whether the row is there at a time.
func (r Row) live(now int64) bool { return !r.deleted && (r.Expires == 0 || r.Expires > now) }

const (
	flagDeleted = 1
	flagExpires = 2
)

func (r Row) encode() []byte {
	b := make([]byte, 0, 24+len(r.Value))
	switch {
	case r.deleted:
		b = append(b, Version, flagDeleted)
	case r.Expires > 0:
		b = append(b, Version, flagExpires)
	default:
		b = append(b, Version, 0)
	}
	b = appendMark(b, r.Version)
	if r.Expires > 0 && !r.deleted {
		b = binary.AppendUvarint(b, uint64(r.Expires))
	}
	return append(b, r.Value...)
}

// decodeRow takes a row's bytes apart; its Value shares them.
func decodeRow(b []byte) (Row, error) {
	d := open(b)
	f := d.flags(flagDeleted | flagExpires)
	r := Row{Version: d.mark(), deleted: f&flagDeleted != 0}
	if f&flagExpires != 0 {
		if r.Expires = int64(d.UvarintTo(MaxMillis + MaxTTL)); r.Expires == 0 || r.deleted {
			d.Fail("row that expires at %d", r.Expires)
		}
	}
	r.Value = d.Take(len(d.B))
	if d.Err == nil && (len(r.Value) > MaxValue || r.deleted && len(r.Value) > 0) {
		d.Fail("row with a value of %d bytes", len(r.Value))
	}
	if d.Err != nil {
		return Row{}, fmt.Errorf("row: %w", d.Err)
	}
	return r, nil
}

// deletedRow says whether an encoded row is one that was removed.
func deletedRow(b []byte) bool { return len(b) > 1 && b[1]&flagDeleted != 0 }

// Head is what a state holds in all. It changes with every entry that changes anything.
type Head struct {
	Time     int64 // the greatest that entries have brought, in ms
	Closed   int64 // sessions born before take no more
	Rows     uint64
	Bytes    uint64 // keys and stored rows of tables
	Sessions uint64
	sum      [2]uint64 // of the hashes of rows, sessions and outcomes
}

func (h Head) encode() []byte {
	b := appendNumbers([]byte{Version}, uint64(h.Time), uint64(h.Closed), h.Rows, h.Bytes, h.Sessions)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, h.sum[0]), h.sum[1])
}

// decodeHead takes a head's bytes apart; none are the head of an empty state.
func decodeHead(b []byte) (Head, error) {
	if len(b) == 0 {
		return Head{}, nil
	}
	d := open(b)
	h := Head{Time: d.millis(), Closed: d.millis(), Rows: d.Uvarint(), Bytes: d.Uvarint(), Sessions: d.Uvarint()}
	h.sum = [2]uint64{d.Fixed64(), d.Fixed64()}
	if err := d.Done(); err != nil {
		return Head{}, fmt.Errorf("head of the state: %w", err)
	}
	return h, nil
}

// Digest is equal for states of equal contents, whatever way they came by them.
type Digest [16]byte

// Digest returns the digest of the state that the head belongs to.
func (h Head) Digest() Digest { return xxh3.Hash128(h.encode()).Bytes() }

// count adds a stored value to what the head sums up, or takes it out.
func (h *Head) count(key string, value []byte, sign int64) {
	if value == nil || key[0] == keyExpiry || key[0] == keyRow && deletedRow(value) {
		return
	}
	switch key[0] {
	case keyRow:
		h.Rows += uint64(sign)
		h.Bytes += uint64(sign * int64(len(key)+len(value)))
	case keySession:
		h.Sessions += uint64(sign)
	}
	x := xxh3.Hash128(append(appendBytes(make([]byte, 0, len(key)+len(value)+3), []byte(key)), value...))
	h.sum[0] += uint64(sign) * x.Hi
	h.sum[1] += uint64(sign) * x.Lo
}

func clone(b []byte) []byte { return bytes.Clone(b) }
