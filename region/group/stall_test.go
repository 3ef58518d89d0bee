package group

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// brake holds up the syncs of a file system while it is on.
type brake struct {
	mu struct {
		sync.Mutex
		release chan struct{} // closed when it is let go; nil while it is
	}
}

func (b *brake) fs(under vfs.FS) vfs.FS {
	return errorfs.Wrap(under, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isSync(op.Kind) {
			b.wait()
		}
		return nil
	}))
}

func (b *brake) wait() {
	b.mu.Lock()
	release := b.mu.release
	b.mu.Unlock()
	if release != nil {
		<-release
	}
}

func (b *brake) pull() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.release = make(chan struct{})
}

func (b *brake) letGo() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.release != nil {
		close(b.mu.release)
		b.mu.release = nil
	}
}

// TestStalledLeaderIsReplaced hangs the fsync of a leader: it must stop saying that it leads, another one must take over,
// and when the fsync returns after all the node follows, with the same log.
func TestStalledLeaderIsReplaced(t *testing.T) {
	brakes := make([]*brake, 3)
	next := 0
	c := newCluster(t, 3, func(cfg *Config) {
		brakes[next] = &brake{}
		cfg.logFS = brakes[next].fs(vfs.Default)
		next++
		cfg.StallTimeout, cfg.StoreTimeout = 300*time.Millisecond, 2*patience
	})
	t.Cleanup(func() { // before the cluster closes
		for _, b := range brakes {
			b.letGo()
		}
	})
	c.propose("before")
	old := c.leader()
	var told sync.Map
	c.nodes[old].group.OnLeader(func(l Leadership) { told.Store(l.Leader, l) })
	c.await("word of leading", func() bool { _, ok := told.Load(true); return ok })
	brakes[old].pull()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start := time.Now()
	_, _, err := c.nodes[old].group.Propose(ctx, []byte("hangs"))
	if !errors.Is(err, ErrIndefinite) || !errors.Is(err, ErrStalled) {
		t.Fatalf("a proposal over a hung fsync: %v", err)
	}
	if c.nodes[old].group.IsLeader() || !c.nodes[old].host.Stalled() {
		t.Fatal("a node with a hung disk says that it leads")
	}
	c.await("word of the end", func() bool { _, ok := told.Load(false); return ok })
	if _, err := c.nodes[old].group.Linearizable(ctx); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("a read over a hung fsync: %v", err)
	}
	c.propose("after")
	t.Logf("written through another leader %v after the hung proposal", time.Since(start))
	if c.leader() == old {
		t.Fatal("the node with the hung disk leads")
	}
	brakes[old].letGo()
	c.await("the node to follow", func() bool {
		n := c.nodes[old]
		return !n.host.Stalled() && n.toy.count("after") == 1
	})
	if c.nodes[old].host.Stalls() == 0 {
		t.Fatal("no stall was counted")
	}
}

// TestSlowDiskOfTheOnlyNode sees that a stall ends where nobody could take over.
func TestSlowDiskOfTheOnlyNode(t *testing.T) {
	b := &brake{}
	c := newCluster(t, 1, func(cfg *Config) {
		cfg.logFS = b.fs(vfs.Default)
		cfg.StallTimeout, cfg.StoreTimeout = 50*time.Millisecond, 2*patience
	})
	t.Cleanup(b.letGo)
	c.propose("before")
	b.pull()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, _, err := c.nodes[0].group.Propose(ctx, []byte("hangs")); !errors.Is(err, ErrIndefinite) {
		t.Fatal(err)
	}
	if _, _, err := c.nodes[0].group.Propose(ctx, []byte("refused")); !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrIndefinite) {
		t.Fatal(err)
	}
	b.letGo()
	c.propose("after")
	if n := c.nodes[0].toy.count("hangs"); n != 1 {
		t.Fatalf("what hung was applied %d times", n)
	}
}

// TestHungReadEndsTheProcess: reads stand under the deadlines too.
func TestHungReadEndsTheProcess(t *testing.T) {
	fatal := make(chan error, 1)
	g := newGuard(10*time.Millisecond, 30*time.Millisecond, func(err error) { fatal <- err })
	release := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- g.read("read vote", func() error { <-release; return nil })
	}()
	if err := <-fatal; !errors.Is(err, ErrStalled) || !g.stalled() {
		t.Fatalf("got %v, stalled %v", err, g.stalled())
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if g.stalled() {
		t.Fatal("a call that has returned counts as stalled")
	}
	if err := g.do("store vote", func() error { t.Error("written after a hang"); return nil }); !errors.Is(err, ErrStalled) {
		t.Fatal(err)
	}
}

// TestHungStoreEndsTheProcess: what the machines' stores ask of the disk stands under the hard deadline alone.
func TestHungStoreEndsTheProcess(t *testing.T) {
	fatal := make(chan error, 1)
	h := &Host{guard: newGuard(time.Millisecond, 50*time.Millisecond, func(err error) { fatal <- err })}
	b := &brake{}
	fs := h.WatchFS(b.fs(vfs.NewMem()))
	file, err := fs.Create("000001.sst", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	b.pull()
	synced := make(chan error)
	go func() { synced <- file.Sync() }()
	if err := <-fatal; !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), "sync 000001.sst") || h.Stalled() {
		t.Fatalf("got %v, stalled %v", err, h.Stalled())
	}
	b.letGo()
	if err := errors.Join(<-synced, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestNobodyHearsOfAFailureBeforeFatalReturned: Raft panics over what it hears, which would end the process without a word.
func TestNobodyHearsOfAFailureBeforeFatalReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing, said := make(chan struct{}), false
		g := newGuard(patience, patience, func(error) {
			close(failing)
			synctest.Wait() // until all calls wait, or have returned
			said = true
		})
		for _, call := range []func() error{
			g.err,
			func() error { return g.fail(errors.New("another")) },
			func() error { return g.do("write", func() error { return nil }) },
			func() error { return g.read("read", func() error { return nil }) },
		} {
			go func() {
				<-failing
				if err := call(); err == nil || !said {
					t.Errorf("returned %v, fatal has returned: %v", err, said)
				}
			}()
		}
		g.fail(errors.New("first"))
	})
}

// TestAPanicOverTheDiskIsAFailedWrite: two groups write to one log, and the second to hear of a full disk hears it by a panic.
func TestAPanicOverTheDiskIsAFailedWrite(t *testing.T) {
	full := errors.New("no space left on device")
	var said error
	g := newGuard(patience, patience, func(err error) { said = err })
	if err := g.do("write", func() error { panic(full) }); !errors.Is(err, full) || !errors.Is(said, full) {
		t.Errorf("returned %v, and said %v", err, said)
	}
}
