package worker

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
)

// endsInterval is how often the logs' ends are asked for.
const endsInterval = time.Second

// watchEnds asks for the ends of the logs until ctx ends, and commits the lag now and then.
func (t *task) watchEnds(ctx context.Context) {
	topics := t.topics()
	for n := 0; sleep(ctx, endsInterval); n++ {
		spans, err := t.f.w.config.Kafka.Spans(ctx, topics...)
		if err != nil {
			if ctx.Err() == nil {
				t.logger.Debug("the logs' ends are not known", "error", err)
			}
			spans = nil // no end, no idle source
		}
		select {
		case t.ends <- spans:
		case <-ctx.Done():
			return
		}
		if n%5 == 4 {
			t.commitLag(ctx)
		}
	}
}

// ended takes the logs' ends. An end that is not known, or that moved, begins a new wait.
func (t *task) ended(spans map[log.Partition]log.Span) {
	now := time.Now()
	for _, s := range t.sources {
		span, ok := spans[partition(s.ID)]
		if !ok {
			s.end = -1
			continue
		}
		if span.End != s.end {
			s.end, s.endedAt = span.End, now
		}
	}
}

// markIdle finds sources that are at their log's end and silent for idle_after. A log may end in offsets that hold no
// record, so a point below the end counts as at the end when neither has moved for that long.
func (t *task) markIdle() {
	now := time.Now()
	for _, s := range t.sources {
		after := time.Duration(t.f.job.Inputs[s.ID.Input].IdleAfter) * time.Millisecond
		p, _ := t.feed.Point(s.ID)
		quiet := s.end >= 0 && now.Sub(s.heard) >= after && (p.Offset >= s.end || now.Sub(s.endedAt) >= after)
		if quiet && !s.idle {
			t.hurry() // the shards must stand at the point before they take the flag
		}
		s.idle = quiet
	}
}

// tellIdle tells a shard which sources are idle, once the shard stands at their points.
func (t *task) tellIdle(ctx context.Context, group *errgroup.Group, l *lane) {
	if l.telling || l.flying || t.feed.Parked(l.shard) || t.feed.Moved(l.shard) {
		return
	}
	at := make(map[crdt.Source]crdt.Mark)
	for _, s := range t.sources {
		p, _ := t.feed.Point(s.ID)
		if m := p.Mark(); s.idle && l.told[s.ID] != m {
			at[s.ID] = m
		}
	}
	if len(at) == 0 {
		return
	}
	l.telling = true
	group.Go(func() error {
		trying, cancel := context.WithTimeout(ctx, t.f.w.config.ParkAfter)
		defer cancel()
		done, err := t.f.w.region.Idle(trying, l.shard, t.f.id, at)
		if err != nil || !done {
			at = nil // tried again in a second, at whatever points stand then
		}
		select {
		case t.tolds <- told{l.shard, at}:
		case <-ctx.Done():
		}
		return nil
	})
}

// told is what a shard has taken.
type told struct {
	shard int
	at    map[crdt.Source]crdt.Mark
}

func (t *task) wasTold(x told) {
	l := t.lanes[x.shard]
	l.telling = false
	for s, m := range x.at {
		l.told[s] = m
	}
}
