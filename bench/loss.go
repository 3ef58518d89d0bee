package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
)

// measureLoss kills, pauses or stops one node after the other, under some load, and measures how long it takes until every
// shard takes writes and answers again, until updates of every partition reach every shard again, and until the node is back.
func measureLoss(ctx context.Context, args []string) error {
	f := flags("loss")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	kills := f.Int("kills", 6, "how many nodes are killed, in turn")
	fault := f.String("fault", "kill", "kill (SIGKILL), pause (SIGSTOP) or stop (SIGTERM): what happens to a node")
	rate := f.Float64("rate", 5_000, "events a second of 10,000 keys meanwhile")
	_ = f.Parse(args) // exits by itself
	sig, known := map[string]syscall.Signal{"kill": syscall.SIGKILL, "pause": syscall.SIGSTOP, "stop": syscall.SIGTERM}[*fault]
	if *watershed == "" || *kills < 1 || !known {
		return errors.New("--watershed, a positive --kills and a --fault of kill, pause or stop are needed")
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
	w, err := newWriters(l.d.grpc, l.d.shards)
	if err != nil {
		return err
	}
	defer w.close()
	if _, err := w.all(ctx, -1, time.Now()); err != nil {
		return err
	}
	var gaps, writes, reads, updates, back []float64
	for n := range *kills {
		r, err := l.lose(ctx, w, n, sig)
		if err != nil {
			return fmt.Errorf("kill %d: %w", n+1, err)
		}
		gaps, writes, reads, updates, back = append(gaps, r.gap), append(writes, r.write), append(reads, r.read), append(updates, r.update), append(back, r.back)
		fmt.Fprintf(os.Stderr, "%s %d of %d: write %.0f read %.0f update %.0f back %.0f ms\n", *fault, n+1, *kills, r.write, r.read, r.update, r.back)
	}
	fmt.Printf("\n**%s of one of 3 nodes, %d times in turn, under %.0f events a second**: %d shards, load %s before and %s "+
		"after\n\n", map[string]string{"kill": "SIGKILL", "pause": "SIGSTOP", "stop": "SIGTERM"}[*fault], *kills, *rate, l.d.shards, before, load())
	fmt.Println("| ms from the signal | p50 | p90 | p99 | max | samples |\n|---|---|---|---|---|---|")
	printQuantiles("(of any shard: the longest time between two acknowledged writes)", gaps)
	printQuantiles("to an acknowledged write to every shard", writes)
	printQuantiles("to a linearizable read of every shard", reads)
	printQuantiles("to an update of every partition seen in every shard", updates)
	printQuantiles("the node's restart, to ready with all its shards", back)
	return nil
}

// loss is what one kill cost, in ms.
type loss struct{ gap, write, read, update, back float64 }

func (l *live) lose(ctx context.Context, w *writers, n int, sig syscall.Signal) (r loss, err error) {
	pids, err := l.d.endpoints()
	if err != nil {
		return r, err
	}
	node := n % nodes
	gap := w.steadily(ctx)
	start := time.Now()
	if err := syscall.Kill(pids[node], sig); err != nil {
		return r, fmt.Errorf("signal node %d: %w", node+1, err)
	}
	done := make(chan error, 2)
	go func() {
		var err error
		r.write, err = w.all(ctx, node, start)
		done <- err
	}()
	go func() {
		var err error
		r.update, err = l.all(ctx, fmt.Sprintf("lost-%d", n), start)
		done <- err
	}()
	read, err := l.answers(ctx, start)
	if err = errors.Join(err, <-done, <-done); err != nil {
		return r, err
	}
	r.read, r.gap = read, gap()
	if sig == syscall.SIGSTOP { // it ends, to be started again like the others
		if err := errors.Join(syscall.Kill(pids[node], syscall.SIGKILL), syscall.Kill(pids[node], syscall.SIGCONT)); err != nil {
			return r, fmt.Errorf("kill node %d: %w", node+1, err)
		}
	}
	took, err := l.d.restart(ctx, node, pids[node])
	if err != nil {
		return r, err
	}
	r.back = float64(took.Microseconds()) / 1000
	_, err = l.all(ctx, fmt.Sprintf("back-%d", n), time.Now())
	return r, err
}

// keysOf returns a key of each shard that begins with prefix.
func keysOf(shards int, prefix string) []string {
	keys := make([]string, shards)
	for found, n := 0, 0; found < shards; n++ {
		key := fmt.Sprintf("%s-%d", prefix, n)
		if s := keyspace.ShardOf(crdt.Text(key).AppendKey(nil), shards); keys[s] == "" {
			keys[s] = key
			found++
		}
	}
	return keys
}

// all produces an event for each shard to each partition, and returns how many ms after start all were seen.
func (l *live) all(ctx context.Context, prefix string, start time.Time) (float64, error) {
	results := make(chan error, partitions*l.d.shards)
	for p := range int32(partitions) {
		for _, key := range keysOf(l.d.shards, fmt.Sprintf("%s-%d", prefix, p)) {
			now := time.Now()
			l.produce(ctx, p, single(key, now), now.UnixMilli())
			go func() {
				_, err := l.await(ctx, key, start)
				results <- err
			}()
		}
	}
	var err error
	for range partitions * l.d.shards {
		err = errors.Join(err, <-results)
	}
	return float64(time.Since(start).Microseconds()) / 1000, err
}

// answers returns how many ms after start every shard had answered a linearizable read.
func (l *live) answers(ctx context.Context, start time.Time) (float64, error) {
	results := make(chan error, l.d.shards)
	for _, key := range keysOf(l.d.shards, "warm-0") {
		go func() {
			_, err := l.d.client.Get(ctx, liveKey(key))
			results <- err
		}()
	}
	var err error
	for range l.d.shards {
		err = errors.Join(err, <-results)
	}
	return float64(time.Since(start).Microseconds()) / 1000, err
}
