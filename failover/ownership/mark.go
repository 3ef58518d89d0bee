package ownership

import "fmt"

// MemberID is a member of the shard's owned log: one incarnation of a region. A number is never given twice; 0 is nobody.
type MemberID uint16

// Epoch numbers one ownership: a counter and, in the low 16 bits, the member that it belongs to, so that two members can't
// own one epoch. 0 comes before all.
type Epoch uint64

// EpochOf returns the epoch of a member with the given counter.
func EpochOf(counter uint64, owner MemberID) Epoch { return Epoch(counter<<16 | uint64(owner)) }

// Owner returns the one member that may own the epoch.
func (e Epoch) Owner() MemberID { return MemberID(e) }

// Counter returns the epoch's counter.
func (e Epoch) Counter() uint64 { return uint64(e) >> 16 }

// Next returns the first epoch of the given member that lies above e whoever owns e.
func (e Epoch) Next(owner MemberID) Epoch { return EpochOf(e.Counter()+1, owner) }

// String returns counter and owner, as in "3@2".
func (e Epoch) String() string { return fmt.Sprintf("%d@%d", e.Counter(), e.Owner()) }

// Position numbers the entries of the owned log from 1.
type Position uint64

// Mark is an entry of the owned log. Two logs that hold the same mark hold the same entries up to it.
type Mark struct {
	Epoch    Epoch // of the owner that wrote it
	Position Position
}

// Less orders marks as an election does: by epoch, then by position.
func (m Mark) Less(o Mark) bool {
	return m.Epoch < o.Epoch || m.Epoch == o.Epoch && m.Position < o.Position
}

// String returns epoch and position, as in "3@2/17".
func (m Mark) String() string { return fmt.Sprintf("%v/%d", m.Epoch, m.Position) }

// Range is the entries from From to To, both of them in it; none where From is 0.
type Range struct{ From, To Position }

// Empty says whether no entry is in the range.
func (r Range) Empty() bool { return r.From == 0 }

// String returns the ends, as in "4-9".
func (r Range) String() string { return fmt.Sprintf("%d-%d", r.From, r.To) }
