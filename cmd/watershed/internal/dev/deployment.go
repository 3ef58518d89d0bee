package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Deployment is a running deployment. All methods are safe for concurrent use.
type Deployment struct {
	options Options
	layout  *layout
	jobs    []jobFile
	lock    *os.File
	spawner *spawner
	control *controlServer
	proxies map[[2]string][]*proxy // by (from, to), in node order; not changed after Start

	restarts sync.RWMutex // held for reading while a process is replaced
	writing  sync.Mutex   // held while endpoints.json is written
	stop     sync.Once
	telling  sync.Mutex // held while an event is told
	mu       struct {
		sync.Mutex
		processes  map[string]*process // by name: the latest run of each
		restarting map[string]bool     // by name: what a Restart is under way for
		complete   bool                // everything is up, so endpoints.json is kept
		stopping   bool
	}
}

// Start starts everything and returns once every node is ready and every job applied; endpoints.json is written then. If
// it fails, nothing is left running.
func Start(ctx context.Context, o Options) (*Deployment, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	jobs, err := readJobs(o.Jobs)
	if err != nil {
		return nil, err
	}
	if o.Data, err = filepath.Abs(o.Data); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := lockFolder(o.Data)
	if err != nil {
		return nil, err
	}
	d := &Deployment{options: o, jobs: jobs, lock: lock, spawner: newSpawner(), proxies: map[[2]string][]*proxy{}}
	d.mu.processes, d.mu.restarting = map[string]*process{}, map[string]bool{}
	if err := d.start(ctx); err != nil {
		d.Stop()
		return nil, err
	}
	return d, nil
}

func (d *Deployment) start(ctx context.Context) (err error) {
	// One of an earlier run says nothing about this one.
	if err := os.Remove(endpointsFile(d.options.Data)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old endpoints: %w", err)
	}
	if d.layout, err = openLayout(d.options); err != nil {
		return err
	}
	if err := d.checkPorts(); err != nil {
		return err
	}
	if err := d.openLinks(); err != nil {
		return err
	}
	if err := d.eachRegion(ctx, d.startKafka); err != nil {
		return err
	}
	if err := d.eachRegion(ctx, d.startNodes); err != nil {
		return err
	}
	for _, f := range d.jobs {
		if err := d.applyJob(ctx, f); err != nil {
			return err
		}
	}
	if d.control, err = serveControl(d); err != nil {
		return err
	}
	d.mu.Lock()
	d.mu.complete = true
	d.mu.Unlock()
	return d.writeEndpoints()
}

func (d *Deployment) eachRegion(ctx context.Context, start func(context.Context, *regionLayout) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range d.layout.Regions {
		g.Go(func() error { return start(ctx, &d.layout.Regions[i]) })
	}
	return g.Wait()
}

