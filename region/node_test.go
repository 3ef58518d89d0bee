package region

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/coordinator"
)

const patience = 30 * time.Second

const toyJob = `name: toy
sources:
  - topic: events
    format: json
    time: {field: ts, unit: ms}
    max_future: none
    key: {k: k}
    aggregates: {n: count(), s: sum(v)}
window: {tumbling: 1s}
having: "n > 0"
`

// fakeLogs is a log of topics that are only described.
type fakeLogs struct{ partitions atomic.Int32 }

func (f *fakeLogs) Describe(_ context.Context, topics ...string) (map[string]coordinator.Topic, error) {
	out := map[string]coordinator.Topic{}
	for _, t := range topics {
		if t == "events" && f.partitions.Load() > 0 {
			out[t] = coordinator.Topic{ID: "1", Partitions: f.partitions.Load(), LogAppendTime: true}
		}
	}
	return out, nil
}

func (f *fakeLogs) Starts(_ context.Context, topics ...string) (map[coordinator.Partition]int64, error) {
	out := map[coordinator.Partition]int64{}
	for _, t := range topics {
		for p := range f.partitions.Load() {
			out[coordinator.Partition{Topic: t, Index: p}] = 5
		}
	}
	return out, nil
}

// A region of three nodes takes a job and what workers send, answers at both consistencies from every node, and goes on
// when the node that leads is gone, and when it is back.
func TestRegionOfThree(t *testing.T) {
	c := newCluster(t, 3, 2)
	applied := c.apply(1, toyJob)
	if !applied.Changed || !slices.Equal(applied.Regions, []string{"a"}) || len(applied.Missing) > 0 {
		t.Fatalf("%+v", applied)
	}
	f, g := c.feed(applied.Job.Generation, 0), c.feed(applied.Job.Generation, 1)
	f.send(0, 500, "x", "y", "z")
	g.send(1, 700, "x")
	f.send(2, 2500, "y")
	g.send(1, 2600, "z")
	want := []string{
		"1000 x n=2 s=4 r=2 true", "1000 y n=1 s=2 r=1 true", "1000 z n=1 s=2 r=1 true",
		"3000 y n=1 s=2 r=1 false", "3000 z n=1 s=2 r=1 false",
	}
	for i := range 3 {
		rows, states, err := c.scan(i, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE))
		if err != nil || !slices.Equal(rows, want) || len(states) != 2 || states[1].Shard != 1 || len(states[0].Points) != 2 {
			t.Fatalf("node %d: %v %v %v", i, rows, states, err)
		}
		c.expect(i, toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL), want)
	}
	leader := slices.IndexFunc(c.nodes, func(r *running) bool { return r.node.local.Get(0).IsLeader() })
	c.stop(leader)
	rest := (leader + 1) % 3
	f.send(rest, 2700, "x")
	want = append(want[:3], "3000 x n=1 s=2 r=1 false", want[3], want[4])
	c.expect(rest, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
	c.start(leader, Listeners{})
	c.expect(leader, toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL), want)
	c.expect(leader, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
}

// Without a majority linearizable reads say UNAVAILABLE, and which shard it is, within a bound; local ones go on and say
// how stale they are.
func TestWithoutAMajority(t *testing.T) {
	c := newCluster(t, 3, 1)
	applied := c.apply(0, toyJob)
	c.feed(applied.Job.Generation, 0).send(0, 500, "x")
	want := []string{"1000 x n=1 s=2 r=1 false"}
	for i := range 3 {
		c.expect(i, toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL), want)
	}
	c.stop(0)
	c.stop(1)
	_, _, err := c.scan(2, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shard 0") {
		t.Fatal(err)
	}
	rows, states, err := c.scan(2, toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL))
	if err != nil || !slices.Equal(rows, want) || states[0].StalenessMs == 0 {
		t.Fatal(rows, states, err)
	}
}

