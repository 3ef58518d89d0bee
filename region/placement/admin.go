package placement

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrUnknown says that the region never had a node of that id.
	ErrUnknown = errors.New("unknown node")
	// ErrGone says that a node was removed: its id is never given again.
	ErrGone = errors.New("was removed from the region; a node id is never used again")
	// ErrTaken says that another node has an id or an address.
	ErrTaken = errors.New("is taken")
	// ErrNode says that what was said of a node can't be.
	ErrNode = errors.New("not a node")
	// ErrMajority says that a group would be without a majority.
	ErrMajority = errors.New("no majority without it")
)

// Add returns the table with a node admitted: it takes part as soon as it runs and has caught up. The same node again
// changes nothing, and then the table is t itself.
func (t *Table) Add(n Node) (*Table, error) {
	n.State, n.Leave = Joining, false
	if n.Weight == 0 {
		n.Weight = 1
	}
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNode, err)
	}
	if old, ok := t.Node(n.ID); ok {
		n.State = old.State
		switch {
		case old.State == Removed:
			return nil, fmt.Errorf("node %s %w", n.ID, ErrGone)
		case old == n:
			return t, nil
		}
		return nil, fmt.Errorf("node id %s %w: it is at %s", n.ID, ErrTaken, old.GRPC)
	}
	for _, other := range t.Present() {
		for _, a := range [...]string{n.Raft, n.GRPC, n.HTTP} {
			if a == other.Raft || a == other.GRPC || a == other.HTTP {
				return nil, fmt.Errorf("address %s %w by node %s", a, ErrTaken, other.ID)
			}
		}
	}
	if len(t.Nodes) == MaxNodes {
		return nil, fmt.Errorf("%w: the region has had %d nodes, more are not kept", ErrNode, MaxNodes)
	}
	c := t.Clone()
	c.Nodes = append(c.Nodes, n)
	c.order()
	return c, nil
}

// Drain returns the table with a node's replicas moved to the others. It fails with ErrTooFew where they are too few.
func (t *Table) Drain(id string) (*Table, error) {
	n, err := t.present(id)
	if err != nil {
		return nil, err
	}
	if n.State == Draining {
		return t, nil
	}
	c := t.Clone()
	i, _ := c.find(id)
	c.Nodes[i].State = Draining
	if err := c.plan("node %s is drained", id); err != nil {
		return nil, fmt.Errorf("node %s can't be drained, it holds %s: %w", id, shards(t.Of(id)), err)
	}
	return c, nil
}

// Remove returns the table with a node drained and then removed for good. It fails with ErrMajority where a group has no
// majority without the node, as it stands, and with ErrTooFew where its replicas have nowhere to go.
func (t *Table) Remove(id string, o Observed) (*Table, error) {
	n, err := t.present(id)
	if err != nil {
		return nil, err
	}
	if n.Leave {
		return t, nil
	}
	var needed []int
	for i := range t.Shards {
		if i >= len(o.Groups) || o.Groups[i].Leader == "" {
			needed = append(needed, i) // nobody knows
			continue
		}
		if m, ok := o.Groups[i].member(id); ok && m.Voter && len(o.Groups[i].Members) > 1 && !safeWithout(&o.Groups[i], id, o.Up) {
			needed = append(needed, i)
		}
	}
	if len(needed) > 0 {
		return nil, fmt.Errorf("node %s can't be removed, %s: %w", id, shards(needed), ErrMajority)
	}
	if c := t.Clone(); n.State == Draining || n.State == Joining {
		i, _ := c.find(id)
		c.Nodes[i].State, c.Nodes[i].Leave = Draining, true
		c.Plan++
		c.Reason = fmt.Sprintf("node %s is removed", id)
		return c, nil
	}
	c, err := t.Drain(id)
	if err != nil {
		return nil, err
	}
	i, _ := c.find(id)
	c.Nodes[i].Leave = true
	c.Reason = fmt.Sprintf("node %s is removed", id)
	return c, nil
}

func (t *Table) present(id string) (Node, error) {
	n, ok := t.Node(id)
	switch {
	case !ok:
		return n, fmt.Errorf("%w %s", ErrUnknown, strconv.Quote(id))
	case n.State == Removed:
		return n, fmt.Errorf("node %s %w", id, ErrGone)
	}
	return n, nil
}

// shards names shards for people.
func shards(list []int) string {
	if len(list) == 0 {
		return "no shard"
	}
	slices.Sort(list)
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = strconv.Itoa(s)
	}
	return "shard " + strings.Join(names, ", ")
}
