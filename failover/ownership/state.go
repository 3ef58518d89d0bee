package ownership

import (
	"slices"
	"time"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Standing is where a member is in the life of an epoch.
type Standing uint8

// The standings.
const (
	Following Standing = iota
	Asking             // whether a claim would succeed
	Claiming
	Owning
	Out // takes no part: its clock isn't trusted, or it was removed
)

// String returns the standing in a word.
func (s Standing) String() string {
	return [...]string{"following", "asking", "claiming", "owning", "out"}[s]
}

// peer is what a leader knows of another member.
type peer struct {
	id     MemberID
	voted  bool          // for the claim under way
	match  Position      // it holds the log up to here: told under the present epoch
	next   Position      // the first entry to send it
	asked  time.Duration // when it was sent something last; 0 for not yet
	known  time.Duration // when match moved last
	moved  time.Duration // when it did, or the entries behind it were sent
	sent   Position      // the confirmed position that it was sent last
	told   Position      // and that it has
	heard  time.Duration // when it was last heard of; at first when this leader began to listen
	lost   bool          // it has lost what it said it had, and counts for nothing
	leased bool
	stamp  time.Duration // it has granted a lease that was asked for then
}

// flip is a planned flip under way.
type flip struct {
	to       MemberID // 0 for none
	deadline time.Duration
}

// State is one member of a shard's owned log, as the leader of the region's Raft group for the shard sees it. It is a
// value: Step returns another. Make one by Lead.
type State struct {
	Record Record
	set    Settings
	led    uint64

	standing  Standing
	epoch     Epoch    // asked for, claimed or owned
	released  Epoch    // the epoch whose owner has handed over, for a claim under way
	forced    *Config  // the configuration of an operator's force, until it is written
	seen      Epoch    // the highest epoch heard of
	confirmed Position // of an owner: at or above Record.Confirmed
	first     Position // of an owner: nothing is served until this entry of its epoch is confirmed
	peers     []peer   // ascending, without self
	flip      flip

	claimAt  time.Duration // when to claim if nothing is heard
	held     Epoch         // the epoch that a lease was granted to
	heldTill time.Duration // and until when it binds
}

// Lead returns the state with which a node begins that has just become the leader of its region's Raft group, from the
// record as applied there once the group's earlier entries are. The node's predecessor may have granted a lease that
// nobody wrote down: so nothing is promised that would break one until the longest has run out. Led tells the leaders of the
// group apart, as the group's own term does.
func Lead(r Record, set Settings, led uint64, now time.Duration) State {
	s := State{Record: r, set: set, led: led, seen: r.Promised, confirmed: r.Confirmed}
	s.claimAt = now + time.Duration(r.Config().rank(r.Self, r.Promised.Owner()))*set.Stagger
	if r.Promised > 0 {
		s.claimAt += set.ClaimAfter
		s.held, s.heldTill = r.Promised, now+set.Longest
		if mutant.On("grant-forgotten-by-the-next-leader") {
			s.heldTill = now
		}
	}
	s.listen(now)
	if last := r.LastMark(); r.Promised.Owner() == r.Self && last.Epoch == r.Promised && r.Config().copies(r.Self) {
		s.standing, s.epoch, s.first = Owning, r.Promised, r.Last // its predecessor may have confirmed all of it
		s.restart(r.Last + 1)
	}
	return s
}

// listen makes the list of peers that of the configuration, keeping what is known of those that stay.
func (s *State) listen(now time.Duration) {
	var peers []peer
	for _, m := range s.config().Members {
		if m.ID == s.Record.Self {
			continue
		}
		p := peer{id: m.ID, next: s.Record.Last + 1, heard: now}
		if i := slices.IndexFunc(s.peers, func(p peer) bool { return p.id == m.ID }); i >= 0 {
			p = s.peers[i]
		}
		peers = append(peers, p)
	}
	s.peers = peers
}

// restart forgets what peers hold and have granted: it was told under another epoch.
func (s *State) restart(next Position) {
	for i := range s.peers {
		p := &s.peers[i]
		*p = peer{id: p.id, voted: p.voted, heard: p.heard, next: next}
	}
}

// config returns the configuration that the member goes by.
func (s *State) config() Config {
	if s.forced != nil {
		return *s.forced
	}
	return s.Record.Config()
}

func (s *State) peer(id MemberID) *peer {
	for i := range s.peers {
		if s.peers[i].id == id {
			return &s.peers[i]
		}
	}
	return nil
}

// match returns up to where a member holds the owner's log, as far as the owner knows.
func (s *State) match(id MemberID) Position {
	if id == s.Record.Self {
		return s.Record.Last
	}
	if p := s.peer(id); p != nil && !p.lost {
		return p.match
	}
	return 0
}

// Leased returns until when the owner's lease lasts on its own clock: the voters that make a majority with the owner have
// promised nobody else anything till then. Counted from before they were asked, less the margin.
func (s *State) Leased() (time.Duration, bool) {
	if s.standing != Owning {
		return 0, false
	}
	c := s.config()
	others := c.Majority() - 1
	if others == 0 {
		return 1<<63 - 1, true
	}
	var room [MaxMembers]time.Duration
	stamps := room[:0]
	for i := range s.peers {
		if s.peers[i].leased && !s.peers[i].lost && c.votes(s.peers[i].id) {
			stamps = append(stamps, s.peers[i].stamp)
		}
	}
	if len(stamps) < others {
		return 0, false
	}
	slices.Sort(stamps)
	till := stamps[len(stamps)-others] + s.set.Lease
	if !mutant.On("margin-forgotten") {
		till -= s.set.Margin
	}
	return till, true
}

// Serves says whether the member may at this instant answer a read, or acknowledge a write of `region` durability that its
// region's Raft group holds. It is asked after the value was read or the write was applied, and after the node has proved
// that it led the group then; where it says no, the answer is "unknown".
func (s *State) Serves(now time.Duration) bool {
	till, ok := s.Leased()
	return ok && now < till && s.begun()
}

// begun says whether the owner knows what is confirmed: an entry of its own epoch is, and so is all that was there when
// this node began to lead. Before that its log may hold what will be cut off, and its reads may lack what was acknowledged.
func (s *State) begun() bool {
	if s.standing != Owning || s.Record.Promised != s.epoch {
		return false
	}
	return s.confirmed >= s.first || mutant.On("serves-before-an-entry-of-its-own")
}

// Confirmed returns the position up to which writes of `quorum` durability are acknowledged. No clock has a part in it.
func (s *State) Confirmed() Position { return max(s.confirmed, s.Record.Confirmed) }

// confirmedConfig returns the configuration of the last control entry that is confirmed, as far as this member knows.
func (s *State) confirmedConfig() Config {
	if c, ok := s.Record.controlAt(s.Confirmed()); ok {
		return c.Config
	}
	return Config{}
}

// Keep returns the state with another number of entries to be kept for members that lack them, in place of Settings.Span:
// whoever keeps the payload bounds its bytes so. What isn't confirmed is kept in any case.
func (s State) Keep(span Position) State {
	s.set.Span = span
	return s
}

// Standing returns where the member is in the life of an epoch.
func (s *State) Standing() Standing { return s.standing }

// Owner returns the owner of the shard as far as the member knows, and its epoch: where to send a client.
func (s *State) Owner() (MemberID, Epoch) {
	e := s.Record.LastMark().Epoch
	return e.Owner(), e
}