// A job that is applied where the registry is not owned reaches all regions, and what one region takes the other has.
func TestTwoRegions(t *testing.T) {
	regions := newClusters(t, 1, 2, "a", "b")
	a, b := regions[0], regions[1]
	applied := b.apply(0, toyJob)
	if !applied.Changed || !slices.Equal(applied.Regions, []string{"a", "b"}) {
		t.Fatalf("%+v", applied)
	}
	fa, fb := a.feed(applied.Job.Generation, 0), b.feed(applied.Job.Generation, 0)
	fa.send(0, 500, "x", "y")
	fb.send(0, 600, "x")
	want := []string{"1000 x n=2 s=4 r=2 false", "1000 y n=1 s=2 r=1 false"}
	a.expect(0, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
	b.expect(0, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
	until(t, "topology", func(ctx context.Context) error {
		out, err := watershedv1.NewClusterServiceClient(b.conn(0)).Topology(ctx, &watershedv1.TopologyRequest{})
		if err == nil && (len(out.Regions) != 2 || !out.Regions[0].Reachable || len(out.Regions[0].Shards) != 2 ||
			len(out.Regions[1].Shards[0].Lag) != 1 || out.Regions[1].Shards[0].Lag[0].RecordsBehind != 0) {
			err = fmt.Errorf("%v", out)
		}
		return err
	})
	jobs := watershedv1.NewJobServiceClient(b.conn(0))
	gone, err := jobs.Delete(t.Context(), &watershedv1.DeleteJobRequest{Name: "toy"})
	if err != nil || !gone.Existed || len(gone.Missing) > 0 {
		t.Fatal(gone, err)
	}
	a.stop(0)
	if _, err := jobs.Apply(t.Context(), &watershedv1.ApplyJobRequest{File: []byte(toyJob)}); status.Code(err) != codes.Unavailable {
		t.Fatalf("the registry's region is gone: %v", err)
	}
}

func TestSelections(t *testing.T) {
	c := newCluster(t, 1, 3)
	applied := c.apply(0, toyJob)
	f := c.feed(applied.Job.Generation, 0)
	f.send(0, 500, "x", "x", "y", "5")
	f.send(0, 1500, "x", "y", "y")
	for name, x := range map[string]struct {
		change func(*watershedv1.ScanRequest)
		want   []string
	}{
		"key": {func(in *watershedv1.ScanRequest) { in.Selection.Key = filter("x", false) },
			[]string{"1000 x n=2 s=4 r=2 false", "2000 x n=1 s=2 r=1 false"}},
		"key that spells a number": {func(in *watershedv1.ScanRequest) { in.Selection.Key = filter("5", false) },
			[]string{"1000 5 n=1 s=2 r=1 false"}},
		"from": {func(in *watershedv1.ScanRequest) { in.Selection.FromMs = new(int64(1000)) },
			[]string{"2000 x n=1 s=2 r=1 false", "2000 y n=2 s=4 r=2 false"}},
		"to": {func(in *watershedv1.ScanRequest) { in.Selection.ToMs, in.Top, in.By = new(int64(1000)), 1, "n" },
			[]string{"1000 x n=2 s=4 r=2 false"}},
		"top": {func(in *watershedv1.ScanRequest) { in.Top, in.By = 1, "s" },
			[]string{"1000 x n=2 s=4 r=2 false", "2000 y n=2 s=4 r=2 false"}},
		"top, ties by key": {func(in *watershedv1.ScanRequest) { in.Top, in.By = 2, "s"; in.Selection.ToMs = new(int64(1)) },
			[]string{"1000 5 n=1 s=2 r=1 false", "1000 x n=2 s=4 r=2 false"}},
		"closed": {func(in *watershedv1.ScanRequest) { in.Selection.Closed = true }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in := toyScan(watershedv1.Consistency_CONSISTENCY_UNSPECIFIED)
			x.change(in)
			rows, _, err := c.scan(0, in)
			if err != nil || !slices.Equal(rows, x.want) {
				t.Fatalf("%q, wanted %q: %v", rows, x.want, err)
			}
		})
	}
	for name, in := range map[string]*watershedv1.ScanRequest{
		"unknown part of the key": {Selection: &watershedv1.Selection{Job: "toy", Key: []*watershedv1.KeyFilter{{Name: "j"}}}},
		"unknown value":           {Selection: &watershedv1.Selection{Job: "toy"}, Top: 3, By: "m"},
		"too many":                {Selection: &watershedv1.Selection{Job: "toy"}, Top: 1 << 20, By: "n"},
	} {
		if _, _, err := c.scan(0, in); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	in := toyScan(0)
	in.Selection.Job = "nothing"
	if _, _, err := c.scan(0, in); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	get, err := watershedv1.NewStateServiceClient(c.conn(0)).Get(t.Context(), &watershedv1.GetRequest{
		Selection: &watershedv1.Selection{Job: "toy", Key: filter("y", true)},
	})
	if err != nil || len(get.Rows) != 2 || get.Rows[1].Values[0].GetInt() != 2 || get.Shard.GetShard() != get.Rows[0].Shard {
		t.Fatalf("%v %v", get, err)
	}
}

func filter(text string, exact bool) []*watershedv1.KeyFilter {
	v := &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: text}}
	return []*watershedv1.KeyFilter{{Name: "k", Value: v, Exact: exact}}
}

