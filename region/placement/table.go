package placement

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Version is the version of an encoded Table.
const Version = 1

// Bounds of a Table. Decoding refuses more.
const (
	MaxTable  = 1 << 20 // bytes, encoded
	MaxNodes  = 256     // nodes that a region ever had: names of removed ones are kept
	MaxShards = 1024
	MaxWeight = 1000
	maxName   = 63  // bytes of a node's id or a zone
	maxReach  = 255 // bytes of an address
)

var (
	// ErrTable marks bytes that are no Table, or one that contradicts itself.
	ErrTable = errors.New("malformed placement table")
	// ErrNewer marks a Table that a newer version of watershed has written.
	ErrNewer = errors.New("the placement table was written by a newer version of watershed")
)

// State is where a node is in its life. It only moves forward.
type State string

// The states of a node.
const (
	Joining  State = "joining"  // admitted; it holds no shard's vote yet
	Active   State = "active"   // holds replicas
	Draining State = "draining" // its replicas move to other nodes
	Removed  State = "removed"  // gone for good: its id is never given again
)

// Node is a node of the region and where the others reach it.
type Node struct {
	ID     string `json:"id"`
	Raft   string `json:"raft"`
	GRPC   string `json:"grpc"`
	HTTP   string `json:"http"`
	Zone   string `json:"zone,omitempty"`
	Weight int    `json:"weight"` // its share of replicas and leaders is in proportion to it
	State  State  `json:"state"`
	Leave  bool   `json:"leave,omitempty"` // it is removed once it is drained
}

// Table is what a region has decided on its nodes and on who holds which shard. Shard 0 keeps it. What it says of a shard
// is the aim; where the shard's group stands, the group alone knows.
type Table struct {
	Version     int        `json:"version"`
	Replication int        `json:"replication"` // voters of each shard
	Nodes       []Node     `json:"nodes"`       // by id
	Shards      [][]string `json:"shards"`      // voters of each shard by number; the first is to lead
	Plan        uint64     `json:"plan"`        // how often the aim has changed
	Done        uint64     `json:"done"`        // the last plan that was carried out
	Reason      string     `json:"reason"`      // of the last plan, for people
}

// Encode returns the table as it is kept.
func (t *Table) Encode() ([]byte, error) {
	t.Version = Version
	b, err := json.Marshal(t)
	if err == nil && len(b) > MaxTable {
		err = fmt.Errorf("%w: %d bytes, at most %d are kept", ErrTable, len(b), MaxTable)
	}
	return b, err
}

// Decode takes what Encode returned. It fails with ErrTable or ErrNewer.
func Decode(b []byte) (*Table, error) {
	if len(b) > MaxTable {
		return nil, fmt.Errorf("%w: %d bytes", ErrTable, len(b))
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTable, err)
	}
	if head.Version > Version {
		return nil, fmt.Errorf("%w: its format is %d, this one knows up to %d", ErrNewer, head.Version, Version)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	t := &Table{}
	if err := d.Decode(t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTable, err)
	}
	return t, t.check()
}

// check fails where the table contradicts itself.
func (t *Table) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrTable, fmt.Sprintf(format, args...))
	}
	switch {
	case t.Version != Version:
		return bad("version %d", t.Version)
	case t.Replication != 1 && t.Replication != 3 && t.Replication != 5:
		return bad("a replication of %d", t.Replication)
	case len(t.Nodes) == 0 || len(t.Nodes) > MaxNodes || len(t.Shards) == 0 || len(t.Shards) > MaxShards:
		return bad("%d nodes and %d shards", len(t.Nodes), len(t.Shards))
	case t.Done > t.Plan:
		return bad("plan %d of %d is done", t.Done, t.Plan)
	}
	for i, n := range t.Nodes {
		if err := n.check(); err != nil {
			return bad("%v", err)
		}
		if i > 0 && t.Nodes[i-1].ID >= n.ID {
			return bad("nodes are not in order at %q", n.ID)
		}
	}
	for i, voters := range t.Shards {
		if len(voters) != t.Replication {
			return bad("shard %d has %d replicas", i, len(voters))
		}
		for j, id := range voters {
			if n, ok := t.Node(id); !ok || n.State == Removed || slices.Contains(voters[:j], id) {
				return bad("shard %d is on %q", i, id)
			}
		}
	}
	return nil
}

func (n Node) check() error {
	switch n.State {
	case Joining, Active, Draining, Removed:
	default:
		return fmt.Errorf("node %q is %q", n.ID, n.State)
	}
	if n.ID == "" || len(n.ID) > maxName || len(n.Zone) > maxName {
		return fmt.Errorf("node %q in zone %q: a name has 1 to %d bytes", n.ID, n.Zone, maxName)
	}
	if n.Weight < 1 || n.Weight > MaxWeight {
		return fmt.Errorf("node %s has weight %d, want 1 to %d", n.ID, n.Weight, MaxWeight)
	}
	for _, a := range [...]string{n.Raft, n.GRPC, n.HTTP} {
		if a == "" || len(a) > maxReach {
			return fmt.Errorf("node %s has an address of %d bytes, want 1 to %d", n.ID, len(a), maxReach)
		}
	}
	return nil
}

// Found returns the table of a new region. It is the same for any order of nodes, so each of them makes it by itself. The
// replication is lowered to an odd number of nodes that there are.
func Found(nodes []Node, shards, replication int) (*Table, error) {
	for replication > len(nodes) && replication > 1 {
		replication -= 2
	}
	t := &Table{Version: Version, Replication: replication, Shards: make([][]string, shards), Plan: 1, Reason: "the region was founded"}
	for _, n := range nodes {
		n.State, n.Leave = Active, false
		t.Nodes = append(t.Nodes, n)
	}
	slices.SortFunc(t.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	if err := t.assign(); err != nil {
		return nil, err
	}
	return t, t.check()
}

// Clone returns a copy that shares nothing with t.
func (t *Table) Clone() *Table {
	c := *t
	c.Nodes = slices.Clone(t.Nodes)
	c.Shards = make([][]string, len(t.Shards))
	for i, voters := range t.Shards {
		c.Shards[i] = slices.Clone(voters)
	}
	return &c
}

// Node returns a node by its id.
func (t *Table) Node(id string) (Node, bool) {
	i, ok := t.find(id)
	if !ok {
		return Node{}, false
	}
	return t.Nodes[i], true
}

func (t *Table) find(id string) (int, bool) {
	return slices.BinarySearchFunc(t.Nodes, id, func(n Node, id string) int { return cmp.Compare(n.ID, id) })
}

// Present lists the nodes that were not removed.
func (t *Table) Present() []Node {
	return slices.DeleteFunc(slices.Clone(t.Nodes), func(n Node) bool { return n.State == Removed })
}

// Holds reports whether a node is to hold a replica of a shard. Every present node holds one of shard 0, since that keeps
// the registry and this table; only its voters vote on it.
func (t *Table) Holds(id string, shard int) bool {
	n, ok := t.Node(id)
	if !ok || n.State == Removed || shard >= len(t.Shards) {
		return false
	}
	return shard == 0 || slices.Contains(t.Shards[shard], id)
}

// Of lists the shards that a node is to vote on.
func (t *Table) Of(id string) []int {
	var out []int
	for i, voters := range t.Shards {
		if slices.Contains(voters, id) {
			out = append(out, i)
		}
	}
	return out
}
