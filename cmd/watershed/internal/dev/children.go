package dev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/log/kafka"
)

const (
	readyEvery  = 20 * time.Millisecond // between two looks whether a node is ready
	askWithin   = time.Second           // for one look
	kafkaSuffix = "-kafka"
)

// errStopping says that the deployment is being stopped.
var errStopping = errors.New("the deployment is being stopped")

func kafkaName(region string) string { return region + kafkaSuffix }

func isKafka(name string) bool { return strings.HasSuffix(name, kafkaSuffix) }

// startKafka brings up the region's embedded Kafka, if it has one, and the topics that jobs need.
func (d *Deployment) startKafka(ctx context.Context, r *regionLayout) error {
	if d.options.Kafka[r.Name] == nil {
		if err := d.runKafka(ctx, r); err != nil {
			return err
		}
	}
	return d.makeTopics(ctx, r)
}

func (d *Deployment) runKafka(ctx context.Context, r *regionLayout) error {
	dir := filepath.Join(d.options.Data, r.Name, "kafka")
	p, err := d.launch(kafkaName(r.Name), filepath.Join(dir, "kafka.log"),
		"embedded-kafka", "--port", fmt.Sprint(r.Kafka), "--data", filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	return d.await(ctx, p, func(ctx context.Context) bool {
		client, err := kafka.Dial(ctx, kafka.Config{Brokers: d.brokers(r)}, d.options.Logger.Named("kafka"))
		if err != nil {
			return false
		}
		client.Close()
		return true
	})
}

// startNodes brings up all nodes of a region.
func (d *Deployment) startNodes(ctx context.Context, r *regionLayout) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range r.Nodes {
		g.Go(func() error { return d.runNode(ctx, r, n) })
	}
	return g.Wait()
}

// runNode starts a node and waits until it is ready.
func (d *Deployment) runNode(ctx context.Context, r *regionLayout, n nodeLayout) error {
	config, err := d.writeConfig(r, n)
	if err != nil {
		return err
	}
	p, err := d.launch(n.ID, filepath.Join(d.nodeDir(r.Name, n.ID), "node.log"), "node", "--config", config)
	if err != nil {
		return err
	}
	return d.await(ctx, p, func(ctx context.Context) bool { return ready(ctx, local(n.HTTP)) })
}

func ready(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = answer.Body.Close() // only the status matters
	return answer.StatusCode == http.StatusOK
}

// launch starts a child process under a name that none alive has.
func (d *Deployment) launch(name, logFile string, args ...string) (*process, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.stopping {
		return nil, errStopping
	}
	p, err := launch(d.spawner, name, logFile, append(slices.Clone(d.options.Command), args...), d.ended)
	if err != nil {
		return nil, err
	}
	d.mu.processes[name] = p
	return p, nil
}

// ended tells of a process that ended by itself.
func (d *Deployment) ended(p *process) {
	d.mu.Lock()
	stopping, complete := d.mu.stopping, d.mu.complete
	d.mu.Unlock()
	if stopping || !complete || p.expected() {
		return // whoever waits for it says so
	}
	d.event("%s (pid %d) has died: %s; watershed dev restart %s --data %s brings it back", p.name, p.pid(), p.fate(),
		p.name, d.options.Data)
}

// await waits until a process is ready, and fails when it ends first or takes too long.
func (d *Deployment) await(ctx context.Context, p *process, ready func(context.Context) bool) error {
	late := time.NewTimer(d.options.ReadyWithin)
	defer late.Stop()
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, askWithin)
		up := ready(try)
		cancel()
		if up && p.alive() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("%s has ended: %s: %s (see %s)", p.name, p.fate(), p.lastWords(), p.log)
		case <-late.C:
			return fmt.Errorf("%s is not ready within %s: %s (see %s)", p.name, d.options.ReadyWithin, p.lastWords(), p.log)
		case <-tick.C:
		}
	}
}

// Restart starts a node again, stopping it first if it runs, and returns once it is ready. The name may also be that of a
// region's embedded Kafka: REGION-kafka. Several may be restarted at a time: a node is not ready before most of its
// region are up.
func (d *Deployment) Restart(ctx context.Context, name string) error {
	d.restarts.RLock()
	defer d.restarts.RUnlock()
	run, err := d.runner(name)
	if err != nil {
		return err
	}
	if !d.claim(name) {
		return fmt.Errorf("%s is being restarted already", name)
	}
	defer d.release(name)
	if p := d.process(name); p != nil {
		p.stop(d.options.StopWithin)
	}
	if err := run(ctx); err != nil {
		return err
	}
	return d.writeEndpoints()
}

// claim takes a process for a restart; false where another has it.
func (d *Deployment) claim(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.restarting[name] {
		return false
	}
	d.mu.restarting[name] = true
	return true
}

func (d *Deployment) release(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.restarting, name)
}

// runner returns what starts a process by its name.
func (d *Deployment) runner(name string) (func(context.Context) error, error) {
	var known []string
	for i := range d.layout.Regions {
		r := &d.layout.Regions[i]
		for _, n := range r.Nodes {
			if n.ID == name {
				return func(ctx context.Context) error { return d.runNode(ctx, r, n) }, nil
			}
			known = append(known, n.ID)
		}
		if d.options.Kafka[r.Name] == nil {
			if kafkaName(r.Name) == name {
				return func(ctx context.Context) error { return d.runKafka(ctx, r) }, nil
			}
			known = append(known, kafkaName(r.Name))
		}
	}
	return nil, fmt.Errorf("no node %q; there are %s", name, strings.Join(known, ", "))
}

func (d *Deployment) process(name string) *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.processes[name]
}

// Kill ends a process at once, as kill -9 does, and returns when it is gone. It stays dead until Restart.
func (d *Deployment) Kill(name string) error {
	p := d.process(name)
	if p == nil || !p.alive() {
		return fmt.Errorf("%s does not run", name)
	}
	p.signal(syscall.SIGKILL)
	<-p.done
	return nil
}

// Alive says whether a process runs.
func (d *Deployment) Alive(name string) bool {
	p := d.process(name)
	return p != nil && p.alive()
}
