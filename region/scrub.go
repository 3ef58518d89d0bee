package region

import (
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/replica"
)

const (
	// scrubRate is how much of the shards' tables is read through, in bytes a second: 5 GB in less than half an hour, at a
	// fiftieth of what a cheap disk reads.
	scrubRate = 4 << 20
	// scrubPause is between two passes.
	scrubPause = time.Hour
)

// scrubber reads through what the node has on disk, its replicas' stores and snapshots and the Raft log, slowly, so that damage is found while other replicas are
// whole, and not when they are needed.
type scrubber struct {
	host  *group.Host
	every time.Duration // from the end of a pass to the next one
	bytes prometheus.Counter
	last  prometheus.Gauge
}

func newScrubber(r prometheus.Registerer, host *group.Host, every time.Duration) *scrubber {
	s := &scrubber{
		host: host, every: every,
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watershed_scrub_bytes_total", Help: "Bytes of tables read through to compare them with their checksums.",
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watershed_scrub_last_pass_timestamp_seconds",
			Help: "When the last pass over all tables of the node ended, in seconds since 1970; 0 before the first one.",
		}),
	}
	r.MustRegister(s.bytes, s.last)
	return s
}

// run makes one pass after the other until ctx ends. A replica that is damaged takes itself out; a damaged log ends the node.
func (s *scrubber) run(ctx context.Context, env *Env) {
	for ctx.Err() == nil {
		for i := range env.Router.Shards() {
			r := env.Router.Replica(keyspace.ShardID(i))
			if r == nil {
				continue
			}
			err := r.Verify(ctx, s.pace)
			if err != nil && ctx.Err() == nil && !errors.Is(err, replica.ErrDamaged) && r.Damage() == nil {
				env.Logger.Warn("a shard's tables could not be read through", "shard", i, "error", err)
			}
		}
		if err := s.readLog(ctx, s.host.Log()); err != nil && ctx.Err() == nil && !keyspace.IsDamage(err) {
			env.Logger.Warn("the Raft log's tables could not be read through", "error", err)
		}
		if ctx.Err() == nil {
			s.last.SetToCurrentTime()
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.every):
		}
	}
}

// readLog compares the tables of the Raft log with their checksums. What is in its WAL is read when the node starts.
func (s *scrubber) readLog(ctx context.Context, log *group.LogStore) error {
	dir, tables, err := log.Tables()
	if err != nil {
		return err
	}
	err = keyspace.VerifyTables(ctx, vfs.Default, dir, tables, s.pace)
	if keyspace.IsDamage(err) {
		log.Damaged(err)
	}
	return err
}

// pace holds up what has read so many bytes.
func (s *scrubber) pace(ctx context.Context, bytes int) error {
	s.bytes.Add(float64(bytes))
	wait := time.Duration(bytes) * time.Second / scrubRate
	if wait == 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
