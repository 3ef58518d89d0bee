package demo

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/log/kafka"
)

const (
	batchEvery  = 40 * time.Millisecond
	markerEvery = 120 * time.Millisecond
	maxBatch    = 5000 // events
)

// source is a partition of a topic in a region's log, and its one writer.
type source struct {
	region    string
	topic     string
	partition int32
	script    *script
	tally     *tally       // of what the log holds; the writer's until it has ended
	written   atomic.Int64 // records in the log, so the next offset
	probe     *probe       // where the region's markers go; nil but for one source of a region
}

// traffic writes events into all regions' logs.
type traffic struct {
	sources []*source
	rate    int // events a second, of all sources together
}

// newTraffic lays out the sources: every partition of both topics in every region.
func newTraffic(regions []string, partitions int32, rate int, seed uint64) *traffic {
	t := &traffic{rate: rate}
	for i, region := range regions {
		for _, topic := range []string{requestsTopic, pingsTopic} {
			for p := range partitions {
				seed++
				t.sources = append(t.sources, &source{
					region: region, topic: topic, partition: p, script: newScript(seed, topic == requestsTopic, i), tally: newTally(),
				})
			}
		}
	}
	return t
}

// markers returns the source that writes a region's markers.
func (t *traffic) markers(region string) *source {
	for _, s := range t.sources {
		if s.region == region && s.topic == requestsTopic {
			return s
		}
	}
	return nil
}

// run writes until ctx ends, then closes all windows and returns how far they are closed. brokers are those of each
// region. When it returns nil every record is in its log, once, in the order in which the tallies took it.
func (t *traffic) run(ctx context.Context, brokers map[string][]string, logger hclog.Logger) (closed int64, err error) {
	producers := map[string]*kafka.Producer{}
	for region, addresses := range brokers {
		client, err := kafka.Dial(ctx, kafka.Config{Brokers: addresses}, logger)
		if err != nil {
			return 0, fmt.Errorf("generate events: %w", err)
		}
		defer client.Close()
		p, err := kafka.NewProducer(client, kafka.ProducerConfig{}, logger)
		if err != nil {
			return 0, fmt.Errorf("generate events: %w", err)
		}
		defer p.Close()
		producers[region] = p
	}
	// A record whose outcome is not known would spoil the verdict, so the last batch is written whole after ctx has ended.
	writing := context.WithoutCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range t.sources {
		rate := float64(t.rate) / float64(len(t.sources))
		g.Go(func() error { return s.run(ctx, writing, producers[s.region], rate) })
	}
	if err := g.Wait(); err != nil {
		return 0, fmt.Errorf("generate events: %w", err)
	}
	now := time.Now().UnixMilli()
	for _, s := range t.sources {
		if err := s.write(writing, producers[s.region], now, []event{s.script.closing(now)}); err != nil {
			return 0, fmt.Errorf("generate events: %w", err)
		}
	}
	return closingTime(now) - bound, nil
}

// run writes so many events a second until ctx ends. What a slow log holds up is made up for, within maxBatch.
func (s *source) run(ctx, writing context.Context, p *kafka.Producer, rate float64) error {
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	owed, last, marked := 0.0, time.Now(), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		var batch []event
		owed = min(owed+rate*now.Sub(last).Seconds(), maxBatch)
		for last = now; owed >= 1; owed-- {
			batch = append(batch, s.script.next(now.UnixMilli()))
		}
		if s.probe != nil && now.Sub(marked) >= markerEvery {
			marked = now
			batch = append(batch, s.script.mark(now.UnixMilli()))
		}
		if err := s.write(writing, p, now.UnixMilli(), batch); err != nil {
			return err
		}
	}
}

// write puts a batch into the log, at the time now, and counts it.
func (s *source) write(ctx context.Context, p *kafka.Producer, now int64, batch []event) error {
	messages := make([]kafka.Message, len(batch))
	for i, e := range batch {
		messages[i] = kafka.Message{Topic: s.topic, Partition: s.partition, Timestamp: now, Value: e.body}
		if s.tally.take(e, now) == counted && e.marker {
			s.probe.sent(windowEnd(e.time))
		}
	}
	if err := p.Produce(ctx, messages); err != nil {
		return err
	}
	s.written.Add(int64(len(batch)))
	return nil
}

// total merges all tallies, once the writers have ended.
func (t *traffic) total() *tally {
	out := newTally()
	for _, s := range t.sources {
		out.merge(s.tally)
	}
	return out
}

// written counts the records in a region's log.
func (t *traffic) written(region string) (n int64) {
	for _, s := range t.sources {
		if s.region == region {
			n += s.written.Load()
		}
	}
	return n
}
