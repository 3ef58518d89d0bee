package group

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// overPipe returns what a framed connection reads of raw bytes, how many frames it found damaged, and its last error.
func overPipe(raw []byte) (read []byte, damaged uint64, err error) {
	here, there := net.Pipe()
	go func() {
		_, _ = there.Write(raw)
		there.Close()
	}()
	var count atomic.Uint64
	f := newFramed(here, &count, func() {})
	defer f.Close()
	read, err = io.ReadAll(f)
	return read, count.Load(), err
}

func TestFramesCarryWhatWasWritten(t *testing.T) {
	here, there := net.Pipe()
	var count atomic.Uint64
	sent := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
	go func() {
		f := newFramed(there, &count, func() {})
		defer f.Close()
		for _, part := range [][]byte{sent[:1], sent[1:100], sent[100:]} {
			if n, err := f.Write(part); n != len(part) || err != nil {
				t.Error(n, err)
			}
		}
	}()
	f := newFramed(here, &count, func() {})
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, sent) || count.Load() != 0 {
		t.Fatalf("read %d of %d bytes, %v, %d damaged", len(got), len(sent), err, count.Load())
	}
}

// TestAFlippedByteEndsTheConnection flips every byte of two frames: nothing of a damaged one is handed on.
func TestAFlippedByteEndsTheConnection(t *testing.T) {
	first := appendFrame(nil, []byte("first"))
	raw := appendFrame(first, []byte("the second one"))
	for i := range raw {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 0x10
		read, damaged, err := overPipe(flipped)
		want := "first"
		if i < len(first) {
			want = ""
		}
		if string(read) != want || damaged != 1 || !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d: read %q, %d damaged, %v", i, read, damaged, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, []byte("x")))
	f.Add(appendFrame(appendFrame(nil, []byte("x")), bytes.Repeat([]byte("y"), 5000)))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		read, _, err := overPipe(raw)
		if err == nil && len(read)+frameHeader > len(raw) && len(raw) > 0 {
			t.Fatalf("%d bytes were made of %d", len(read), len(raw))
		}
	})
}

// crooked is a relay in front of a node that flips a byte of what it passes on, now and then, for as long as it is told to.
type crooked struct {
	to    string
	flips atomic.Int64 // that are left
}

func (c *crooked) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		there, err := net.Dial("tcp", c.to)
		if err != nil {
			conn.Close()
			continue
		}
		pass := func(to, from net.Conn, crooked bool) {
			defer to.Close()
			defer from.Close()
			buf := make([]byte, 4<<10)
			for passed := 0; ; {
				n, err := from.Read(buf)
				if err != nil {
					return
				}
				if passed += n; crooked && passed > 200 && c.flips.Add(-1) >= 0 {
					buf[n/2] ^= 4
				}
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
		}
		go pass(there, conn, true)
		go pass(conn, there, false)
	}
}

// TestAFlippedByteBetweenNodes has a follower reached through a relay that flips bytes: each is counted and none applied.
func TestAFlippedByteBetweenNodes(t *testing.T) {
	relay, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	c := newCluster(t, 3, nil)
	leader := c.leader()
	follower := (leader + 1) % 3
	way := &crooked{to: c.configs[follower].Members[follower].Address}
	go way.serve(relay)
	c.nodes[leader].host.book.learn([]Member{{ID: c.configs[follower].NodeID, Address: relay.Addr().String()}}, nil)
	c.nodes[follower].host.listener.mu.Lock()
	s := c.nodes[follower].host.listener.mu.streams[testShard]
	c.nodes[follower].host.listener.mu.Unlock()
	s.mu.Lock()
	for conn := range s.mu.conns { // so that it dials anew
		conn.Conn.Close()
	}
	s.mu.Unlock()
	way.flips.Store(5)
	for i := range 200 {
		c.propose(string(rune('a'+i%26)) + "-command")
		if c.nodes[follower].host.DamagedFrames() >= 5 {
			break
		}
	}
	c.propose("last")
	c.await("the follower to have everything", func() bool { return c.nodes[follower].toy.count("last") > 0 })
	if n := c.nodes[follower].host.DamagedFrames(); n == 0 {
		t.Fatal("nothing was flipped")
	}
	a, b := c.nodes[leader].toy, c.nodes[follower].toy
	a.mu.Lock()
	defer a.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	for index, command := range b.mu.Commands {
		if a.mu.Commands[index] != command {
			t.Errorf("index %d: the leader has %q, the follower %q", index, a.mu.Commands[index], command)
		}
	}
}

// damageable is a toy that is told of damage.
type damageable struct {
	*toy
	told atomic.Int32
}

func (d *damageable) Damaged(error) { d.told.Add(1) }

func TestADamagedEntryIsNotApplied(t *testing.T) {
	toy, err := openToy(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &damageable{toy: toy}
	f := &fsm{machine: m, position: new(position), backlog: new(Backlog), due: make(chan struct{}, 1), limitEntries: 100, limitBytes: 1 << 20}
	entry := func(index uint64) *raft.Log {
		data := []byte("command")
		return &raft.Log{Index: index, Term: 1, Data: data, Extensions: appendChecksum(nil, data)}
	}
	if got := f.Apply(entry(1)); got != "applied command" {
		t.Fatal(got)
	}
	if got := f.Apply(&raft.Log{Index: 2, Data: []byte("older")}); got != "applied older" { // of a build without checksums
		t.Fatal(got)
	}
	bad := entry(3)
	bad.Data[2] ^= 1
	for _, e := range []*raft.Log{bad, entry(4)} {
		if err, ok := f.Apply(e).(error); !ok || !errors.Is(err, ErrCorrupt) {
			t.Fatalf("entry %d: %v", e.Index, err)
		}
	}
	if m.AppliedIndex() != 2 || f.position.get() != 2 || m.told.Load() != 1 {
		t.Fatalf("applied %d, position %d, told %d times", m.AppliedIndex(), f.position.get(), m.told.Load())
	}
}

// TestRebuiltReplicaVotesForNobodyWhoLacksWhatItForgot: only n0 and n1 have the last command when n1 is rebuilt and n0
// is away. n1 and n2 are a majority, but must not elect one of them.
func TestRebuiltReplicaVotesForNobodyWhoLacksWhatItForgot(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.propose("before")
	c.leader()
	c.kill(2)
	c.propose("acknowledged by two")
	c.kill(0)
	c.kill(1)
	host, err := Open(c.configs[1])
	if err != nil {
		t.Fatal(err)
	}
	drop := func() error { return os.RemoveAll(filepath.Join(c.configs[1].Dir, "toy")) }
	cut := errors.New("cut short")
	if err := host.Rebuild(testShard, func() error { return cut }); !errors.Is(err, cut) {
		t.Fatal(err)
	}
	if err := host.ResumeRebuild(testShard, drop); err != nil {
		t.Fatal(err)
	}
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	c.start(2)
	silent := time.NewTimer(2 * time.Second)
	defer silent.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-silent.C:
			waiting = false
		case <-tick.C:
			if c.nodes[1].group.IsLeader() || c.nodes[2].group.IsLeader() {
				t.Fatal("a leader that lacks a command that was acknowledged")
			}
		}
	}
	c.start(0)
	c.await("n1 to have everything again", func() bool { return c.nodes[1].toy.count("acknowledged by two") == 1 })
	c.propose("together")
	c.kill(0)
	c.propose("without n0")
	if c.nodes[1].toy.count("before") != 1 {
		t.Fatal("n1 is not whole")
	}
}
