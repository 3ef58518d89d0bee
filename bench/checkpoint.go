package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/watershed-db/watershed/jepsen/s3"
	"github.com/watershed-db/watershed/proto/client"
)

// checkpoints is a region that keeps checkpoints in an object store on this machine.
type checkpoints struct {
	laden
	url string
	// patient waits for checkpoints.
	patient *client.Client
}

// measureCheckpoint measures what checkpoints cost and how soon a region is back from one: beside loading all of it again.
func measureCheckpoint(ctx context.Context, args []string) error {
	f := flags("checkpoint")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	events := f.Int64("events", 2_000_000, "events before the first measurement")
	keys := f.Int("keys", 1_000_000, "keys")
	pad := f.Int("pad", 0, "bytes that each event adds to the state, besides what it counts")
	change := f.Int64("change", 10_000, "events of a small change")
	_ = f.Parse(args) // exits by itself
	if *watershed == "" {
		return errors.New("--watershed is needed")
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := s3.Start(ctx, filepath.Join(dir, "s3"))
	if err != nil {
		return err
	}
	defer server.Kill()
	for _, e := range s3.Environment() {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	c := &checkpoints{
		url:   fmt.Sprintf("s3://%s/bench?endpoint=http://%s", s3.Bucket, server.Addr()),
		laden: newLaden(*keys, *pad),
	}
	before := load()
	fmt.Println("| | seconds | MB in the checkpoint | MB sent |\n|---|---|---|---|")
	if err := c.live(ctx, *watershed, *jobs, *events, *change); err != nil {
		return err
	}
	if err := c.restore(ctx, *watershed, dir); err != nil {
		return err
	}
	fmt.Printf("\n%d shards, %d events, %d keys, load %s before and %s after\n", c.shards, *events, *keys, before, load())
	return nil
}

// live measures a region that runs.
func (c *checkpoints) live(ctx context.Context, watershed, jobs string, events, change int64) (err error) {
	if c.deployment, err = deploy(ctx, watershed, usualShards, "--checkpoints", c.url); err != nil {
		return err
	}
	defer c.stop()
	if c.patient, err = client.New(c.grpc, client.WithPatience(10*time.Minute)); err != nil {
		return err
	}
	defer c.patient.Close()
	took, err := c.fill(ctx, jobs, events)
	if err != nil {
		return err
	}
	fmt.Printf("| loading all of it from Kafka, checkpoints every 15 s beside | %.1f | | |\n", took.Seconds())
	if err := c.restarts(ctx, 1); err != nil {
		return err
	}
	if err := c.now(ctx, "`checkpoint now` after it"); err != nil {
		return err
	}
	if err := c.now(ctx, "at once again"); err != nil {
		return err
	}
	if err := c.produce(ctx, change); err != nil {
		return err
	}
	if err := c.taken(ctx); err != nil {
		return err
	}
	if err := c.now(ctx, fmt.Sprintf("after %d more events", change)); err != nil {
		return err
	}
	if err := c.produce(ctx, events/2); err != nil {
		return err
	}
	for i := range 3 {
		if err := c.now(ctx, fmt.Sprintf("while workers lag by up to %d events, %d.", events/2, i+1)); err != nil {
			return err
		}
	}
	if err := c.taken(ctx); err != nil {
		return err
	}
	return c.now(ctx, "when they have caught up")
}

// now makes a checkpoint and prints what it took.
func (c *checkpoints) now(ctx context.Context, what string) error {
	sent, err := c.sent(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	made, err := c.patient.Checkpoint(ctx, "")
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := c.sent(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("| %s | %.2f | %s | %s |\n", what, took.Seconds(), megabytes(float64(made.GetBytes())), megabytes(after-sent))
	return nil
}

func megabytes(n float64) string { return strconv.FormatFloat(n/(1<<20), 'f', 1, 64) }

// sent returns the bytes that all nodes have sent so far.
func (c *checkpoints) sent(ctx context.Context) (sum float64, err error) {
	for _, address := range c.http {
		text, err := fetch(ctx, "http://"+address+"/metrics")
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, `watershed_checkpoint_bytes_total{how="sent"`) {
				continue
			}
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, nil
}

// restore measures a node of another name, alone, that begins with the last checkpoint.
func (c *checkpoints) restore(ctx context.Context, watershed, dir string) error {
	var ports [3]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports[i] = l.Addr().String()
		if err := l.Close(); err != nil {
			return err
		}
	}
	config := filepath.Join(dir, "node.yaml")
	text := fmt.Sprintf("deployment: dev\nregion: %s\nnode: other\ndata: %s\nshards: %d\nregions: [{name: %s, member: 2}]\n"+
		"nodes: [{id: other, raft: %q, grpc: %q, http: %q}]\nkafka: {brokers: [\"127.0.0.1:1\"]}\ncheckpoints: {url: %q}\n", region,
		filepath.Join(dir, "other"), c.shards, region, ports[0], ports[1], ports[2], c.url)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	began := time.Now()
	if out, err := exec.CommandContext(ctx, watershed, "checkpoint", "restore", "latest", "--config", config).CombinedOutput(); err != nil {
		return fmt.Errorf("restore: %w: %s", err, out)
	}
	fmt.Printf("| `checkpoint restore latest` on one empty node | %.2f | | |\n", time.Since(began).Seconds())
	began = time.Now()
	node := exec.CommandContext(ctx, watershed, "node", "--config", config)
	if err := node.Start(); err != nil {
		return err
	}
	defer func() {
		_ = node.Process.Kill() // it is not needed any more
		_ = node.Wait()
	}()
	err := await(ctx, startWithin, func() (bool, error) {
		answer, err := http.Get("http://" + ports[2] + "/readyz")
		if err != nil {
			return false, nil
		}
		return answer.StatusCode == http.StatusOK, answer.Body.Close()
	})
	if err != nil {
		return err
	}
	fmt.Printf("| until that node is ready | %.2f | | |\n", time.Since(began).Seconds())
	return nil
}
