package group

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Machine is the deterministic state machine behind a group. It persists itself, and may lag behind what was applied to
// it by whatever the log still holds. Apply, Checkpoint and Restore are called by one goroutine; AppliedIndex by any.
type Machine interface {
	// Apply applies the command at index; indexes rise, and not every index is a command's. What it returns is handed to
	// the proposer where that is this node, and dropped everywhere else. It must not keep or change command, and must
	// come out the same on every node.
	Apply(index uint64, command []byte) any
	// AppliedIndex returns the index of the last command that the machine holds. It is asked after the machine was
	// opened and after Restore: commands at or below it are not applied again.
	AppliedIndex() uint64
	// Checkpoint makes everything applied durable and writes a consistent copy of it to dir, which it makes (its parent
	// exists, on the file system the group's folder is on; hard links will do). The index is read from the copy itself.
	Checkpoint(dir string) (index uint64, err error)
	// Restore replaces all state with the checkpoint in dir, durably and at once or not at all. It may link tables in dir,
	// but changes nothing there: dir goes on being a snapshot.
	Restore(dir string) error
}

// Damageable is a Machine that is told, by any goroutine, of an entry that is not what was proposed, from which on nothing is
// applied, and of a file of a snapshot that is not what it was.
type Damageable interface{ Damaged(err error) }

var (
	errReplaying = errors.New("commands that the state holds already are still being replayed")
	errSkipped   = errors.New("the state holds the command already")
)

// fsm drives a Machine as Raft wants it. But for its counters it belongs to Raft's goroutine for state machines.
type fsm struct {
	machine        Machine
	fs             vfs.FS
	dir            string // the group's folder, for checkpoints under way
	position       *position
	backlog        *Backlog
	configurations configurations
	seen           uint64 // last command that Raft handed over
	held           uint64 // commands at or below are in the machine already
	damaged        error  // of an entry: nothing from there on is applied

	limitEntries, limitBytes uint64
	entries, bytes           atomic.Uint64 // commands seen since the last snapshot
	due                      chan struct{} // gets a value when a snapshot is due; never blocks
}

var _ raft.FSM = (*fsm)(nil)

// Apply hands a command to the machine, unless the machine came with it.
func (f *fsm) Apply(entry *raft.Log) any {
	f.seen = entry.Index
	defer f.backlog.applied(entry.Index)
	f.count(len(entry.Data))
	if entry.Index <= f.held {
		return errSkipped
	}
	if f.damaged == nil {
		f.damaged = checkEntry(entry)
		if m, ok := f.machine.(Damageable); ok && f.damaged != nil {
			m.Damaged(f.damaged)
		}
	}
	if f.damaged != nil {
		return f.damaged
	}
	result := f.machine.Apply(entry.Index, entry.Data)
	f.position.advance(entry.Index)
	return result
}

func (f *fsm) count(size int) {
	entries, bytes := f.entries.Add(1), f.bytes.Add(uint64(size))
	if entries < f.limitEntries && bytes < f.limitBytes {
		return
	}
	select {
	case f.due <- struct{}{}:
	default:
	}
}

// Snapshot takes a checkpoint of the machine. It holds up Apply, so it is no more than that.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.seen < f.held { // Raft would give the snapshot an index below its state's
		return nil, errReplaying
	}
	dir := filepath.Join(f.dir, checkpointFolder)
	if err := f.fs.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear checkpoint folder: %w", err)
	}
	index, err := f.machine.Checkpoint(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if applied := f.position.get(); index != applied {
		return nil, fmt.Errorf("checkpoint holds index %d, applied is %d", index, applied)
	}
	f.entries.Store(0)
	f.bytes.Store(0)
	return &checkpoint{fs: f.fs, dir: dir, index: index}, nil
}

// Restore replaces the machine's state with a snapshot.
func (f *fsm) Restore(archive io.ReadCloser) error {
	defer archive.Close()
	if w, ok := archive.(raft.ReadCloserWrapper); ok { // Raft counts what is read
		archive = w.WrappedReadCloser()
	}
	s, ok := archive.(*snapshotReader)
	if !ok {
		return fmt.Errorf("snapshot to restore is a %T", archive)
	}
	if err := f.machine.Restore(s.dir); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if applied := f.machine.AppliedIndex(); applied != s.index {
		return fmt.Errorf("restored state holds index %d, its snapshot said %d", applied, s.index)
	}
	f.seen, f.held = s.index, s.index
	f.backlog.applied(s.index)
	f.position.advance(s.index)
	return nil
}

// checkpoint is a machine's checkpoint on its way into the snapshot store.
type checkpoint struct {
	fs    vfs.FS
	dir   string
	index uint64
}

// Persist moves the checkpoint into the snapshot.
func (c *checkpoint) Persist(sink raft.SnapshotSink) error {
	s, ok := sink.(*snapshotSink)
	if !ok {
		return fmt.Errorf("snapshot sink is a %T", sink)
	}
	return s.adopt(c.dir, c.index)
}

// Release removes what was not moved.
func (c *checkpoint) Release() { _ = c.fs.RemoveAll(c.dir) } // or at the next start
