package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// gauges are what a soak looks at, by the name in /metrics; disk is added to them.
var gauges = []string{"process_resident_memory_bytes", "go_memstats_heap_inuse_bytes", "go_goroutines", "process_open_fds"}

const disk = "bytes on disk"

// flatWithin is how much of its mean a gauge may rise by, as a line is fitted to it, to count as flat.
const flatWithin = 0.10

// track is what one node showed of one gauge.
type track struct{ at, values []float64 } // seconds since the start

// measureSoak runs a region under a steady load with retention, samples what its nodes use, fits a line to each once
// logs, caches and marks have filled, and says whether it is flat.
func measureSoak(ctx context.Context, args []string) error {
	f := flags("soak")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	minutes := f.Int("minutes", 30, "for how long")
	rate := f.Float64("rate", 2_000, "events a second of 10,000 keys")
	every := f.Duration("every", 5*time.Second, "between two samples")
	settle := f.Int("settle", 20, "minutes before that, in which logs, caches and marks fill")
	shards := f.Int("shards", 1, "how many shards: few, so that each takes many Advances")
	logBytes := f.String("log-bytes", "2MiB", "what a shard's Raft log keeps: little, so that it is full soon")
	flush := f.Duration("flush-interval", 5*time.Millisecond, "of workers: short, so that the marks kept of a source are soon as many as there may be")
	_ = f.Parse(args) // exits by itself
	if *watershed == "" || *minutes < 1 || *every <= 0 {
		return errors.New("--watershed and a positive --minutes are needed")
	}
	before := load()
	l, err := newLoaded(ctx, *watershed, filepath.Join(*jobs, "soak.yaml"), *rate, *shards, "--log-bytes", *logBytes, "--flush-interval", flush.String())
	if err != nil {
		return err
	}
	defer l.stop()
	if _, err := l.sample(ctx, time.Duration(*settle)*time.Minute, *every); err != nil {
		return err
	}
	tracks, err := l.sample(ctx, time.Duration(*minutes)*time.Minute, *every)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Printf("\n**%d minutes of %.0f events a second, 5 s windows kept for 30 s**: %d events, 3 nodes, %d shards, Raft logs of %s, after %d minutes of the same, load %s before "+
		"and %s after\n\n", *minutes, *rate, l.produced, l.d.shards, *logBytes, *settle, before, load())
	return errors.Join(l.failed, verdict(tracks))
}

// sample looks at every node until take is over.
func (l *live) sample(ctx context.Context, take, every time.Duration) (map[string][]*track, error) {
	out := map[string][]*track{}
	for _, g := range append([]string{disk}, gauges...) {
		for range l.d.http {
			out[g] = append(out[g], &track{})
		}
	}
	start := time.Now()
	t := time.NewTicker(every)
	defer t.Stop()
	for time.Since(start) < take {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		at := time.Since(start).Seconds()
		for n, address := range l.d.http {
			text, err := fetch(ctx, "http://"+address+"/metrics")
			if err != nil {
				return nil, err
			}
			for _, g := range gauges {
				v, err := gauge(string(text), g)
				if err != nil {
					return nil, err
				}
				out[g][n].add(at, v)
			}
			bytes, err := folderBytes(filepath.Join(l.d.dir, region, fmt.Sprintf("%s-%d", region, n+1), "data"))
			if err != nil {
				return nil, err
			}
			out[disk][n].add(at, float64(bytes))
		}
	}
	return out, nil
}

func (t *track) add(at, v float64) { t.at, t.values = append(t.at, at), append(t.values, v) }

// gauge finds a metric without labels.
func gauge(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// folderBytes returns the bytes of the files below a folder; one that has several names counts once.
func folderBytes(dir string) (sum int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return notYet(err)
		}
		info, err := e.Info()
		if err != nil {
			return notYet(err)
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			if seen[s.Ino] {
				return nil
			}
			seen[s.Ino] = true
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}

// fit returns the mean of what was seen, and by how much a line through it rises (least squares).
func (t *track) fit() (mean, rise float64) {
	at, values := t.at, t.values
	var x, y float64
	for i := range at {
		x, y = x+at[i]/float64(len(at)), y+values[i]/float64(len(at))
	}
	var xy, xx float64
	for i := range at {
		xy, xx = xy+(at[i]-x)*(values[i]-y), xx+(at[i]-x)*(at[i]-x)
	}
	if xx == 0 {
		return y, 0
	}
	return y, xy / xx * (at[len(at)-1] - at[0])
}

// verdict prints the table, and fails where a gauge of a node rises.
func verdict(tracks map[string][]*track) error {
	fmt.Println("| | node | at the start | at the end | mean | rise of the fitted line | verdict |\n|---|---|---|---|---|---|---|")
	var rising []string
	for _, g := range append([]string{disk}, gauges...) {
		for n, t := range tracks[g] {
			if len(t.at) < 6 {
				return errors.New("too few samples to fit a line")
			}
			mean, rise := t.fit()
			word := "flat"
			if rise > flatWithin*mean {
				word = "rises"
				rising = append(rising, fmt.Sprintf("%s of node %d", g, n+1))
			}
			fmt.Printf("| %s | %d | %.0f | %.0f | %.0f | %+.1f%% | %s |\n", g, n+1, t.values[0], t.values[len(t.at)-1], mean,
				100*rise/mean, word)
		}
	}
	if len(rising) > 0 {
		return fmt.Errorf("not flat: %s", strings.Join(rising, ", "))
	}
	fmt.Println("\nEverything is flat.")
	return nil
}
