package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/cmd/watershed/internal/dev"
	"github.com/watershed-db/watershed/proto/client"
)

//go:embed surge.yaml
var surgeJob []byte

const (
	shards     = 4
	partitions = 2
	// tail is what comes after the traffic at most: reading everything back, and the end of all processes.
	tail = 28 * time.Second
	// drainWithin bounds how long the regions may take to reach the end of all logs.
	drainWithin = 12 * time.Second
	// leastTraffic is for how long traffic flows, however long it took to start.
	leastTraffic = 8 * time.Second
)

// MinDuration is the shortest demo in which every step of the drill has its place.
const MinDuration = 15 * time.Second

// Options says how a demo runs.
type Options struct {
	Duration time.Duration // from the start of the deployment to the end of the traffic
	Rate     int           // events a second, over all regions. Default: 1000
	Command  []string      // as of dev.Options
	Progress io.Writer     // where it is shown how things go
	Terminal bool          // Progress is a terminal
	Logger   hclog.Logger  // default: none
}

// run is one demo under way.
type run struct {
	regions    []string
	deployment *dev.Deployment
	clients    map[string]*client.Client // by region
	brokers    map[string][]string
	traffic    *traffic
	drill      *drill
	probes     []*probe // by region
	screen     *screen
}

// Run plays the demo and returns what it found. Its error says why there is no verdict; a verdict that is bad is none.
// The temporary folder is kept when something is wrong.
func Run(ctx context.Context, o Options) (v *Verdict, err error) {
	started, asked := time.Now(), ctx
	if o.Rate == 0 {
		o.Rate = 1000
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithDeadlineCause(ctx, started.Add(o.Duration+tail-5*time.Second),
		errors.New("the demo's time is over"))
	defer cancel()
	dir, err := os.MkdirTemp("", "watershed-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() {
		switch {
		case asked.Err() != nil: // interrupted: what failed then says nothing
			v, err = nil, errors.Join(asked.Err(), os.RemoveAll(dir))
		case err != nil:
			err = fmt.Errorf("%w (see the logs in %s)", err, dir)
		case v.OK:
			err = os.RemoveAll(dir)
		}
	}()
	r := &run{screen: newScreen(o.Progress, o.Terminal, o.Duration)}
	defer r.screen.close()
	defer r.close()
	if err := r.start(ctx, o, dir); err != nil {
		return nil, err
	}
	flows := max(o.Duration-time.Since(started), leastTraffic)
	r.screen.event(fmt.Sprintf("%d regions of 3 nodes are up after %.1f s; %d events/s for %.0f s", len(r.regions),
		time.Since(started).Seconds(), o.Rate, flows.Seconds()))
	closed, err := r.flow(ctx, flows, o.Logger)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	v, err = r.judge(ctx, closed)
	if v != nil {
		v.Seconds, v.Data = time.Since(started).Seconds(), dir
	}
	return v, err
}

// start brings everything up.
func (r *run) start(ctx context.Context, o Options, dir string) (err error) {
	r.screen.event("starting the regions")
	file := filepath.Join(dir, "surge.yaml")
	if err := os.WriteFile(file, surgeJob, 0o644); err != nil {
		return fmt.Errorf("write the job: %w", err)
	}
	r.deployment, err = dev.Start(ctx, dev.Options{
		Data: filepath.Join(dir, "data"), Shards: shards, Partitions: partitions, Jobs: []string{file}, Command: o.Command,
		ReadyWithin: 20 * time.Second, StopWithin: 2 * time.Second, Logger: o.Logger,
	})
	if err != nil {
		return err
	}
	r.regions = r.deployment.Regions()
	r.clients, r.brokers = map[string]*client.Client{}, map[string][]string{}
	r.drill = &drill{run: r}
	r.traffic = newTraffic(r.regions, partitions, o.Rate, uint64(time.Now().UnixNano()))
	for name, e := range r.deployment.Endpoints().Regions {
		if r.clients[name], err = client.New(e.GRPC); err != nil {
			return err
		}
		r.brokers[name] = e.Kafka
	}
	for i, region := range r.regions {
		p := newProbe(markerPlace(i).cell, r.regions, r.drill.calm)
		r.probes = append(r.probes, p)
		r.traffic.markers(region).probe = p
	}
	return nil
}

func (r *run) close() {
	for _, c := range r.clients {
		_ = c.Close() // nothing is under way
	}
	if r.deployment != nil {
		r.screen.event("stopping")
		r.deployment.Stop()
	}
}

// flow lets traffic flow while the drill plays, and returns up to when all windows are closed.
func (r *run) flow(ctx context.Context, flows time.Duration, logger hclog.Logger) (closed int64, err error) {
	start := time.Now()
	watching, stopWatching := context.WithCancel(ctx)
	var watchers errgroup.Group
	defer func() {
		stopWatching()
		_ = watchers.Wait() // they return nil, the drill last: it leaves nothing broken
	}()
	for _, p := range r.probes {
		for _, region := range r.regions {
			watchers.Go(func() error {
				p.watch(watching, region, r.clients[region])
				return nil
			})
		}
	}
	watchers.Go(func() error {
		r.screen.run(watching, r)
		return nil
	})
	flowing, stop := context.WithTimeout(ctx, flows)
	defer stop()
	watchers.Go(func() error {
		r.drill.play(flowing, start, flows)
		return nil
	})
	return r.traffic.run(flowing, r.brokers, logger)
}

// look asks a region where it stands.
func (r *run) look(ctx context.Context, region string) (view, error) {
	return look(ctx, r.clients[region])
}

// leaders lists the leader of each shard of a region, "" where there is none.
func (r *run) leaders(ctx context.Context, region string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	top, err := r.clients[region].Topology(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, reg := range top.GetRegions() {
		if reg.GetName() == region {
			for _, sh := range reg.GetShards() {
				out = append(out, sh.GetLeader())
			}
		}
	}
	return out, nil
}
