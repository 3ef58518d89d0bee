package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// writeTry bounds one try to write at one node, writePause is between tries at the same shard.
	writeTry   = 250 * time.Millisecond
	writePause = 2 * time.Millisecond
)

// writers write to shards at whatever node takes it. What they write is a command that goes through the shard's Raft log as
// every other one does and changes nothing: a format raised to the lowest one.
type writers struct {
	conns   []*grpc.ClientConn
	command []byte
	shards  int
}

func newWriters(addresses []string, shards int) (*writers, error) {
	w := &writers{command: shard.Encode(&shard.Raise{Format: 1}), shards: shards}
	for _, a := range addresses {
		c, err := grpc.NewClient(a, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			w.close()
			return nil, fmt.Errorf("dial %s: %w", a, err)
		}
		w.conns = append(w.conns, c)
	}
	return w, nil
}

func (w *writers) close() {
	for _, c := range w.conns {
		_ = c.Close() // nothing is under way
	}
}

// all writes to every shard at nodes other than lost, and returns how many ms after start the last write was acknowledged.
func (w *writers) all(ctx context.Context, lost int, start time.Time) (float64, error) {
	var mu sync.Mutex
	var last time.Time
	var failed error
	var writing sync.WaitGroup
	for s := range uint32(w.shards) {
		writing.Go(func() {
			err := w.write(ctx, s, lost)
			mu.Lock()
			defer mu.Unlock()
			if failed = err; err == nil {
				last = time.Now()
			}
		})
	}
	writing.Wait()
	return float64(last.Sub(start).Microseconds()) / 1000, failed
}

// write asks the nodes but the lost one in turn until one acknowledges.
func (w *writers) write(ctx context.Context, s uint32, lost int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	for turn := 0; ctx.Err() == nil; turn++ {
		if turn%len(w.conns) == lost {
			continue
		}
		if err = w.try(ctx, s, w.conns[turn%len(w.conns)]); err == nil {
			return nil
		}
		time.Sleep(writePause)
	}
	return fmt.Errorf("shard %d is not written to: %w", s, err)
}

func (w *writers) try(ctx context.Context, s uint32, at *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, writeTry)
	defer cancel()
	_, err := regionv1.NewShardServiceClient(at).Propose(ctx, &regionv1.ProposeRequest{
		Deployment: "dev", Shard: s, Command: w.command,
	})
	return err
}

// steadily writes to every shard again and again, at whatever node takes it. What it returns ends that, and returns the
// longest time in ms that a shard took no write.
func (w *writers) steadily(ctx context.Context) (end func() float64) {
	ctx, cancel := context.WithCancel(ctx)
	var writing sync.WaitGroup
	longest := make([]time.Duration, w.shards)
	for s := range longest {
		writing.Go(func() {
			at, last := 0, time.Now()
			for ctx.Err() == nil {
				if err := w.try(ctx, uint32(s), w.conns[at]); err != nil {
					at = (at + 1) % len(w.conns)
					time.Sleep(writePause)
					continue
				}
				now := time.Now()
				longest[s], last = max(longest[s], now.Sub(last)), now
				time.Sleep(writePause)
			}
		})
	}
	return func() float64 {
		cancel()
		writing.Wait()
		return float64(slices.Max(longest).Microseconds()) / 1000
	}
}

// timed writes to one shard every 10 ms until ctx ends, and returns how many ms each write took to be acknowledged.
func (w *writers) timed(ctx context.Context, s uint32) (took []float64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return took
		case <-tick.C:
		}
		start := time.Now()
		if err := w.write(ctx, s, -1); err == nil {
			took = append(took, float64(time.Since(start).Microseconds())/1000)
		}
	}
}
