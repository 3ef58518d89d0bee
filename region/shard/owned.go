package shard

import (
	"bytes"
	"fmt"

	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
)

// MaxOwnChunk bounds a chunk of an owned log's state, in bytes.
const MaxOwnChunk = 4 << 20

// OwnStage opens a new copy of the state of the shard's owned tables, to be filled by chunks with what the owner held at a
// mark; one that was open before is dropped. The result's Copy is its number.
type OwnStage struct {
	Mark   ownership.Mark
	Digest owned.Digest
}

// OwnChunk adds rows, as owned.Export hands them out, to the open copy. Chunks are numbered from 0 and taken each once, in
// order. When all are there, an Own that installs the mark switches to it.
type OwnChunk struct {
	Copy, Number uint32
	Rows         []byte
}

// OwnUnstage drops the open copy, if it has that number.
type OwnUnstage struct{ Copy uint32 }

// Discard settles an entry of the region's divergence ledger by an operator's word.
type Discard struct {
	Mark   ownership.Mark
	Reason string
}

func (*OwnStage) kind() Kind { return KindOwnStage }

func (*OwnChunk) kind() Kind { return KindOwnChunk }

func (*OwnUnstage) kind() Kind { return KindOwnUnstage }

func (*Discard) kind() Kind { return KindDiscard }

func (c *OwnStage) appendBody(b []byte) []byte {
	return append(appendOwnMark(b, c.Mark), c.Digest[:]...)
}

func (c *OwnStage) readBody(r *reader) { c.Mark, c.Digest = r.ownMark(), r.hash16() }

func (c *OwnChunk) appendBody(b []byte) []byte {
	return appendBytes(appendUvarint(appendUvarint(b, uint64(c.Copy)), uint64(c.Number)), c.Rows)
}

func (c *OwnChunk) readBody(r *reader) {
	c.Copy, c.Number, c.Rows = r.uint32(), r.uint32(), r.bytes(MaxOwnChunk)
}

func (c *OwnUnstage) appendBody(b []byte) []byte { return appendUvarint(b, uint64(c.Copy)) }

func (c *OwnUnstage) readBody(r *reader) { c.Copy = r.uint32() }

func (c *Discard) appendBody(b []byte) []byte {
	return appendString(appendOwnMark(b, c.Mark), c.Reason)
}

func (c *Discard) readBody(r *reader) { c.Mark, c.Reason = r.ownMark(), r.string(owned.MaxReason) }

func appendOwnMark(b []byte, m ownership.Mark) []byte {
	return appendUvarint(appendUvarint(b, uint64(m.Epoch)), uint64(m.Position))
}

func (r *reader) ownMark() ownership.Mark {
	e := ownership.Epoch(r.uint64())
	return ownership.Mark{Epoch: e, Position: ownership.Position(r.uint64())}
}

// ownedKey returns where a value of failover/owned is kept.
func ownedKey(key []byte) []byte { return keyspace.MetaKey(append([]byte{nameOwn}, key...)) }

// ownedPrefix is how much longer a stored key is than that of failover/owned.
const ownedPrefix = 2

// ownedRows gives a command the values of failover/owned, and takes what it writes.
type ownedRows struct{ a *applier }

func (o ownedRows) Get(key []byte) ([]byte, error) {
	value, ok := o.a.rows.get(ownedKey(key))
	if !ok {
		return nil, nil
	}
	return value, nil
}

func (o ownedRows) Clear(from, to []byte) { o.a.w.clear(ownedKey(from), ownedKey(to)) }

func (o ownedRows) Set(key, value []byte) { o.a.w.set(ownedKey(key), value) }

// owned lets a command change what the owned log did.
func (a *applier) owned(f func(l *owned.Log)) {
	o := ownedRows{a}
	l := owned.Open(o)
	f(l)
	if err := l.Close(o); err != nil {
		a.rows.fail(fmt.Errorf("owned log: %w", err))
	}
}

// holdsEntries says whether the region keeps what entries of its log did: a witness does not.
func holdsEntries(r ownership.Record) bool {
	m, _ := r.Config().Find(r.Self)
	return m.Role != ownership.Witness
}

// carryOut does to rows, sessions and ledger what a step of the owned log has done to the record.
func (a *applier) carryOut(c *Own, before, next ownership.Record, out ownership.Outcome) {
	if !holdsEntries(next) {
		return
	}
	by := c.Change.Epoch
	if c.Change.Kind == ownership.Append {
		by = c.Change.Write.Epoch
	}
	a.owned(func(l *owned.Log) {
		if !out.Cut.Empty() {
			l.Cut(out.Cut.From, by)
		}
		switch {
		case c.Change.Kind == ownership.Append:
			a.takeEntries(l, c, before, out)
		case c.Change.Kind == ownership.Install && !before.Holds(c.Change.Mark):
			l.Install(c.Change.Mark, out.Aside, by)
			a.change.Whole = true
		}
		l.Drop(next.Base)
	})
}

