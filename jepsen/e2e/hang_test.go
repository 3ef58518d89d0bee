package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// disk is a file system over a folder that can be told to hang or to fail: what is written and synced then waits, or comes
// back with EIO.
type disk struct {
	fuse.RawFileSystem

	mu struct {
		sync.Mutex
		release chan struct{} // closed when it no longer hangs; nil while it doesn't
		broken  bool
	}
}

// mountDisk mounts a disk for as long as the test lasts and returns where; the test is skipped where that can't be done.
func mountDisk(t testing.TB) (*disk, string) {
	t.Helper()
	backing, at := t.TempDir(), t.TempDir()
	root, err := fs.NewLoopbackRoot(backing)
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{RawFileSystem: fs.NewNodeFS(root, &fs.Options{})}
	server, err := fuse.NewServer(d, at, &fuse.MountOptions{DirectMountStrict: true, FsName: "watershed-test", MaxWrite: 1 << 20})
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.heal()
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
			return
		}
		<-served
	})
	return d, at
}

// hang has all that is written and synced wait from now on.
func (d *disk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.release = make(chan struct{})
}

// fail has all syncs fail from now on.
func (d *disk) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.broken = true
}

func (d *disk) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.release != nil {
		close(d.mu.release)
	}
	d.mu.release, d.mu.broken = nil, false
}

// pass returns when a call may go on, and what it is to fail with.
func (d *disk) pass(cancel <-chan struct{}, sync bool) fuse.Status {
	d.mu.Lock()
	release, broken := d.mu.release, d.mu.broken
	d.mu.Unlock()
	if release != nil {
		select {
		case <-release:
		case <-cancel: // the process that asked was killed
			return fuse.EINTR
		}
	}
	if broken && sync {
		return fuse.EIO
	}
	return fuse.OK
}

// Write implements fuse.RawFileSystem, as do the methods below.
func (d *disk) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if s := d.pass(cancel, false); s != fuse.OK {
		return 0, s
	}
	return d.RawFileSystem.Write(cancel, in, data)
}

func (d *disk) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if s := d.pass(cancel, true); s != fuse.OK {
		return s
	}
	return d.RawFileSystem.Fsync(cancel, in)
}

func (d *disk) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if s := d.pass(cancel, true); s != fuse.OK {
		return s
	}
	return d.RawFileSystem.FsyncDir(cancel, in)
}

// leader returns which node leads a shard, as another one than not sees it; -1 while none does.
func (r *trio) leader(shard uint32, not int) int {
	r.t.Helper()
	answer, err := askOne(r.nodes[(not+1)%len(r.nodes)].grpc, 10*time.Second, watershedv1.NewClusterServiceClient,
		watershedv1.ClusterServiceClient.Topology, &watershedv1.TopologyRequest{})
	if err != nil {
		return -1
	}
	for _, region := range answer.GetRegions() {
		for _, s := range region.GetShards() {
			for i := range r.nodes {
				if s.GetShard() == shard && s.GetLeader() == r.name(i) {
					return i
				}
			}
		}
	}
	return -1
}

// onDisks starts a region whose nodes have disks of their own, with a job, and returns who leads shard 0.
func onDisks(t *testing.T) (r *trio, disks [3]*disk, leader int, traffic func(who string)) {
	t.Helper()
	build := binary(t)
	for i := range disks { // unmounted after the nodes have ended
		d, at := mountDisk(t)
		disks[i] = d
		t.Cleanup(d.heal)
		if i == 0 {
			cluster, cl := broker(t, "")
			createTopic(t, cl, "events", 4)
			r = newTrio(t, cluster.ListenAddrs()[0])
			sent := 0
			traffic = func(who string) {
				t.Helper()
				produceEvents(t, cl, "a", 4)
				sent += 4
				awaitRows(t, counted("a", sent), "--endpoint", who)
			}
		}
		r.nodes[i].data = filepath.Join(at, "data")
	}
	r.all(build)
	must(t, append([]string{"job", "apply", writeJob(t, eventJob)}, r.endpoints()...)...)
	traffic(r.nodes[0].grpc)
	await(t, settleWithin, "a leader", func() (bool, string) {
		leader = r.leader(0, 0)
		return leader >= 0, "none"
	})
	return r, disks, leader, traffic
}

// TestHungDiskLosesItsLeaderships hangs the disk of a leader: the others lead on while its process still runs, then that ends
// with one line, and when the disk is well again the node comes back with everything.
func TestHungDiskLosesItsLeaderships(t *testing.T) {
	r, disks, leader, traffic := onDisks(t)
	other, hung := r.nodes[(leader+1)%3].grpc, r.nodes[leader]
	disks[leader].hang()
	start := time.Now()
	file := writeJob(t, strings.Replace(eventJob, "name: events", "name: others", 1)) // something for the leader to write
	applied := make(chan result, 1)
	go func() { applied <- watershed(t, nil, "job", "apply", file, "--endpoint", other) }()
	await(t, settleWithin, "another leader", func() (bool, string) {
		now := r.leader(0, leader)
		return now >= 0 && now != leader, fmt.Sprint(now)
	})
	t.Logf("another node led after %v", time.Since(start))
	if hung.process.ended() {
		t.Error("leadership moved only because the process had ended")
	}
	if x := <-applied; x.status != 0 {
		t.Errorf("a write over the change of leaders: %s", x.stderr)
	}
	traffic(other)
	if err := hung.process.wait(); err == nil || !strings.Contains(hung.output.String(), "the node cannot go on") ||
		!strings.Contains(hung.output.String(), "disk stalled: no answer for") {
		t.Errorf("the node with the hung disk: %v:\n%s", err, hung.output)
	}
	traffic(other)
	disks[leader].heal()
	r.start(leader, binary(t))
	r.ready(leader)
	traffic(hung.grpc)
}

// TestFailedFsyncEndsTheNode: a leader whose fsync fails is gone at once, and nothing that was acknowledged with it.
func TestFailedFsyncEndsTheNode(t *testing.T) {
	r, disks, leader, traffic := onDisks(t)
	other, broken := r.nodes[(leader+1)%3].grpc, r.nodes[leader]
	disks[leader].fail()
	traffic(other)
	if err := broken.process.wait(); err == nil || !strings.Contains(broken.output.String(), "the node cannot go on") ||
		!strings.Contains(broken.output.String(), "input/output error") {
		t.Errorf("the node with the broken disk: %v:\n%s", err, broken.output)
	}
	traffic(other)
	disks[leader].heal()
	r.start(leader, binary(t))
	r.ready(leader)
	traffic(broken.grpc)
}
