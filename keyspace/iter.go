package keyspace

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/watershed-db/watershed/crdt"
)

// Iter walks over the slots of one copy in the order of time, user key, class. It is for one goroutine, begins before
// the first slot, and must be closed before its View.
type Iter struct {
	cursors []*tableCursor // newest first; those that have no slot left are done
	db      dbCursor
	sum     summing
	slot    crdt.Slot
	tail    []byte
	cell    []byte
	err     error
	moved   bool // the cursors stand past slot
}

// Iter returns an iterator over the slots of a copy whose times are in [from, to].
func (v *View) Iter(c Copy, from, to int64) (*Iter, error) {
	it := &Iter{}
	low, hidden := from, from > to
	for _, t := range v.tables {
		if hidden {
			break
		}
		ct := t.copies[c]
		if ct != nil {
			it.cursors = append(it.cursors, newTableCursor(ct, low, to))
		}
		_, hidden = t.dropped[c.Generation]
		if ct != nil && ct.isCut && ct.cut >= low {
			if ct.cut >= to {
				hidden = true
			} else {
				low = ct.cut + 1
			}
		}
	}
	if hidden {
		return it, nil
	}
	prefix := appendCopy(nil, c)
	iter, err := v.snap.NewIter(&pebble.IterOptions{
		LowerBound: appendTime(bytes.Clone(prefix), low), UpperBound: copyEnd(c, to),
	})
	if err != nil {
		return nil, fmt.Errorf("read slots of %s: %w", c, err)
	}
	it.db = dbCursor{iter: iter, prefix: prefix}
	return it, nil
}

// Next moves to the next slot. It returns false at the end and after an error.
func (it *Iter) Next() bool {
	if !it.moved {
		it.moved = true
		for _, c := range it.cursors {
			c.first()
		}
		it.db.first()
	}
	return it.gather()
}

// SeekGE moves to the first slot at or after s, forwards or backwards. It returns false if there is none and after an
// error.
func (it *Iter) SeekGE(s crdt.Slot) bool {
	it.moved = true
	tail := appendTail(nil, s)
	for _, c := range it.cursors {
		c.seek(s.Time, string(tail))
	}
	it.db.seek(s.Time, tail)
	return it.gather()
}

// gather sums up the least slot that any layer stands at, and moves those layers past it.
func (it *Iter) gather() bool {
	it.slot, it.cell = crdt.Slot{}, nil
	if it.err = errors.Join(it.err, it.db.err); it.err != nil {
		return false
	}
	time, tail, ok := it.least()
	if !ok {
		return false
	}
	it.tail = append(it.tail[:0], tail...)
	it.sum.reset()
	for _, c := range it.cursors {
		if c.valid() && c.time() == time && c.tail() == string(it.tail) {
			it.sum.push(c.operand())
			c.next()
		}
	}
	if it.db.ok && it.db.time == time && bytes.Equal(it.db.tail, it.tail) {
		it.sum.push(it.db.take())
		if it.err = it.db.err; it.err != nil {
			return false
		}
	}
	it.slot = slotOfTail(time, it.tail)
	it.cell, _, it.err = it.sum.result()
	return it.err == nil
}

func (it *Iter) least() (time int64, tail string, ok bool) {
	if it.db.ok {
		time, tail, ok = it.db.time, string(it.db.tail), true
	}
	for _, c := range it.cursors {
		if c.valid() && (!ok || c.time() < time || c.time() == time && c.tail() < tail) {
			time, tail, ok = c.time(), c.tail(), true
		}
	}
	return time, tail, ok
}

// Slot returns the slot that the iterator stands at. Its Key is valid until the next move.
func (it *Iter) Slot() crdt.Slot { return it.slot }

// Cell returns the slot's encoded cell, valid until the next move.
func (it *Iter) Cell() []byte { return it.cell }

// Err returns what stopped the iterator, nil at the end.
func (it *Iter) Err() error { return it.err }

// Close lets go of the iterator and returns Err.
func (it *Iter) Close() error {
	if it.db.iter == nil {
		return it.err
	}
	err := errors.Join(it.err, it.db.iter.Close())
	it.db = dbCursor{}
	return err
}

// tableCursor walks over a frozen table's slots of one copy.
type tableCursor struct {
	times []int64
	of    []*timeTable
	at    int // into times
	order []int32
	i     int // into order
}

func newTableCursor(ct *copyTable, from, to int64) *tableCursor {
	c := &tableCursor{}
	for time := range ct.times {
		if from <= time && time <= to {
			c.times = append(c.times, time)
		}
	}
	slices.Sort(c.times)
	for _, time := range c.times {
		c.of = append(c.of, ct.times[time])
	}
	c.at = len(c.times)
	return c
}

func (c *tableCursor) valid() bool      { return c.at < len(c.times) }
func (c *tableCursor) time() int64      { return c.times[c.at] }
func (c *tableCursor) tail() string     { return c.of[c.at].entries[c.order[c.i]].tail }
func (c *tableCursor) operand() operand { return c.of[c.at].operand(c.order[c.i]) }

func (c *tableCursor) first() { c.enter(0) }

// enter moves to the first slot of times[at].
func (c *tableCursor) enter(at int) {
	if c.at, c.i = at, 0; c.valid() {
		c.order = c.of[at].sorted()
	}
}

func (c *tableCursor) next() {
	if c.i++; c.i == len(c.order) {
		c.enter(c.at + 1)
	}
}

func (c *tableCursor) seek(time int64, tail string) {
	at, found := slices.BinarySearch(c.times, time)
	c.enter(at)
	if !found {
		return
	}
	entries := c.of[at].entries
	c.i = sort.Search(len(c.order), func(i int) bool { return strings.Compare(entries[c.order[i]].tail, tail) >= 0 })
	if c.i == len(c.order) {
		c.enter(at + 1)
	}
}

// dbCursor walks over the database's slots of one copy. Without an iter it is empty.
type dbCursor struct {
	iter   *pebble.Iterator
	prefix []byte
	seeked []byte
	value  []byte // of the slot taken last

	ok   bool
	time int64
	tail []byte // of the iterator's key
	err  error
}

func (c *dbCursor) first() {
	if c.iter != nil {
		c.land(c.iter.First())
	}
}

func (c *dbCursor) seek(time int64, tail []byte) {
	if c.iter != nil {
		c.seeked = append(appendTime(append(c.seeked[:0], c.prefix...), time), tail...)
		c.land(c.iter.SeekGE(c.seeked))
	}
}

// land takes the key that the iterator has moved to.
func (c *dbCursor) land(ok bool) {
	c.ok = false
	if !ok {
		c.err = errors.Join(c.err, c.iter.Error())
		return
	}
	rest := c.iter.Key()[len(c.prefix):]
	if len(rest) < timeSize+classSize {
		c.err = fmt.Errorf("%w: %x is no key of a slot", ErrCorrupt, c.iter.Key())
		return
	}
	c.ok, c.time, c.tail = true, readTime(rest), rest[timeSize:]
}

// take returns the slot's operand and moves past it. The operand is valid until the next take.
func (c *dbCursor) take() (o operand) {
	value, err := c.iter.ValueAndErr()
	if err == nil {
		c.value = append(c.value[:0], value...)
		o, err = decodeOperand(c.value)
	}
	if err != nil {
		c.err, c.ok = err, false
		return o
	}
	c.land(c.iter.Next())
	return o
}
