package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// measureWatchers measures how long a write to a shard takes to be acknowledged, and an update to be seen, under a steady load, with
// no watchers, 1,000 and 10,000 on one key of that shard at one node, side by side. The watchers are
// a process of the lowest priority: elsewhere it would be another machine.
func measureWatchers(ctx context.Context, args []string) error {
	f := flags("watchers")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	rate := f.Float64("rate", 1_000, "events a second of 10,000 keys")
	take := f.Duration("take", 20*time.Second, "for each number of watchers")
	_ = f.Parse(args) // exits by itself
	if *watershed == "" {
		return errors.New("--watershed is needed")
	}
	before := load()
	l, err := newLoaded(ctx, *watershed, filepath.Join(*jobs, "live.yaml"), *rate, usualShards)
	if err != nil {
		return err
	}
	defer l.stop()
	if _, err := l.all(ctx, "warm", time.Now()); err != nil {
		return err
	}
	fmt.Println("| watchers | acknowledged write p50 ms | p99 ms | update to query p50 ms | p99 ms | changes told/s | cores of the nodes |\n|---|---|---|---|---|---|---|")
	for _, n := range []int{0, 1_000, 10_000, 0, 1_000, 10_000} {
		if err := l.watched(ctx, n, *take); err != nil {
			return fmt.Errorf("%d watchers: %w", n, err)
		}
	}
	fmt.Printf("\n%.0f events a second, %s each, load %s before and %s after\n", *rate, *take, before, load())
	return nil
}

// watched prints what goes on while n watch a key of one shard, which changes all the time.
func (l *live) watched(ctx context.Context, n int, take time.Duration) error {
	const watchedShard = 0
	key := keysOf(l.d.shards, "warm-0")[watchedShard]
	told, stop, err := l.d.follow(ctx, n, key)
	if err != nil {
		return err
	}
	defer stop()
	w, err := newWriters(l.d.grpc, l.d.shards)
	if err != nil {
		return err
	}
	defer w.close()
	l.mu.Lock()
	l.seen = nil
	l.mu.Unlock()
	cpu, err := l.d.cpu()
	if err != nil {
		return err
	}
	writing, end := context.WithCancel(ctx)
	wrote := make(chan []float64)
	go func() { wrote <- w.timed(writing, watchedShard) }()
	start, was := time.Now(), told.Load()
	for i := 0; time.Since(start) < take; i++ {
		l.probe(ctx, i%l.d.shards+1_000_000*n)
		l.produce(ctx, 0, single(key, time.Now()), time.Now().UnixMilli())
	}
	end()
	writes := <-wrote
	after, err := l.d.cpu()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	seconds := time.Since(start).Seconds()
	s := slices.Sorted(slices.Values(l.seen))
	slices.Sort(writes)
	if len(s) == 0 || len(writes) == 0 {
		return errors.New("no update was seen, or no write acknowledged")
	}
	fmt.Printf("| %d | %.1f | %.1f | %.1f | %.1f | %.0f | %.2f |\n", n, quantile(writes, 0.5), quantile(writes, 0.99), quantile(s, 0.5),
		quantile(s, 0.99), float64(told.Load()-was)/seconds, (after-cpu).Seconds()/seconds)
	return nil
}

// follow starts n watchers of a key at the first node, in a process of the lowest priority, and waits until all of them watch. What
// it returns counts the rows that they are told, and ends them.
func (d *deployment) follow(ctx context.Context, n int, key string) (told *atomic.Int64, stop func(), err error) {
	told = new(atomic.Int64)
	if n == 0 {
		return told, func() {}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", self, "follow", "--endpoint", d.grpc[0], "--watchers", strconv.Itoa(n), "--key", key)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	begun, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); { // the number of rows so far, from when all watch
			rows, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err == nil {
				told.Store(rows)
				once.Do(func() { close(begun) })
			}
		}
	}()
	stop = func() { cancel(); <-ended; _ = cmd.Wait() } // it was killed
	select {
	case <-begun:
		return told, stop, nil
	case <-ended:
		stop()
		return nil, nil, errors.New("the watchers ended")
	case <-time.After(startWithin):
		stop()
		return nil, nil, fmt.Errorf("not all of %d watch after %s", n, startWithin)
	}
}

// follow is the process of the watchers: it prints how many rows they have been told, once all of them watch.
func follow(ctx context.Context, args []string) error {
	f := flags("follow")
	endpoint := f.String("endpoint", "", "the node to watch at")
	n := f.Int("watchers", 1, "how many watch")
	key := f.String("key", "", "the key that they watch")
	_ = f.Parse(args) // exits by itself
	var begun, told atomic.Int64
	for i := 0; i < *n; i += watchersPerConn {
		conn, err := grpc.NewClient(*endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range min(watchersPerConn, *n-i) {
			go watchKey(ctx, conn, *key, &begun, &told)
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if begun.Load() == int64(*n) {
			fmt.Println(told.Load())
		}
	}
}

// watchKey watches one key and counts what it is told.
func watchKey(ctx context.Context, conn *grpc.ClientConn, key string, begun, told *atomic.Int64) {
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
