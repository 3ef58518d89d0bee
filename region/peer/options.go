package peer

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// Version is that of the protocol between regions. Others are refused.
const Version = 1

// Identity says what deployment a node belongs to, and which others there are. It is never changed.
type Identity struct {
	Deployment string
	Self       crdt.RegionID
	Shards     int
	Members    []Member // all, Self among them
}

// Member is a region of the deployment.
type Member struct {
	Region crdt.RegionID
	Number uint16 // its member number (rules A12)
	// Addresses of its nodes' gRPC ports, as this node dials them; not used of the own region.
	Addresses []string
}

// member returns a region of the deployment.
func (id *Identity) member(region crdt.RegionID) (Member, bool) {
	for _, m := range id.Members {
		if m.Region == region {
			return m, true
		}
	}
	return Member{}, false
}

// Replica is what peers need of a shard's replica on this node; *replica.Replica is one.
type Replica interface {
	Config() *shard.Config
	IsLeader() bool
	Leader() group.Member
	State() *shard.State
	Snapshot() (*shard.Snapshot, error)
	Changed() <-chan struct{}
	Propose(ctx context.Context, c shard.Command) (shard.Result, error)
	Submit(ctx context.Context, c shard.Command, raw []byte) (wait func(context.Context) (shard.Result, error))
	ReadOut(index uint64) (command []byte, ok bool, err error)
	LogBounds() (first, applied uint64)
	LatestOuts(index uint64, limit int) (list []shard.Out, to uint64, ok bool)
}

// Options says what a Shard works on.
type Options struct {
	Identity
	Replica Replica
	Links   *Links // shared by the node's shards
	// Addresses returns where the nodes of a region are dialed by now, in the order to be tried; nil for Member.Addresses.
	Addresses func(region crdt.RegionID) []string
	// Stopped is told of a source whose history here and at a peer are not one, so that shard 0 can record it. It may block
	// for a while, and may be told again.
	Stopped func(ctx context.Context, s *shard.SourceStopped)
	Timing  Timing
	Logger  hclog.Logger // default: none
}

// Timing holds the intervals of the protocol. Zero fields take the defaults named; only tests change them.
type Timing struct {
	Heartbeat time.Duration // how often a peer is told something at least: 200 ms
	Standings time.Duration // how far apart what has changed of the standings is told: 100 ms
	Silence   time.Duration // how long a stream may be silent before it is given up: 1.5 s
	// Forward is how long what came from another region is held before it is forwarded, to give it time to arrive on the
	// direct way: 300 ms.
	Forward time.Duration
	// FirstPause and LastPause bound the time between tries to reach a peer: 50 ms, 500 ms.
	FirstPause, LastPause time.Duration
	// Patience is how long a group that another peer should level is left behind before its state is taken: 1 s.
	Patience time.Duration
	// Again is how long after a state join that could not be made the next one is tried: 5 s.
	Again time.Duration
	// JoinRest is how long a state join rests after a chunk at most, to leave the shard's log to others: 50 ms.
	JoinRest time.Duration
}

func (t Timing) withDefaults() Timing {
	or := func(d *time.Duration, fallback time.Duration) {
		if *d == 0 {
			*d = fallback
		}
	}
	or(&t.Heartbeat, 200*time.Millisecond)
	or(&t.Standings, 100*time.Millisecond)
	or(&t.Silence, 1500*time.Millisecond)
	or(&t.Forward, 300*time.Millisecond)
	or(&t.FirstPause, 50*time.Millisecond)
	or(&t.LastPause, 500*time.Millisecond)
	or(&t.Patience, time.Second)
	or(&t.Again, 5*time.Second)
	or(&t.JoinRest, 50*time.Millisecond)
	return t
}
