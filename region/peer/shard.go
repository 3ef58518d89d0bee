package peer

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/region/shard"
)

// Shard is what a shard of this node has to do with its peers in other regions. Its methods are safe for any goroutine.
type Shard struct {
	o       Options
	logger  hclog.Logger
	teller  *teller
	pullers []*puller
	joining sync.Mutex // held by the state join under way: one at a time
}

// New returns a Shard. It does nothing before Run.
func New(o Options) *Shard {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	o.Timing = o.Timing.withDefaults()
	s := &Shard{o: o, logger: o.Logger.With("shard", o.Replica.Config().Shard)}
	s.teller = &teller{replica: o.Replica, every: o.Timing.Standings}
	for _, m := range o.Members {
		if m.Region != o.Self {
			s.pullers = append(s.pullers, newPuller(s, m))
		}
	}
	slices.SortFunc(s.pullers, func(a, b *puller) int {
		if a.peer.Region < b.peer.Region {
			return -1
		}
		return 1
	})
	return s
}

// Run pulls from every other region until ctx ends: while this node leads the shard.
func (s *Shard) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, p := range s.pullers {
		p.begin(time.Now())
		running.Go(func() { p.run(ctx) })
	}
	running.Wait()
}

// Joining reports whether a state join is under way: a copy that is open while none is was abandoned.
func (s *Shard) Joining() bool {
	if s.joining.TryLock() {
		s.joining.Unlock()
		return false
	}
	return true
}

// Member returns the own region's number, under which it writes tables that every region writes at once.
func (s *Shard) Member() table.Actor {
	self, _ := s.o.member(s.o.Self)
	return table.Actor(self.Number)
}

// Floors returns the horizons that the own region bears, as they are told to the peers (rules A7). They may be those of a
// moment ago.
func (s *Shard) Floors() (map[crdt.GenerationID]int64, error) {
	list, _, err := s.teller.tell()
	floors := make(map[crdt.GenerationID]int64, len(list))
	for _, st := range list {
		floors[st.Generation] = st.Floor
	}
	return floors, err
}

// View is what the shard knows of its peer in one region.
type View struct {
	Region crdt.RegionID
	// Heard is when the peer was last heard; where that was not since Run began, it is when Run did.
	Heard time.Time
	// Connected says that the peer has told its standings on the stream that stands now.
	Connected bool
	// Level is when everything was last taken that the peer had; zero for never.
	Level time.Time
	// Behind is how many records the peer has taken and this shard not, as far as it told; -1 where it never did.
	Behind int64
	// Stopped are sources that the two hold different histories of; nothing of theirs is taken from this peer.
	Stopped []crdt.Source
	// Counters since the node began: commands and bytes taken in, state join bytes, and what was not taken for a gap.
	Entries, Bytes, Joined, Gaps uint64
	// Refusals counts state joins that were not made, since the points here could not be confirmed to lie on the peer's
	// history: people have to look.
	Refusals uint64
	// Early counts operations on tables that wait, since their stamps lie too far ahead of this region's clock: that or the
	// other region's is wrong.
	Early uint64
	// Tables is how many entries of tables' histories the peer has and this shard not, as far as it told.
	Tables uint64
	// Standing is what the peer last told of its tables.
	Standing shard.TableStanding
	// Told is what the peer last told of each generation.
	Told map[crdt.GenerationID]*Standing
}

// Waiting returns the bytes of commands that came from a peer and are yet to be proposed, of the peer with most of them.
func (s *Shard) Waiting() (most int64) {
	for _, p := range s.pullers {
		most = max(most, p.waiting.Load())
	}
	return most
}

// Peers returns what is known of every other region, in order of region.
func (s *Shard) Peers() []View {
	st := s.o.Replica.State()
	list := make([]View, 0, len(s.pullers))
	for _, p := range s.pullers {
		list = append(list, p.view(st))
	}
	return list
}
