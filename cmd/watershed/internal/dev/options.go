package dev

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/region/config"
)

// Bounds of a deployment on one machine.
const (
	MaxRegions    = 5
	MaxPartitions = 256
)

// Options says what a deployment consists of. Zero fields take the defaults named, or what the data folder already
// holds.
type Options struct {
	Data    string   // its folder, made if it is missing
	Regions []string // in member order; the first owns the shards. Default: us-east, eu-west
	Nodes   int      // of each region. Default: 3
	Shards  int      // Default: 8
	// Jobs are job files that are applied once everything runs; topics that they name and that are missing are made.
	Jobs       []string
	Partitions int32 // of topics that are made. Default: 4
	// Kafka holds the brokers of regions that have a Kafka of their own; all others get an embedded one.
	Kafka map[string][]string
	// Checkpoints is where the regions' checkpoints are kept, as config.Checkpoints.URL; nowhere where it is empty.
	// Credentials are those of this process's environment.
	Checkpoints string
	// LogBytes is what a shard's Raft log keeps behind its end. Default: DefaultLogBytes
	LogBytes config.Size
	// FlushInterval is how long records gather before a worker sends them on. Default: as a node's.
	FlushInterval time.Duration
	// Command is what child processes run before their own arguments. Default: this executable.
	Command []string
	// ReadyWithin bounds how long a process may take to be ready. Default: 60 s.
	ReadyWithin time.Duration
	// StopWithin bounds how long a process may take to end by itself. Default: 10 s.
	StopWithin time.Duration
	// Events is where it is told, in a line each, what happens by itself, such as a process that dies. Default: nowhere.
	Events io.Writer
	Logger hclog.Logger // Default: none
}

func (o Options) withDefaults() (Options, error) {
	if len(o.Command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find this executable: %w", err)
		}
		o.Command = []string{self}
	}
	if o.Partitions == 0 {
		o.Partitions = 4
	}
	if o.LogBytes == 0 {
		o.LogBytes = DefaultLogBytes
	}
	if o.ReadyWithin == 0 {
		o.ReadyWithin = time.Minute
	}
	if o.StopWithin == 0 {
		o.StopWithin = 10 * time.Second
	}
	if o.Events == nil {
		o.Events = io.Discard
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o, o.validate()
}

// ErrOptions marks options that no deployment can have: a mistake of the command line.
var ErrOptions = errors.New("wrong option")

func (o Options) validate() error {
	if o.Data == "" {
		return fmt.Errorf("%w: the data folder has no name", ErrOptions)
	}
	if len(o.Regions) > MaxRegions {
		return fmt.Errorf("%w: %d regions; at most %d fit on one machine", ErrOptions, len(o.Regions), MaxRegions)
	}
	for i, r := range o.Regions {
		if err := crdt.RegionID(r).Validate(); err != nil {
			return fmt.Errorf("%w: region %q: %w", ErrOptions, r, err)
		}
		if slices.Contains(o.Regions[:i], r) {
			return fmt.Errorf("%w: region %s is named twice", ErrOptions, r)
		}
	}
	if o.Nodes < 0 || o.Nodes > config.MaxNodes || o.Nodes == 2 || o.Nodes == 4 {
		return fmt.Errorf("%w: %d nodes a region; 1, 3 or 5 have a use", ErrOptions, o.Nodes)
	}
	if o.Shards < 0 || o.Shards > config.MaxShards {
		return fmt.Errorf("%w: %d shards; want 1 to %d", ErrOptions, o.Shards, config.MaxShards)
	}
	if o.Partitions < 1 || o.Partitions > MaxPartitions {
		return fmt.Errorf("%w: %d partitions; want 1 to %d", ErrOptions, o.Partitions, MaxPartitions)
	}
	if o.LogBytes < config.MinLogBytes {
		return fmt.Errorf("%w: logs of %v; want %v at least", ErrOptions, o.LogBytes, config.MinLogBytes)
	}
	for region, brokers := range o.Kafka {
		if len(o.Regions) > 0 && !slices.Contains(o.Regions, region) {
			return fmt.Errorf("%w: kafka of %q, which is none of the regions %s", ErrOptions, region, strings.Join(o.Regions, ", "))
		}
		for _, b := range brokers {
			if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
				return fmt.Errorf("%w: kafka of %s: %q is not HOST:PORT", ErrOptions, region, b)
			}
		}
	}
	return nil
}

// ParseKafka reads REGION=BROKER,BROKER... as often as it is given.
func ParseKafka(values []string) (map[string][]string, error) {
	out := make(map[string][]string, len(values))
	for _, v := range values {
		region, brokers, ok := strings.Cut(v, "=")
		if !ok || region == "" || brokers == "" {
			return nil, fmt.Errorf("%w: kafka %q; want REGION=HOST:PORT,HOST:PORT", ErrOptions, v)
		}
		if out[region] != nil {
			return nil, fmt.Errorf("%w: kafka of %s is given twice", ErrOptions, region)
		}
		out[region] = strings.Split(brokers, ",")
	}
	return out, nil
}
