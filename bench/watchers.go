package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// watchersPerConn is how many watches share a connection: a node takes 1,000 streams on one.
const watchersPerConn = 900

// measureWatchers measures how many Advances a second the shards take under a steady load, and how long it takes until an update is seen, with no
// watchers, 1,000 and 10,000 on one key of one shard at one node, side by side.
// Flushes grow as they get fewer: their rate alone doesn't say how much is written.
func measureWatchers(ctx context.Context, args []string) error {
	f := flags("watchers")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	rate := f.Float64("rate", 5_000, "events a second of 10,000 keys")
	take := f.Duration("take", 20*time.Second, "for each number of watchers")
	_ = f.Parse(args) // exits by itself
	if *watershed == "" {
		return errors.New("--watershed is needed")
	}
	before := load()
	l, err := newLoaded(ctx, *watershed, filepath.Join(*jobs, "live.yaml"), *rate)
	if err != nil {
		return err
	}
	defer l.stop()
	if _, err := l.all(ctx, "warm", time.Now()); err != nil {
		return err
	}
	fmt.Println("| watchers | flushes/s | update to query p50 ms | p99 ms | changes told/s |\n|---|---|---|---|---|")
	for _, n := range []int{0, 1_000, 10_000} {
		if err := l.watched(ctx, n, *take); err != nil {
			return fmt.Errorf("%d watchers: %w", n, err)
		}
	}
	fmt.Printf("\n%.0f events a second, %s each, load %s before and %s after\n", *rate, *take, before, load())
	return nil
}

// watched prints what goes on while n watch a key of one shard, which changes all the time.
func (l *live) watched(ctx context.Context, n int, take time.Duration) error {
	watching, stop := context.WithCancel(ctx)
	var told atomic.Int64
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer stop()
	var begun atomic.Int64
	for i := 0; i < n; i += watchersPerConn {
		conn, err := grpc.NewClient(l.d.grpc[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range min(watchersPerConn, n-i) {
			watchers.Go(func() { follow(watching, conn, keysOf(l.d.shards, "warm-0")[0], &begun, &told) })
		}
	}
	err := await(ctx, startWithin, func() (bool, error) { return begun.Load() == int64(n), nil })
	if err != nil {
		return fmt.Errorf("%d watch: %w", begun.Load(), err)
	}
	flushed, err := l.d.counter(ctx, "watershed_worker_flushes_total")
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.seen = nil
	l.mu.Unlock()
	start, was := time.Now(), told.Load()
	for i := 0; time.Since(start) < take; i++ {
		l.probe(ctx, i%l.d.shards+1_000_000*n)
		l.produce(ctx, 0, single(keysOf(l.d.shards, "warm-0")[0], time.Now()), time.Now().UnixMilli())
	}
	after, err := l.d.counter(ctx, "watershed_worker_flushes_total")
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	seconds := time.Since(start).Seconds()
	s := slices.Sorted(slices.Values(l.seen))
	if len(s) == 0 {
		return errors.New("no update was seen")
	}
	fmt.Printf("| %s | %.0f | %.1f | %.1f | %.0f |\n", strconv.Itoa(n), (after-flushed)/seconds, quantile(s, 0.5), quantile(s, 0.99),
		float64(told.Load()-was)/seconds)
	return nil
}

// follow watches one key and counts what it is told.
func follow(ctx context.Context, conn *grpc.ClientConn, key string, begun, told *atomic.Int64) {
	stream, err := watershedv1.NewStateServiceClient(conn).Watch(ctx, &watershedv1.WatchRequest{Selection: liveKey(key)})
	if err != nil {
		return
	}
	for first := true; ; first = false {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		if first {
			begun.Add(1)
		}
		told.Add(int64(len(m.GetRows())))
	}
}
