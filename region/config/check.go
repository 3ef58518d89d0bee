package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

// Bounds of a configuration.
const (
	MaxShards = 1024
	MaxNodes  = 64
	MaxWeight = 1000
	MaxName   = 63 // bytes of the deployment's and a node's name
)

// MinLogBytes is the least that a shard's log keeps.
const MinLogBytes Size = 64 << 10

// problem is a rule that a configuration breaks, and where.
type problem struct{ path, what, expected string }

// checker gathers problems.
type checker struct{ list []problem }

func (k *checker) refuse(broken bool, path, expected, format string, args ...any) {
	if broken {
		k.list = append(k.list, problem{path, fmt.Sprintf(format, args...), expected})
	}
}

// Validate returns every rule that c breaks, after defaults.
func (c Config) Validate() error {
	var errs []error
	for _, p := range c.Defaults().problems() {
		errs = append(errs, fmt.Errorf("%s %s; expected %s", p.path, p.what, p.expected))
	}
	return errors.Join(errs...)
}

// problems lists the rules that a configuration with defaults breaks.
func (c Config) problems() []problem {
	k := &checker{}
	k.name("deployment", c.Deployment)
	k.refuse(c.Data == "", "data", "a folder", "is empty")
	k.refuse(c.Shards < 1 || c.Shards > MaxShards, "shards", fmt.Sprintf("1 to %d", MaxShards), "is %d", c.Shards)
	k.regions(c)
	k.nodes(c)
	for _, l := range [...]struct{ path, address string }{
		{"listen.raft", c.Listen.Raft}, {"listen.grpc", c.Listen.GRPC}, {"listen.http", c.Listen.HTTP},
	} {
		k.refuse(l.address != "" && !isAddress(l.address), l.path, "HOST:PORT", "is %q", l.address)
	}
	k.kafka(c.Kafka)
	k.tuning(c)
	k.checkpoints(c.Checkpoints)
	k.limits(c.Limits, c.Store.MinFree)
	return k.list
}

func (k *checker) name(path, name string) {
	ok := name != "" && len(name) <= MaxName
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	k.refuse(!ok, path, fmt.Sprintf("1 to %d letters, digits, dots, dashes and underscores", MaxName), "is %q", name)
}

func (k *checker) regions(c Config) {
	k.refuse(len(c.Regions) == 0, "regions", "the deployment's regions, the own one among them", "is empty")
	names, members := map[string]bool{}, map[uint16]bool{}
	for i, r := range c.Regions {
		at := fmt.Sprintf("regions[%d]", i)
		err := crdt.RegionID(r.Name).Validate()
		k.refuse(err != nil, at+".name", "a region's name: a-z, 0-9 and dashes", "is %q", r.Name)
		k.refuse(names[r.Name], at+".name", "each region once", "is %q again", r.Name)
		k.refuse(r.Member == 0, at+".member", "1 to 65535, never given twice", "is 0")
		k.refuse(members[r.Member], at+".member", "a number of its own for each region", "is %d again", r.Member)
		names[r.Name], members[r.Member] = true, true
		k.refuse(r.Name != c.Region && len(r.GRPC) == 0, at, "grpc: [HOST:PORT, ...] of that region's nodes", "lacks \"grpc\"")
		for j, a := range r.GRPC {
			k.refuse(!isAddress(a), fmt.Sprintf("%s.grpc[%d]", at, j), "HOST:PORT", "is %q", a)
		}
	}
	k.refuse(!names[c.Region], "region", "one of regions", "is %q", c.Region)
	k.refuse(!names[c.Owner], "owner", "one of regions", "is %q", c.Owner)
}

