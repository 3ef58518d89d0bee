package checkpoint

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

// replica is a made-up replica: tables that are written once and dropped again, and small files that change.
type replica struct {
	mu     sync.Mutex
	dir    string
	index  uint64
	tables map[string]string // by name: content
	next   int
	node   string
	err    error
}

func newReplica(t testing.TB, node string) *replica {
	return &replica{dir: t.TempDir(), tables: map[string]string{}, node: node}
}

// write applies n commands, each a table of its own.
func (r *replica) write(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range n {
		r.index++
		r.next++
		r.add(fmt.Sprintf("%06d.sst", r.next), fmt.Sprintf("%s: command %d", r.node, r.index))
	}
}

// compact makes one table of all.
func (r *replica) compact() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.tables {
		delete(r.tables, name)
		_ = os.Remove(filepath.Join(r.dir, name))
	}
	r.next++
	r.add(fmt.Sprintf("%06d.sst", r.next), fmt.Sprintf("%s: commands to %d", r.node, r.index))
}

func (r *replica) add(name, content string) {
	r.tables[name] = content
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o644); err != nil {
		panic(err)
	}
}

// Checkpoint implements Source.
func (r *replica) Checkpoint(dir string) (uint64, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, nil, r.err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, nil, err
	}
	names := ""
	for name := range r.tables {
		if err := os.Link(filepath.Join(r.dir, name), filepath.Join(dir, name)); err != nil {
			return 0, nil, err
		}
		names += name + "\n"
	}
	err := os.WriteFile(filepath.Join(dir, "MANIFEST"), fmt.Appendf(nil, "%s at %d", r.node, r.index), 0o644)
	return r.index, binary.BigEndian.AppendUint64(nil, r.index), err
}

// WaitApplied implements Source: nothing is to wait for.
func (*replica) WaitApplied(ctx context.Context, _ uint64) error { return ctx.Err() }

// world is a region with a bucket and a clock.
type world struct {
	t        testing.TB
	store    *objects.Memory
	mu       sync.Mutex
	now      time.Time
	scope    Scope
	replicas map[string][]*replica // by node
	uploads  map[string]*Uploader
	lineages map[string]*Lineage
	down     map[string]bool
	order    []int // shards in the order that they were uploaded in
	dir      string
}

const testGrace = time.Hour

func newWorld(t testing.TB, store *objects.Memory, shards int, nodes ...string) *world {
	w := &world{
		t: t, store: store, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), replicas: map[string][]*replica{},
		uploads: map[string]*Uploader{}, lineages: map[string]*Lineage{}, down: map[string]bool{}, dir: t.TempDir(),
		scope: Scope{Deployment: "d", Region: "east", Member: 1, Regions: []string{"east", "west"}, Shards: shards, Nodes: nodes},
	}
	if store.Now == nil {
		store.Now = w.clock
	}
	for _, n := range nodes {
		w.start(n)
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// start starts a node, on the replicas it has.
func (w *world) start(node string) {
	w.t.Helper()
	if w.replicas[node] == nil {
		for range w.scope.Shards {
			w.replicas[node] = append(w.replicas[node], newReplica(w.t, node))
		}
	}
	lineage, err := OpenLineage(filepath.Join(w.dir, node+".lineage"))
	if err != nil {
		w.t.Fatal(err)
	}
	o := UploaderOptions{
		Scope: w.scope, Store: w.store, Dir: filepath.Join(w.dir, node), Lineage: lineage, Grace: testGrace, Now: w.clock,
	}
	o.Node = node
	for _, r := range w.replicas[node] {
		o.Sources = append(o.Sources, r)
	}
	u, err := NewUploader(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.uploads[node], w.lineages[node] = u, lineage
}

// Upload implements Nodes.
func (w *world) Upload(ctx context.Context, node string, o Order) (Part, error) {
	w.mu.Lock()
	down := w.down[node]
	w.order = append(w.order, o.Shard)
	w.mu.Unlock()
	if down {
		return Part{}, fmt.Errorf("%s: %w", node, ErrNode)
	}
	return w.uploads[node].Upload(ctx, o)
}

// Vouch implements Nodes.
func (w *world) Vouch(_ context.Context, node, lineage string) bool {
	return !w.down[node] && w.lineages[node].ID() == lineage
}

// keeper returns a keeper that runs on a node.
func (w *world) keeper(node string, p Policy) *Keeper {
	if p.Keep == 0 {
		p.Keep = 3
	}
	if p.MaxAge == 0 {
		p.MaxAge = 24 * time.Hour
	}
	p.Grace = testGrace
	o := KeeperOptions{
		Scope: w.scope, Policy: p, Store: w.store, Nodes: w, Lineage: w.lineages[node], Interval: 15 * time.Second,
		SweepEvery: time.Nanosecond, Now: w.clock,
	}
	o.Node = node
	return NewKeeper(o)
}

// write applies commands to a shard on all nodes.
func (w *world) write(shard, n int) {
	for _, list := range w.replicas {
		list[shard].write(n)
	}
}

func (w *world) writeAll(n int) {
	for shard := range w.scope.Shards {
		w.write(shard, n)
	}
}

func (w *world) keys(prefix string) (keys []string) {
	w.t.Helper()
	hook := w.store.Hook
	w.store.Hook = nil
	defer func() { w.store.Hook = hook }()
	err := w.store.List(context.Background(), prefix, func(i objects.Info) bool { keys = append(keys, i.Key); return true })
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}

// check asserts that every cut and savepoint can be brought back whole.
func (w *world) check() []*Cut {
	w.t.Helper()
	return w.checkFor(w.t)
}

// checker is what checkFor needs of a test.
type checker interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func (w *world) checkFor(t checker) []*Cut {
	t.Helper()
	hook := w.store.Hook
	w.store.Hook = nil
	defer func() { w.store.Hook = hook }()
	cuts, problems, err := List(context.Background(), w.store, w.scope.Region)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	for _, c := range cuts {
		if err := whole(context.Background(), w.store, c); err != nil {
			t.Fatalf("cut %d %s: %v", c.ID, c.Name, err)
		}
	}
	return cuts
}

// Acknowledged implements Nodes.
func (w *world) Acknowledged(context.Context, int) (uint64, error) { return 1, nil }

var errInjected = errors.New("injected")

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fetch brings a cut back and returns what each shard's MANIFEST says.
func (w *world) fetch(s Scope, which string) ([]string, error) {
	w.t.Helper()
	plan, err := Choose(context.Background(), w.store, &s, which)
	if err != nil {
		return nil, err
	}
	dir := w.t.TempDir()
	if err := Fetch(context.Background(), w.store, plan, dir, hclog.NewNullLogger()); err != nil {
		return nil, err
	}
	var out []string
	for i := range s.Shards {
		b, err := os.ReadFile(filepath.Join(dir, ShardDir(i), "MANIFEST"))
		if err != nil {
			return nil, err
		}
		out = append(out, string(b))
	}
	return out, nil
}

func oneLineOf(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
