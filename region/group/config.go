package group

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
)

// Member is one node of a region as its Raft groups know it. The identity is for ever: a node whose disk was lost comes
// back under another one, because a member that forgets its votes may vote twice.
type Member struct {
	ID      string // names the node, at most MaxName bytes
	Address string // host:port of its Raft listener, as the other members dial it
}

// MaxName bounds the deployment, region and node names in bytes: they travel in the first frame of every connection.
const MaxName = 128

// Config describes a node's Host. Zero fields take the defaults that their comments name.
type Config struct {
	Dir        string // folder of the node's Raft state: locked while open, made when missing
	Deployment string // connections from another deployment are refused
	Region     string // connections from another region are refused
	NodeID     string // which of Members this node is
	// Members are the nodes of the region that are known from the start, this one among them; the groups' own members are
	// in their logs. Host.Learn tells of more, and of other addresses.
	Members []Member
	// Listen is the address to listen on (default: this node's address in Members).
	Listen string
	// Listener, where set, is used instead of Listen. The Host owns it from Open on, also when Open fails.
	Listener net.Listener

	// Expelled, if set, is told once when a node of the region says that this one was removed from it.
	Expelled func()

	Logger hclog.Logger // default: none
	// Fatal is told of failures after which nothing this process says about its log can be trusted: a failed write or
	// fsync, or one that hangs. It is to end the process and not to return; where it does return (tests), every later
	// write of the node's stores fails with the first error, and Raft may panic over that. Required.
	Fatal func(error)

	// HeartbeatTimeout is how long a follower waits for its leader before it asks for votes (default 3 s). The only voter
	// waits for nobody. Short ones cost: a leader sends heartbeats ten times as often, for every group. Whoever finds out
	// sooner that a leader is lost calls Campaign.
	HeartbeatTimeout time.Duration
	// ElectionTimeout is how long a candidate waits for votes; at least HeartbeatTimeout, which is the default.
	ElectionTimeout time.Duration
	// LeaderLeaseTimeout is how long a leader leads without hearing from a majority; at most HeartbeatTimeout, and at least
	// a quarter of it, since heartbeats come no more often than every fifth (default half of it).
	LeaderLeaseTimeout time.Duration
	// CommitTimeout is how long the leader of an idle group waits before it repeats its commit index (default 1 s). It has
	// told it before, right after the last entry.
	CommitTimeout time.Duration
	// TransportTimeout bounds one remote call (default 5 s); a snapshot gets it once per 256 KiB.
	TransportTimeout time.Duration
	// ProposeTimeout bounds Propose and Linearizable where their context does not (default 10 s).
	ProposeTimeout time.Duration
	// StallTimeout is how long one call of the log and stable stores may take before the node gives up its leaderships, until
	// the call returns (default 1 s).
	StallTimeout time.Duration
	// StoreTimeout is how long one may take before the disk counts as hung, which is Fatal (default 10 s).
	StoreTimeout time.Duration

	// SnapshotEntries and SnapshotBytes are the commands applied since the last snapshot that make a new one (defaults
	// 4,096 and 64 MiB); for a group that is a quarter more or less, so that not all of them are due together. They bound
	// what is replayed after a crash.
	SnapshotEntries uint64
	SnapshotBytes   uint64
	// TrailingEntries and TrailingBytes are what the log keeps behind its end after a snapshot, whichever is less, for
	// followers and for peers in other regions (defaults 16,384 and 64 MiB).
	TrailingEntries uint64
	TrailingBytes   uint64
	// SnapshotRate bounds the bytes a second of snapshots that the node sends to lagging members; 0 is no bound.
	SnapshotRate int64
	// HoldBytes bounds what the log keeps beyond TrailingBytes for members that are being sent a snapshot, or have just had
	// one (default 512 MiB).
	HoldBytes uint64
	// MaxCommand bounds one command in bytes (default 16 MiB).
	MaxCommand int
	// MaxUnderWay bounds the bytes of commands that were proposed here and have no outcome yet, by group (default 64 MiB).
	MaxUnderWay int64

	// MaxBacklog bounds the bytes of entries that are committed and not yet applied here, by group (default 64 MiB).
	MaxBacklog int64

	logFS vfs.FS // of the log store; nil for the disk. Tests have it fail.
}

