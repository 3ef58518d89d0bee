package carrier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// Note is the name of shard 0's note that holds the placement table.
const Note = "placement"

const (
	// atOnce is how many groups are changed at a time: each may have a node to bring up to date.
	atOnce = 2
	// busy and calm are between looks, with a plan under way and without.
	busy = 50 * time.Millisecond
	calm = time.Second
	// stepWithin bounds one step, writeWithin the writing down of a table.
	stepWithin  = 3 * time.Second
	writeWithin = 3 * time.Second
)

// ErrBusy says that others changed the table at the same time, again and again.
var ErrBusy = errors.New("the placement table changes under our hands")

// Options says what a Carrier works with.
type Options struct {
	Deployment string
	Self       string // this node's id
	Router     *router.Router
	Conns      *router.Conns // not closed here
	// Founding is the table that a region without one begins with; nil on a node that did not found it.
	Founding *placement.Table
	// Restored is the index of shard 0 that a restored region began at, else 0: a table that was written up to there is of
	// the nodes that the region had before.
	Restored uint64
	// Short, if set, says whether a node lacks room on its disk: it is not to lead then.
	Short  func(node string) bool
	Logger hclog.Logger // default: none
}

// Carrier carries out placement plans. It is safe for any goroutine.
type Carrier struct {
	o Options

	mu struct {
		sync.Mutex
		revision uint64 // of the note that table was decoded from
		table    *placement.Table
	}
}

// New returns a Carrier.
func New(o Options) *Carrier {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return &Carrier{o: o}
}

// Table returns the region's table as this node has it, and its revision; nil where there is none yet.
func (c *Carrier) Table() (*placement.Table, uint64, error) {
	kept := c.o.Router.State(0).Note(Note)
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept.Index <= c.o.Restored {
		return nil, kept.Revision, nil
	}
	if c.mu.revision != kept.Revision {
		table, err := placement.Decode(kept.Value)
		if err != nil {
			return nil, 0, err
		}
		c.mu.revision, c.mu.table = kept.Revision, table
	}
	return c.mu.table, c.mu.revision, nil
}

// write puts a table in the place of the one of a revision; false where that is another one by now.
func (c *Carrier) write(ctx context.Context, t *placement.Table, revision uint64) (bool, error) {
	value, err := t.Encode()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	result, err := c.o.Router.Propose(ctx, 0, &shard.Note{Name: Note, Revision: revision, Value: value})
	switch {
	case err != nil:
		return false, err
	case result.Outcome == shard.Applied, result.Outcome == shard.Duplicate:
		return true, nil
	case result.Outcome == shard.Refused:
		return false, nil
	}
	return false, fmt.Errorf("the placement table is not taken: %v: %s", result.Outcome, result.Reason)
}

// Change has the table replaced by what change makes of it and of how the region stands. It is written down when Change
// returns. It is for the leader of shard 0; elsewhere it fails with group.ErrNotLeader.
func (c *Carrier) Change(ctx context.Context, change func(*placement.Table, placement.Observed) (*placement.Table, error)) (
	*placement.Table, error,
) {
	here := c.o.Router.Replica(0)
	for range 5 {
		if err := here.Linearizable(ctx); err != nil {
			return nil, err
		}
		table, revision, err := c.Table()
		if err != nil {
			return nil, err
		}
		if table == nil {
			return nil, fmt.Errorf("%w: the region has no placement table yet", group.ErrUnavailable)
		}
		next, err := change(table, c.Observe(ctx, table))
		if err != nil || next == table {
			return next, err
		}
		done, err := c.write(ctx, next, revision)
		if err != nil {
			return nil, err
		}
		if done {
			c.o.Logger.Info("placement", "plan", next.Plan, "reason", next.Reason)
			return next, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", group.ErrUnavailable, ErrBusy)
}

// Run carries out plans until ctx ends: it is a task of shard 0's leader. Another one that takes over goes on from the
// table and the groups.
func (c *Carrier) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause, err := c.look(ctx)
		if err != nil && ctx.Err() == nil {
			c.o.Logger.Warn("a placement plan is held up; trying again", "error", err)
			pause = calm
		}
		changed := c.o.Router.Replica(0).Changed()
		if pause == calm { // a table that was just written wakes it
			_, revision, _ := c.Table()
			c.idle(ctx, changed, revision)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// idle waits for another table, but no longer than calm.
func (c *Carrier) idle(ctx context.Context, changed <-chan struct{}, revision uint64) {
	enough := time.NewTimer(calm)
	defer enough.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-enough.C:
			return
		case <-changed:
		}
		changed = c.o.Router.Replica(0).Changed()
		if c.o.Router.State(0).Note(Note).Revision != revision {
			return
		}
	}
}

// look makes the steps that are due now. It returns how long to wait before the next look.
func (c *Carrier) look(ctx context.Context) (time.Duration, error) {
	table, revision, err := c.Table()
	if err != nil {
		return calm, err
	}
	if table == nil {
		if c.o.Founding == nil {
			return calm, nil
		}
		_, err := c.write(ctx, c.o.Founding, revision)
		return busy, err
	}
	pause := calm
	for _, n := range table.Nodes {
		if n.State == placement.Joining || n.State == placement.Draining && n.Leave {
			pause = busy
		}
	}
	if table.Done < table.Plan {
		pause = busy
	}
	now := c.Observe(ctx, table)
	if next := table.Turn(now); next != nil {
		_, err := c.write(ctx, next, revision)
		return busy, err
	}
	for _, s := range table.Next(now, atOnce) {
		if err := c.step(ctx, table, now, s); err != nil {
			return pause, fmt.Errorf("%v: %w", s, err)
		}
		pause = busy
	}
	return pause, nil
}

// step has a group's leader make a change.
func (c *Carrier) step(ctx context.Context, t *placement.Table, o placement.Observed, s placement.Step) error {
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	leader, _ := t.Node(o.Groups[s.Shard].Leader)
	node, _ := t.Node(s.Node)
	c.o.Logger.Info("placement step", "shard", s.Shard, "step", s.Op.String(), "node", s.Node, "leader", leader.ID)
	if leader.ID == c.o.Self {
		return Alter(ctx, c.o.Router.Local(), s, node.Raft)
	}
	err := c.alterAt(ctx, leader.GRPC, s, node.Raft)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Removed lists the nodes that were removed from the region.
func Removed(t *placement.Table) []string {
	var out []string
	for _, n := range t.Nodes {
		if n.State == placement.Removed {
			out = append(out, n.ID)
		}
	}
	return out
}

// LayoutOf returns what the router wants to know of a table.
func LayoutOf(t *placement.Table) router.Layout {
	l := router.Layout{Holders: make([][]string, len(t.Shards))}
	for _, n := range t.Present() {
		l.Nodes = append(l.Nodes, router.Node{ID: n.ID, GRPC: n.GRPC, Raft: n.Raft})
	}
	for i, voters := range t.Shards {
		l.Holders[i] = slices.Clone(voters)
	}
	return l
}
