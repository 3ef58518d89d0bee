package shard

import (
	"bytes"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
)

// Bounds of what Own may hold.
const (
	MaxOwnEntry  = owned.MaxEntry // bytes of one entry of the owned log
	MaxOwnBytes  = 8 << 20        // of all entries of a command
	MaxOwnChange = 4 << 20        // bytes of an encoded ownership.Command
)

// Ownership is what the region has promised and holds of the shard's owned log.
type Ownership struct {
	Record ownership.Record
	// Incarnation is the number that the region's configuration gave it when the record was made. A region whose
	// configuration gives another was restored, and takes no part until the others have taken it in (rules A12).
	Incarnation ownership.MemberID
	// Revision counts the changes of the record.
	Revision uint64
}

// Ownership returns what the shard's region has promised and holds of the owned log.
func (s *State) Ownership() Ownership { return s.own }

// Owns says whether this region owns the shard by what it has promised and holds. It may serve tables only with a lease
// besides; emission and the registry of jobs need none (rules A13, A14).
func (s *State) Owns() bool { return !s.restored && s.own.Record.Owns() }

// Epoch returns the highest epoch that the region has promised; where it Owns the shard, its own.
func (s *State) Epoch() ownership.Epoch { return s.own.Record.Promised }

// Owner returns the region that owns the shard as far as this one holds its log, and the epoch; "" where none is known.
func (s *State) Owner() (crdt.RegionID, ownership.Epoch) {
	e := s.own.Record.LastMark().Epoch
	for i := len(s.own.Record.Control) - 1; i >= 0; i-- {
		if m, ok := s.own.Record.Control[i].Config.Find(e.Owner()); ok {
			return crdt.RegionID(m.Region), e
		}
	}
	return "", e
}

// Own is one step of the shard's owned log, as failover/ownership decides it: it changes the record by its rules, or is
// refused. The proposer goes by the record of one revision; at any other it is refused, so that what it forecast is what
// happens.
type Own struct {
	Revision uint64
	Change   ownership.Command
	// Entries are the payloads of the entries behind Change.Write.Prev that are no control entries, in order; none at all
	// where the region keeps none.
	Entries [][]byte
}

// Rejoin makes the region a new member of the owned log, without promises: one that was left out by force, or restored.
// With Alone it is the only region of the deployment, and the owner at once.
type Rejoin struct {
	Revision    uint64
	As          ownership.MemberID
	Incarnation ownership.MemberID
	Alone       bool
}

func (*Own) kind() Kind { return KindOwn }

func (*Rejoin) kind() Kind { return KindRejoin }

func (c *Own) appendBody(b []byte) []byte {
	b = appendBytes(appendUvarint(b, c.Revision), c.Change.Encode())
	b = appendUvarint(b, uint64(len(c.Entries)))
	for _, e := range c.Entries {
		b = appendBytes(b, e)
	}
	return b
}

func (c *Own) readBody(r *reader) {
	c.Revision = r.uint64()
	raw := r.bytes(MaxOwnChange)
	if r.err == nil {
		change, err := ownership.DecodeCommand(raw)
		if r.crdt(err); err == nil {
			c.Change = change
		}
	}
	n, size := r.count(MaxOwnBytes), 0
	if r.err == nil && n > 0 && (c.Change.Kind != ownership.Append || uint64(n) != OwnEntriesOf(c.Change.Write)) {
		r.fail("%d payloads for %v", n, c.Change)
	}
	for i := 0; i < n && r.err == nil; i++ {
		e := r.bytes(MaxOwnEntry)
		if size += len(e); size > MaxOwnBytes {
			r.fail("entries of more than %d bytes", MaxOwnBytes)
		}
		c.Entries = append(c.Entries, e)
	}
}

func (c *Rejoin) appendBody(b []byte) []byte {
	b = appendUvarint(appendUvarint(appendUvarint(b, c.Revision), uint64(c.As)), uint64(c.Incarnation))
	return appendBool(b, c.Alone)
}

func (c *Rejoin) readBody(r *reader) {
	c.Revision, c.As, c.Incarnation = r.uint64(), r.memberID(), r.memberID()
	c.Alone = r.bool()
	if c.As == 0 || c.Incarnation == 0 {
		r.fail("member 0")
	}
}

func (r *reader) memberID() ownership.MemberID { return ownership.MemberID(r.uvarint(1<<16 - 1)) }

// OwnEntriesOf returns how many entries a write has that are no control entries.
func OwnEntriesOf(w ownership.Write) uint64 {
	return uint64(w.Last-w.Prev.Position) - uint64(len(w.Control))
}