// withDefaults returns a copy whose zero fields are filled in.
func (c Config) withDefaults() Config {
	c.Members = slices.Clone(c.Members)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	orDuration(&c.HeartbeatTimeout, 3*time.Second)
	orDuration(&c.ElectionTimeout, c.HeartbeatTimeout)
	orDuration(&c.LeaderLeaseTimeout, c.HeartbeatTimeout/2)
	orDuration(&c.CommitTimeout, time.Second)
	orDuration(&c.TransportTimeout, 5*time.Second)
	orDuration(&c.ProposeTimeout, 10*time.Second)
	orDuration(&c.StoreTimeout, 10*time.Second)
	orDuration(&c.StallTimeout, min(c.StoreTimeout, time.Second))
	orUint(&c.SnapshotEntries, 4<<10)
	orUint(&c.SnapshotBytes, 64<<20)
	orUint(&c.TrailingEntries, 16<<10)
	orUint(&c.TrailingBytes, 64<<20)
	orUint(&c.HoldBytes, 512<<20)
	if c.MaxCommand == 0 {
		c.MaxCommand = 16 << 20
	}
	if c.MaxUnderWay == 0 {
		c.MaxUnderWay = 64 << 20
	}
	if c.MaxBacklog == 0 {
		c.MaxBacklog = 64 << 20
	}
	if c.Listen == "" {
		if self, ok := c.member(c.NodeID); ok {
			c.Listen = self.Address
		}
	}
	return c
}

func orDuration(field *time.Duration, fallback time.Duration) {
	if *field == 0 {
		*field = fallback
	}
}

func orUint(field *uint64, fallback uint64) {
	if *field == 0 {
		*field = fallback
	}
}

// Validate reports every rule the configuration breaks, after defaults are filled in.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	refuse := func(broken bool, format string, args ...any) {
		if broken {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(c.Dir == "", "Dir: must be set")
	refuse(c.Fatal == nil, "Fatal: must be set")
	for _, name := range [...]struct{ field, value string }{
		{"Deployment", c.Deployment}, {"Region", c.Region}, {"NodeID", c.NodeID},
	} {
		refuse(name.value == "" || len(name.value) > MaxName, "%s: %q must have 1 to %d bytes", name.field, name.value, MaxName)
	}
	_, ok := c.member(c.NodeID)
	refuse(!ok, "NodeID: %q is none of Members", c.NodeID)
	seen := make(map[string]string)
	for i, m := range c.Members {
		refuse(m.ID == "" || len(m.ID) > MaxName, "Members[%d].ID: %q must have 1 to %d bytes", i, m.ID, MaxName)
		_, _, err := net.SplitHostPort(m.Address)
		refuse(err != nil, "Members[%d].Address: %q is not host:port", i, m.Address)
		for _, key := range [...]string{"id " + m.ID, "address " + m.Address} {
			refuse(seen[key] != "", "Members[%d]: %s is given twice", i, key)
			seen[key] = m.ID
		}
	}
	for _, d := range [...]struct {
		field string
		value time.Duration
	}{
		{"HeartbeatTimeout", c.HeartbeatTimeout}, {"ElectionTimeout", c.ElectionTimeout},
		{"LeaderLeaseTimeout", c.LeaderLeaseTimeout}, {"CommitTimeout", c.CommitTimeout},
		{"TransportTimeout", c.TransportTimeout}, {"ProposeTimeout", c.ProposeTimeout}, {"StoreTimeout", c.StoreTimeout},
		{"StallTimeout", c.StallTimeout},
	} {
		refuse(d.value < 5*time.Millisecond, "%s: %v must be at least 5ms", d.field, d.value)
	}
	refuse(c.ElectionTimeout < c.HeartbeatTimeout, "ElectionTimeout: %v must be at least HeartbeatTimeout, %v",
		c.ElectionTimeout, c.HeartbeatTimeout)
	refuse(c.LeaderLeaseTimeout > c.HeartbeatTimeout, "LeaderLeaseTimeout: %v must be at most HeartbeatTimeout, %v",
		c.LeaderLeaseTimeout, c.HeartbeatTimeout)
	refuse(c.StallTimeout > c.StoreTimeout, "StallTimeout: %v must be at most StoreTimeout, %v", c.StallTimeout, c.StoreTimeout)
	refuse(c.LeaderLeaseTimeout < c.HeartbeatTimeout/4, "LeaderLeaseTimeout: %v must be at least a quarter of HeartbeatTimeout, "+
		"%v: heartbeats come no more often than every fifth", c.LeaderLeaseTimeout, c.HeartbeatTimeout)
	refuse(c.MaxCommand < 0 || c.MaxCommand > 1<<30, "MaxCommand: %d must be 1 to %d", c.MaxCommand, 1<<30)
	refuse(c.MaxUnderWay < 0, "MaxUnderWay: %d must not be negative", c.MaxUnderWay)
	refuse(c.MaxBacklog < 0, "MaxBacklog: %d must not be negative", c.MaxBacklog)
	if len(errs) > 0 {
		return fmt.Errorf("group config: %w", errors.Join(errs...))
	}
	return nil
}

func (c Config) member(id string) (Member, bool) {
	for _, m := range c.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}
