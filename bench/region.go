package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// measureRegion measures one region of three nodes, each a process, with an embedded Kafka, on this one machine: its
// idle processor time, what it folds from Kafka through three replicas, and what it answers under half of that.
func measureRegion(ctx context.Context, args []string) error {
	f := flags("region")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	events := f.Int64("events", 2_000_000, "events of the throughput measurement")
	shards := f.Int("shards", usualShards, "shards of the throughput measurement")
	keys := f.Int("keys", 10_000, "keys")
	rounds := f.Int("rounds", 3, "throughput measurements, each of a new deployment")
	live := f.Duration("live", 30*time.Second, "how long the load of the latency measurement lasts")
	idle := f.Duration("idle", 10*time.Second, "how long the idle region is looked at")
	rate := f.Float64("rate", 0, "events a second of the latency measurement; 0 is half of the throughput")
	profiles := f.String("profiles", "", "a folder for CPU profiles of the nodes at full load; none if empty")
	_ = f.Parse(args) // exits by itself
	if *watershed == "" || *rounds < 0 || *rounds == 0 && *rate == 0 {
		return errors.New("--watershed is needed, and --rounds or a --rate")
	}
	var walls, cores, idles, size, flushes, judged []float64
	before := load()
	for range *rounds {
		r, err := fill(ctx, *watershed, *jobs, *shards, *events, *keys, *idle, *profiles)
		if err != nil {
			return fmt.Errorf("throughput: %w", err)
		}
		walls, cores = append(walls, float64(*events)/r.wall.Seconds()), append(cores, float64(*events)/r.cpu.Seconds())
		flushes, judged = append(flushes, r.flushes), append(judged, r.judged/float64(*events))
		idles, size = append(idles, 100*r.idle), append(size, float64(r.bytes)/nodes/float64(*shards)/(1<<20))
	}
	if *rounds > 0 {
		fmt.Printf("\n**One region, 3 nodes, %d shards, %d keys, %d events of %d partitions**: %d rounds, load %s before and %s "+
			"after\n\n", *shards, *keys, *events, partitions, *rounds, before, load())
		fmt.Println("| | median (min-max) |\n|---|---|")
		fmt.Printf("| records/s, all on one machine with Kafka | %s |\n", spreadOf(walls))
		fmt.Printf("| records/s per core spent by the three nodes | %s |\n", spreadOf(cores))
		fmt.Printf("| Advances that shards accepted | %s |\n", spreadOf(flushes))
		fmt.Printf("| times each record was read and judged | %s |\n", spreadOf(judged))
		fmt.Printf("| idle, %% of a core for the three nodes | %s |\n", spreadOf(idles))
		fmt.Printf("| MB on disk per shard replica after it, logs of Raft included | %s |\n", spreadOf(size))
	}
	if *rate == 0 {
		*rate = spreadOf(walls).median / 2
	}
	if *live == 0 {
		return nil
	}
	if err := measureLive(ctx, *watershed, *jobs, *keys, *rate, *live); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	return nil
}

// filled is what one throughput measurement gave.
type filled struct {
	wall, cpu time.Duration
	idle      float64 // cores
	bytes     int64
	flushes   float64 // Advances accepted
	judged    float64 // records, those read again too
}

// fill puts all events into Kafka, then starts the job, and stops the time when every shard has all of them.
func fill(ctx context.Context, watershed, jobs string, shards int, events int64, keys int, idle time.Duration, profiles string) (r filled,
	err error) {
	d, err := deploy(ctx, watershed, shards)
	if err != nil {
		return r, err
	}
	defer d.stop()
	if r.idle, err = d.idle(ctx, idle); err != nil {
		return r, err
	}
	if err := d.apply(ctx, "", "bench-rides"); err != nil {
		return r, err
	}
	if err := produceAll(ctx, d.kafka, "bench-rides", newRides(1, keys, false), events); err != nil {
		return r, err
	}
	before, err := d.cpu()
	if err != nil {
		return r, err
	}
	start := time.Now()
	text, err := os.ReadFile(filepath.Join(jobs, "fill.yaml"))
	if err != nil {
		return r, err
	}
	if _, err := d.client.ApplyJob(ctx, "fill.yaml", text); err != nil {
		return r, err
	}
	if profiles != "" {
		if err := d.keepProfiles(ctx, profiles, 3*time.Second); err != nil {
			return r, err
		}
	}
	ends := map[int32]int64{}
	for p := range int32(partitions) {
		ends[p] = (events-int64(p)-1)/partitions + 1
	}
	if err := await(ctx, 10*time.Minute, func() (bool, error) { return d.reached(ctx, "bench-fill", ends) }); err != nil {
		return r, err
	}
	r.wall = time.Since(start)
	after, err := d.cpu()
	if err != nil {
		return r, err
	}
	r.cpu = after - before
	if r.flushes, err = d.counter(ctx, "watershed_worker_flushes_total"); err != nil {
		return r, err
	}
	if r.judged, err = d.counter(ctx, "watershed_worker_records_total"); err != nil {
		return r, err
	}
	r.bytes, err = d.bytes()
	return r, err
}

// idle returns how many cores the nodes use while nothing is asked of them.
func (d *deployment) idle(ctx context.Context, take time.Duration) (float64, error) {
	before, err := d.cpu()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	select {
	case <-time.After(take):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := d.cpu()
	return float64(after-before) / float64(time.Since(start)), err
}

// reached reports whether every shard has every partition to its end.
func (d *deployment) reached(ctx context.Context, job string, ends map[int32]int64) (bool, error) {
	out, err := d.client.ShowJob(ctx, job)
	if err != nil {
		return false, err
	}
	at := 0
	for _, s := range out.GetShards() {
		for _, p := range s.GetPoints() {
			if p.GetOffset() >= ends[p.GetPartition()] {
				at++
			}
		}
	}
	return at == d.shards*partitions, nil
}

// producer returns a client that produces to the partition each record names.
func producer(kafka []string) (*kgo.Client, error) {
	return kgo.NewClient(kgo.SeedBrokers(kafka...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.MaxBufferedRecords(50_000))
}

// produceAll produces events in turn to the partitions and waits until all are there.
func produceAll(ctx context.Context, kafka []string, topic string, g *rides, events int64) error {
	k, err := producer(kafka)
	if err != nil {
		return err
	}
	defer k.Close()
	var failed atomic.Pointer[error]
	for g.n < events && failed.Load() == nil {
		p := int32(g.n % partitions)
		line := g.append(nil, g.at(g.n))
		r := &kgo.Record{Topic: topic, Partition: p, Value: line[:len(line)-1]}
		k.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := k.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("produce: %w", *err)
	}
	ends, err := kadm.NewClient(k).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("ends of %s: %w", topic, err)
	}
	var sum int64
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	if sum != events {
		return fmt.Errorf("%s holds %d records, not %d", topic, sum, events)
	}
	return nil
}