func TestWatch(t *testing.T) {
	c := newCluster(t, 1, 2)
	applied := c.apply(0, toyJob)
	f, g := c.feed(applied.Job.Generation, 0), c.feed(applied.Job.Generation, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := watershedv1.NewStateServiceClient(c.conn(0)).Watch(ctx, &watershedv1.WatchRequest{
		Selection: &watershedv1.Selection{Job: "toy"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || len(m.GetColumns().GetValues()) != 2 {
		t.Fatal(m, err)
	}
	await := func(key string, n int64, complete bool) {
		t.Helper()
		for {
			m, err := stream.Recv()
			if err != nil {
				t.Fatalf("waiting for %s with %d: %v", key, n, err)
			}
			for _, r := range m.Rows {
				if r.Key[0].GetText() == key && r.Values[0].GetInt() == n && r.Complete == complete {
					return
				}
			}
		}
	}
	f.send(0, 500, "x")
	await("x", 1, false)
	f.send(0, 600, "x", "x")
	await("x", 3, false)
	f.send(0, 1700, "y")
	await("y", 1, false)
	g.send(0, 1800, "z")
	await("x", 3, true)
	if _, err := watershedv1.NewJobServiceClient(c.conn(0)).Delete(ctx, &watershedv1.DeleteJobRequest{Name: "toy"}); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
}

func TestJobs(t *testing.T) {
	c := newCluster(t, 1, 2)
	jobs := watershedv1.NewJobServiceClient(c.conn(0))
	first := c.apply(0, toyJob)
	if again := c.apply(0, toyJob); again.Changed || string(again.Job.Generation) != string(first.Job.Generation) {
		t.Fatalf("the same file again: %+v", again)
	}
	quieter := strings.Replace(toyJob, "window:", "retention: 1h\nwindow:", 1)
	if x := c.apply(0, quieter); !x.Changed || string(x.Job.Generation) != string(first.Job.Generation) {
		t.Fatalf("a change in place: %+v", x)
	}
	other := strings.Replace(toyJob, "tumbling: 1s", "tumbling: 2s", 1)
	_, err := jobs.Apply(t.Context(), &watershedv1.ApplyJobRequest{File: []byte(other)})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "window") {
		t.Fatalf("a change of meaning: %v", err)
	}
	_, err = jobs.Apply(t.Context(), &watershedv1.ApplyJobRequest{FileName: "x.yaml", File: []byte("nam: x")})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "x.yaml:1:1") {
		t.Fatalf("a bad file: %v", err)
	}
	checked, err := jobs.Validate(t.Context(), &watershedv1.ValidateJobRequest{File: []byte("nam: x")})
	if err != nil || len(checked.Problems) == 0 {
		t.Fatalf("a bad file, checked: %v %v", checked, err)
	}
	list, err := jobs.List(t.Context(), &watershedv1.ListJobsRequest{})
	if err != nil || len(list.Jobs) != 1 || list.Jobs[0].Name != "toy" {
		t.Fatal(list, err)
	}
	until(t, "sources", func(ctx context.Context) error {
		shown, err := jobs.Show(ctx, &watershedv1.ShowJobRequest{Name: "toy"})
		if err == nil && (len(shown.Job.Sources) != 2 || shown.Job.Sources[1].Point.Offset != 5 || len(shown.Shards) != 2) {
			err = fmt.Errorf("%v", shown)
		}
		return err
	})
	gone, err := jobs.Delete(t.Context(), &watershedv1.DeleteJobRequest{Name: "toy"})
	if err != nil || !gone.Existed || len(gone.Missing) > 0 {
		t.Fatal(gone, err)
	}
	if gone, err = jobs.Delete(t.Context(), &watershedv1.DeleteJobRequest{Name: "toy"}); err != nil || gone.Existed {
		t.Fatal(gone, err)
	}
	if _, err := jobs.Show(t.Context(), &watershedv1.ShowJobRequest{Name: "toy"}); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	if x := c.apply(0, other); string(x.Job.Generation) == string(first.Job.Generation) {
		t.Fatal("a new job under an old name has the old one's generation")
	}
}

func TestTopologyAndPages(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.apply(0, toyJob)
	out, err := watershedv1.NewClusterServiceClient(c.conn(0)).Topology(t.Context(), &watershedv1.TopologyRequest{})
	if err != nil || len(out.Regions) != 1 || len(out.Regions[0].Shards) != 2 || out.Regions[0].Shards[1].Leader != "n0" ||
		out.Regions[0].Shards[0].Epoch != 1<<16|1 || !out.Regions[0].Nodes[0].Up {
		t.Fatal(out, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ready", "/metrics": "watershed_shard_applied_index", "/debug/pprof/cmdline": "",
	} {
		answer, err := client.Get("http://" + c.config.Nodes[0].HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %v", path, answer.StatusCode, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	c := newCluster(t, 1, 1)
	o := Options{Config: c.config, Parts: Parts{Logs: c.logs}, Fatal: func(error) {}}
	o.Config.Node, o.Config.Data = "n0", t.TempDir()
	o.Config = o.Config.Defaults()
	for _, want := range []string{c.config.Nodes[0].GRPC, c.config.Nodes[0].HTTP, c.config.Nodes[0].Raft} {
		_, err := Open(o)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("a port in use: %v", err)
		}
		switch want {
		case c.config.Nodes[0].GRPC:
			o.Config.Listen.GRPC = "127.0.0.1:0"
		case c.config.Nodes[0].HTTP:
			o.Config.Listen.HTTP = "127.0.0.1:0"
		}
	}
	o.Config.Data = filepath.Join(c.dir, "n0")
	if _, err := Open(o); !errors.Is(err, ErrLocked) {
		t.Fatalf("a folder in use: %v", err)
	}
}
