package upkeep

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/shard"
)

// Replica is what Run needs of a shard's replica; *replica.Replica is one.
type Replica interface {
	Config() *shard.Config
	State() *shard.State
	Snapshot() (*shard.Snapshot, error)
	Propose(ctx context.Context, c shard.Command) (shard.Result, error)
}

// Options says what Run works on.
type Options struct {
	// Compare tells whether a majority of the replicas holds a chain at an index (default: it does). It sees to a leader that
	// is Wrong.
	Compare func(ctx context.Context, index uint64, chain crdt.Hash) Verdict
	Replica Replica
	Peers   *peer.Shard // of the same shard
	// UnreachableAfter is for how long nothing is heard from a region before it counts as unreachable (default 3 s).
	UnreachableAfter time.Duration
	Every            time.Duration    // how often Run looks (default 200 ms)
	CheckEvery       time.Duration    // how far apart replicas are compared (default 10 s)
	Now              func() time.Time // default: time.Now
	Logger           hclog.Logger     // default: none
}

// proposeWithin bounds one proposal.
const proposeWithin = 5 * time.Second

// Run keeps up a shard until ctx ends: while this node leads it.
func Run(ctx context.Context, o Options) {
	if o.UnreachableAfter == 0 {
		o.UnreachableAfter = 3 * time.Second
	}
	if o.Every == 0 {
		o.Every = 200 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	logger := o.Logger.With("shard", o.Replica.Config().Shard)
	d := &Decider{UnreachableAfter: o.UnreachableAfter, CheckEvery: o.CheckEvery}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// All shards look at the same moments: most of what a node costs that has nothing to do is being woken for it.
		timer.Reset(o.Every - time.Duration(time.Now().UnixNano())%o.Every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if err := once(ctx, o, d, logger); err != nil && ctx.Err() == nil {
			logger.Debug("upkeep failed", "error", err)
		}
	}
}

// once looks at the shard and proposes what is to be done.
func once(ctx context.Context, o Options, d *Decider, logger hclog.Logger) error {
	s := &Seen{Peers: o.Peers.Peers(), State: o.Replica.State(), Joining: o.Peers.Joining(), Member: o.Peers.Member()}
	var err error
	if s.Merge, err = nextMerge(o.Replica); err != nil {
		return err
	}
	if s.Floors, err = o.Peers.Floors(); err != nil {
		return err
	}
	s.Now = o.Now()
	for _, c := range d.Decide(s) {
		if check, ok := c.(*shard.Check); ok && o.Compare != nil {
			if v := o.Compare(ctx, check.Index, check.Chain); v != Right {
				continue // proposed by a leader that is wrong, it would stop those that are right
			}
		}
		within, cancel := context.WithTimeout(ctx, proposeWithin)
		res, err := o.Replica.Propose(within, c)
		cancel()
		if err != nil {
			return err
		}
		if r, ok := c.(*shard.Reach); ok {
			logger.Info("regions that can't be reached", "regions", names(r.Unreachable), "left out by", len(r.Excluded))
		}
		if res.Outcome == shard.Malformed {
			return fmt.Errorf("%T: %s", c, res.Reason)
		}
	}
	return nil
}

func names(list []crdt.RegionID) []string {
	out := make([]string, 0, len(list))
	for _, region := range list {
		out = append(out, string(region))
	}
	return out
}