func (k *checker) nodes(c Config) {
	n := len(c.Nodes)
	k.refuse(n == 0 || n > MaxNodes, "nodes", fmt.Sprintf("1 to %d nodes of this region", MaxNodes), "has %d entries", n)
	ids, addresses := map[string]bool{}, map[string]bool{}
	for i, n := range c.Nodes {
		at := fmt.Sprintf("nodes[%d]", i)
		k.name(at+".id", n.ID)
		k.refuse(ids[n.ID], at+".id", "each node once", "is %q again", n.ID)
		ids[n.ID] = true
		k.refuse(n.Weight < 0 || n.Weight > MaxWeight, at+".weight", fmt.Sprintf("1 to %d", MaxWeight), "is %d", n.Weight)
		k.refuse(len(n.Zone) > MaxName, at+".zone", fmt.Sprintf("at most %d bytes", MaxName), "is %q", n.Zone)
		for _, a := range [...]struct{ name, address string }{{"raft", n.Raft}, {"grpc", n.GRPC}, {"http", n.HTTP}} {
			k.refuse(!isAddress(a.address), at+"."+a.name, "HOST:PORT", "is %q", a.address)
			k.refuse(addresses[a.address], at+"."+a.name, "an address of its own", "is %q again", a.address)
			addresses[a.address] = true
		}
	}
	k.refuse(c.Replication != 1 && c.Replication != 3 && c.Replication != 5, "replication", "1, 3 or 5", "is %d", c.Replication)
	k.refuse(!c.Join && c.Replication > n, "replication", fmt.Sprintf("at most %d, the number of nodes", n), "is %d", c.Replication)
	k.refuse(c.Join && len(c.Nodes) < 2, "join", "a node of the region to ask besides this one", "is set, and nodes has this one alone")
	k.refuse(!ids[c.Node], "node", "the id of one of nodes", "is %q", c.Node)
}

func (k *checker) kafka(c Kafka) {
	k.refuse(len(c.Brokers) == 0, "kafka.brokers", "at least one HOST:PORT", "is empty")
	for i, b := range c.Brokers {
		k.refuse(!isAddress(b), fmt.Sprintf("kafka.brokers[%d]", i), "HOST:PORT", "is %q", b)
	}
	if c.TLS != nil {
		k.refuse((c.TLS.Cert == "") != (c.TLS.Key == ""), "kafka.tls", "cert and key, both or neither", "has one of cert and key")
	}
	if c.SASL == nil {
		return
	}
	mechanisms := []string{"plain", "scram-sha-256", "scram-sha-512"}
	k.refuse(!slices.Contains(mechanisms, c.SASL.Mechanism), "kafka.sasl.mechanism", strings.Join(mechanisms, " | "),
		"is %q", c.SASL.Mechanism)
	k.refuse(c.SASL.User == "", "kafka.sasl.user", "a user", "is empty")
	scheme, name, _ := strings.Cut(c.SASL.Password, ":")
	// The message must not repeat what may be the secret itself.
	k.refuse(scheme != "env" && scheme != "file" || name == "", "kafka.sasl.password", "env:NAME or file:PATH",
		"is not the name of a secret")
}

