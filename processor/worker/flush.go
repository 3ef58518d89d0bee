package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
)

const (
	// minBatch is what a shard's batch is never made smaller than: what is too large then, no other size helps.
	minBatch = 64 << 10
	// maxBatch is how large a shard's batch may grow in memory while its last Advance is under way.
	maxBatch = 8 << 20
	// retryPause is between two tries of an Advance whose outcome is unknown.
	retryPause = 50 * time.Millisecond
)

// reply is how a shard met an Advance.
type reply struct {
	shard   int
	reply   Reply
	misfits []crdt.Source
	sources []crdt.Source // of the Advance
	err     error         // it took no writes for too long, or will not take this one
}

var errParked = errors.New("the shard takes no writes")

// flushDue sends what is due, shard by shard: one Advance a shard is under way, and the next gathers meanwhile.
func (t *task) flushDue(ctx context.Context, group *errgroup.Group) {
	now := time.Now()
	next := time.Duration(-1)
	for _, l := range t.lanes {
		if l.flying || !t.feed.Moved(l.shard) {
			continue
		}
		wait := t.f.w.config.EmptyInterval
		if l.urgent || t.feed.BatchLen(l.shard) > 0 {
			wait = pace(t.f.w.config.FlushInterval, l.took)
		}
		// Flushes fall on whole multiples of the interval, so that those of many shards and workers share their fsyncs.
		phase := time.Duration(l.flushed.UnixNano()) % wait
		if left := wait - phase - now.Sub(l.flushed); left > 0 {
			if next < 0 || left < next {
				next = left
			}
			continue
		}
		t.send(ctx, group, l, now)
	}
	if next >= 0 {
		t.flush.Reset(next)
	}
}

// pace returns how long the records of a shard gather: the interval, or where flushes take long twice what the last one took,
// up to four intervals. A region that is short of processors or disks then gets fewer and larger Advances, which cost it less.
func pace(interval, took time.Duration) time.Duration {
	return max(interval, min(2*took, 4*interval))
}

// send flushes one shard. What goes to side outputs is written before the points move over it.
func (t *task) send(ctx context.Context, group *errgroup.Group, l *lane, now time.Time) {
	size := t.feed.BatchSize(l.shard)
	a := t.feed.Flush(l.shard)
	if a == nil {
		return
	}
	l.flying, l.urgent, l.flushed, l.bytes = true, false, now, int64(size)
	aside := t.side.flush(ctx, group)
	group.Go(func() error {
		select {
		case <-aside:
		case <-ctx.Done():
			return nil
		}
		r := t.advance(ctx, l.shard, a)
		select {
		case t.replies <- r:
		case <-ctx.Done():
		}
		return nil
	})
}

// advance proposes a until its outcome is known or the shard has taken no writes for too long. Trying again is safe:
// what was applied already is a duplicate.
func (t *task) advance(ctx context.Context, shard int, a *crdt.Advance) reply {
	began := time.Now()
	for {
		trying, cancel := context.WithTimeout(ctx, t.f.w.config.ParkAfter)
		r, misfits, err := t.f.w.region.Advance(trying, shard, a)
		cancel()
		if err == nil {
			return reply{shard: shard, reply: r, misfits: misfits}
		}
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalid) {
			return reply{shard: shard, err: err, sources: sourcesOf(a)}
		}
		pause, full := retryPause, false
		var later interface{ RetryAfter() time.Duration }
		if errors.As(err, &later) {
			pause, full = max(pause, later.RetryAfter()), true
			t.f.w.metrics.throttled.Inc()
		}
		// A task of one shard holds up no other: it waits with what it has for as long as the shard is full.
		patient := full && t.only >= 0
		if !patient && time.Since(began) >= t.f.w.config.ParkAfter || !sleep(ctx, pause) {
			return reply{shard: shard, err: errors.Join(errParked, err)}
		}
	}
}

func sourcesOf(a *crdt.Advance) (out []crdt.Source) {
	for _, r := range a.Ranges {
		out = append(out, r.Source)
	}
	return out
}

// replied takes a shard's answer.
func (t *task) replied(r reply) error {
	l := t.lanes[r.shard]
	l.flying, l.bytes, l.took = false, 0, time.Since(l.flushed)
	t.hold()
	switch {
	case errors.Is(r.err, ErrTooLarge) && t.f.shrink():
		return errAgain
	case errors.Is(r.err, ErrTooLarge), errors.Is(r.err, ErrInvalid):
		for _, s := range r.sources {
			t.f.halt(s, fmt.Errorf("shard %d will not take it: %w", r.shard, r.err))
		}
		return errAgain
	case r.err != nil:
		if t.only >= 0 {
			return r.err
		}
		t.feed.Park(r.shard)
		t.f.park(r.shard)
		return nil
	case r.reply == Accepted:
		t.f.w.metrics.flushes.Inc()
		return nil
	case r.reply == Misfit:
		t.f.w.metrics.refused.Inc()
		for _, s := range r.misfits {
			t.f.halt(s, errors.New("the shard stands on another history of this log"))
		}
		return errAgain
	}
	t.f.w.metrics.refused.Inc()
	return errAgain
}