// founding returns what the shard's ownership begins with.
func (c *Config) founding() Ownership {
	rec := c.Found
	if rec.Self == 0 { // the members are the regions, numbered in order
		conf := ownership.Config{Number: 1}
		owner := ownership.MemberID(0)
		for _, region := range c.Regions {
			conf.Highest++
			conf.Members = append(conf.Members, ownership.Member{ID: conf.Highest, Region: string(region)})
			if region == c.Self {
				rec.Self = conf.Highest
			}
			if owner == 0 && (region == c.Self) == c.Owner {
				owner = conf.Highest
			}
		}
		rec = ownership.FoundOwned(rec.Self, conf, max(owner, 1))
	}
	return Ownership{Record: rec, Incarnation: rec.Self}
}

func (o Ownership) append(b []byte) []byte {
	b = appendUvarint(appendUvarint(append(b, metaVersion), uint64(o.Incarnation)), o.Revision)
	return o.Record.AppendTo(b)
}

func (o *Ownership) read(r *reader) {
	r.version()
	o.Incarnation, o.Revision = r.memberID(), r.uint64()
	raw := r.rest()
	if r.err != nil {
		return
	}
	rec, err := ownership.DecodeRecord(raw)
	if r.crdt(err); err == nil {
		o.Record = rec
	}
}

// readOwnership reads the stored record; a shard at index 0 has none yet.
func readOwnership(cfg *Config, record []byte, known bool, index uint64) (Ownership, error) {
	if !known {
		if index > 0 {
			return Ownership{}, fmt.Errorf("%w: the record of its ownership is missing", ErrState)
		}
		return cfg.founding(), nil
	}
	var o Ownership
	r := reader{b: bytes.Clone(record)}
	o.read(&r)
	if err := r.done(); err != nil {
		return Ownership{}, fmt.Errorf("%w: ownership: %w", ErrState, err)
	}
	return o, nil
}

// own carries a step of the owned log out, or refuses it.
func (a *applier) own(c *Own) {
	before := a.st.own
	if c.Revision != before.Revision {
		a.end(Refused, "the record of ownership has revision %d, not %d", before.Revision, c.Revision)
		return
	}
	if !a.staged(c, before.Record) {
		a.end(Refused, "the state at %v is not there", c.Change.Mark)
		return
	}
	next := before
	out := next.Record.Apply(c.Change)
	switch out.Verdict {
	case ownership.Applied:
	case ownership.Refused:
		a.end(Refused, "epoch %v is promised", before.Record.Promised)
		return
	case ownership.Gap:
		a.end(Refused, "the entry before %v is not held", c.Change.Write.Prev)
		return
	default:
		a.end(Refused, "it would cut off what is confirmed")
		return
	}
	a.change.Whole = a.change.Whole || !out.Cut.Empty()
	a.carryOut(c, before.Record, next.Record, out)
	a.setOwnership(next)
	a.end(Applied, "")
}

// setOwnership makes the next record that of the state.
func (a *applier) setOwnership(next Ownership) {
	before := a.st.Owns()
	next.Revision = a.st.own.Revision + 1
	var silent []*Generation
	for _, g := range a.st.Generations() {
		if !a.emits(g) {
			silent = append(silent, g)
		}
	}
	a.st.own, a.st.restored = next, next.Incarnation != a.cfg.founding().Incarnation
	a.w.set(ownKey(), next.append(nil))
	if before || !a.st.Owns() {
		return
	}
	for _, g := range silent {
		if a.emits(g) { // what changed meanwhile was not marked, and what the last owner has sent nobody knows for certain
			g = a.edit(g.ID)
			a.rewind(g, g.Horizon)
		}
	}
}

// rejoin begins the record anew as another member.
func (a *applier) rejoin(c *Rejoin) {
	before := a.st.own
	switch {
	case c.Revision != before.Revision:
		a.end(Refused, "the record of ownership has revision %d, not %d", before.Revision, c.Revision)
		return
	case c.As == before.Record.Self:
		a.end(Refused, "it is member %d", c.As)
		return
	case c.Alone && len(a.cfg.Regions) > 1:
		a.end(Malformed, "there are other regions")
		return
	}
	next := Ownership{Record: before.Record.Rejoin(c.As), Incarnation: c.Incarnation}
	if c.Alone {
		next.Record = alone(before.Record, c.As, string(a.cfg.Self))
		a.owned(func(l *owned.Log) { l.Rebase(next.Record.Last) })
	}
	a.setOwnership(next)
	a.end(Applied, "")
}

// alone returns the record of the only member there is, which owns the shard with an epoch above all that was there.
func alone(r ownership.Record, as ownership.MemberID, region string) ownership.Record {
	conf := ownership.Config{Number: r.Config().Number + 1, Highest: max(as, r.Config().Highest),
		Members: []ownership.Member{{ID: as, Region: region}}}
	epoch := max(r.Promised, r.LastMark().Epoch).Next(as)
	at := ownership.Mark{Epoch: epoch, Position: r.Last + 1}
	return ownership.Record{Self: as, Promised: epoch, Control: []ownership.Control{{Mark: at, Config: conf}},
		Base: at.Position, Last: at.Position, Confirmed: at.Position}
}

func ownKey() []byte { return name(nameOwn) }
