package group

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/shard"
)

var crashEvery = flag.Int("crash.every", 1, "TestCrashAnywhere crashes at every n-th operation of the file system")

// member is what one member of a group has on a disk, driven as Raft does, but by hand.
type member struct {
	fs      vfs.FS
	logs    *LogStore
	log     *ShardLog
	machine *shard.Machine
	group   *Group
}

const memberDir = "group"

// openMember opens what is there, and replays the log as Raft would.
func openMember(fsys vfs.FS) (m *member, err error) {
	fatal := func(err error) { panic(err) }
	m = &member{fs: fsys}
	if m.logs, err = OpenLogStore("log", LogStoreConfig{FS: fsys, Fatal: fatal}); err != nil {
		return nil, err
	}
	if m.log, err = m.logs.Shard(testShard); err != nil {
		return nil, err
	}
	store, err := keyspace.Open(keyspace.Options{Dir: "store", FS: fsys, Fatal: fatal})
	if err != nil {
		return nil, err
	}
	if m.machine, err = shard.Open(shard.Options{
		Config: shard.Config{Shard: testShard, Shards: 16, Self: "a", Regions: []crdt.RegionID{"a"}}, Store: store, Fatal: fatal,
	}); err != nil {
		return nil, err
	}
	snapshots, err := openSnapshotStore(fsys, memberDir)
	if err != nil {
		return nil, err
	}
	m.group = &Group{shard: testShard, log: m.log, snapshots: snapshots}
	m.group.fsm = &fsm{machine: m.machine, fs: fsys, dir: memberDir, position: &m.group.position, backlog: &m.group.backlog, due: make(chan struct{}, 1),
		limitEntries: 1 << 40, limitBytes: 1 << 40}
	for _, dir := range []string{memberDir, snapshots.dir, ""} {
		if err := syncDir(fsys, dir); err != nil {
			return nil, err
		}
	}
	if err := m.group.reconcile(); err != nil {
		return nil, err
	}
	first, _ := m.log.FirstIndex()
	last, _ := m.log.LastIndex()
	newest, _, err := snapshots.newest()
	if err != nil {
		return nil, err
	}
	for index := max(first, newest.Raft.Index+1); first > 0 && index <= last; index++ {
		var entry raft.Log
		if err := m.log.GetLog(index, &entry); err != nil {
			return nil, err
		}
		m.group.fsm.Apply(&entry)
	}
	return m, nil
}

func (m *member) close() error { return errors.Join(m.machine.Close(), m.logs.Close()) }

// command is the one at an index: notes are state, and a Check of an index that nobody remembers moves the chain alone.
func command(index uint64) []byte {
	if index%3 == 0 {
		return shard.Encode(&shard.Check{Index: 1 << 40, Chain: crdt.Hash{byte(index)}})
	}
	return shard.Encode(&shard.Note{Name: fmt.Sprint("n", index), Value: bytes.Repeat([]byte{byte(index)}, 3000)})
}

// add appends an entry, which is acknowledged then, and applies it.
func (m *member) add(index uint64) error {
	data := command(index)
	entry := &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data, Extensions: appendChecksum(nil, data)}
	if err := m.log.StoreLog(entry); err != nil {
		return err
	}
	m.group.fsm.Apply(entry)
	return nil
}

// snapshot makes one up to an index, and cuts the log behind it.
func (m *member) snapshot(index uint64) error {
	taken, err := m.group.fsm.Snapshot()
	if err != nil {
		return err
	}
	defer taken.Release()
	sink, err := m.group.snapshots.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(taken.Persist(sink), sink.Close()); err != nil {
		return err
	}
	first, _ := m.log.FirstIndex()
	return m.log.DeleteRange(first, index-2)
}

// install takes the newest snapshot of another member, as a leader sends it.
func (m *member) install(from *member, index uint64) error {
	newest, _, err := from.group.snapshots.newest()
	if err != nil {
		return err
	}
	_, archive, err := from.group.snapshots.Open(newest.Raft.ID)
	if err != nil {
		return err
	}
	defer archive.Close()
	s := archive.(*snapshotReader)
	manifest, err := s.manifest()
	if err != nil {
		return err
	}
	taking := newStaging(m.group.snapshots, hclog.NewNullLogger())
	if err := errors.Join(m.fs.MkdirAll(taking.dir, 0o755), taking.clear(s.sums), taking.reuse(s.sums)); err != nil {
		return err
	}
	for _, f := range s.sums {
		content, err := readFile(from.fs, from.fs.PathJoin(s.dir, f.Name))
		if err != nil {
			return err
		}
		at, err := taking.have(f)
		if err == nil && (at < f.Size || f.Size == 0) {
			err = taking.write(bytes.NewReader(content[at:]), f, at)
		}
		if err != nil {
			return err
		}
	}
	if err := syncDir(m.fs, taking.dir); err != nil {
		return err
	}
	sink, err := m.group.snapshots.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, bytes.NewReader(manifest)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	_, received, err := m.group.snapshots.Open(sink.ID())
	if err != nil {
		return err
	}
	if err := m.group.fsm.Restore(received); err != nil {
		return err
	}
	first, _ := m.log.FirstIndex()
	last, _ := m.log.LastIndex()
	return m.log.DeleteRange(first, last)
}