// checkPorts fails before anything is started where a port is taken.
func (d *Deployment) checkPorts() error {
	for _, r := range d.layout.Regions {
		if d.options.Kafka[r.Name] == nil {
			if err := checkFree("Kafka of "+r.Name, r.Kafka); err != nil {
				return err
			}
		}
		for _, n := range r.Nodes {
			for _, p := range []struct {
				what string
				port int
			}{{"Raft", n.Raft}, {"gRPC", n.GRPC}, {"HTTP", n.HTTP}} {
				if err := checkFree(p.what+" of "+n.ID, p.port); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (d *Deployment) openLinks() error {
	for _, l := range d.layout.Links {
		to := d.region(l.To)
		if to == nil || len(to.Nodes) != len(l.Ports) {
			return fmt.Errorf("the deployment's ports are damaged: link from %s to %s", l.From, l.To)
		}
		for i, port := range l.Ports {
			listener, err := listen(fmt.Sprintf("link from %s to %s", l.From, to.Nodes[i].ID), port)
			if err != nil {
				return err
			}
			key := [2]string{l.From, l.To}
			d.proxies[key] = append(d.proxies[key], newProxy(listener, local(to.Nodes[i].GRPC)))
		}
	}
	return nil
}

func (d *Deployment) region(name string) *regionLayout {
	i := slices.IndexFunc(d.layout.Regions, func(r regionLayout) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &d.layout.Regions[i]
}

func (d *Deployment) nodeDir(region, node string) string {
	return filepath.Join(d.options.Data, region, node)
}

// brokers lists the region's Kafka brokers.
func (d *Deployment) brokers(r *regionLayout) []string {
	if b := d.options.Kafka[r.Name]; b != nil {
		return b
	}
	return []string{local(r.Kafka)}
}

// Cut parts two regions, in both directions, until Heal.
func (d *Deployment) Cut(a, b string) error { return d.setCut(a, b, true) }

// Heal ends a Cut. Regions that are not parted stay as they are.
func (d *Deployment) Heal(a, b string) error { return d.setCut(a, b, false) }

func (d *Deployment) setCut(a, b string, cut bool) error {
	there, back := d.proxies[[2]string{a, b}], d.proxies[[2]string{b, a}]
	if there == nil || back == nil {
		return fmt.Errorf("no link between %q and %q; the regions are %s", a, b, strings.Join(d.layout.names(), ", "))
	}
	for _, p := range append(slices.Clone(there), back...) {
		p.setCut(cut)
	}
	return nil
}

// Endpoints says where everything listens.
func (d *Deployment) Endpoints() Endpoints {
	e := Endpoints{Version: endpointsVersion, Regions: map[string]RegionEndpoints{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.layout.Regions {
		r := &d.layout.Regions[i]
		out := RegionEndpoints{Kafka: d.brokers(r)}
		for _, n := range r.Nodes {
			out.GRPC, out.HTTP = append(out.GRPC, local(n.GRPC)), append(out.HTTP, local(n.HTTP))
			pid := 0
			if p := d.mu.processes[n.ID]; p != nil {
				pid = p.pid()
			}
			out.PIDs = append(out.PIDs, pid)
		}
		e.Regions[r.Name] = out
	}
	return e
}

// writeEndpoints writes endpoints.json once everything has been up.
func (d *Deployment) writeEndpoints() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	skip := !d.mu.complete || d.mu.stopping
	d.mu.Unlock()
	if skip {
		return nil
	}
	if err := writeJSON(endpointsFile(d.options.Data), d.Endpoints()); err != nil {
		return fmt.Errorf("write endpoints: %w", err)
	}
	return nil
}

// Regions lists the regions in member order.
func (d *Deployment) Regions() []string { return d.layout.names() }

// Nodes lists the ids of a region's nodes in order; nil for an unknown region.
func (d *Deployment) Nodes(region string) []string {
	r := d.region(region)
	if r == nil {
		return nil
	}
	var out []string
	for _, n := range r.Nodes {
		out = append(out, n.ID)
	}
	return out
}

// Shards returns the number of shards.
func (d *Deployment) Shards() int { return d.layout.Shards }

// Data returns the deployment's folder, as an absolute path.
func (d *Deployment) Data() string { return d.options.Data }

func (d *Deployment) event(format string, args ...any) {
	d.telling.Lock()
	defer d.telling.Unlock()
	fmt.Fprintf(d.options.Events, "%s %s\n", time.Now().UTC().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// Stop ends everything: the nodes first, then the Kafkas, each with time to end by itself. It can be called twice.
func (d *Deployment) Stop() {
	d.stop.Do(func() {
		d.mu.Lock()
		d.mu.stopping = true // so nothing is launched any more
		d.mu.Unlock()
		if d.control != nil {
			d.control.close()
		}
		d.restarts.Lock()
		defer d.restarts.Unlock()
		if d.layout != nil {
			_ = os.Remove(endpointsFile(d.options.Data)) // nothing will listen there
		}
		d.stopAll(func(name string) bool { return !isKafka(name) })
		d.stopAll(isKafka)
		for _, ps := range d.proxies {
			for _, p := range ps {
				p.close()
			}
		}
		d.spawner.close()
		_ = d.lock.Close() // the lock goes with the file
	})
}

func (d *Deployment) stopAll(which func(name string) bool) {
	d.mu.Lock()
	processes := maps.Clone(d.mu.processes)
	d.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	for name, p := range processes {
		if which(name) {
			wg.Go(func() { p.stop(d.options.StopWithin) })
		}
	}
}
