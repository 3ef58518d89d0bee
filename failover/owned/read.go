package owned

import (
	"encoding/binary"
	"fmt"

	"github.com/watershed-db/watershed/failover/ownership"
)

// Rows reads stored values at one moment.
type Rows interface {
	Getter
	// Scan calls each with the values whose keys are in [from, to), in the order of the keys, until it returns false. What
	// each is given is valid during the call.
	Scan(from, to []byte, each func(key, value []byte) bool) error
}

// Reader reads a copy of the log and its state at one moment. It changes nothing; any number of goroutines may use it if
// its Rows allow it.
type Reader struct {
	rows  Rows
	local local
	held  Head
}

// Read begins to read.
func Read(rows Rows) (*Reader, error) {
	r := &Reader{rows: rows}
	b, err := rows.Get([]byte{keyLocal})
	if err != nil {
		return nil, fmt.Errorf("read owned rows: %w", err)
	}
	if r.local, err = decodeLocal(b); err != nil {
		return nil, err
	}
	if b, err = r.get(string(keyHead)); err == nil {
		r.held, err = decodeHead(b)
	}
	return r, err
}

// get reads a key of the state in force.
func (r *Reader) get(key string) ([]byte, error) {
	b, err := r.rows.Get([]byte(copyKey(r.local.copy) + key))
	if err != nil {
		return nil, fmt.Errorf("read owned rows: %w", err)
	}
	return b, nil
}

// Held is the position up to which the state in force goes: what tables of `region` durability show.
func (r *Reader) Held() ownership.Position { return r.local.last }

// Begins is the position behind which the log is kept.
func (r *Reader) Begins() ownership.Position { return r.local.dropped }

// Staged says whether the whole state at a mark stands in the open copy, as it was told: Log.Install may switch to it.
func (r *Reader) Staged(mark ownership.Mark) bool { return r.local.staged.ready(mark) }

// Sizes is what a copy of the log keeps.
type Sizes struct {
	Waiting   uint64 // bytes of payload above a confirmed position
	Kept      uint64 // bytes of payload that are kept in all
	Entries   uint64 // entries that are kept
	Conflicts uint64 // ledger entries that nobody has settled
	Ledger    uint64 // ledger entries in all
}

// Sizes returns what is kept, given the position up to which the log is confirmed.
func (r *Reader) Sizes(confirmed ownership.Position) (Sizes, error) {
	l := r.local
	s := Sizes{Kept: l.bytes - l.gone, Entries: uint64(l.last - l.dropped), Conflicts: l.unsettled, Ledger: l.kept}
	switch {
	case confirmed >= l.last:
	case confirmed <= l.dropped:
		s.Waiting = s.Kept
	default:
		e, err := r.entry(confirmed)
		if err != nil {
			return Sizes{}, err
		}
		s.Waiting = l.bytes - e.size
	}
	return s, nil
}

func (r *Reader) entry(p ownership.Position) (logged, error) {
	b, err := r.rows.Get([]byte(logKey(p)))
	if err != nil {
		return logged{}, fmt.Errorf("read entry %d: %w", p, err)
	}
	if b == nil {
		return logged{}, fmt.Errorf("%w: entry %d is missing", ErrState, p)
	}
	return decodeLogged(b)
}

func (r *Reader) image(p ownership.Position) (image, error) {
	b, err := r.rows.Get([]byte(beforeKey(p)))
	if err != nil {
		return image{}, fmt.Errorf("read before-images of entry %d: %w", p, err)
	}
	return decodeImage(b)
}

// Payloads returns the payload of the entries from one position on, up to another or until they have so many bytes, but at
// least one; nil for control entries. Nil with no error says that the log is not kept so far back.
func (r *Reader) Payloads(from, to ownership.Position, bytes int) ([][]byte, error) {
	if from <= r.local.dropped || to > r.local.last {
		return nil, nil
	}
	var list [][]byte
	for p := from; p <= to; p++ {
		e, err := r.entry(p)
		if err != nil {
			return nil, err
		}
		if bytes -= len(e.payload); bytes < 0 && len(list) > 0 {
			break
		}
		if e.control {
			list = append(list, nil)
		} else {
			list = append(list, clone(e.payload))
		}
	}
	return list, nil
}

// HeadAt returns the head of the state at a position, from Outcome's base to Held.
func (r *Reader) HeadAt(at ownership.Position) (Head, error) {
	if at < r.local.dropped || at > r.local.last {
		return Head{}, fmt.Errorf("%w: no state at %d is known, from %d to %d", ErrState, at, r.local.dropped, r.local.last)
	}
	for p := at + 1; p <= r.local.last; p++ {
		i, err := r.image(p)
		if err != nil {
			return Head{}, err
		}
		if n := len(i.changes); n > 0 && i.changes[n-1].key == string(keyHead) {
			return decodeHead(i.changes[n-1].value)
		}
	}
	return r.held, nil
}

// View is the state at a position: Held for tables of `region` durability, the confirmed one for those of `quorum`.
type View struct {
	r    *Reader
	at   ownership.Position
	head Head
}

