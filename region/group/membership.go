package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Seat is a member's place in a group.
type Seat struct {
	Member
	Voter bool // it votes and counts for majorities; else it only gets the log
}

// Membership is a group's configuration.
type Membership struct {
	Index uint64 // of the log entry that made it
	Seats []Seat
}

// Seat returns a member's seat.
func (m Membership) Seat(id string) (Seat, bool) {
	for _, s := range m.Seats {
		if s.ID == id {
			return s, true
		}
	}
	return Seat{}, false
}

// Alter is one change of a group's configuration.
type Alter uint8

// The changes of a configuration.
const (
	AddNonvoter Alter = iota + 1 // a member more, without a vote
	Promote                      // a member without a vote gets one
	Demote                       // a voter becomes a member without a vote
	Remove                       // a member less
)

// ErrConfiguration says that a change was made for another configuration than the group has, or makes no sense for it.
// Nothing was changed.
var ErrConfiguration = errors.New("the group's members are others")

// configurations remembers the last configuration that was applied.
type configurations struct {
	mu  sync.Mutex
	now Membership
}

func (c *configurations) set(index uint64, to raft.Configuration) {
	m := Membership{Index: index}
	for _, s := range to.Servers {
		m.Seats = append(m.Seats, Seat{Member{string(s.ID), string(s.Address)}, s.Suffrage == raft.Voter})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if index > c.now.Index {
		c.now = m
	}
}

func (c *configurations) get() Membership {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// StoreConfiguration takes a configuration that was committed.
func (f *fsm) StoreConfiguration(index uint64, to raft.Configuration) {
	f.configurations.set(index, to)
}

var _ raft.ConfigurationStore = (*fsm)(nil)

// Membership returns the group's last configuration that this node knows to be committed; the zero Membership where it
// knows of none. Only after Linearizable is it sure to be the present one.
func (g *Group) Membership() (Membership, error) {
	newest, ok, err := g.snapshots.newest()
	if err != nil {
		return Membership{}, err
	}
	if ok { // one that came, or was left, with a snapshot is not applied
		g.fsm.configurations.set(newest.Raft.ConfigurationIndex, newest.Raft.Configuration)
	}
	return g.fsm.configurations.get(), nil
}

// Alter makes one change to the configuration at index, which must be the present one, and returns when it is committed.
// address is used by AddNonvoter alone. It takes no longer than ctx and Config.ProposeTimeout allow. Errors are
// ErrConfiguration, *NotLeaderError, ErrUnavailable and ErrStopped; where it is ErrIndefinite as well, the change may yet
// be made.
func (g *Group) Alter(ctx context.Context, what Alter, id, address string, index uint64) error {
	ctx, cancel := context.WithTimeout(ctx, g.host.cfg.ProposeTimeout)
	defer cancel()
	if !g.IsLeader() {
		return &NotLeaderError{Leader: g.Leader()}
	}
	now, err := g.Membership()
	if err != nil {
		return err
	}
	if err := now.allows(what, id, index); err != nil {
		return fmt.Errorf("shard %d: %w", g.shard, err)
	}
	if what == Remove && id == g.host.cfg.NodeID {
		return fmt.Errorf("shard %d: %w: a leader does not remove itself", g.shard, ErrConfiguration)
	}
	if seat, ok := now.Seat(id); ok {
		address = seat.Address
	}
	deadline, _ := ctx.Deadline()
	timeout := max(time.Until(deadline), time.Millisecond)
	server, at := raft.ServerID(id), raft.ServerAddress(address)
	err = g.await(ctx, func() raft.Future {
		switch what {
		case AddNonvoter:
			return g.raft.AddNonvoter(server, at, index, timeout)
		case Promote:
			return g.raft.AddVoter(server, at, index, timeout)
		case Demote:
			return g.raft.DemoteVoter(server, index, timeout)
		default:
			return g.raft.RemoveServer(server, index, timeout)
		}
	})
	return g.proposeError(err)
}

// allows refuses a change that is for another configuration, or changes nothing.
func (m Membership) allows(what Alter, id string, index uint64) error {
	seat, ok := m.Seat(id)
	switch {
	case index == 0 || index != m.Index && !mutant.On("late-step-taken"):
		return fmt.Errorf("%w: a change for the configuration at %d, it is at %d", ErrConfiguration, index, m.Index)
	case what == AddNonvoter && ok, what != AddNonvoter && !ok,
		what == Promote && seat.Voter, what == Demote && !seat.Voter, what < AddNonvoter || what > Remove:
		return fmt.Errorf("%w: change %d of %s", ErrConfiguration, what, id)
	}
	return nil
}

// HandTo hands leadership to one voter. It returns when that is done or has failed, within a few election timeouts.
func (g *Group) HandTo(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*g.host.cfg.ElectionTimeout)
	defer cancel()
	if !g.IsLeader() {
		return &NotLeaderError{Leader: g.Leader()}
	}
	now, err := g.Membership()
	if err != nil {
		return err
	}
	seat, _ := now.Seat(id)
	if !seat.Voter {
		return fmt.Errorf("shard %d: %w: %s has no vote", g.shard, ErrConfiguration, id)
	}
	return g.readError(g.await(ctx, func() raft.Future {
		return g.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(seat.Address))
	}))
}

// voters lists the group's voters as its Raft sees them, committed or not.
func (g *Group) voters() []Member {
	var out []Member
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			out = append(out, g.host.book.member(string(s.ID), string(s.Address)))
		}
	}
	return out
}

// Voters returns the ids of the group's voters as this node knows them.
func (g *Group) Voters() []string {
	var out []string
	for _, m := range g.voters() {
		out = append(out, m.ID)
	}
	return out
}

// votes says whether this node is one of the voters.
func (g *Group) votes() bool {
	return slices.ContainsFunc(g.voters(), func(m Member) bool { return m.ID == g.host.cfg.NodeID })
}

// isMember says whether a node is in the group, committed or not.
func (g *Group) isMember(id raft.ServerID) bool {
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}
