package region

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/shard"
)

// page reads a page of a node.
func (c *cluster) page(i int, path string) string {
	c.t.Helper()
	answer, err := http.Get("http://" + c.nodes[i].node.HTTP() + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// A disk that is nearly full takes no new writes, and says so with the numbers; rows are read and a job's state is deleted
// meanwhile, and writes are taken again when there is room.
func TestADiskThatIsNearlyFull(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 40)
	c := newClustersWith(t, 1, 1, func(o *Options) {
		o.Config.Store.MinFree = 1 << 30
		o.StatFS = func(string) (limit.Space, error) { return limit.Space{Total: 1 << 41, Free: free.Load()}, nil }
	}, "a")[0]
	applied := c.apply(0, toyJob)
	f := c.feed(applied.Job.Generation, 0)
	f.send(0, 500, "x")
	want := []string{"1000 x n=1 s=2 r=1 false"}
	c.expect(0, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
	free.Store(12345)
	shards := regionv1.NewShardServiceClient(c.conn(0))
	a := crdt.Advance{Generation: f.id, Group: f.source.Region}
	next := f.next.After(f.next.Offset, crdt.Hash{9}, 600, crdt.Late)
	a.Ranges = []crdt.Range{{Source: f.source, From: f.next.Mark(), To: next}}
	propose := func(ctx context.Context) error {
		_, err := shards.Advance(ctx, &regionv1.AdvanceRequest{Deployment: "test", Advance: a.AppendTo(nil)})
		return err
	}
	until(t, "the write is refused", func(ctx context.Context) error {
		a.Ranges[0].To.Watermark++
		err := propose(ctx)
		if status.Code(err) == codes.ResourceExhausted {
			told := slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool {
				info, ok := d.(*errdetails.RetryInfo)
				return ok && info.RetryDelay.AsDuration() >= time.Second
			})
			if !told || !strings.Contains(err.Error(), "12345 bytes are free, 1073741824 are kept") {
				t.Errorf("%v with %v", err, status.Convert(err).Details())
			}
			return nil
		}
		f.next = a.Ranges[0].To
		a.Ranges[0].From = f.next.Mark()
		return context.DeadlineExceeded
	})
	c.expect(0, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
	if text := c.page(0, "/metrics"); !strings.Contains(text, `watershed_used{name="disk_free_bytes"} 12345`) {
		t.Error("the free space is not shown")
	}
	free.Store(1 << 40)
	until(t, "writes are taken again", propose)
	free.Store(5)
	until(t, "the job is deleted on a full disk", func(ctx context.Context) error {
		_, err := watershedv1.NewJobServiceClient(c.conn(0)).Delete(ctx, &watershedv1.DeleteJobRequest{Name: "toy"})
		return err
	})
}

// Every bound is shown with its use, and one that is used up refuses with a time to wait.
func TestBoundsAreShownAndHold(t *testing.T) {
	c := newClustersWith(t, 1, 1, func(o *Options) { o.Config.Limits.Watchers = 1 }, "a")[0]
	c.apply(0, toyJob)
	client := watershedv1.NewStateServiceClient(c.conn(0))
	request := &watershedv1.WatchRequest{Selection: &watershedv1.Selection{Job: "toy"}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, err := client.Watch(ctx, request)
	if err == nil {
		_, err = first.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	second, err := client.Watch(t.Context(), request)
	if err == nil {
		_, err = second.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted || len(status.Convert(err).Details()) != 1 {
		t.Errorf("a watcher too many: %v", err)
	}
	text := c.page(0, "/metrics")
	for _, name := range []string{
		"calls", "region_calls", "scans", "region_reads", "watchers", "peer_streams", "grpc_connections", "http_connections",
		"raft_connections", "shard_proposal_bytes", "shard_backlog_bytes", "shard_table_bytes", "peer_queue_bytes", "snapshot_transfers",
		"peer_window_bytes", "jobs", "whole_watches", "disk_free_bytes", "block_cache_bytes",
	} {
		for _, metric := range []string{"watershed_limit", "watershed_used"} {
			if !strings.Contains(text, metric+`{name="`+name+`"} `) {
				t.Errorf("%s of %s is not shown", metric, name)
			}
		}
	}
	if !strings.Contains(text, `watershed_used{name="watchers"} 1`) {
		t.Error("the watcher is not counted")
	}
	cancel()
	until(t, "there is room for a watcher", func(ctx context.Context) error {
		w, err := client.Watch(ctx, request)
		if err == nil {
			_, err = w.Recv()
		}
		return err
	})
}

// A node takes no commands of another deployment, and none that only its own tasks may propose.
func TestProposeIsForMembers(t *testing.T) {
	c := newCluster(t, 1, 1)
	c.apply(0, toyJob)
	client := regionv1.NewShardServiceClient(c.conn(0))
	for deployment, want := range map[string]codes.Code{"other": codes.PermissionDenied, "": codes.PermissionDenied} {
		_, err := client.Propose(t.Context(), &regionv1.ProposeRequest{Deployment: deployment, Command: []byte{1}})
		if status.Code(err) != want {
			t.Errorf("deployment %q: %v", deployment, err)
		}
	}
	_, err := client.Propose(t.Context(), &regionv1.ProposeRequest{
		Deployment: "test", Command: shard.Encode(&shard.Horizon{Generation: crdt.GenerationID{15: 1}, H: 1 << 50}),
	})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "horizon is not taken") {
		t.Errorf("a horizon from outside: %v", err)
	}
}

// There are no more jobs than the configuration allows; those that are there are changed as ever, and a place that is given
// up is another's.
func TestJobsAreBounded(t *testing.T) {
	c := newClustersWith(t, 1, 1, func(o *Options) { o.Config.Limits.Jobs = 1 }, "a")[0]
	c.apply(0, toyJob)
	client := watershedv1.NewJobServiceClient(c.conn(0))
	other := strings.Replace(toyJob, "toy", "other", 1)
	_, err := client.Apply(t.Context(), &watershedv1.ApplyJobRequest{File: []byte(other)})
	if status.Code(err) != codes.ResourceExhausted || len(status.Convert(err).Details()) != 0 || !strings.Contains(err.Error(), "1 of 1 are there") {
		t.Errorf("a job too many: %v", err)
	}
	if text := c.page(0, "/metrics"); !strings.Contains(text, `watershed_used{name="jobs"} 1`) ||
		!strings.Contains(text, `watershed_limited_total{name="jobs"} 1`) {
		t.Error("the jobs are not counted")
	}
	c.apply(0, toyJob)
	if _, err := client.Delete(t.Context(), &watershedv1.DeleteJobRequest{Name: "toy"}); err != nil {
		t.Fatal(err)
	}
	c.apply(0, other)
}
