package region

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/jepsen/s3"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/checkpoint"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/router"
)

// prepareRegion makes up a region of one that keeps checkpoints; none of its nodes runs.
func prepareRegion(t *testing.T, url string, member uint16, shards int, nodes ...string) (*cluster, []Listeners) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	c := &cluster{t: t, dir: t.TempDir(), logs: &fakeLogs{}, nodes: make([]*running, len(nodes)), conns: router.NewConns()}
	c.logs.partitions.Store(2)
	c.config = config.Config{
		Deployment: "test", Region: "a", Shards: shards, Kafka: config.Kafka{Brokers: []string{"127.0.0.1:1"}},
		Regions:     []config.Region{{Name: "a", Member: member}},
		Checkpoints: config.Checkpoints{URL: url, Interval: config.Duration(time.Hour)},
	}
	var ports []Listeners
	for _, name := range nodes {
		l := Listeners{listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")}
		ports = append(ports, l)
		c.config.Nodes = append(c.config.Nodes, config.Node{
			ID: name, Raft: l.Raft.Addr().String(), GRPC: l.GRPC.Addr().String(), HTTP: l.HTTP.Addr().String(),
		})
	}
	t.Cleanup(func() {
		c.conns.Close()
		for i := range c.nodes {
			c.stop(i)
		}
		for _, l := range ports {
			l.Raft.Close()
			l.GRPC.Close()
			l.HTTP.Close()
		}
	})
	return c, ports
}

// nodeConfig returns the configuration of a node, to restore from what is named; "" for nothing.
func (c *cluster) nodeConfig(i int, restore string) config.Config {
	out := c.config
	out.Node, out.Data = c.config.Nodes[i].ID, filepath.Join(c.dir, c.config.Nodes[i].ID)
	out.Checkpoints.Restore = restore
	return out.Defaults()
}

// restoreAll restores every node and starts it.
func (c *cluster) restoreAll(ports []Listeners, which string) {
	c.t.Helper()
	for i := range c.nodes {
		if err := Restore(c.t.Context(), c.nodeConfig(i, which), testLogger()); err != nil {
			c.t.Fatal(err)
		}
		c.start(i, ports[i])
	}
}

func (c *cluster) checkpoint(name string) *watershedv1.Checkpoint {
	c.t.Helper()
	var out *watershedv1.Checkpoint
	until(c.t, "checkpoint", func(ctx context.Context) error {
		var err error
		for i := range c.nodes {
			var answer *watershedv1.CheckpointResponse
			answer, err = watershedv1.NewClusterServiceClient(c.conn(i)).Checkpoint(ctx, &watershedv1.CheckpointRequest{Savepoint: name})
			if err == nil {
				out = answer.GetCheckpoint()
				return nil
			}
		}
		return err
	})
	return out
}

// TestARestoredRegionGoesOn: a region of three nodes is gone with its disks; one node of another name goes on from its last
// checkpoint, points and rows of one moment, and then three others from a savepoint.
func TestARestoredRegionGoesOn(t *testing.T) {
	_, proxy := s3.Serve(t)
	url := proxy.Place("test")
	first, ports := prepareRegion(t, url, 1, 2, "n0", "n1", "n2")
	for i := range ports {
		first.start(i, ports[i])
	}
	job := first.apply(0, toyJob).GetJob().GetGeneration()
	f := first.feed(job, 0)
	f.send(0, 500, "x", "y", "z", "x")
	saved := first.checkpoint("before")
	f.send(1, 600, "x")
	was := maps.Clone(f.at)
	next := f.next
	want := []string{"1000 x n=3 s=6 r=3 false", "1000 y n=1 s=2 r=1 false", "1000 z n=1 s=2 r=1 false"}
	first.expect(2, toyScan(0), want)
	last := first.checkpoint("")
	if last.GetId() <= saved.GetId() || saved.GetSavepoint() != "before" || len(last.GetIndexes()) != 2 || last.GetBytes() == 0 {
		t.Fatalf("%v, then %v", saved, last)
	}
	f.send(2, 700, "y") // is lost, and read again
	for i := range first.nodes {
		first.stop(i)
	}
	if err := os.RemoveAll(first.dir); err != nil {
		t.Fatal(err)
	}

	second, ports := prepareRegion(t, url, 2, 2, "m0")
	second.restoreAll(ports, checkpoint.Latest)
	second.expect(0, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE), want)
	again := second.feed(job, 0)
	again.at, again.next = was, next
	again.send(0, 700, "y")
	want[1] = "1000 y n=2 s=4 r=2 false"
	second.expect(0, toyScan(0), want)
	second.stop(0)
	second.start(0, Listeners{})
	second.expect(0, toyScan(0), want)
	if c := second.checkpoint(""); c.GetId() <= last.GetId() || c.GetMember() != 2 {
		t.Errorf("the restored region's checkpoint is %v", c)
	}

	third, ports := prepareRegion(t, url, 3, 2, "o0", "o1", "o2")
	third.restoreAll(ports, "before")
	for i := range third.nodes {
		third.expect(i, toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL),
			[]string{"1000 x n=2 s=4 r=2 false", "1000 y n=1 s=2 r=1 false", "1000 z n=1 s=2 r=1 false"})
	}
}

