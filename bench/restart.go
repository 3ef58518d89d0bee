package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// laden is a region with a state of some size.
type laden struct {
	*deployment
	made  int64 // events in Kafka
	rides *rides
	job   string // its file
}

// newLaden returns one without a deployment yet, each of whose events adds pad bytes to the state, besides what it counts.
func newLaden(keys, pad int) laden {
	c := laden{rides: newRides(1, keys, false), job: "fill.yaml"}
	if c.rides.pad = pad; pad > 0 {
		c.job = "fat.yaml"
	}
	return c
}

// measureRestart measures how soon a node that was killed serves again with a state of some size.
func measureRestart(ctx context.Context, args []string) (err error) {
	f := flags("restart")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	events := f.Int64("events", 100_000, "events")
	keys := f.Int("keys", 100_000, "keys")
	pad := f.Int("pad", 800, "bytes that each event adds to the state, besides what it counts")
	on := f.Int("nodes", nodes, "nodes of the region, each of which has all of the state up to three")
	rounds := f.Int("rounds", 3, "how many times each node is killed")
	_ = f.Parse(args) // exits by itself
	if *watershed == "" {
		return errors.New("--watershed is needed")
	}
	before := load()
	c := newLaden(*keys, *pad)
	if c.deployment, err = deployOn(ctx, *watershed, *on, usualShards); err != nil {
		return err
	}
	defer c.stop()
	fmt.Println("| | seconds | | |\n|---|---|---|---|")
	took, err := c.fill(ctx, *jobs, *events)
	if err != nil {
		return err
	}
	fmt.Printf("| loading all of it from Kafka | %.1f | | |\n", took.Seconds())
	if err := c.restarts(ctx, *rounds); err != nil {
		return err
	}
	fmt.Printf("\n%d nodes, %d shards, %d events, %d keys, %d bytes each, load %s before and %s after\n", c.nodes, c.shards, *events, *keys,
		*pad, before, load())
	return nil
}

// fill puts events into Kafka, and returns how long it took until all shards had them.
func (c *laden) fill(ctx context.Context, jobs string, events int64) (time.Duration, error) {
	if err := c.apply(ctx, "", "bench-rides"); err != nil {
		return 0, err
	}
	if err := c.produce(ctx, events); err != nil {
		return 0, err
	}
	began := time.Now()
	text, err := os.ReadFile(filepath.Join(jobs, c.job))
	if err == nil {
		_, err = c.client.ApplyJob(ctx, c.job, text)
	}
	if err == nil {
		err = c.taken(ctx)
	}
	return time.Since(began), err
}

// restarts kills each node in turn and starts it again, in so many rounds.
func (c *laden) restarts(ctx context.Context, rounds int) error {
	size, err := c.bytes()
	if err != nil {
		return err
	}
	fmt.Printf("| (on disk at a node: %s MB) | | | |\n", megabytes(float64(size)/float64(c.nodes)))
	for n := range c.nodes * rounds {
		i := n % c.nodes
		pids, err := c.endpoints()
		if err != nil {
			return err
		}
		if err := syscall.Kill(pids[i], syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill node %d: %w", i+1, err)
		}
		took, err := c.restart(ctx, i, pids[i])
		if err != nil {
			return err
		}
		fmt.Printf("| node %d, killed and started again, to ready with all its shards | %.2f | | |\n", i+1, took.Seconds())
		if err := c.taken(ctx); err != nil {
			return err
		}
	}
	return nil
}

// produce puts n more events into Kafka.
func (c *laden) produce(ctx context.Context, n int64) error {
	c.made += n
	return produceAll(ctx, c.kafka, "bench-rides", c.rides, c.made)
}

// taken waits until every shard has all events.
func (c *laden) taken(ctx context.Context) error {
	ends := map[int32]int64{}
	for p := range int32(partitions) {
		ends[p] = (c.made-int64(p)-1)/partitions + 1
	}
	return await(ctx, time.Hour, func() (bool, error) { return c.reached(ctx, "bench-fill", ends) })
}
