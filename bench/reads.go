package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// measureReads measures how long reads of single keys take, linearizable and local, under a steady load of updates.
func measureReads(ctx context.Context, args []string) error {
	f := flags("reads")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	rate := f.Float64("rate", 5_000, "events a second of 10,000 keys meanwhile")
	readers := f.Int("readers", 4, "reads under way at a time")
	perSecond := f.Float64("reads", 200, "reads a second of each kind")
	take := f.Duration("take", 20*time.Second, "for each kind")
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
	fmt.Println("| ms | p50 | p90 | p99 | max | samples |\n|---|---|---|---|---|---|")
	calls, err := l.calls(ctx, *readers, *perSecond, *take)
	if err != nil {
		return err
	}
	printQuantiles("a call that does nothing (health)", calls)
	for _, c := range []watershedv1.Consistency{watershedv1.Consistency_CONSISTENCY_LINEARIZABLE, watershedv1.Consistency_CONSISTENCY_LOCAL} {
		took, err := steadily(ctx, *readers, *perSecond, *take, func(ctx context.Context) error {
			in := proto.CloneOf(liveKey(string(cell(nil, rand.IntN(10_000)))))
			in.Consistency = c
			_, err := l.d.client.Get(ctx, in)
			return err
		})
		if err != nil {
			return err
		}
		printQuantiles(c.String(), took)
	}
	fmt.Printf("\n%.0f events a second, %.0f reads a second, load %s before and %s after\n", *rate, *perSecond, before, load())
	return nil
}

// calls asks nodes for their health at a steady rate: what a call takes that has nothing to do.
func (l *live) calls(ctx context.Context, callers int, perSecond float64, take time.Duration) ([]float64, error) {
	var conns []grpc_health_v1.HealthClient
	for _, address := range l.d.grpc {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		conns = append(conns, grpc_health_v1.NewHealthClient(conn))
	}
	return steadily(ctx, callers, perSecond, take, func(ctx context.Context) error {
		_, err := conns[rand.IntN(len(conns))].Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	})
}

// steadily calls at a steady rate, several at a time, and returns how many ms each call took.
func steadily(ctx context.Context, callers int, perSecond float64, take time.Duration, call func(context.Context) error) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, take+startWithin)
	defer cancel()
	var mu sync.Mutex
	var took []float64
	var failed error
	var calling sync.WaitGroup
	end := time.Now().Add(take)
	for range callers {
		calling.Go(func() {
			tick := time.NewTicker(time.Duration(float64(callers) / perSecond * float64(time.Second)))
			defer tick.Stop()
			for time.Now().Before(end) && ctx.Err() == nil {
				<-tick.C
				start := time.Now()
				err := call(ctx)
				ms := float64(time.Since(start).Microseconds()) / 1000
				mu.Lock()
				took, failed = append(took, ms), errors.Join(failed, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	calling.Wait()
	return took, failed
}
