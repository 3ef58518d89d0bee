package region

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/jepsen/s3"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// metric returns the value of a node's metric, as it stands on the page; "" where it does not.
func (c *cluster) metric(i int, name string) string {
	c.t.Helper()
	answer, err := http.Get("http://" + c.config.Nodes[i].HTTP + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			return value
		}
	}
	return ""
}

// try asks for a checkpoint once.
func (c *cluster) try(name string) error {
	_, err := watershedv1.NewClusterServiceClient(c.conn(0)).Checkpoint(context.Background(),
		&watershedv1.CheckpointRequest{Savepoint: name})
	return err
}

// TestAnObjectStoreThatFails harms nothing but checkpoints: writes and reads go on while it is gone or busy, each failure is
// counted and told in one line, and when it is back so are checkpoints, with nothing sent twice.
func TestAnObjectStoreThatFails(t *testing.T) {
	server, proxy := s3.Serve(t)
	url := proxy.Place("test")
	c, ports := prepareRegion(t, url, 1, 2, "n0")
	c.start(0, ports[0])
	f := c.feed(c.apply(0, toyJob).GetJob().GetGeneration(), 0)
	f.send(0, 500, "x")
	c.checkpoint("")
	if age := c.metric(0, "watershed_checkpoint_age_seconds"); age == "" {
		t.Error("the age of the checkpoint is not told")
	}
	proxy.Set(s3.Faults{Busy: func(*http.Request) bool { return true }})
	f.send(0, 600, "x", "y")
	if err := c.try(""); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "overloaded") ||
		strings.Contains(err.Error(), s3.SecretKey) {
		t.Errorf("a busy store: %v", err)
	}
	proxy.Set(s3.Faults{})
	server.Kill()
	f.send(0, 700, "y")
	if err := c.try(""); status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "\n") {
		t.Errorf("no store: %v", err)
	}
	c.expect(0, toyScan(watershedv1.Consistency_CONSISTENCY_LINEARIZABLE),
		[]string{"1000 x n=2 s=4 r=2 false", "1000 y n=2 s=4 r=2 false"})
	if n := c.metric(0, `watershed_checkpoint_failures_total{what="cut"}`); n == "" || n == "0" {
		t.Errorf("failures are counted as %q", n)
	}
	if err := server.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill) // before goroutines are counted
	c.checkpoint("")
	if c.metric(0, `watershed_checkpoint_bytes_total{how="sent",shard="0"}`) == "" {
		t.Error("bytes sent are not counted")
	}
}

// TestAnUploadThatIsKilled: the store dies in the middle of an upload; nothing of it is listed, and the next one is whole.
func TestAnUploadThatIsKilled(t *testing.T) {
	server, proxy := s3.Serve(t)
	url := proxy.Place("test")
	c, ports := prepareRegion(t, url, 1, 2, "n0")
	c.start(0, ports[0])
	f := c.feed(c.apply(0, toyJob).GetJob().GetGeneration(), 0)
	f.send(0, 500, "x", "y", "z")
	c.checkpoint("")
	f.send(0, 600, "x", "y")
	killed := make(chan struct{}, 1)
	proxy.Set(s3.Faults{Cut: func(r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/tables/") || r.Method != http.MethodPut {
			return false
		}
		select {
		case killed <- struct{}{}:
			server.Kill()
		default:
		}
		return true
	}})
	if err := c.try(""); err == nil {
		t.Fatal("a checkpoint was made though the store died")
	}
	proxy.Set(s3.Faults{})
	if err := server.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill) // before goroutines are counted
	list := func() (n int) {
		until(t, "list", func(ctx context.Context) error {
			answer, err := watershedv1.NewClusterServiceClient(c.conn(0)).Checkpoints(ctx, &watershedv1.CheckpointsRequest{})
			n = len(answer.GetCheckpoints())
			if err == nil && len(answer.GetProblems()) > 0 {
				err = fmt.Errorf("%v", answer.GetProblems())
			}
			return err
		})
		return n
	}
	if n := list(); n != 1 {
		t.Errorf("%d checkpoints after one that was killed", n)
	}
	c.checkpoint("")
	if n := list(); n != 2 {
		t.Errorf("%d checkpoints", n)
	}
	if left, err := os.ReadDir(filepath.Join(c.dir, "n0", uploadFolder)); err != nil || len(left) > 0 {
		t.Errorf("%v is left in the upload folder: %v", left, err)
	}
}

// TestNoCheckpoints: whoever has none says so, and what can't be repaired by trying again is not tried again.
func TestNoCheckpoints(t *testing.T) {
	_, proxy := s3.Serve(t)
	for name, x := range map[string]struct {
		url, savepoint string
		code           codes.Code
		says           string
	}{
		"not configured": {"", "", codes.FailedPrecondition, "checkpoints.url"},
		"wrong bucket":   {"s3://not-here/p?endpoint=" + proxy.URL(), "", codes.FailedPrecondition, "no such bucket"},
		"bad name":       {"s3://not-here/p?endpoint=" + proxy.URL(), "a/b", codes.InvalidArgument, "savepoint"},
	} {
		t.Run(name, func(t *testing.T) {
			c, ports := prepareRegion(t, x.url, 1, 1, "n0")
			c.start(0, ports[0])
			c.apply(0, toyJob)
			if err := c.try(x.savepoint); status.Code(err) != x.code || !strings.Contains(err.Error(), x.says) {
				t.Error(err)
			}
		})
	}
}
