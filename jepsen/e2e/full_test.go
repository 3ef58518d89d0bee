package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of so many MiB for as long as the test lasts; the test is skipped where that is not allowed.
func smallDisk(t testing.TB, size int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", size), "none", dir).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return dir
}

// fill leaves no more than so many bytes of a disk free, until the function it returns is called.
func fill(t testing.TB, disk string, leave uint64) (room func()) {
	t.Helper()
	name := filepath.Join(disk, "fill")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		var s unix.Statfs_t
		if err := unix.Statfs(disk, &s); err != nil {
			t.Fatal(err)
		}
		free := s.Bavail * uint64(s.Bsize)
		if free <= leave {
			break
		}
		if _, err := f.Write(make([]byte, min(free-leave, 1<<20))); err != nil {
			break // somebody else has taken the rest
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// onSmallDisk starts a node on a disk of 96 MiB, with a job.
func onSmallDisk(t *testing.T, more string) (n *node, disk string, cl *kgo.Client) {
	t.Helper()
	binary(t)
	disk = smallDisk(t, 96)
	cluster, cl := broker(t, "")
	createTopic(t, cl, "events", 1)
	n = newNode(t, cluster.ListenAddrs()[0])
	n.data, n.more = filepath.Join(disk, "data"), more
	n.start()
	must(t, "job", "apply", writeJob(t, eventJob), "--endpoint", n.grpc)
	return n, disk, cl
}

// TestADiskThatFillsUp: below the floor a node refuses writes with the numbers and answers reads; when there is room it goes
// on by itself, with everything.
func TestADiskThatFillsUp(t *testing.T) {
	n, disk, cl := onSmallDisk(t, "")
	produceEvents(t, cl, "a", 10)
	awaitRows(t, counted("a", 10), "--endpoint", n.grpc)
	room := fill(t, disk, 4<<20) // a tenth is kept
	other := writeJob(t, strings.Replace(eventJob, "name: events", "name: others", 1))
	var said result
	await(t, settleWithin, "writes to be refused", func() (bool, string) {
		said = watershed(t, nil, "job", "apply", other, "--endpoint", n.grpc, "--timeout", "1s")
		return said.status != 0, "it was taken"
	})
	if !strings.Contains(string(said.stderr), "bytes are free, 10066329 are kept (store.min_free)") {
		t.Errorf("a write: %s", said.stderr)
	}
	produceEvents(t, cl, "a", 10)
	for range 3 {
		awaitRows(t, counted("a", 10), "--endpoint", n.grpc)
	}
	if ok, why := httpOK("http://" + n.http + "/healthz"); !ok || n.process.ended() {
		t.Errorf("the node does not live: %s", why)
	}
	room()
	awaitRows(t, counted("a", 20), "--endpoint", n.grpc)
	must(t, "job", "apply", other, "--endpoint", n.grpc)
	if n.process.ended() {
		t.Error("the node has ended")
	}
}

// TestADiskWithoutAnyRoom: with a floor that is too low the disk takes nothing more in the middle of a write. The node ends and says why,
// does not start as long as that is so, and then has everything that it ever answered, once.
func TestADiskWithoutAnyRoom(t *testing.T) {
	n, disk, cl := onSmallDisk(t, "store: {min_free: 1B}\n")
	produceEvents(t, cl, "a", 10)
	awaitRows(t, counted("a", 10), "--endpoint", n.grpc)
	total := strings.NewReplacer("name: events", "name: totals", "key: [who]", "key: [kind]").Replace(eventJob)
	must(t, "job", "apply", writeJob(t, total), "--endpoint", n.grpc)
	room, sent := func() {}, 0
	for range 20 { // where it looks at the disk just in time, it refuses what comes, and is given another chance
		room()
		room = fill(t, disk, 300<<10)
		var recs []*kgo.Record
		for range 256 {
			who := fmt.Sprint(strings.Repeat("x", 4<<10), sent)
			recs = append(recs, &kgo.Record{Topic: "events", Value: fmt.Appendf(nil, `{"ts":1,"kind":"big","who":%q}`, who)})
			sent++
		}
		if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-n.process.done:
		case <-time.After(2 * time.Second):
			continue
		}
		break
	}
	if !n.process.ended() {
		t.Fatalf("the node runs on after %d events of 4 KiB:\n%s", sent, n.output)
	}
	t.Logf("it ended after %d events of 4 KiB", sent)
	if said := n.output.String(); n.process.err == nil || !strings.Contains(said, "the node cannot go on") ||
		!strings.Contains(said, "no space left on device") {
		t.Errorf("the node with the full disk: %v:\n%s", n.process.err, said)
	}
	if again := watershed(t, nil, "node", "--config", n.config()); again.status != 1 || !strings.Contains(string(again.stderr), "full disk") &&
		!strings.Contains(string(again.stderr), "no space left on device") {
		t.Errorf("started on the full disk: status %d: %s", again.status, again.stderr)
	}
	room()
	n.start()
	awaitRows(t, counted("a", 10), "--endpoint", n.grpc, "--key", "who=a")
	await(t, settleWithin, "every event", func() (bool, string) {
		r := watershed(t, nil, "query", "totals", "--output", "jsonl", "--endpoint", n.grpc)
		got := string(r.stdout)
		return strings.Contains(got, fmt.Sprintf(`"key":{"kind":"big"},"n":%d,`, sent)), got
	})
}
