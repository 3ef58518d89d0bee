package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watershed-db/watershed/log/embedded"
	"github.com/watershed-db/watershed/region/config"
)

// childVar says that this process is a child, and not the test.
const childVar = "WATERSHED_DEV_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := child(ctx, os.Args[1:])
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is what the deployment's processes run in these tests: a real Kafka, and nodes that only say that they are ready.
func child(ctx context.Context, args []string) error {
	switch args[0] {
	case "embedded-kafka":
		port, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return embedded.Run(ctx, embedded.Config{Ports: []int{port}, DataDir: args[4], NoSync: true}, nil)
	case "dev":
		return childDev(ctx, args[1])
	}
	text, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	c, err := config.Parse(args[2], text)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(args[2]), "refuse")); err == nil {
		return errors.New("watershed: the disk is full")
	}
	self, _ := c.Self()
	l, err := net.Listen("tcp", self.HTTP)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// childDev runs a deployment until it is killed.
func childDev(ctx context.Context, dir string) error {
	d, err := Start(ctx, options(dir))
	if err != nil {
		return err
	}
	defer d.Stop()
	<-ctx.Done()
	return nil
}

func options(dir string) Options {
	return Options{Data: dir, Nodes: 1, Shards: 2, Command: []string{os.Args[0]}, ReadyWithin: 20 * time.Second}
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, o Options) *Deployment {
	t.Helper()
	t.Setenv(childVar, "1")
	d, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	return d
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s: it does not happen", what)
		case <-tick.C:
		}
	}
}

