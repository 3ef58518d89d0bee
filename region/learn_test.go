package region

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watershed-db/watershed/crdt"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// TestEveryNodeOfAnotherRegionIsReplaced: a region goes on with another one whose configured addresses are all of nodes that
// are gone, and so it does after a restart.
func TestEveryNodeOfAnotherRegionIsReplaced(t *testing.T) {
	regions := newClustersWith(t, 1, 2, func(o *Options) { o.LearnEvery = 50 * time.Millisecond }, "a", "b")
	a, b := regions[0], regions[1]
	applied := a.apply(0, toyJob)
	f := a.feed(applied.Job.Generation, 0)
	f.send(0, 500, "x", "y")
	want := []string{"1000 x n=1 s=2 r=1 false", "1000 y n=1 s=2 r=1 false"}
	local := toyScan(watershedv1.Consistency_CONSISTENCY_LOCAL)
	b.expect(0, local, want)

	i, n := a.enter()
	a.admit(0, n)
	a.carried(0, 2)
	learned := func() []string {
		book, err := readAddresses(filepath.Join(b.dir, "n0"))
		if err != nil {
			t.Fatal(err)
		}
		if len(book.Regions) != 1 || book.Regions[0].Region != "a" {
			return nil
		}
		return book.Regions[0].GRPC
	}
	until(t, "the new node to be known", func(context.Context) error {
		if !slices.Contains(learned(), n.GRPC) {
			return fmt.Errorf("known are %v", learned())
		}
		return nil
	})
	until(t, "remove n0", func(ctx context.Context) error {
		_, err := watershedv1.NewClusterServiceClient(a.conn(i)).RemoveNode(ctx, &watershedv1.RemoveNodeRequest{Id: "n0"})
		return err
	})
	a.carried(i, 1)
	if err := <-a.nodes[0].done; !errors.Is(err, ErrRemoved) {
		t.Fatalf("the old node ended with %v", err)
	}
	a.nodes[0] = nil

	f.send(i, 600, "x")
	want[0] = "1000 x n=2 s=4 r=2 false"
	b.expect(0, local, want)
	until(t, "the old node to be forgotten", func(context.Context) error {
		if got := learned(); !slices.Equal(got, []string{n.GRPC}) {
			return fmt.Errorf("known are %v", got)
		}
		return nil
	})
	b.stop(0)
	b.start(0, Listeners{})
	f.send(i, 700, "y")
	want[1] = "1000 y n=2 s=4 r=2 false"
	b.expect(0, local, want)
	b.apply(0, strings.Replace(toyJob, "name: toy", "name: other", 1)) // which a's registry takes
	until(t, "the topology of both", func(ctx context.Context) error {
		top, err := watershedv1.NewClusterServiceClient(b.conn(0)).Topology(ctx, &watershedv1.TopologyRequest{})
		if err != nil {
			return err
		}
		if r := top.Regions[0]; r.Name != "a" || !r.Reachable {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
}

// TestAddressesFile: what can't be used of it, or is of a member that was restored since, is not.
func TestAddressesFile(t *testing.T) {
	dir := t.TempDir()
	if book, err := readAddresses(dir); err != nil || len(book.Regions) != 0 {
		t.Fatalf("no file: %v, %v", book, err)
	}
	for text, want := range map[string]string{
		`{"version": 2}`:                   "format 2, this one knows up to 1",
		`{"version": 1`:                    "is damaged",
		`{}`:                               "is damaged",
		strings.Repeat(" ", maxIdentity+1): "at most",
	} {
		if err := os.WriteFile(filepath.Join(dir, addressesFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readAddresses(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	regions := newClustersWith(t, 1, 1, func(o *Options) { o.LearnEvery = time.Hour }, "a", "b")
	env := regions[0].nodes[0].node.peers.env
	text := `{"version": 1, "regions": [{"region": "b", "member": 1, "grpc": ["b:1"]}, {"region": "b", "member": 2, "grpc": ["b:2"]}]}`
	if err := os.WriteFile(filepath.Join(env.Config.Data, addressesFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPeers(env, 0, nil)
	(&learner{peers: p}).load()
	if got := p.directory.Addresses(crdt.RegionID("b")); !slices.Contains(got, "b:2") || slices.Contains(got, "b:1") {
		t.Errorf("dials %v", got)
	}
}
