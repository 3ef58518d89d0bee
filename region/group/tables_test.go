package group

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// mover is two members without Raft: one with a snapshot to send, and one that takes files.
type mover struct {
	t        *testing.T
	from     *snapshotStore
	to       *snapshotStore
	sender   *transport
	receiver *staging
	address  string // of the receiver
	damaged  atomic.Pointer[error]
}

func newMover(t *testing.T) *mover {
	t.Helper()
	m := &mover{t: t, from: openedStore(t), to: openedStore(t)}
	self := preface{Deployment: "d", Region: "eu", Node: "a"}
	a, b := testListener(t, self), testListener(t, self)
	m.receiver = newStaging(m.to, hclog.NewNullLogger())
	s, err := newStream(b, testShard, b.net.Addr().String(), m.receiver.take)
	if err != nil {
		t.Fatal(err)
	}
	m.sender = newTransport(testStream(t, a, testShard), &Config{TransportTimeout: patience}, newGuard(patience, patience, nil),
		newTables(0), hclog.NewNullLogger())
	m.sender.damaged = func(err error) { m.damaged.Store(&err) }
	m.address = b.net.Addr().String()
	t.Cleanup(func() {
		if err := m.sender.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
		m.receiver.close()
	})
	return m
}

func openedStore(t *testing.T) *snapshotStore {
	t.Helper()
	s, err := openSnapshotStore(vfs.Default, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keep makes a snapshot of files.
func keep(t *testing.T, s *snapshotStore, index uint64, files map[string]string) string {
	t.Helper()
	sink := testSink(t, s, index)
	if err := errors.Join(sink.adopt(testFolder(t, files), index), sink.Close()); err != nil {
		t.Fatal(err)
	}
	return sink.ID()
}

// send sends the files of the sender's snapshot, and returns the manifest.
func (m *mover) send(id string) ([]byte, error) {
	m.t.Helper()
	_, archive, err := m.from.Open(id)
	if err != nil {
		m.t.Fatal(err)
	}
	defer archive.Close()
	s := archive.(*snapshotReader)
	manifest, err := s.manifest()
	if err != nil {
		m.t.Fatal(err)
	}
	return manifest, m.sender.sendTables("b", raft.ServerAddress(m.address), 0, manifest, s, func() {})
}

// install puts together what came, as Raft's own message has it.
func (m *mover) install(manifest []byte, index uint64) map[string]string {
	m.t.Helper()
	sink := testSink(m.t, m.to, index)
	if _, err := io.Copy(sink, bytes.NewReader(manifest)); err != nil {
		m.t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		m.t.Fatal(err)
	}
	if _, err := os.Stat(m.to.incoming); !os.IsNotExist(err) {
		m.t.Errorf("files that were taken are still among those that come: %v", err)
	}
	return readFolder(m.t, filepath.Join(m.to.dir, sink.ID(), stateFolder))
}

// noise is n bytes that look like nothing else.
func noise(seed uint64, n int) string {
	rng := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

func TestOnlyWhatIsMissingTravels(t *testing.T) {
	m := newMover(t)
	shared, more := noise(1, 3*chunkSize), noise(2, chunkSize+1)
	keep(t, m.to, 10, map[string]string{"000007.sst": shared, "MANIFEST-1": "old", "000008.sst": "of this member alone"})
	files := map[string]string{"000003.sst": shared, "000004.sst": more, "MANIFEST-9": "new", "empty": "", "also": "", "copy.sst": more}
	manifest, err := m.send(keep(t, m.from, 20, files))
	if err != nil {
		t.Fatal(err)
	}
	if sent, want := m.sender.tables.sent.Load(), uint64(len(more)+len("new")); sent != want {
		t.Errorf("%d bytes were sent, %d are missing", sent, want)
	}
	if got := m.install(manifest, 20); !maps.Equal(got, files) {
		t.Errorf("%d files came, %d were sent", len(got), len(files))
	}
	// The next one shares most of it: nothing that both have is sent.
	files["000011.sst"] = noise(3, 100)
	before := m.sender.tables.sent.Load()
	if manifest, err = m.send(keep(t, m.from, 30, files)); err != nil {
		t.Fatal(err)
	}
	if sent := m.sender.tables.sent.Load() - before; sent != 100 {
		t.Errorf("%d bytes were sent, 100 are new", sent)
	}
	if got := m.install(manifest, 30); !maps.Equal(got, files) {
		t.Errorf("%d files came, %d were sent", len(got), len(files))
	}
}

// cutter passes connections on to an address, and cuts each of the first few after so many bytes.
func cutter(t *testing.T, to string, cuts int, after int64) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		passing.Wait()
	})
	passing.Go(func() {
		for n := 0; ; n++ {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			passing.Go(func() {
				_, _ = io.Copy(in, out)
				in.Close()
			})
			passing.Go(func() {
				if n < cuts {
					_, _ = io.CopyN(out, in, after)
				} else {
					_, _ = io.Copy(out, in)
				}
				in.Close()
				out.Close()
			})
		}
	})
	return l.Addr().String()
}