func listens(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func TestANodeThatDiesStaysDeadUntilItIsRestarted(t *testing.T) {
	dir := t.TempDir()
	events := &buffer{}
	o := options(dir)
	o.Events = events
	d := start(t, o)
	before, err := ReadEndpoints(dir)
	if err != nil {
		t.Fatal(err)
	}
	us := before.Regions["us-east"]
	if len(before.Regions) != 2 || len(us.Kafka) != 1 || len(us.GRPC) != 1 || len(us.HTTP) != 1 || len(us.PIDs) != 1 {
		t.Fatalf("%+v", before)
	}
	if err := syscall.Kill(us.PIDs[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the death is told", func() bool { return strings.Contains(events.String(), "us-east-1 (pid") })
	if d.Alive("us-east-1") || listens(us.HTTP[0]) || strings.Count(events.String(), "\n") != 1 {
		t.Errorf("it lives, or is told of more than once: %s", events)
	}
	if err := Restart(t.Context(), dir, "us-east-1"); err != nil {
		t.Fatal(err)
	}
	after, err := ReadEndpoints(dir)
	if err != nil || after.Regions["us-east"].PIDs[0] == us.PIDs[0] || after.Regions["us-east"].HTTP[0] != us.HTTP[0] ||
		!listens(us.HTTP[0]) {
		t.Errorf("%+v, %v", after, err)
	}
	if err := Restart(t.Context(), dir, "us-east-9"); err == nil || !strings.Contains(err.Error(), "eu-west-1") {
		t.Errorf("an unknown node: %v", err)
	}
	if err := Cut(t.Context(), dir, "us-east", "mars"); err == nil || !strings.Contains(err.Error(), "eu-west") {
		t.Errorf("an unknown region: %v", err)
	}
	d.Stop()
	d.Stop()
	if _, err := ReadEndpoints(dir); err == nil || listens(us.HTTP[0]) || listens(us.Kafka[0]) {
		t.Errorf("something is left: %v", err)
	}
	if err := Restart(t.Context(), dir, "us-east-1"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("an order to nobody: %v", err)
	}
	if strings.Count(events.String(), "\n") != 1 {
		t.Errorf("the stop is told as deaths: %s", events)
	}
}

func TestPortsStay(t *testing.T) {
	dir := t.TempDir()
	d := start(t, options(dir))
	first := d.Endpoints()
	if _, err := Start(t.Context(), options(dir)); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one on the folder: %v", err)
	}
	if _, err := ReadEndpoints(dir); err != nil {
		t.Errorf("the second one took the first one's endpoints: %v", err)
	}
	d.Stop()
	second := start(t, Options{Data: dir, Command: []string{os.Args[0]}})
	for region, e := range second.Endpoints().Regions {
		was := first.Regions[region]
		if e.GRPC[0] != was.GRPC[0] || e.HTTP[0] != was.HTTP[0] || e.Kafka[0] != was.Kafka[0] || e.PIDs[0] == was.PIDs[0] {
			t.Errorf("%+v, was %+v", e, was)
		}
	}
	second.Stop()
	o := options(dir)
	o.Shards = 3
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "shards 2, not 3") {
		t.Errorf("another number of shards: %v", err)
	}
	l, err := net.Listen("tcp", first.Regions["eu-west"].GRPC[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Start(t.Context(), options(dir)); !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), "gRPC of eu-west-1") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// A node that ends before it is ready fails the start, with its last words, and leaves nothing behind.
func TestANodeThatDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "eu-west", "eu-west-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "eu-west", "eu-west-1", "refuse"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(childVar, "1")
	if _, err := Start(t.Context(), options(dir)); err == nil || !strings.Contains(err.Error(), "eu-west-1 has ended: exit status 1: the disk is full") {
		t.Error(err)
	}
	l, err := openLayout(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range l.Regions {
		if listens(local(r.Kafka)) || listens(local(r.Nodes[0].HTTP)) {
			t.Errorf("%s still runs", r.Name)
		}
	}
	if _, err := ReadEndpoints(dir); err == nil {
		t.Error("endpoints were written")
	}
}

// What dev has started ends with it, also when it is killed.
func TestChildrenDieWithTheirParent(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "dev", dir)
	cmd.Env = append(os.Environ(), childVar+"=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "ready", func() bool { _, err := ReadEndpoints(dir); return err == nil })
	e, err := ReadEndpoints(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for _, r := range e.Regions {
		await(t, "its children end", func() bool { return !listens(r.HTTP[0]) && !listens(r.Kafka[0]) })
	}
	if err := Restart(t.Context(), dir, "us-east-1"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("an order to the dead: %v", err)
	}
	start(t, options(dir)) // and the folder is free
}

func TestOptions(t *testing.T) {
	t.Setenv(childVar, "1")
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"no folder":     {},
		"region twice":  {Data: dir, Regions: []string{"a", "a"}},
		"region name":   {Data: dir, Regions: []string{"A B"}},
		"many regions":  {Data: dir, Regions: []string{"a", "b", "c", "d", "e", "f"}},
		"two nodes":     {Data: dir, Nodes: 2},
		"shards":        {Data: dir, Shards: -1},
		"partitions":    {Data: dir, Partitions: 1000},
		"kafka of none": {Data: dir, Regions: []string{"a"}, Kafka: map[string][]string{"b": {"x:1"}}},
		"kafka address": {Data: dir, Regions: []string{"a"}, Kafka: map[string][]string{"a": {"x"}}},
		"kafka unknown": {Data: dir, Kafka: map[string][]string{"mars": {"x:1"}}},
	} {
		if _, err := Start(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Data: filepath.Join(file, "x")}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a folder in a file: %v", err)
	}
	if _, err := Start(t.Context(), Options{Data: dir, Jobs: []string{filepath.Join(dir, "none.yaml")}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a job that is not there: %v", err)
	}
	for _, v := range []string{"", "a", "a=", "=x:1"} {
		if _, err := ParseKafka([]string{v}); !errors.Is(err, ErrOptions) {
			t.Errorf("--kafka %q: %v", v, err)
		}
	}
	if k, err := ParseKafka([]string{"a=x:1,y:2", "b=z:3"}); err != nil || len(k["a"]) != 2 || k["b"][0] != "z:3" {
		t.Errorf("%v, %v", k, err)
	}
}

// Nodes reach other regions through the links, and one another directly.
func TestNodeConfig(t *testing.T) {
	dir := t.TempDir()
	o := Options{Data: dir, Regions: []string{"a", "b", "c"}, Nodes: 3, Shards: 4, Kafka: map[string][]string{"b": {"k:1"}}}
	l, err := openLayout(o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	d := &Deployment{options: o, layout: l}
	ports := map[int]bool{}
	for i := range l.Regions {
		r := &l.Regions[i]
		for _, n := range r.Nodes {
			name, err := d.writeConfig(r, n)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Parse(name, text)
			if err != nil {
				t.Fatal(err)
			}
			if c.Node != n.ID || c.Owner != "a" || c.Shards != 4 || len(c.Others()) != 2 || (c.Kafka.Brokers[0] == "k:1") != (r.Name == "b") {
				t.Errorf("%+v", c)
			}
			for _, other := range c.Others() {
				for k, address := range other.GRPC {
					if address == local(d.region(other.Name).Nodes[k].GRPC) {
						t.Errorf("%s dials %s past the link", n.ID, address)
					}
				}
			}
			for _, p := range []int{n.Raft, n.GRPC, n.HTTP} {
				if ports[p] {
					t.Errorf("port %d twice in %s", p, text)
				}
				ports[p] = true
			}
		}
	}
	if again, err := openLayout(o); err != nil || !bytes.Equal(mustJSON(t, again), text) {
		t.Errorf("read again: %+v, %v", again, err)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