// At returns the state at a position; at one above Held, the state held, and at one that the log no longer reaches back to,
// the first that is known.
func (r *Reader) At(at ownership.Position) (*View, error) {
	at = min(max(at, r.local.dropped), r.local.last)
	h, err := r.HeadAt(at)
	if err != nil {
		return nil, err
	}
	return &View{r, at, h}, nil
}

// Position returns where the view was taken.
func (v *View) Position() ownership.Position { return v.at }

// Head returns what the state holds in all.
func (v *View) Head() Head { return v.head }

// Get returns a row, false if there is none or it has expired.
func (v *View) Get(t TableID, key []byte) (Row, bool, error) {
	k := rowKey(t, key)
	b, err := v.r.get(k)
	if err != nil || b == nil {
		return Row{}, false, err
	}
	return v.resolve(k, b)
}

// resolve goes back from a stored row to what it was at the view's position.
func (v *View) resolve(key string, b []byte) (Row, bool, error) {
	for b != nil {
		row, err := decodeRow(b)
		if err != nil {
			return Row{}, false, err
		}
		p := row.Version.Position
		if p <= v.at {
			row.Value = clone(row.Value)
			return row, row.live(v.head.Time), nil
		}
		i, err := v.r.image(p)
		if err != nil {
			return Row{}, false, err
		}
		found := false
		for _, c := range i.changes {
			if c.key == key {
				b, found = c.value, true
				break
			}
		}
		if !found {
			return Row{}, false, fmt.Errorf("%w: entry %d has no before-image of %q", ErrState, p, key)
		}
	}
	return Row{}, false, nil
}

// Scan calls each with the rows of a table whose keys are at or above a key, in the order of the keys, until it returns
// false. It goes through at most limit stored rows and returns the key to go on from; nil at the end of the table.
func (v *View) Scan(t TableID, from []byte, limit int, each func(key []byte, r Row) bool) (next []byte, err error) {
	prefix := copyKey(v.r.local.copy)
	first := prefix + rowKey(t, from)
	var failed error
	err = v.r.rows.Scan([]byte(first), successor(prefix+rowKey(t, nil)), func(key, value []byte) bool {
		k := string(key[copySize:])
		user := []byte(k[1+len(t):])
		if limit == 0 {
			next = user
			return false
		}
		limit--
		row, live, e := v.resolve(k, clone(value))
		if e != nil {
			failed = e
			return false
		}
		if live && !each(user, row) {
			next = append(user, 0) // the least key behind it
			return false
		}
		return true
	})
	if err != nil || failed != nil {
		return nil, fmt.Errorf("scan table: %w", firstOf(failed, err))
	}
	return next, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// Outcome returns what an operation of a client came to, as held, and whether that is known.
func (r *Reader) Outcome(id ID) (Result, bool, error) {
	b, err := r.get(outcomeKey(id))
	if err != nil || b == nil {
		return Result{}, false, err
	}
	res, err := DecodeResult(b)
	res.Again = true
	return res, err == nil, err
}

// Turns lists the last control entries taken, the oldest first, with the head of the state at each.
func (r *Reader) Turns() ([]Turn, error) {
	n := r.local.turns
	var list []Turn
	for i := n - min(n, keptTurns); i < n; i++ {
		b, err := r.rows.Get([]byte{keyTurn, byte(i % keptTurns)})
		if err != nil {
			return nil, fmt.Errorf("read turn: %w", err)
		}
		d := open(b)
		t := Turn{Mark: d.mark()}
		head := d.Bytes(1 << 8)
		if err := d.Done(); err != nil {
			return nil, fmt.Errorf("turn: %w", err)
		}
		if t.Head, err = decodeHead(head); err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// Conflicts lists ledger entries behind a number, at most limit, and returns the number to go on behind; 0 at the end.
func (r *Reader) Conflicts(behind uint64, limit int) (list []Conflict, next uint64, err error) {
	var bad error
	from := []byte(ledgerKey(behind + 1))
	err = r.rows.Scan(from, successor(string(keyLedger)), func(key, value []byte) bool {
		if len(list) == limit {
			next = binary.BigEndian.Uint64(key[1:]) - 1
			return false
		}
		var x Conflict
		if x, bad = openConflict(clone(value)); bad != nil {
			return false
		}
		list = append(list, x)
		return true
	})
	if e := firstOf(bad, err); e != nil {
		return nil, 0, fmt.Errorf("read ledger: %w", e)
	}
	return list, next, nil
}

// Conflict returns the ledger entry of a mark, false if there is none.
func (r *Reader) Conflict(mark ownership.Mark) (Conflict, bool, error) {
	b, err := r.rows.Get([]byte(markKey(mark)))
	if err != nil || b == nil {
		return Conflict{}, false, err
	}
	n, _ := binary.Uvarint(b)
	if b, err = r.rows.Get([]byte(ledgerKey(n))); err != nil {
		return Conflict{}, false, fmt.Errorf("read ledger: %w", err)
	}
	x, err := openConflict(clone(b))
	return x, err == nil, err
}

func openConflict(b []byte) (Conflict, error) {
	c, err := decodeConflict(b)
	if err != nil {
		return Conflict{}, err
	}
	return c.open()
}
