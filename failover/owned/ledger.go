package owned

import (
	"encoding/binary"
	"fmt"

	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// MaxReason bounds what an operator says to a ledger entry, in bytes.
const MaxReason = 1 << 10

// Conflict is an entry of the divergence ledger: what a client wrote and the standing history does not hold. The ledger is
// a region's own. Other regions that held the same entry and lost it have a Conflict of the same Mark.
type Conflict struct {
	Mark ownership.Mark  // where it stood in the log
	By   ownership.Epoch // whose owner has another entry there
	Op   Op
	// Before is the row that the write replaced; none where HadBefore is false.
	Before    Row
	HadBefore bool
	// Doubt says that the standing history came as a state that no longer tells whether it holds the operation.
	Doubt bool
	// Aside is not 0 where the entry stands for a whole state that was replaced, which may hold what the standing one does
	// not: nobody can tell write by write. Op is empty then, Mark what the new state begins with, and Aside names the copy.
	Aside   uint32
	Settled bool   // an operator has discarded it
	Reason  string // why
}

const (
	flagBefore  = 1
	flagDoubt   = 2
	flagSettled = 4
	flagAside   = 8
)

// conflict is a Conflict as it is stored.
type conflict struct {
	mark    ownership.Mark
	by      ownership.Epoch
	flags   byte
	aside   uint32
	reason  string
	payload []byte
	before  []byte
}

func (c conflict) encode() []byte {
	b := binary.AppendUvarint(appendMark([]byte{Version, c.flags}, c.mark), uint64(c.by))
	b = appendBytes(binary.AppendUvarint(b, uint64(c.aside)), []byte(c.reason))
	return appendBytes(appendBytes(b, c.payload), c.before)
}

func decodeConflict(b []byte) (conflict, error) {
	d := open(b)
	c := conflict{flags: d.flags(flagBefore | flagDoubt | flagSettled | flagAside)}
	c.mark, c.by, c.aside = d.mark(), d.epoch(), uint32(d.UvarintTo(1<<32-1))
	c.reason, c.payload = string(d.Bytes(MaxReason)), d.Bytes(MaxEntry)
	c.before = d.Bytes(MaxValue + 64)
	if d.Err == nil && (c.flags&flagAside != 0) != (c.aside != 0) {
		d.Fail("flags %#x with copy %d", c.flags, c.aside)
	}
	if err := d.Done(); err != nil {
		return conflict{}, fmt.Errorf("ledger entry: %w", err)
	}
	return c, nil
}

// open returns the conflict as readers see it.
func (c conflict) open() (Conflict, error) {
	x := Conflict{Mark: c.mark, By: c.by, HadBefore: c.flags&flagBefore != 0, Doubt: c.flags&flagDoubt != 0, Aside: c.aside,
		Settled: c.flags&flagSettled != 0, Reason: c.reason}
	var err error
	if c.aside == 0 {
		x.Op, err = DecodeOp(c.payload)
	}
	if err == nil && x.HadBefore {
		x.Before, err = decodeRow(c.before)
	}
	return x, err
}

// enter moves an entry that is cut off to the ledger.
func (l *Log) enter(p ownership.Position, e logged, i image, by ownership.Epoch) {
	op, err := DecodeOp(e.payload)
	if err != nil {
		l.fail(err)
		return
	}
	c := conflict{mark: ownership.Mark{Epoch: e.epoch, Position: p}, by: by, payload: e.payload}
	row := rowKey(op.Table, op.Key)
	for _, x := range i.changes {
		if x.key == row && x.value != nil && !deletedRow(x.value) {
			c.flags, c.before = flagBefore, x.value
		}
	}
	l.ledger(c, op.Names())
}

// ledger adds an entry, under the name of its operation where it has one: in place of one of the same name, which did the
// same.
func (l *Log) ledger(c conflict, id ID) {
	if c.aside == 0 {
		l.strikeNamed(id)
	}
	l.local.ids++
	l.local.kept++
	l.local.unsettled++
	n := appendNumbers(nil, l.local.ids)
	l.set(ledgerKey(l.local.ids), c.encode())
	l.set(markKey(c.mark), n)
	if c.aside == 0 {
		l.set(indexKey(id), n)
	}
}

// find returns the ledger entry that an index names.
func (l *Log) find(index string) (n uint64, c conflict, ok bool) {
	b := l.get(index)
	if b == nil {
		return 0, conflict{}, false
	}
	n, _ = binary.Uvarint(b)
	c, err := decodeConflict(l.get(ledgerKey(n)))
	if err != nil {
		l.fail(err)
	}
	return n, c, l.err == nil
}

// stands takes an operation out of the ledger: it was applied, and stands. One whose comparison failed stays there: what its
// client was told before was that it had been applied.
func (l *Log) stands(id ID) {
	if l.local.kept > 0 && !mutant.On("ledger-keeps-what-stands") {
		l.strikeNamed(id)
	}
}

func (l *Log) strikeNamed(id ID) {
	if n, c, ok := l.find(indexKey(id)); ok {
		l.strike(n, c, id)
	}
}

func (l *Log) strike(n uint64, c conflict, id ID) {
	l.local.kept--
	if c.flags&flagSettled == 0 {
		l.local.unsettled--
	}
	l.set(ledgerKey(n), nil)
	l.set(markKey(c.mark), nil)
	l.set(indexKey(id), nil)
}

// Discard settles a ledger entry by an operator's word: what it holds is given up, for the reason given. It reports whether
// there is such an entry that wasn't settled. Of a state that was kept aside nothing is left.
func (l *Log) Discard(mark ownership.Mark, reason string) bool {
	n, c, ok := l.find(markKey(mark))
	if !ok || c.flags&flagSettled != 0 {
		return false
	}
	if c.aside != 0 {
		l.clear(copyKey(c.aside))
	}
	c.flags |= flagSettled
	c.reason = reason[:min(len(reason), MaxReason)]
	l.local.unsettled--
	l.set(ledgerKey(n), c.encode())
	return true
}

// review goes through the ledger after a state has been installed: what it is known to hold stands.
func (l *Log) review() {
	for n := uint64(1); n <= l.local.ids && l.local.kept > 0; n++ {
		b := l.get(ledgerKey(n))
		if b == nil {
			continue
		}
		c, err := decodeConflict(b)
		if err != nil {
			l.fail(err)
			return
		}
		if c.aside != 0 {
			continue
		}
		op, err := DecodeOp(c.payload)
		if err != nil {
			l.fail(err)
			return
		}
		switch v, first := l.admit(op.Names()); {
		case first != nil && first.Verdict == Applied:
			l.strike(n, c, op.Names())
		case first == nil && v != Applied && c.flags&flagDoubt == 0:
			c.flags |= flagDoubt
			l.set(ledgerKey(n), c.encode())
		}
	}
}
