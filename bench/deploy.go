package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/watershed-db/watershed/proto/client"
)

const (
	region      = "bench"
	nodes       = 3
	usualShards = 8
	partitions  = 4
	// clockTick is the unit of /proc/PID/stat, in all Linux kernels that Go runs on.
	clockTick = 10 * time.Millisecond
	// startWithin bounds what has to start or stop.
	startWithin = 2 * time.Minute
)

// deployment is a `watershed dev` of one region, a process of its own with its children.
type deployment struct {
	watershed, dir string
	cmd            *exec.Cmd
	ended          chan error
	kafka          []string
	grpc, http     []string
	client         *client.Client
	shards, nodes  int
}

// deploy starts the region with three nodes and so many shards in a new temporary folder, with more flags, and waits until every
// node is ready.
func deploy(ctx context.Context, watershed string, shards int, more ...string) (*deployment, error) {
	return deployOn(ctx, watershed, nodes, shards, more...)
}

// deployOn is deploy on so many nodes.
func deployOn(ctx context.Context, watershed string, nodes, shards int, more ...string) (_ *deployment, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	d := &deployment{watershed: watershed, dir: dir, ended: make(chan error, 1), shards: shards, nodes: nodes}
	d.cmd = exec.Command(watershed, append([]string{"dev", "--regions", region, "--nodes", strconv.Itoa(nodes), "--shards",
		strconv.Itoa(shards), "--data", dir}, more...)...)
	var said bytes.Buffer
	d.cmd.Stderr = &said
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { d.ended <- d.cmd.Wait() }()
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	err = await(ctx, startWithin, func() (bool, error) {
		select {
		case err := <-d.ended:
			d.ended <- err
			return false, fmt.Errorf("watershed dev ended: %w: %s", err, said.Bytes())
		default:
		}
		err := d.readEndpoints()
		return err == nil, notYet(err)
	})
	if err != nil {
		return nil, err
	}
	d.client, err = client.New(d.grpc, client.WithPatience(time.Minute)) // a machine may be busy
	return d, err
}

// notYet drops the error of a file that is not there yet.
func notYet(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// await asks until it is so.
func await(ctx context.Context, within time.Duration, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		if ok, err := so(); ok || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *deployment) readEndpoints() error {
	pids, err := d.endpoints()
	if err == nil && len(pids) != d.nodes {
		err = fmt.Errorf("%d nodes in endpoints.json, not %d", len(pids), d.nodes)
	}
	return err
}

// endpoints reads endpoints.json and returns the nodes' process ids.
func (d *deployment) endpoints() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(d.dir, "endpoints.json"))
	if err != nil {
		return nil, err
	}
	var e struct {
		Regions map[string]struct {
			Kafka, GRPC, HTTP []string
			PIDs              []int
		}
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	r := e.Regions[region]
	d.kafka, d.grpc, d.http = r.Kafka, r.GRPC, r.HTTP
	return r.PIDs, nil
}

// restart starts a node again whose process ends, and returns how long that took until it was ready with all its shards.
func (d *deployment) restart(ctx context.Context, node, pid int) (time.Duration, error) {
	for syscall.Kill(pid, 0) == nil && ctx.Err() == nil { // a node that is stopped takes its time
		time.Sleep(10 * time.Millisecond)
	}
	start := time.Now()
	name := fmt.Sprintf("%s-%d", region, node+1)
	if out, err := exec.CommandContext(ctx, d.watershed, "dev", "restart", name, "--data", d.dir).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("restart %s: %w: %s", name, err, out)
	}
	return time.Since(start), nil
}

// stop ends the deployment and removes its folder.
func (d *deployment) stop() {
	if d.client != nil {
		_ = d.client.Close() // nothing is under way
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-d.ended:
	case <-time.After(startWithin):
		_ = d.cmd.Process.Kill() // its children end with it
		<-d.ended
	}
	_ = os.RemoveAll(d.dir) // temporary
}

// cpu returns the processor time that the nodes have taken so far, without Kafka's.
func (d *deployment) cpu() (time.Duration, error) {
	pids, err := d.endpoints()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		t, err := processTime(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// processTime returns user and system time of a process, from /proc.
func processTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name, in parentheses; user and system time are the 14th and 15th.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d: /proc has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// bytes returns what the nodes hold on disk.
func (d *deployment) bytes() (int64, error) {
	var sum int64
	nodes, err := filepath.Glob(filepath.Join(d.dir, region, region+"-*", "data"))
	for _, node := range nodes {
		walk := filepath.WalkDir(node, func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return notYet(err)
			}
			info, err := e.Info()
			if err == nil {
				sum += info.Size()
			}
			return notYet(err)
		})
		err = errors.Join(err, walk)
	}
	return sum, err
}

// apply makes the topics and starts the job.
func (d *deployment) apply(ctx context.Context, file string, topics ...string) error {
	k, err := kgo.NewClient(kgo.SeedBrokers(d.kafka...))
	if err != nil {
		return err
	}
	defer k.Close()
	made, err := kadm.NewClient(k).CreateTopics(ctx, partitions, 1, nil, topics...)
	if err == nil {
		err = made.Error()
	}
	if err != nil {
		return fmt.Errorf("make topics: %w", err)
	}
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, err = d.client.ApplyJob(ctx, file, text)
	return err
}

// counter returns the sum of a counter without labels, or of all its labels, over the nodes.
func (d *deployment) counter(ctx context.Context, name string) (sum float64, err error) {
	for _, address := range d.http {
		text, err := fetch(ctx, "http://"+address+"/metrics")
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			rest, ok := strings.CutPrefix(line, name)
			if !ok || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
			if err != nil {
				return 0, fmt.Errorf("metric %s: %w", name, err)
			}
			sum += v
		}
	}
	return sum, nil
}

// keepProfiles writes a CPU profile of every node, of so long a time, to files of that folder.
func (d *deployment) keepProfiles(ctx context.Context, folder string, take time.Duration) error {
	errs := make(chan error, nodes)
	for i, address := range d.http {
		go func() {
			errs <- fetchProfile(ctx, address, filepath.Join(folder, fmt.Sprintf("node-%d.pprof", i+1)), take)
		}()
	}
	var err error
	for range d.http {
		err = errors.Join(err, <-errs)
	}
	return err
}

func fetchProfile(ctx context.Context, address, file string, take time.Duration) error {
	text, err := fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, int(take.Seconds())))
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", url, res.Status)
	}
	return text, err
}
