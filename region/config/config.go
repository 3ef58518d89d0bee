// Package config is a node's configuration file: what it may say, how it is read, and which rules it must keep.
// deploy/node.yaml describes every field.
package config

import (
	"time"

	"github.com/watershed-db/watershed/crdt"
)

// Config is a node's configuration. Parse fills in the defaults that deploy/node.yaml names.
type Config struct {
	Deployment string   `yaml:"deployment"`
	Region     string   `yaml:"region"`
	Node       string   `yaml:"node"`
	Data       string   `yaml:"data"`
	Shards     int      `yaml:"shards"`
	Regions    []Region `yaml:"regions"`
	Owner      string   `yaml:"owner,omitempty"` // of the shards, at first
	Nodes      []Node   `yaml:"nodes"`
	// Replication is how many nodes vote on each shard, of a region that is founded (default 3, less where the nodes are).
	Replication int `yaml:"replication,omitempty"`
	// Join says that this node did not found the region: Nodes are itself and those it asks first.
	Join   bool   `yaml:"join,omitempty"`
	Listen Listen `yaml:"listen,omitempty"`
	Kafka  Kafka  `yaml:"kafka"`
	Worker Worker `yaml:"worker,omitempty"`
	Raft   Raft   `yaml:"raft,omitempty"`
	Store  Store  `yaml:"store,omitempty"`
	Peers  Peers  `yaml:"peers,omitempty"`
	// Ownership tunes how shards' owners are agreed on. It should be the same in all regions.
	Ownership Ownership `yaml:"ownership,omitempty"`
	// Checkpoints says where the region's state is kept beside its nodes; nowhere where URL is empty.
	Checkpoints Checkpoints `yaml:"checkpoints,omitempty"`
	Limits      Limits      `yaml:"limits,omitempty"`
	Log         Log         `yaml:"log,omitempty"`
}

// Region is a member region of the deployment.
type Region struct {
	Name   string `yaml:"name"`
	Member uint16 `yaml:"member"`
	// GRPC are addresses of the region's nodes as this node dials them; of the own region they are not used.
	GRPC []string `yaml:"grpc,omitempty"`
}

// Node is a node of this region: its name for ever, and where the others reach it.
type Node struct {
	ID   string `yaml:"id"`
	Raft string `yaml:"raft"`
	GRPC string `yaml:"grpc"`
	HTTP string `yaml:"http"`
	// Zone is what may fail as one, such as a rack: no two replicas of a shard are in one zone while there are enough.
	Zone string `yaml:"zone,omitempty"`
	// Weight is the node's share of replicas and leaders (default 1).
	Weight int `yaml:"weight,omitempty"`
}

// Listen overrides the addresses that this node listens on, where they differ from those it is reached at.
type Listen struct {
	Raft string `yaml:"raft,omitempty"`
	GRPC string `yaml:"grpc,omitempty"`
	HTTP string `yaml:"http,omitempty"`
}

// Kafka says how the region's brokers are reached. It holds names of secrets, never secrets.
type Kafka struct {
	Brokers  []string `yaml:"brokers"`
	ClientID string   `yaml:"client_id,omitempty"`
	TLS      *TLS     `yaml:"tls,omitempty"`
	SASL     *SASL    `yaml:"sasl,omitempty"`
}

// TLS names the files of a TLS connection.
type TLS struct {
	CA         string `yaml:"ca,omitempty"`
	Cert       string `yaml:"cert,omitempty"`
	Key        string `yaml:"key,omitempty"`
	ServerName string `yaml:"server_name,omitempty"`
}

// SASL is a user and the name of its password: env:NAME or file:PATH.
type SASL struct {
	Mechanism string `yaml:"mechanism"`
	User      string `yaml:"user"`
	Password  string `yaml:"password"`
}

// Worker bounds what the node's worker does.
type Worker struct {
	Memory        Size     `yaml:"memory,omitempty"`
	FlushInterval Duration `yaml:"flush_interval,omitempty"`
	// EmptyInterval is how often points that moved without a contribution are sent.
	EmptyInterval Duration `yaml:"empty_interval,omitempty"`
}

// Raft tunes the region's Raft groups.
type Raft struct {
	Heartbeat Duration `yaml:"heartbeat,omitempty"` // 0: 3s
	Election  Duration `yaml:"election,omitempty"`
	Lease     Duration `yaml:"lease,omitempty"`
	Commit    Duration `yaml:"commit,omitempty"`
	Propose   Duration `yaml:"propose,omitempty"`
	// LogBytes is what a shard's log keeps behind its end, for followers and for other regions.
	LogBytes Size `yaml:"log_bytes,omitempty"`
}

// Store bounds the memory of the shards' stores.
type Store struct {
	Cache Size `yaml:"cache,omitempty"` // of all shards together
	Table Size `yaml:"table,omitempty"` // of each shard
	// MinFree is what is kept free of the disk: below it new writes are refused. 0: 1 GiB, or a tenth of the disk where
	// that is less.
	MinFree Size `yaml:"min_free,omitempty"`
}

// Limits bounds what a node takes on at a time. What is past a bound is refused with RESOURCE_EXHAUSTED.
type Limits struct {
	GRPC     int  `yaml:"grpc_connections,omitempty"`
	HTTP     int  `yaml:"http_connections,omitempty"`
	Calls    int  `yaml:"calls,omitempty"`     // unary ones under way
	Scans    int  `yaml:"scans,omitempty"`     // streams of rows under way
	Watchers int  `yaml:"watchers,omitempty"`  // streams of changes
	UnderWay Size `yaml:"proposals,omitempty"` // bytes of writes without an outcome, each shard
	Backlog  Size `yaml:"backlog,omitempty"`   // bytes of writes that are committed and not yet applied, each shard
	Jobs     int  `yaml:"jobs,omitempty"`      // that there may be
	// PeerQueue is bytes that wait for other regions to take them, all together.
	PeerQueue Size `yaml:"peer_queue,omitempty"`
}