// story is what happens to a member: commands, snapshots, a log that is cut, and a snapshot from elsewhere. acknowledged is
// told of the index up to which everything must survive from then on.
func story(m, other *member, acknowledged func(uint64)) error {
	commands := func(from, to uint64) error {
		for index := from; index <= to; index++ {
			if err := m.add(index); err != nil {
				return err
			}
			acknowledged(index)
		}
		return nil
	}
	if err := errors.Join(commands(1, 12), m.snapshot(12), commands(13, 20), m.snapshot(20), commands(21, 23)); err != nil {
		return err
	}
	if err := m.install(other, 40); err != nil {
		return err
	}
	acknowledged(40)
	return errors.Join(commands(41, 44), m.snapshot(44), commands(45, 46))
}

// crash is a disk as it was left, and what must be on it.
type crash struct {
	op           string
	fs           *vfs.MemFS
	acknowledged uint64
}

// TestCrashAnywhere stops a member at the operations of its file systems, one after the other, with some of what was not synced
// on the disk and some not: it opens, with all that was acknowledged, in a state that the commands make.
func TestCrashAnywhere(t *testing.T) {
	chains, other := oracle(t)
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex
	var crashes []crash
	var acknowledged atomic.Uint64
	rng, ops := rand.New(rand.NewPCG(1, 2)), 0
	m, err := openMember(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if ops++; ops%*crashEvery != 0 {
			return nil
		}
		had := acknowledged.Load() // before the disk is looked at
		crashes = append(crashes, crash{
			op: fmt.Sprintf("operation %d, %v of %s", ops, op.Kind, op.Path), acknowledged: had,
			fs: mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 100, rng.IntN(101)}[rng.IntN(3)], RNG: rng}),
		})
		return nil
	})))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(story(m, other, acknowledged.Store), m.close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range crashes {
		if err := survived(c, chains); err != nil {
			t.Errorf("crash at %s: %v", c.op, err)
		}
	}
	t.Logf("%d operations, %d crashes", ops, len(crashes))
	if len(crashes) < 400 / *crashEvery {
		t.Error("too few to say anything")
	}
}

// oracle applies all commands, without any crash, and returns the chain at every index and a member that has a snapshot at 40.
func oracle(t *testing.T) (chains map[uint64]crdt.Hash, other *member) {
	t.Helper()
	other, err := openMember(vfs.NewMem())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.close(); err != nil {
			t.Error(err)
		}
	})
	chains = map[uint64]crdt.Hash{0: {}}
	for index := uint64(1); index <= 46; index++ {
		if err := other.add(index); err != nil {
			t.Fatal(err)
		}
		chains[index] = other.machine.NewCheck().Chain
		if index == 40 {
			if err := other.snapshot(index); err != nil {
				t.Fatal(err)
			}
		}
	}
	return chains, other
}

// survived opens what a crash has left.
func survived(c crash, chains map[uint64]crdt.Hash) (err error) {
	m, err := openMember(c.fs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	at := m.machine.NewCheck()
	if at.Index < c.acknowledged {
		return fmt.Errorf("it holds commands up to %d, %d was acknowledged", at.Index, c.acknowledged)
	}
	if at.Chain != chains[at.Index] {
		return fmt.Errorf("its chain at %d is not that of the commands", at.Index)
	}
	for index := uint64(1); index <= at.Index; index++ {
		if note := m.machine.State().Note(fmt.Sprint("n", index)); index%3 != 0 && (note.Revision != 1 || note.Index != index) {
			return fmt.Errorf("note %d is %+v in a state at %d", index, note, at.Index)
		}
	}
	// And it goes on.
	if err := m.add(at.Index + 1); err != nil {
		return err
	}
	return m.snapshot(at.Index + 1)
}
