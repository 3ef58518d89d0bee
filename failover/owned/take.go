package owned

import (
	"bytes"

	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Entry is an entry of the log: of an owner's own words (Control) without payload.
type Entry struct {
	Mark    ownership.Mark
	Control bool
	Payload []byte // an Op's bytes
}

// Take takes the next entry, whose position follows that of the last one, and does what it says.
func (l *Log) Take(e Entry) Result {
	if e.Mark.Position != l.local.last+1 {
		l.broken("entry %v does not follow %d", e.Mark, l.local.last)
		return Result{}
	}
	l.local.last++
	l.local.bytes += uint64(len(e.Payload))
	l.set(logKey(e.Mark.Position), logged{e.Mark.Epoch, e.Control, l.local.bytes, e.Payload}.encode())
	if e.Control {
		l.turn(e.Mark)
		return Result{Verdict: Applied, At: e.Mark}
	}
	op, err := DecodeOp(e.Payload)
	if err != nil { // what an owner of another version has written: every region must go on past it alike
		return Result{Verdict: Malformed, At: e.Mark}
	}
	old := l.head
	l.before = nil
	l.head.Time = max(l.head.Time, op.Time)
	res := l.do(op, e.Mark)
	if l.head != old {
		b := change{key: string(keyHead)}
		if old != (Head{}) {
			b.value = old.encode()
		}
		l.before = append(l.before, b)
		l.set(l.state(string(keyHead)), l.head.encode())
	}
	if len(l.before) > 0 {
		i := image{res.Verdict == Applied && !res.Again && op.Kind != Sweep, l.before}
		l.set(beforeKey(e.Mark.Position), i.encode())
	}
	return res
}

func (l *Log) do(op Op, at ownership.Mark) Result {
	if op.Kind == Sweep {
		l.sweep(op, at)
		return Result{Verdict: Applied, At: at}
	}
	id := op.ID
	if op.Replays.Sequence > 0 {
		if v, r := l.admit(op.Replays); v == Applied || r != nil && r.Verdict == Applied {
			id = op.Replays // done as itself: a retry of it, by whomever, finds that it was
		}
	}
	verdict, first := l.admit(id)
	if first != nil {
		first.Again = true
		return *first
	}
	if verdict != Applied {
		return Result{Verdict: verdict, At: at}
	}
	r := l.write(op, at)
	l.record(id, r)
	if r.Verdict == Applied {
		l.stands(op.Names())
	}
	return r
}

// admit says whether an operation is to be done, or returns what it came to when it was.
func (l *Log) admit(id ID) (Verdict, *Result) {
	if b := l.get(l.state(outcomeKey(id))); b != nil && !mutant.On("retry-doubled") {
		r, err := DecodeResult(b)
		if err != nil {
			l.fail(err)
		}
		return 0, &r
	}
	last, _ := l.session(id.Session)
	switch {
	case id.Session.Born < l.head.Closed:
		return Expired, nil
	case id.Sequence+Window <= last:
		return Forgotten, nil
	case id.Sequence > last+Window:
		return TooFar, nil
	}
	return Applied, nil
}

// record keeps what an operation came to, and lets go of outcomes that nobody asks for any more.
func (l *Log) record(id ID, r Result) {
	l.change(outcomeKey(id), r.Append(nil))
	last, _ := l.session(id.Session)
	if id.Sequence <= last {
		return
	}
	l.change(sessionKey(id.Session), appendNumbers([]byte{Version}, id.Sequence))
	for s := max(last, Window) + 1; s <= id.Sequence; s++ {
		l.change(outcomeKey(ID{id.Session, s - Window}), nil)
	}
}

// session returns the greatest sequence taken of a session.
func (l *Log) session(s Session) (last uint64, known bool) {
	last, known, err := decodeSession(l.get(l.state(sessionKey(s))))
	if err != nil {
		l.fail(err)
	}
	return last, known
}

func decodeSession(b []byte) (last uint64, known bool, err error) {
	if b == nil {
		return 0, false, nil
	}
	d := open(b)
	last = d.Uvarint()
	return last, true, d.Done()
}

// row returns a row as it is stored.
func (l *Log) row(key string) (r Row, stored bool) {
	b := l.get(l.state(key))
	if b == nil {
		return Row{}, false
	}
	r, err := decodeRow(b)
	if err != nil {
		l.fail(err)
	}
	return r, true
}

// expires stands under the keys that say when rows expire.
var expires = []byte{1}

// write is a client's operation.
func (l *Log) write(op Op, at ownership.Mark) Result {
	key := rowKey(op.Table, op.Key)
	old, stored := l.row(key)
	there := stored && old.live(l.head.Time)
	if !op.Expect.met(old, there) {
		r := Result{Verdict: CompareFailed, At: at, Stands: there}
		if there {
			r.Version = old.Version
		}
		return r
	}
	if op.Kind == Delete {
		l.remove(key, at)
		return Result{Verdict: Applied, At: at}
	}
	l.unexpire(key, old)
	row := Row{Version: at, Value: op.Value}
	if op.TTL > 0 {
		row.Expires = l.head.Time + op.TTL
		l.change(expiryKey(row.Expires, key), expires)
	}
	l.change(key, row.encode())
	return Result{Verdict: Applied, At: at, Stands: true, Version: at}
}

// met says whether a row is as expected.
func (e Expect) met(r Row, there bool) bool {
	switch e.Kind {
	case Absent:
		return !there
	case AtVersion:
		return there && r.Version == e.Version
	case EqualValue:
		return there && bytes.Equal(r.Value, e.Value)
	}
	return true
}

// unexpire removes what says when a row expires.
func (l *Log) unexpire(key string, r Row) {
	if r.Expires > 0 {
		l.change(expiryKey(r.Expires, key), nil)
	}
}

// remove removes a row. A mark stays in its place while the log reaches back to it.
func (l *Log) remove(key string, at ownership.Mark) {
	old, stored := l.row(key)
	if !stored || old.deleted {
		return
	}
	l.unexpire(key, old)
	l.change(key, Row{Version: at, deleted: true}.encode())
}

// sweep removes what its owner found to be over; whether it is, is decided here.
func (l *Log) sweep(op Op, at ownership.Mark) {
	l.head.Closed = max(l.head.Closed, op.Closed)
	for _, s := range op.Sessions {
		last, known := l.session(s)
		if !known || s.Born >= l.head.Closed {
			continue
		}
		l.change(sessionKey(s), nil)
		for seq := last; seq > 0 && seq+Window > last; seq-- {
			l.change(outcomeKey(ID{s, seq}), nil)
		}
	}
	for _, x := range op.Expired {
		key := rowKey(x.Table, x.Key)
		if r, stored := l.row(key); stored && !r.live(l.head.Time) {
			l.remove(key, at)
		}
	}
	for _, x := range op.Dropped {
		l.remove(rowKey(x.Table, x.Key), at)
	}
}

// keptTurns is how many of the last control entries the head of the state is known at.
const keptTurns = 64

// Turn is a control entry and the head of the state at it, by which regions compare what they hold.
type Turn struct {
	Mark ownership.Mark
	Head Head
}

// turn notes the head of the state at a control entry. It is the region's own, and stays where the entry is cut off.
func (l *Log) turn(at ownership.Mark) {
	slot := string([]byte{keyTurn, byte(l.local.turns % keptTurns)})
	l.set(slot, appendBytes(appendMark([]byte{Version}, at), l.head.encode()))
	l.local.turns++
}

// dropStep is how many entries are forgotten with one command at most.
const dropStep = 4096

// Drop forgets entries up to a position that nobody needs any more, and what undoes them: not all of them at once.
func (l *Log) Drop(base ownership.Position) {
	end := min(base, l.local.last, l.local.dropped+dropStep)
	for p := l.local.dropped + 1; p <= end && l.err == nil; p++ {
		for _, c := range l.image(p).changes {
			if c.key[0] != keyRow {
				continue
			}
			if r, stored := l.row(c.key); stored && r.deleted && r.Version.Position <= p {
				l.set(l.state(c.key), nil)
			}
		}
		l.local.gone = l.entry(p).size
		l.local.dropped = p
		l.set(logKey(p), nil)
		l.set(beforeKey(p), nil)
	}
}

// Cut takes back the entries from a position on, the last one first, and moves what clients wrote to the ledger. by is the
// epoch whose owner has other entries in their place.
func (l *Log) Cut(from ownership.Position, by ownership.Epoch) {
	if from <= l.local.dropped {
		l.broken("entries from %d on are to be taken back, but nothing is kept up to %d", from, l.local.dropped)
	}
	for p := l.local.last; p >= from && l.err == nil; p-- {
		e, i := l.entry(p), l.image(p)
		for n := len(i.changes) - 1; n >= 0; n-- {
			l.restore(i.changes[n])
		}
		if i.applied && (p != from || !mutant.On("ledger-entry-lost")) {
			l.enter(p, e, i, by)
		}
		l.local.last = p - 1
		l.local.bytes = e.size - uint64(len(e.payload))
		l.set(logKey(p), nil)
		l.set(beforeKey(p), nil)
	}
	l.reload()
}

// restore sets a key of the state to what it was.
func (l *Log) restore(c change) {
	if c.key[0] == keyOutcome && mutant.On("session-outcome-not-rolled-back") {
		return
	}
	if c.key[0] == keyRow && deletedRow(c.value) {
		if r, err := decodeRow(c.value); err != nil {
			l.fail(err)
		} else if r.Version.Position <= l.local.dropped {
			c.value = nil
		}
	}
	l.set(l.state(c.key), c.value)
}