// Peers tunes what this region does with others.
type Peers struct {
	// UnreachableAfter is for how long nothing is heard from a region before it counts as unreachable.
	UnreachableAfter Duration `yaml:"unreachable_after,omitempty"`
	// Fixed says that other regions are dialed at their configured addresses alone, such as proxies, whatever addresses
	// they tell.
	Fixed bool `yaml:"fixed_addresses,omitempty"`
}

// Ownership says by which times regions agree on the owner of each shard.
type Ownership struct {
	Lease      Duration `yaml:"lease,omitempty"`       // for how long another region's promise binds it
	Margin     Duration `yaml:"margin,omitempty"`      // by how much less the owner counts on it
	ClaimAfter Duration `yaml:"claim_after,omitempty"` // for how long an owner isn't heard before another region claims
	Tick       Duration `yaml:"tick,omitempty"`        // how often leases are asked for
}

// Checkpoints are the region's copies of its state in an object store.
type Checkpoints struct {
	URL      string   `yaml:"url,omitempty"`      // s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=NAME
	Interval Duration `yaml:"interval,omitempty"` // from the begin of one to that of the next
	Keep     int      `yaml:"keep,omitempty"`     // how many stay
	MaxAge   Duration `yaml:"max_age,omitempty"`  // how old one may get
	Rate     Size     `yaml:"rate,omitempty"`     // a node's uploads, in bytes a second; 0: no bound
	// Restore names the checkpoint that a node without data begins with: an id, a savepoint or latest.
	Restore string `yaml:"restore,omitempty"`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `yaml:"level,omitempty"`  // trace, debug, info, warn or error
	Format string `yaml:"format,omitempty"` // text or json
}

// Defaults returns c with the fields that were not given filled in.
func (c Config) Defaults() Config {
	or(&c.Worker.Memory, 256<<20)
	or(&c.Worker.FlushInterval, Duration(40*time.Millisecond))
	or(&c.Worker.EmptyInterval, Duration(time.Second))
	or(&c.Raft.Commit, Duration(time.Second))
	or(&c.Raft.Propose, Duration(10*time.Second))
	or(&c.Raft.LogBytes, 64<<20)
	or(&c.Store.Cache, 128<<20)
	or(&c.Store.Table, 16<<20)
	or(&c.Limits.GRPC, 20_000)
	or(&c.Limits.HTTP, 256)
	or(&c.Limits.Calls, 4096)
	or(&c.Limits.Scans, 128)
	or(&c.Limits.Watchers, 20_000)
	or(&c.Limits.UnderWay, 64<<20)
	or(&c.Limits.Backlog, 64<<20)
	or(&c.Limits.Jobs, 1000)
	or(&c.Limits.PeerQueue, 64<<20)
	or(&c.Peers.UnreachableAfter, Duration(3*time.Second))
	or(&c.Ownership.Lease, Duration(time.Second))
	or(&c.Ownership.Margin, c.Ownership.Lease/50)
	or(&c.Ownership.ClaimAfter, c.Ownership.Lease+c.Ownership.Lease/5)
	or(&c.Ownership.Tick, c.Ownership.Lease/5)
	or(&c.Checkpoints.Interval, Duration(15*time.Second))
	or(&c.Checkpoints.Keep, 40)
	or(&c.Checkpoints.MaxAge, Duration(24*time.Hour))
	or(&c.Log.Level, "info")
	or(&c.Log.Format, "text")
	or(&c.Kafka.ClientID, "watershed")
	if fallback := 3; c.Replication == 0 {
		if len(c.Nodes) < fallback {
			fallback = 1
		}
		c.Replication = fallback
	}
	if c.Owner == "" && len(c.Regions) > 0 {
		c.Owner = c.Regions[0].Name
	}
	if self, ok := c.Self(); ok {
		or(&c.Listen.Raft, self.Raft)
		or(&c.Listen.GRPC, self.GRPC)
		or(&c.Listen.HTTP, self.HTTP)
	}
	return c
}

func or[T comparable](field *T, fallback T) {
	var zero T
	if *field == zero {
		*field = fallback
	}
}

// Self returns the entry of this node.
func (c Config) Self() (Node, bool) {
	for _, n := range c.Nodes {
		if n.ID == c.Node {
			return n, true
		}
	}
	return Node{}, false
}

// Member returns a region of the deployment by its name.
func (c Config) Member(name string) (Region, bool) {
	for _, r := range c.Regions {
		if r.Name == name {
			return r, true
		}
	}
	return Region{}, false
}

// Others lists the regions but the own one, in the order of the file.
func (c Config) Others() []Region {
	var out []Region
	for _, r := range c.Regions {
		if r.Name != c.Region {
			out = append(out, r)
		}
	}
	return out
}

// RegionID returns the own region.
func (c Config) RegionID() crdt.RegionID { return crdt.RegionID(c.Region) }

// RegionIDs lists all member regions, sorted.
func (c Config) RegionIDs() []crdt.RegionID {
	out := make([]crdt.RegionID, 0, len(c.Regions))
	for _, r := range c.Regions {
		out = append(out, crdt.RegionID(r.Name))
	}
	sortIDs(out)
	return out
}