func TestATransferGoesOnAfterACut(t *testing.T) {
	m := newMover(t)
	files := map[string]string{"1.sst": noise(1, 5*chunkSize), "2.sst": noise(2, 9*chunkSize)}
	m.address = cutter(t, m.address, 2, 6*chunkSize)
	manifest, err := m.send(keep(t, m.from, 20, files))
	if err != nil {
		t.Fatal(err)
	}
	if m.sender.tables.resumed.Load() != 1 {
		t.Error("it was not cut")
	}
	// What was under way at a cut goes again, which buffers bound; without going on, twice 6 chunks would.
	if had := m.sender.tables.reused.Load(); had < 8*chunkSize {
		t.Errorf("only %d bytes were kept over two cuts after %d each", had, 6*chunkSize)
	}
	if got := m.install(manifest, 20); !maps.Equal(got, files) {
		t.Error("what came is not what was sent")
	}
}

// TestADamagedSnapshotIsNotSent flips a byte of what was kept, at either side.
func TestADamagedSnapshotIsNotSent(t *testing.T) {
	m := newMover(t)
	files := map[string]string{"1.sst": noise(1, 3*chunkSize), "2.sst": "small"}
	id := keep(t, m.from, 20, files)
	damaged := filepath.Join(m.from.dir, id, stateFolder, "1.sst")
	flip(t, damaged, chunkSize+5)
	if _, err := m.send(id); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), damaged) {
		t.Errorf("sent a damaged file: %v", err)
	}
	if err := m.damaged.Load(); err == nil || !errors.Is(*err, ErrCorrupt) {
		t.Error("nobody is told that the snapshot is damaged")
	}
	flip(t, damaged, chunkSize+5)                                 // well again
	if _, err := m.send(id); errors.Is(err, errSnapshotRefused) { // for what came of the damaged file, if anything did
		_, err = m.send(id)
		if err != nil {
			t.Fatal(err)
		}
	}
	// A file that is here but damaged is not reused.
	manifest, err := m.send(id)
	if err != nil {
		t.Fatal(err)
	}
	m.install(manifest, 20)
	newest, _, err := m.to.newest()
	if err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(m.to.dir, newest.Raft.ID, stateFolder, "1.sst"), 3)
	before := m.sender.tables.sent.Load()
	if _, err := m.send(id); err != nil {
		t.Fatal(err)
	}
	if sent := m.sender.tables.sent.Load() - before; sent != 3*chunkSize {
		t.Errorf("%d bytes were sent in place of a damaged file of %d", sent, 3*chunkSize)
	}
}