// TestWhatIsNotRestored: each is refused in one line, and nothing is left of it.
func TestWhatIsNotRestored(t *testing.T) {
	_, proxy := s3.Serve(t)
	url := proxy.Place("test")
	first, ports := prepareRegion(t, url, 1, 2, "n0")
	first.start(0, ports[0])
	first.feed(first.apply(0, toyJob).GetJob().GetGeneration(), 0).send(0, 500, "x")
	first.checkpoint("")
	for name, x := range map[string]struct {
		change func(*config.Config)
		want   error
		says   string
	}{
		"under its old number":  {func(c *config.Config) { c.Regions[0].Member = 1 }, checkpoint.ErrMember, "needs a number above that"},
		"of another count":      {func(c *config.Config) { c.Shards = 4 }, checkpoint.ErrForeign, "2 shards, this deployment has 4"},
		"of another deployment": {func(c *config.Config) { c.Deployment = "other" }, checkpoint.ErrForeign, "deployment test"},
		"that is not there":     {func(c *config.Config) { c.Checkpoints.Restore = "99" }, checkpoint.ErrNone, "99"},
		"over data":             {func(c *config.Config) { c.Data = filepath.Join(first.dir, "n0"); c.Node = "n0" }, ErrNotEmpty, "holds data"},
	} {
		t.Run(name, func(t *testing.T) {
			c := first.nodeConfig(0, checkpoint.Latest)
			c.Data = filepath.Join(t.TempDir(), "data")
			c.Regions = []config.Region{{Name: "a", Member: 2}}
			x.change(&c)
			err := Restore(t.Context(), c, testLogger())
			if !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if left, err := os.ReadDir(c.Data); err == nil && x.want != ErrNotEmpty {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// TestARestoreThatIsCutShort is gone on with; nothing runs on half of it.
func TestARestoreThatIsCutShort(t *testing.T) {
	_, proxy := s3.Serve(t)
	url := proxy.Place("test")
	first, ports := prepareRegion(t, url, 1, 2, "n0")
	first.start(0, ports[0])
	first.feed(first.apply(0, toyJob).GetJob().GetGeneration(), 0).send(0, 500, "x", "y")
	first.checkpoint("")
	first.stop(0)
	second, ports := prepareRegion(t, url, 2, 2, "m0")
	for cut := 1; ; cut++ {
		ctx, cancel := context.WithCancel(t.Context())
		passed := 0
		proxy.Set(s3.Faults{Cut: cutAfter(cut, &passed, cancel)})
		err := Restore(ctx, second.nodeConfig(0, checkpoint.Latest), testLogger())
		cancel()
		proxy.Set(s3.Faults{})
		if err == nil {
			break
		}
		if mark, e := readRestore(second.nodeConfig(0, "").Data); e != nil {
			t.Fatal(e)
		} else if mark != nil {
			o := Options{
				Config: second.nodeConfig(0, ""), Parts: Parts{Logs: second.logs}, Fatal: func(error) {},
				Listeners: Listeners{listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")},
			}
			if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "has not ended") {
				t.Fatalf("a node runs on half a restore: %v", err)
			}
		}
	}
	second.start(0, ports[0])
	second.expect(0, toyScan(0), []string{"1000 x n=1 s=2 r=1 false", "1000 y n=1 s=2 r=1 false"})
}

// cutAfter ends what uses the store at request n.
func cutAfter(n int, passed *int, cancel func()) func(*http.Request) bool {
	var mu sync.Mutex
	return func(*http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if *passed++; *passed < n {
			return false
		}
		cancel()
		return true
	}
}

// TestTheRestComesFromPeers: a region of two that was wiped begins with an old checkpoint under a new number, which the
// other one is told of; what it had taken since, of its own sources too, it gets from there, and goes on from it.
func TestTheRestComesFromPeers(t *testing.T) {
	_, proxy := s3.Serve(t)
	url := proxy.Place("test")
	regions := newClusters(t, 1, 2, "a", "b")
	a, b := regions[0], regions[1]
	b.stop(0)
	b.config.Checkpoints = config.Checkpoints{URL: url, Interval: config.Duration(time.Hour)}
	b.start(0, Listeners{})
	id := a.apply(0, toyJob).GetJob().GetGeneration()
	fa, fb := a.feed(id, 0), b.feed(id, 0)
	fa.send(0, 500, "x")
	fb.send(0, 500, "y", "z")
	b.checkpoint("")
	fa.send(0, 600, "x", "y")
	fb.send(0, 600, "y")
	want := []string{"1000 x n=2 s=4 r=2 false", "1000 y n=3 s=6 r=3 false", "1000 z n=1 s=2 r=1 false"}
	a.expect(0, toyScan(0), want)
	b.stop(0)
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	fa.send(0, 700, "z")
	want[2] = "1000 z n=2 s=4 r=2 false"

	members := slices.Clone(b.config.Regions)
	members[1].Member = 3
	a.stop(0)
	a.config.Regions, b.config.Regions = members, members
	a.start(0, Listeners{})
	if err := Restore(t.Context(), b.nodeConfig(0, checkpoint.Latest), testLogger()); err != nil {
		t.Fatal(err)
	}
	b.start(0, Listeners{})
	b.expect(0, toyScan(0), want)
	fb.send(0, 700, "x")
	want[0] = "1000 x n=3 s=6 r=3 false"
	for _, c := range regions {
		c.expect(0, toyScan(0), want)
	}
}

// TestALostOwnerComesBack: the owner of two regions is gone with its disks; the other one is made the owner by force, the lost
// one begins with an old checkpoint and gets the jobs that it had entered since, is taken in as a new member, and may own them
// again: no position is given twice.
func TestALostOwnerComesBack(t *testing.T) {
	_, proxy := s3.Serve(t)
	url := proxy.Place("test")
	regions := newClusters(t, 1, 2, "a", "b")
	a, b := regions[0], regions[1]
	apply := func(c *cluster, name string) { c.apply(0, strings.Replace(toyJob, "name: toy", "name: "+name, 1)) }
	expect := func(names ...string) {
		t.Helper()
		for _, c := range regions {
			until(t, "the jobs "+strings.Join(names, " ")+" in "+c.config.Region, func(context.Context) error {
				r := c.nodes[0].node.local.Get(0).State().Registry()
				var got []string
				for _, e := range r.After(0) {
					got = append(got, e.Name)
				}
				if !slices.Equal(got, names) {
					return fmt.Errorf("%v", got)
				}
				return nil
			})
		}
	}
	a.stop(0)
	a.config.Checkpoints = config.Checkpoints{URL: url, Interval: config.Duration(time.Hour)}
	a.start(0, Listeners{})
	id := a.apply(0, toyJob).GetJob().GetGeneration()
	fa := a.feed(id, 0)
	fa.send(0, 500, "x")
	a.checkpoint("")
	apply(a, "second")
	fa.send(0, 600, "y")
	want := []string{"1000 x n=1 s=2 r=1 false", "1000 y n=1 s=2 r=1 false"}
	b.expect(0, toyScan(0), want)
	expect("toy", "second")
	a.stop(0)
	if err := os.RemoveAll(a.dir); err != nil {
		t.Fatal(err)
	}

	members := slices.Clone(a.config.Regions)
	members[0].Member = 3
	a.config.Regions, b.config.Regions = members, members
	b.stop(0)
	b.start(0, Listeners{})
	for i := range 2 {
		b.force(i)
	}
	apply(b, "third")
	if err := Restore(t.Context(), a.nodeConfig(0, checkpoint.Latest), testLogger()); err != nil {
		t.Fatal(err)
	}
	a.start(0, Listeners{})
	expect("toy", "second", "third")
	a.expect(0, toyScan(0), want)
	apply(a, "fourth") // which b takes
	expect("toy", "second", "third", "fourth")

	for i := range 2 { // it is taken in as another member, and may own what it has caught up with
		b.flip(i, "a")
	}
	apply(b, "fifth")
	expect("toy", "second", "third", "fourth", "fifth")
	fa.send(0, 700, "x")
	want[0] = "1000 x n=2 s=4 r=2 false"
	for _, c := range regions {
		c.expect(0, toyScan(0), want)
	}
}

// TestAStandbyFollows: what a standby has fetched while the region ran need not be fetched when it is gone.
func TestAStandbyFollows(t *testing.T) {
	_, proxy := s3.Serve(t)
	url := proxy.Place("test")
	first, ports := prepareRegion(t, url, 1, 2, "n0")
	first.start(0, ports[0])
	f := first.feed(first.apply(0, toyJob).GetJob().GetGeneration(), 0)
	f.send(0, 500, "x", "y")
	first.checkpoint("")
	second, ports := prepareRegion(t, url, 2, 2, "m0")
	c := second.nodeConfig(0, checkpoint.Latest)
	c.Checkpoints.Interval = config.Duration(100 * time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	came := make(chan uint64, 10)
	ended := make(chan error, 1)
	go func() { ended <- Follow(ctx, c, testLogger(), func(id uint64) { came <- id }) }()
	for round := range 2 {
		want := uint64(round + 1)
		for id := uint64(0); id < want; {
			select {
			case id = <-came:
			case err := <-ended:
				t.Fatal("it has ended: ", err)
			case <-time.After(patience):
				t.Fatal("nothing comes")
			}
		}
		if round == 0 {
			if err := Restore(t.Context(), c, testLogger()); !errors.Is(err, ErrLocked) {
				t.Fatalf("a restore beside it: %v", err)
			}
			f.send(0, 600, "x")
			first.checkpoint("")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	first.stop(0)
	var fetched atomic.Int64
	proxy.Set(s3.Faults{Busy: func(r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/tables/") {
			fetched.Add(1)
		}
		return false
	}})
	second.restoreAll(ports, checkpoint.Latest)
	if n := fetched.Load(); n > 0 {
		t.Errorf("%d files were fetched though all were there", n)
	}
	second.expect(0, toyScan(0), []string{"1000 x n=2 s=4 r=2 false", "1000 y n=1 s=2 r=1 false"})
}
