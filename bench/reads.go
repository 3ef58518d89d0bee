package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

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
	l, err := newLoaded(ctx, *watershed, filepath.Join(*jobs, "live.yaml"), *rate)
	if err != nil {
		return err
	}
	defer l.stop()
	if _, err := l.all(ctx, "warm", time.Now()); err != nil {
		return err
	}
	fmt.Println("| ms | p50 | p90 | p99 | max | samples |\n|---|---|---|---|---|---|")
	for _, c := range []watershedv1.Consistency{watershedv1.Consistency_CONSISTENCY_LINEARIZABLE, watershedv1.Consistency_CONSISTENCY_LOCAL} {
		took, err := l.read(ctx, c, *readers, *perSecond, *take)
		if err != nil {
			return err
		}
		printQuantiles(c.String(), took)
	}
	fmt.Printf("\n%.0f events a second, %.0f reads a second, load %s before and %s after\n", *rate, *perSecond, before, load())
	return nil
}

// read reads keys at a steady rate and returns how many ms each read took.
func (l *live) read(ctx context.Context, c watershedv1.Consistency, readers int, perSecond float64, take time.Duration) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, take+startWithin)
	defer cancel()
	var mu sync.Mutex
	var took []float64
	var failed error
	var reading sync.WaitGroup
	end := time.Now().Add(take)
	for range readers {
		reading.Go(func() {
			tick := time.NewTicker(time.Duration(float64(readers) / perSecond * float64(time.Second)))
			defer tick.Stop()
			for time.Now().Before(end) && ctx.Err() == nil {
				<-tick.C
				in := proto.CloneOf(liveKey(string(cell(nil, rand.IntN(10_000)))))
				in.Consistency = c
				start := time.Now()
				_, err := l.d.client.Get(ctx, in)
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
	reading.Wait()
	return took, failed
}