// flip changes a byte of a file.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b[at:at+1], int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAPartThatIsNotWhatWasSent is found by its checksum, and taken anew.
func TestAPartThatIsNotWhatWasSent(t *testing.T) {
	m := newMover(t)
	files := map[string]string{"1.sst": noise(1, 3*chunkSize)}
	id := keep(t, m.from, 20, files)
	meta, err := m.from.meta(id)
	if err != nil {
		t.Fatal(err)
	}
	part := m.receiver.path(meta.Files[0]) + partSuffix
	if err := errors.Join(os.MkdirAll(m.to.incoming, 0o755), os.WriteFile(part, []byte("something else"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.send(id); !errors.Is(err, errSnapshotRefused) {
		t.Fatalf("a file that begins with something else is taken: %v", err)
	}
	manifest, err := m.send(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.install(manifest, 20); !maps.Equal(got, files) {
		t.Error("what came is not what was sent")
	}
}

// older is a listener that turns away what a build before the files of snapshots had a way of their own does not know.
type older struct{ net.Listener }

func (l older) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		head := make([]byte, len(prefaceMagics[prefaceRaft]))
		if _, err := io.ReadFull(conn, head); err != nil {
			conn.Close()
			continue
		}
		if string(head) == prefaceMagics[prefaceTables] {
			_, _ = conn.Write([]byte{byte(refusedFrame)})
			conn.Close()
			continue
		}
		return &begun{conn, head}, nil
	}
}

// begun is a connection whose first bytes were read.
type begun struct {
	net.Conn
	head []byte
}

func (c *begun) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// lag has a member of three fall behind what the others' logs hold, with commands of some size, and starts it again.
func lag(t *testing.T, adjust func(*Config), start func(c *cluster, behind int)) (c *cluster, behind int) {
	t.Helper()
	c = newCluster(t, 3, func(cfg *Config) {
		cfg.TrailingEntries = 1
		if adjust != nil {
			adjust(cfg)
		}
	})
	c.propose("first")
	behind = (c.leader() + 1) % 3
	c.kill(behind)
	for i := range 20 {
		c.propose(fmt.Sprintf("c%d-%s", i, strings.Repeat("x", 10<<10)))
	}
	for _, n := range c.nodes {
		if n != nil {
			if err := n.group.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	start(c, behind)
	return c, behind
}

func (c *cluster) installed() (n uint64) {
	for _, n1 := range c.nodes {
		n += n1.host.Snapshots().Installed
	}
	return n
}

func TestAnOlderNodeGetsTheWholeSnapshot(t *testing.T) {
	c, behind := lag(t, nil, func(c *cluster, behind int) {
		cfg := c.configs[behind]
		l, err := net.Listen("tcp", cfg.Members[behind].Address)
		if err != nil {
			c.t.Fatal(err)
		}
		cfg.Listener = older{l}
		c.startWith(behind, cfg)
	})
	last := c.propose("last")
	c.await("the node that was behind", func() bool { return c.nodes[behind].group.position.get() >= last })
	for _, n := range c.nodes {
		if s := n.host.Snapshots(); s.Sent != 0 {
			t.Errorf("%d bytes went beside Raft's own message", s.Sent)
		}
	}
	if c.installed() == 0 {
		t.Error("it caught up without a snapshot")
	}
}

// TestASlowSnapshotIsNotOvertaken sends a snapshot so slowly that the log is cut far past it meanwhile, but for what is kept
// for that member: it is sent one snapshot and no other.
func TestASlowSnapshotIsNotOvertaken(t *testing.T) {
	c, behind := lag(t, func(cfg *Config) { cfg.SnapshotRate = 400 << 10 }, (*cluster).start)
	leader := c.leader()
	lead := c.nodes[leader]
	c.await("a transfer", func() bool { return lead.host.Snapshots().Waiting > 0 })
	cuts := 0
	for i := 0; lead.host.Snapshots().Waiting > 0; i++ {
		c.propose(fmt.Sprint("meanwhile", i))
		if err := lead.group.Snapshot(); err != nil {
			t.Fatal(err)
		}
		cuts++
	}
	last := c.propose("last")
	c.await("the node that was behind", func() bool { return c.nodes[behind].group.position.get() >= last })
	if cuts < 3 {
		t.Fatalf("only %d snapshots were made while one was sent", cuts)
	}
	if n := c.installed(); n != 1 {
		t.Errorf("%d snapshots were installed", n)
	}
}

func TestHolds(t *testing.T) {
	var h holds
	now := time.Now()
	if _, ok := h.least(now); ok {
		t.Fatal("held for nobody")
	}
	h.need("a", 10)
	h.need("b", 20)
	h.reached("a", 100, 100) // of an earlier log: the snapshot is not there yet
	if at, ok := h.least(now); !ok || at != 10 {
		t.Fatalf("%d, %v", at, ok)
	}
	h.sent("a", true)
	h.reached("a", 50, 100)
	if at, _ := h.least(now); at != 20 {
		t.Fatalf("%d", at)
	}
	h.sent("b", false)
	if at, _ := h.least(now); at != 50 {
		t.Fatalf("%d", at)
	}
	h.reached("a", 100, 100)
	if at, ok := h.least(now); ok {
		t.Fatalf("%d is held for a member that has everything", at)
	}
	h.need("c", 5)
	if _, ok := h.least(now.Add(2 * holdFor)); ok {
		t.Fatal("held for one that is gone")
	}
}

// TestAMemberThatIsDownHoldsUpNoOther: as many as may be sent a snapshot at once are down, and another one gets it.
func TestAMemberThatIsDownHoldsUpNoOther(t *testing.T) {
	m := newMover(t)
	files := map[string]string{"1.sst": "content"}
	id := keep(t, m.from, 20, files)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := raft.ServerAddress(l.Addr().String())
	l.Close()
	_, archive, err := m.from.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	s := archive.(*snapshotReader)
	manifest, err := s.manifest()
	if err != nil {
		t.Fatal(err)
	}
	tried := make(chan struct{}, 1)
	m.sender.leadBy(func() (term, commit uint64) { // asked after each try
		select {
		case tried <- struct{}{}:
		default:
		}
		return 0, 0
	})
	var sending sync.WaitGroup
	for range SendsAtOnce {
		sending.Go(func() { _ = m.sender.sendTables("c", down, 0, manifest, s, func() {}) })
	}
	<-tried
	done := make(chan error, 1)
	go func() {
		_, err := m.send(id)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("a member waits for those that are down")
	}
	if err := m.sender.Close(); err != nil { // which ends the tries
		t.Error(err)
	}
	sending.Wait()
}

// FuzzOffer reads manifests of anybody.
func FuzzOffer(f *testing.F) {
	offer := func(files ...snapshotFile) []byte {
		manifest := appendManifest(nil, 7, files)
		return append([]byte{0, 0, byte(len(manifest) >> 8), byte(len(manifest))}, manifest...)
	}
	f.Add(offer())
	f.Add(offer(snapshotFile{Name: "a.sst", Size: 3}, snapshotFile{Name: "b/c", Size: 1 << 40}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		files, err := readOffer(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for _, file := range files {
			if err := checkName(file.Name); err != nil || file.Size < 0 {
				t.Fatalf("%+v: %v", file, err)
			}
		}
	})
}
