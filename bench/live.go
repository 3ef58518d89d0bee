package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

const (
	liveWindow = 5 * time.Second // of jobs/live.yaml
	liveBound  = 2 * time.Second // its out_of_orderness
	probeEvery = 50 * time.Millisecond
	probeSlack = 10 * time.Second // how long an update may take to be seen
)

// live measures how long it takes until an update is seen and until a window's rows are out, under load.
type live struct {
	d    *deployment
	k    *kgo.Client
	rate float64
	// unload ends the load that began with it; nil without.
	unload func()

	mu       sync.Mutex
	seen     []float64                       // ms from the start of an update's producing to an answer with it
	lost     int                             // updates not seen in time
	crossed  [partitions]map[int64]time.Time // by window end: when the partition's watermark was produced past it
	arrivals map[int64][]time.Time           // of rows, by window end
	failed   error                           // of producing
	produced int64
}

func measureLive(ctx context.Context, watershed, jobs string, keys int, rate float64, take time.Duration) error {
	before := load()
	l, err := newLive(ctx, watershed, filepath.Join(jobs, "live.yaml"), rate, usualShards)
	if err != nil {
		return err
	}
	defer l.stop()
	d := l.d
	cpu, err := d.cpu()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := l.run(ctx, keys, take); err != nil {
		return err
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Printf("\n**The same under %.0f events a second for %s, 5 s windows to a Kafka topic**: %d produced, load %s before and %s after\n\n",
		rate, take, l.produced, before, load())
	fmt.Println("| ms | p50 | p90 | p99 | max | samples |\n|---|---|---|---|---|---|")
	printQuantiles("update to query: from before producing to a linearizable Get that has it", l.seen)
	first, all := l.emissions()
	printQuantiles("watermark to emission: to a window's first row at a consumer", first)
	printQuantiles("the same, to every row", all)
	fmt.Printf("\nUpdates not seen in %s: %d. The three nodes took %.2f cores.\n", probeSlack, l.lost,
		(after-cpu).Seconds()/time.Since(start).Seconds())
	return nil
}

// newLive deploys a region, with more flags of `dev`, that runs the job of a file, which reads topic bench-live.
func newLive(ctx context.Context, watershed, file string, rate float64, shards int, more ...string) (*live, error) {
	d, err := deploy(ctx, watershed, shards, more...)
	if err != nil {
		return nil, err
	}
	l := &live{d: d, rate: rate, arrivals: map[int64][]time.Time{}}
	for p := range l.crossed {
		l.crossed[p] = map[int64]time.Time{}
	}
	if err = d.apply(ctx, "", "bench-rows"); err == nil {
		err = d.apply(ctx, file, "bench-live")
	}
	if err == nil {
		l.k, err = producer(d.kafka)
	}
	if err != nil {
		d.stop()
		return nil, err
	}
	return l, nil
}

// newLoaded is newLive with a steady load of 10,000 keys, until it is stopped.
func newLoaded(ctx context.Context, watershed, file string, rate float64, shards int, more ...string) (*live, error) {
	l, err := newLive(ctx, watershed, file, rate, shards, more...)
	if err != nil {
		return nil, err
	}
	loading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.load(loading, newRides(3, 10_000, false))
	}()
	l.unload = func() {
		stop()
		<-done
	}
	return l, nil
}

func (l *live) stop() {
	if l.unload != nil {
		l.unload()
	}
	l.k.Close()
	l.d.stop()
}

func printQuantiles(name string, ms []float64) {
	if len(ms) == 0 {
		fmt.Printf("| %s | none | | | | 0 |\n", name)
		return
	}
	s := slices.Sorted(slices.Values(ms))
	fmt.Printf("| %s | %.1f | %.1f | %.1f | %.1f | %d |\n", name, quantile(s, 0.5), quantile(s, 0.9), quantile(s, 0.99),
		s[len(s)-1], len(s))
}