func (k *checker) tuning(c Config) {
	for _, d := range [...]struct {
		path     string
		value    Duration
		low, top time.Duration
	}{
		{"worker.flush_interval", c.Worker.FlushInterval, time.Millisecond, 10 * time.Second},
		{"worker.empty_interval", c.Worker.EmptyInterval, 10 * time.Millisecond, time.Minute},
		{"raft.heartbeat", c.Raft.Heartbeat, 10 * time.Millisecond, time.Minute},
		{"raft.election", c.Raft.Election, 10 * time.Millisecond, time.Minute},
		{"raft.lease", c.Raft.Lease, 5 * time.Millisecond, time.Minute},
		{"raft.commit", c.Raft.Commit, 5 * time.Millisecond, time.Minute},
		{"raft.propose", c.Raft.Propose, 100 * time.Millisecond, time.Minute},
		{"peers.unreachable_after", c.Peers.UnreachableAfter, 100 * time.Millisecond, time.Hour},
		{"ownership.lease", c.Ownership.Lease, 100 * time.Millisecond, 2 * time.Minute},
		{"ownership.margin", c.Ownership.Margin, time.Millisecond, time.Minute},
		{"ownership.claim_after", c.Ownership.ClaimAfter, 100 * time.Millisecond, 10 * time.Minute},
		{"ownership.tick", c.Ownership.Tick, 10 * time.Millisecond, time.Minute},
		{"checkpoints.interval", c.Checkpoints.Interval, 100 * time.Millisecond, 24 * time.Hour},
		{"checkpoints.max_age", c.Checkpoints.MaxAge, time.Minute, 10 * 366 * 24 * time.Hour},
	} {
		unset := d.value == 0 && strings.HasPrefix(d.path, "raft.")
		k.refuse(!unset && (d.value.D() < d.low || d.value.D() > d.top), d.path, fmt.Sprintf("%s to %s", d.low, d.top),
			"is %s", d.value)
	}
	for _, s := range [...]struct {
		path     string
		value    Size
		low, top Size
	}{
		{"worker.memory", c.Worker.Memory, 16 << 20, 1 << 40}, {"store.cache", c.Store.Cache, 1 << 20, 1 << 40},
		{"store.table", c.Store.Table, 64 << 10, 1 << 30}, {"raft.log_bytes", c.Raft.LogBytes, MinLogBytes, 1 << 40},
	} {
		k.refuse(s.value < s.low || s.value > s.top, s.path, fmt.Sprintf("%s to %s", s.low, s.top), "is %s", s.value)
	}
	o := c.Ownership
	k.refuse(o.Margin > o.Lease/2, "ownership.margin", "half of ownership.lease or less", "is %s", o.Margin)
	k.refuse(o.ClaimAfter < o.Lease, "ownership.claim_after", "ownership.lease or more", "is %s", o.ClaimAfter)
	k.refuse(o.Tick > o.Lease/3, "ownership.tick", "a third of ownership.lease or less", "is %s", o.Tick)
	r := c.Raft
	k.refuse(r.Election != 0 && r.Heartbeat != 0 && r.Election < r.Heartbeat, "raft.election", "raft.heartbeat or more",
		"is %s", r.Election)
	k.refuse(r.Lease != 0 && r.Heartbeat != 0 && r.Lease < r.Heartbeat/4, "raft.lease", "a quarter of raft.heartbeat or more", "is %s", r.Lease)
	k.refuse(r.Lease != 0 && r.Heartbeat != 0 && r.Lease > r.Heartbeat, "raft.lease", "raft.heartbeat or less", "is %s", r.Lease)
	levels := []string{"trace", "debug", "info", "warn", "error"}
	k.refuse(!slices.Contains(levels, c.Log.Level), "log.level", strings.Join(levels, " | "), "is %q", c.Log.Level)
	k.refuse(c.Log.Format != "text" && c.Log.Format != "json", "log.format", "text | json", "is %q", c.Log.Format)
}

func (k *checker) checkpoints(c Checkpoints) {
	if c.URL != "" {
		_, err := objects.ParseLocation(c.URL)
		// The message must not repeat what may hold a secret.
		k.refuse(err != nil, "checkpoints.url", "s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=NAME, without credentials",
			"is not the place of checkpoints: %v", err)
	}
	k.refuse(c.Keep < 1 || c.Keep > maxKept, "checkpoints.keep", fmt.Sprintf("1 to %d", maxKept), "is %d", c.Keep)
	k.refuse(c.Rate != 0 && c.Rate < 64<<10, "checkpoints.rate", "64KiB or more a second, or 0B for no bound", "is %s", c.Rate)
	k.refuse(c.Restore != "" && c.URL == "", "checkpoints.restore", "checkpoints.url as well", "is given without it")
}

// maxKept bounds how many checkpoints stay.
const maxKept = 10_000

func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != ""
}

func (k *checker) limits(l Limits, minFree Size) {
	for _, x := range [...]struct {
		name string
		n    int
	}{
		{"grpc_connections", l.GRPC}, {"http_connections", l.HTTP}, {"calls", l.Calls}, {"scans", l.Scans},
		{"watchers", l.Watchers}, {"jobs", l.Jobs},
	} {
		k.refuse(x.n < 1 || x.n > 1<<20, "limits."+x.name, "1 to 1048576", "is %d", x.n)
	}
	for _, x := range [...]struct {
		field string
		value Size
	}{{"limits.backlog", l.Backlog}, {"limits.peer_queue", l.PeerQueue}} { // no less than a command may have
		k.refuse(x.value < 16<<20 || x.value > 1<<30, x.field, "16MiB to 1GiB", "is %v", x.value)
	}
	k.refuse(l.UnderWay < 1<<20 || l.UnderWay > 1<<30, "limits.proposals", "1MiB to 1GiB", "is %v", l.UnderWay)
	k.refuse(minFree < 0 || minFree > 1<<50, "store.min_free", "0B to 1048576GiB", "is %v", minFree)
}
