package owner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// Replica is what a Shard needs of a shard's replica on this node; *replica.Replica is one.
type Replica interface {
	Config() *shard.Config
	State() *shard.State
	Snapshot() (*shard.Snapshot, error)
	Submit(ctx context.Context, c shard.Command, raw []byte) (wait func(context.Context) (shard.Result, error))
	Linearizable(ctx context.Context) error
	Status() group.Status
	Leader() group.Member
	StepDown()
}

// Options says what a Shard works on.
type Options struct {
	Replica Replica
	// Incarnation is the own region's member number as configured.
	Incarnation ownership.MemberID
	Settings    ownership.Settings
	// Tick is how often a leader asks for leases and looks what is due.
	Tick  time.Duration
	Clock Clock
	// Send has a message brought to another region's leader of the shard, with the payload of its entries. It does not wait.
	Send func(to crdt.RegionID, m ownership.Message, entries [][]byte)
	// State brings the state of the shard's owned tables from another region; nil where states that are sent go without.
	State StateSource
	// Now is the wall clock, by which rows expire and sessions end; SessionLife is how long these live. Without Now nothing is
	// ever removed.
	Now         func() time.Time
	SessionLife time.Duration
	// Join asks the other regions, of which one may own the shard, to take this one in as a new member in the place of the one
	// named, and returns its number.
	Join func(ctx context.Context, instead ownership.MemberID) (ownership.MemberID, error)
	// Hold, if set, stops what goes on under the present epoch beside the owned log before a planned flip to a region: rows on
	// their way to sinks, entries of the registry. It returns when that stands still and the region has what it needs, and
	// lets it go on again by release.
	Hold   func(ctx context.Context, to crdt.RegionID) (release func(), err error)
	Logger hclog.Logger // default: none
}

// Errors of reads and writes.
var (
	// ErrNoLease says that the owner has no lease at present: it can't say what stands.
	ErrNoLease = errors.New("the owner region has no lease: too few other regions answer")
	// ErrClock says that the node's clock is not trusted.
	ErrClock = errors.New("this node's clock is not trusted")
	// ErrNothingLost says that a force was asked for though all members were heard of.
	ErrNothingLost = errors.New("all regions were heard of lately: nothing is to be forced")
)

// NotOwnerError says that another region owns the shard, and which one as far as this one knows.
type NotOwnerError struct {
	Shard keyspace.ShardID
	Owner crdt.RegionID // "" where none is known
	Epoch ownership.Epoch
}

// Error names the owner.
func (e *NotOwnerError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("shard %d: this region does not own it, and no owner is known", e.Shard)
	}
	return fmt.Sprintf("shard %d: region %s owns it, with epoch %v", e.Shard, e.Owner, e.Epoch)
}

// Shard is the owned log of one shard on this node: of use while the node leads it. It is safe for any goroutine.
type Shard struct {
	o      Options
	id     keyspace.ShardID
	logger hclog.Logger
	stats  stats

	mu   sync.Mutex
	now  *leading // nil while this node does not lead
	wake chan struct{}
}

// New returns a Shard. Run drives it.
func New(o Options) *Shard {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	id := o.Replica.Config().Shard
	return &Shard{o: o, id: id, logger: o.Logger.With("shard", id), wake: make(chan struct{}, 1)}
}

// retry is how long a leader waits after a step that could not be logged, and between tries to be taken in.
const retry = 100 * time.Millisecond

// Run drives the shard while this node leads it: until ctx ends. The replica must hold what its predecessors acknowledged.
func (s *Shard) Run(ctx context.Context) {
	for attempt := uint64(0); ctx.Err() == nil; attempt++ {
		err := s.reign(ctx, attempt)
		if ctx.Err() != nil {
			return
		}
		s.logger.Debug("begins anew", "error", err)
		if rest(ctx, retry) != nil {
			return
		}
	}
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// reign leads from the record as it stands until a step can't be logged.
func (s *Shard) reign(ctx context.Context, attempt uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.o.Clock.Trusted() {
		s.stats.distrusted.Add(1)
		s.logger.Warn("the clock is not trusted: leadership is handed on, and the shard has no part in leases", "error", ErrClock)
		s.o.Replica.StepDown()
		return errors.Join(ErrClock, rest(ctx, distrustFor/10))
	}
	term := s.o.Replica.Status().Term
	if err := s.o.Replica.Linearizable(ctx); err != nil {
		return err
	}
	own := s.o.Replica.State().Ownership()
	if own.Incarnation != s.o.Incarnation {
		return s.rejoin(ctx, own, len(s.o.Replica.Config().Regions) == 1)
	}
	l := s.lead(ctx, own, term<<16|attempt&(1<<16-1))
	defer func() {
		s.mu.Lock()
		s.now = nil
		s.mu.Unlock()
		cancel()
		l.end()
	}()
	s.mu.Lock()
	s.now = l
	s.mu.Unlock()
	return l.run(ctx)
}

// current returns what this node leads by, nil where it does not.
func (s *Shard) current() *leading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Leads says whether this node leads the shard, and drives it.
func (s *Shard) Leads() bool { return s.current() != nil }

// Offer takes a message of another region's member in, with the payload of its entries. It returns false where this node
// does not lead the shard. One too many is dropped: members bear that.
func (s *Shard) Offer(from crdt.RegionID, m ownership.Message, entries [][]byte) bool {
	l := s.current()
	if l == nil {
		return false
	}
	l.offer(incoming{from, m, entries})
	return true
}

// notLeader is the error of a call that only the shard's leader can answer.
func (s *Shard) notLeader() error {
	return fmt.Errorf("shard %d: %w", s.id, &group.NotLeaderError{Leader: s.o.Replica.Leader()})
}

// rejoin comes back as a new member: the region was restored, or left out by force, or has lost what it was.
func (s *Shard) rejoin(ctx context.Context, own shard.Ownership, alone bool) error {
	c := &shard.Rejoin{Revision: own.Revision, As: s.o.Incarnation, Incarnation: s.o.Incarnation, Alone: alone}
	if !alone {
		as, err := s.o.Join(ctx, own.Record.Self)
		if err != nil {
			return errors.Join(fmt.Errorf("shard %d: to be taken in again: %w", s.id, err), rest(ctx, 5*retry))
		}
		c.As = as
	}
	res, err := s.o.Replica.Submit(ctx, c, shard.Encode(c))(ctx)
	if err != nil {
		return err
	}
	s.logger.Info("this region is a new member of the shard's owners", "member", c.As, "was", own.Record.Self, "outcome", res.Outcome)
	return fmt.Errorf("rejoined as member %d: %v %s", c.As, res.Outcome, res.Reason)
}