// run produces, probes and consumes until take is over and what is under way has been seen.
func (l *live) run(ctx context.Context, keys int, take time.Duration) error {
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	var readers, probes sync.WaitGroup
	readers.Go(func() { l.consume(reading) })
	loading, stopLoading := context.WithTimeout(ctx, take)
	defer stopLoading()
	probes.Go(func() { l.load(loading, newRides(2, keys, false)) })
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	// What comes before the first two seconds is start-up: connections, first leaders, first assignments.
	warm := time.Now().Add(2 * time.Second)
	for n := 0; loading.Err() == nil; n++ {
		select {
		case <-t.C:
			if time.Now().After(warm) {
				probes.Go(func() { l.probe(ctx, n) })
			}
		case <-loading.Done():
		}
	}
	probes.Wait()
	stopReading()
	readers.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(ctx.Err(), l.failed)
}

// load produces at the rate, in steps of 5 ms, with event times that are now.
func (l *live) load(ctx context.Context, g *rides) {
	start := time.Now()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	var line []byte
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		for due := int64(now.Sub(start).Seconds() * l.rate); g.n < due; {
			p := int32(g.n % partitions)
			line = g.append(line[:0], now.UnixMilli())
			value := slices.Clone(line[:len(line)-1])
			l.produce(ctx, p, value, g.ts)
		}
	}
}

// produce produces an event of that time, and notes when its partition's watermark goes past a window's end by it.
func (l *live) produce(ctx context.Context, p int32, value []byte, ts int64) {
	end := ts - liveBound.Milliseconds()
	end -= end % liveWindow.Milliseconds()
	l.mu.Lock()
	if _, ok := l.crossed[p][end]; !ok {
		l.crossed[p][end] = time.Now()
	}
	l.mu.Unlock()
	l.k.Produce(ctx, &kgo.Record{Topic: "bench-live", Partition: p, Value: value}, func(_ *kgo.Record, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.produced++
		if err != nil && ctx.Err() == nil {
			l.failed = fmt.Errorf("produce: %w", err)
		}
	})
}

// probe produces an event of a key of its own, and notes how long it took until it was there.
func (l *live) probe(ctx context.Context, n int) {
	key := "probe-" + strconv.Itoa(n)
	start := time.Now()
	l.produce(ctx, int32(n%partitions), single(key, start), start.UnixMilli())
	took, err := l.await(ctx, key, start)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.lost++
		return
	}
	l.seen = append(l.seen, took)
}

// single returns an event of a key.
func single(key string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"ts":%d,"cell":%q,"fare":1.5}`, at.UnixMilli(), key)
}

// await asks for a key until there is a row of it, and returns how many ms that was after start.
func (l *live) await(ctx context.Context, key string, start time.Time) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, probeSlack)
	defer cancel()
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for {
		out, err := l.d.client.Get(ctx, liveKey(key))
		if err == nil && len(out.GetRows()) > 0 {
			return float64(time.Since(start).Microseconds()) / 1000, nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%s was not seen: %w", key, errors.Join(ctx.Err(), err))
		}
	}
}

// liveKey selects one key of the live job, linearizably.
func liveKey(key string) *watershedv1.Selection {
	return &watershedv1.Selection{Job: "bench-live", Key: []*watershedv1.KeyFilter{{Name: "cell", Exact: true,
		Value: &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: key}}}}}
}

// emissions returns, in ms, how long after the last partition's watermark had gone past a window's end its first row
// came, and each of its rows.
func (l *live) emissions() (first, all []float64) {
	for end, rows := range l.arrivals {
		var from time.Time
		whole := true
		for p := range l.crossed {
			at, ok := l.crossed[p][end]
			if whole = whole && ok; at.After(from) {
				from = at
			}
		}
		if !whole {
			continue
		}
		for i, at := range rows {
			ms := float64(at.Sub(from).Microseconds()) / 1000
			if all = append(all, ms); i == 0 {
				first = append(first, ms)
			}
		}
	}
	return first, all
}

// consume notes when rows arrive at the sink.
func (l *live) consume(ctx context.Context) {
	k, err := kgo.NewClient(kgo.SeedBrokers(l.d.kafka...), kgo.ConsumeTopics("bench-rows"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed = err
		return
	}
	defer k.Close()
	for ctx.Err() == nil {
		fetched := k.PollFetches(ctx)
		now := time.Now()
		l.mu.Lock()
		fetched.EachRecord(func(r *kgo.Record) {
			var row struct {
				End time.Time `json:"window_end"`
			}
			if json.Unmarshal(r.Value, &row) == nil {
				end := row.End.UnixMilli()
				l.arrivals[end] = append(l.arrivals[end], now)
			}
		})
		l.mu.Unlock()
	}
}
