package owned

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/watershed-db/watershed/failover/ownership"
)

// Export hands a state out in chunks, as Log.Fill takes them.
type Export struct {
	r    *Reader
	head Head
	was  map[string][]byte // what entries above the position have changed, as it was before the first of them
	keys []string          // of was, in order
	from string            // the key to go on from; "" when all but the head has been handed out
	done bool
}

// Export begins to hand out the state at a position that the log is kept from. Its memory is that of the before-images above
// the position, and a chunk.
func (r *Reader) Export(at ownership.Position) (*Export, error) {
	h, err := r.HeadAt(at)
	if err != nil {
		return nil, err
	}
	x := &Export{r: r, head: h, was: map[string][]byte{}, from: string(keySession)}
	for p := r.local.last; p > at; p-- {
		i, err := r.image(p)
		if err != nil {
			return nil, err
		}
		for n := len(i.changes) - 1; n >= 0; n-- {
			x.was[i.changes[n].key] = i.changes[n].value
		}
	}
	for k := range x.was {
		x.keys = append(x.keys, k)
	}
	slices.Sort(x.keys)
	return x, nil
}

// Digest returns the digest of the state that is handed out.
func (x *Export) Digest() Digest { return x.head.Digest() }

// Next returns the next chunk, of about so many bytes, at least one pair; nil when the last one was handed out.
func (x *Export) Next(bytes int) ([]byte, error) {
	if x.done {
		return nil, nil
	}
	b := []byte{Version}
	if x.from != "" {
		var err error
		if b, err = x.fill(b, bytes); err != nil {
			return nil, err
		}
	}
	if x.from == "" && (len(b) < bytes || len(b) == 1) {
		b = appendPair(b, string(keyHead), x.head.encode())
		x.done = true
	}
	return b, nil
}

// fill appends pairs in the order of their keys, and notes where to go on. Of the kinds of keys, sessions, outcomes and
// rows are those from keySession on, up to the one that is derived.
func (x *Export) fill(b []byte, bytes int) ([]byte, error) {
	prefix := copyKey(x.r.local.copy)
	i, _ := slices.BinarySearch(x.keys, x.from)
	full := false
	pair := func(key string, value []byte) {
		if full = full || len(b) >= bytes && len(b) > 1; full {
			x.from = min(x.from, key)
			return
		}
		if value != nil && (key[0] != keyRow || !deletedRow(value)) {
			b = appendPair(b, key, value)
		}
	}
	const above = "\xff"
	resume := x.from
	x.from = above
	upto := func(key string) { // what is no more, but was
		for ; i < len(x.keys) && x.keys[i] < key && !full; i++ {
			if x.keys[i] < string(keyExpiry) {
				pair(x.keys[i], x.was[x.keys[i]])
			}
		}
	}
	err := x.r.rows.Scan([]byte(prefix+resume), []byte(prefix+string(keyExpiry)), func(k, value []byte) bool {
		key := string(k[copySize:])
		upto(key)
		if old, changed := x.was[key]; changed {
			value = old
		}
		pair(key, value)
		for i < len(x.keys) && x.keys[i] == key {
			i++
		}
		return !full
	})
	if err != nil {
		return nil, fmt.Errorf("export state: %w", err)
	}
	if upto(above); !full {
		x.from = ""
	}
	return b, nil
}

// Limits of one sweep: how many rows it may remove, outcomes included, with how many bytes, and those of the keys it names.
const (
	sweepRows  = MaxSweep
	sweepBytes = 4 << 20
	sweepKeys  = 256 << 10
)

// Sweep returns an operation that removes what is over at a time: rows that expire at or before it, and sessions born before
// closed. It is bounded; more says that another one is to follow. Where it names no row and no session there is nothing to be
// done. Rows of tables that were dropped are the caller's to add, see TableRows.
func (r *Reader) Sweep(now, closed int64) (op Op, more bool, err error) {
	op = Op{Kind: Sweep, Time: now, Closed: max(closed, 0)}
	prefix := copyKey(r.local.copy)
	rows, size, keys := 0, 0, 0
	var bad error
	full := func() bool {
		more = more || rows >= sweepRows || size >= sweepBytes || keys >= sweepKeys
		return more
	}
	end := []byte(prefix + expiryKey(now+1, "t"))
	err = r.rows.Scan([]byte(prefix+string(keyExpiry)), end, func(key, _ []byte) bool {
		if full() {
			return false
		}
		row := key[copySize+9:]
		id := RowID{TableID(row[:16]), clone(row[16:])}
		b, e := r.get(rowKey(id.Table, id.Key))
		if e != nil {
			bad = e
			return false
		}
		rows, size, keys = rows+1, size+len(b), keys+len(id.Key)
		op.Expired = append(op.Expired, id)
		return true
	})
	if e := firstOf(bad, err); e != nil {
		return Op{}, false, fmt.Errorf("look for expired rows: %w", e)
	}
	last := binary.BigEndian.AppendUint64([]byte(prefix+string(keySession)), uint64(op.Closed))
	err = r.rows.Scan([]byte(prefix+string(keySession)), last, func(key, value []byte) bool {
		if full() {
			return false
		}
		n, _, e := decodeSession(value)
		if bad = e; e != nil {
			return false
		}
		rows += 1 + int(min(n, Window))
		op.Sessions = append(op.Sessions, parseSession(key[copySize+1:]))
		return true
	})
	if e := firstOf(bad, err); e != nil {
		return Op{}, false, fmt.Errorf("look for ended sessions: %w", e)
	}
	return op, more, nil
}

// Tables lists the tables that have rows, at most limit.
func (r *Reader) Tables(limit int) (list []TableID, err error) {
	prefix := copyKey(r.local.copy)
	from, end := []byte(prefix+string(keyRow)), successor(prefix+string(keyRow))
	for found := true; found && len(list) < limit; {
		found = false
		err := r.rows.Scan(from, end, func(key, _ []byte) bool {
			list, found = append(list, TableID(key[copySize+1:])), true
			return false
		})
		if err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		if found {
			from = successor(prefix + rowKey(list[len(list)-1], nil))
		}
	}
	return list, nil
}

// TableRows lists rows of a table as they are stored, so many that one sweep may drop; none when it holds none.
func (r *Reader) TableRows(t TableID) ([]RowID, error) {
	prefix := copyKey(r.local.copy) + rowKey(t, nil)
	var list []RowID
	size, keys := 0, 0
	err := r.rows.Scan([]byte(prefix), successor(prefix), func(key, value []byte) bool {
		if !deletedRow(value) {
			list = append(list, RowID{t, clone(key[len(prefix):])})
			size, keys = size+len(value), keys+len(key)
		}
		return len(list) < sweepRows && size < sweepBytes && keys < sweepKeys
	})
	if err != nil {
		return nil, fmt.Errorf("list rows of a table: %w", err)
	}
	return list, nil
}

// Rows calls each with every stored value that the digest of the state held covers, by its key, and returns what they sum up
// to: for checks.
func (r *Reader) Rows(each func(key, value []byte)) (Head, error) {
	h := Head{Time: r.held.Time, Closed: r.held.Closed}
	prefix := copyKey(r.local.copy)
	err := r.rows.Scan([]byte(prefix+string(keySession)), []byte(prefix+string(keyExpiry)), func(key, value []byte) bool {
		h.count(string(key[copySize:]), value, 1)
		each(key[copySize:], value)
		return true
	})
	return h, err
}
