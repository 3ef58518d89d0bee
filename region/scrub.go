package region

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/replica"
)

const (
	// scrubRate is how much of the shards' tables is read through, in bytes a second: 5 GB in less than half an hour, at a
	// fiftieth of what a cheap disk reads.
	scrubRate = 4 << 20
	// scrubPause is between two passes.
	scrubPause = time.Hour
)

// scrubber reads through what the node's replicas have on disk, slowly, so that damage is found while other replicas are
// whole, and not when they are needed.
type scrubber struct {
	bytes prometheus.Counter
	last  prometheus.Gauge
}

func newScrubber(r prometheus.Registerer) *scrubber {
	s := &scrubber{
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

// run makes one pass after the other until ctx ends. A replica that is damaged takes itself out.
func (s *scrubber) run(ctx context.Context, env *Env) {
	for ctx.Err() == nil {
		for i := range env.Router.Shards() {
			r := env.Router.Replica(keyspace.ShardID(i))
			if r == nil {
				continue
			}
			if r == nil {
				continue
			}
			err := r.Verify(ctx, s.pace)
			if err != nil && ctx.Err() == nil && !errors.Is(err, replica.ErrDamaged) && !keyspace.IsDamage(err) {
				env.Logger.Warn("a shard's tables could not be read through", "shard", i, "error", err)
			}
		}
		if ctx.Err() == nil {
			s.last.SetToCurrentTime()
		}
		select {
		case <-ctx.Done():
		case <-time.After(scrubPause):
		}
	}
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