// takeEntries takes the entries that a step adds to the log: those behind what was held and not cut off. What the writer of
// each is answered goes to the result.
func (a *applier) takeEntries(l *owned.Log, c *Own, before ownership.Record, out ownership.Outcome) {
	held, w := before.Last, c.Change.Write
	if !out.Cut.Empty() {
		held = out.Cut.From - 1
	}
	i, control, epoch := 0, w.Control, w.Prev.Epoch
	for p := w.Prev.Position + 1; p <= w.Last; p++ {
		e := owned.Entry{}
		if len(control) > 0 && control[0].Mark.Position == p {
			epoch, control, e.Control = control[0].Mark.Epoch, control[1:], true
		} else if i < len(c.Entries) {
			e.Payload = c.Entries[i]
			i++
		}
		if p <= held {
			continue
		}
		e.Mark = ownership.Mark{Epoch: epoch, Position: p}
		if res := l.Take(e); !e.Control {
			a.res.Entries = append(a.res.Entries, res.Append(nil))
		}
	}
}

// staged says whether a state that a step installs stands in the open copy, or need not.
func (a *applier) staged(c *Own, before ownership.Record) (ok bool) {
	if c.Change.Kind != ownership.Install || before.Holds(c.Change.Mark) || !holdsEntries(before) {
		return true
	}
	a.owned(func(l *owned.Log) { ok = l.Staged(c.Change.Mark) })
	return ok
}

func (a *applier) ownStage(c *OwnStage) {
	a.owned(func(l *owned.Log) { a.res.Copy = l.Stage(c.Mark, c.Digest) })
	a.end(Applied, "")
}

func (a *applier) ownChunk(c *OwnChunk) {
	ok := false
	a.owned(func(l *owned.Log) { ok = l.Fill(c.Copy, c.Number, c.Rows) })
	if !ok {
		a.end(Refused, "chunk %d of copy %d is not the next one", c.Number, c.Copy)
		return
	}
	a.end(Applied, "")
}

func (a *applier) ownUnstage(c *OwnUnstage) {
	a.owned(func(l *owned.Log) { l.Unstage(c.Copy) })
	a.end(Applied, "")
}

func (a *applier) discard(c *Discard) {
	ok := false
	a.owned(func(l *owned.Log) { ok = l.Discard(c.Mark, c.Reason) })
	if !ok {
		a.end(Refused, "the ledger has no open entry of %v", c.Mark)
		return
	}
	a.end(Applied, "")
}

// Owned reads the shard's owned tables, what clients were answered, and the divergence ledger: all as the region holds them.
// Whether it may answer by them the owner's lease says, and what of it is confirmed Ownership.
func (s *Snapshot) Owned() (*owned.Reader, error) { return owned.Read(viewedRows{s.view}) }

// viewedRows are the values of failover/owned in a view.
type viewedRows struct{ view *keyspace.View }

func (v viewedRows) Get(key []byte) ([]byte, error) {
	value, ok, err := v.view.Get(ownedKey(key))
	if !ok || err != nil {
		return nil, err
	}
	return value, nil
}

func (v viewedRows) Scan(from, to []byte, each func(key, value []byte) bool) error {
	return v.view.Scan(ownedKey(from), ownedKey(to), func(key, value []byte) bool {
		return each(bytes.Clone(key[ownedPrefix:]), value)
	})
}

// OwnEntry is an entry of the owned log.
type OwnEntry struct {
	Position ownership.Position
	Payload  []byte
}

// OwnEntries returns the payloads of the entries of the owned log in [from, to] that are no control entries, as far as
// they are kept, in order, and stops before they pass limit bytes, but not before the first.
func (s *Snapshot) OwnEntries(from, to ownership.Position, limit int) (list []OwnEntry, err error) {
	r, err := s.Owned()
	if err != nil {
		return nil, err
	}
	from, to = max(from, r.Begins()+1), min(to, r.Held())
	if from > to {
		return nil, nil
	}
	payloads, err := r.Payloads(from, to, limit)
	for i, b := range payloads {
		if b != nil {
			list = append(list, OwnEntry{from + ownership.Position(i), b})
		}
	}
	return list, err
}
