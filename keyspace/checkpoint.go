package keyspace

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Checkpoint writes the whole state into dir, which must not exist and should lie on the store's file system: files are
// linked where that is possible. The index it returns, with the chain there, is the checkpoint's own: at or above that
// of every command applied before the call. Commands go on meanwhile. Any goroutine may call it.
func (s *Store) Checkpoint(dir string) (index uint64, chain crdt.Hash, err error) {
	if !mutant.On("checkpoint-misses-memtable") {
		if _, err := s.writeBehind(); err != nil {
			return 0, chain, err
		}
	}
	s.mu.Lock()
	if err := s.usableLocked(); err != nil {
		s.mu.Unlock()
		return 0, chain, err
	}
	e := s.mu.engine.hold()
	s.mu.Unlock()
	err = e.db.Flush()
	if err == nil {
		err = e.db.Checkpoint(dir)
	}
	if err := errors.Join(err, e.release()); err != nil {
		return 0, chain, fmt.Errorf("write checkpoint %s: %w", dir, err)
	}
	return CheckpointIndex(s.opts.FS, dir)
}

// CheckpointIndex returns the index of a checkpoint, and the chain there, as the checkpoint itself holds them. It fails
// with ErrFormat for one of a newer version of Watershed.
func CheckpointIndex(fsys vfs.FS, dir string) (index uint64, chain crdt.Hash, err error) {
	at, err := inspect(fsys, dir, func(*pebble.DB, position) error { return nil })
	if err != nil {
		return 0, chain, fmt.Errorf("read checkpoint %s: %w", dir, err)
	}
	return at.index, at.chain, nil
}

// inspect opens a database for reading only and looks at it. Damage that it finds is an error and no more.
func inspect(fsys vfs.FS, dir string, look func(*pebble.DB, position) error) (at position, err error) {
	e, err := openEngine(dir, engineOptions{
		fs: fsys, logger: hclog.NewNullLogger(), readOnly: true, fatal: func(error) {},
	})
	if err != nil {
		return at, err
	}
	at, err = readPosition(e.db)
	if err == nil {
		err = look(e.db, at)
	}
	return at, errors.Join(err, e.release())
}

// Restore makes a checkpoint the content of the store. The checkpoint is copied (linked where possible), synced and
// read through before a pointer file switches to it: a crash at any moment opens to the old state or the new one. Until
// then an error leaves the store as it was; after an error in switching itself the store is unusable. Views opened
// before keep what they see. dir stays as it is and can be removed afterwards.
func (s *Store) Restore(dir string) error {
	s.mu.Lock()
	err := s.usableLocked()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	name, err := s.nextName()
	if err != nil {
		return fmt.Errorf("restore %s: %w", dir, err)
	}
	path := s.opts.FS.PathJoin(s.opts.Dir, name)
	e, at, err := s.stage(dir, path)
	if err != nil {
		return fmt.Errorf("restore %s: %w", dir, errors.Join(err, s.opts.FS.RemoveAll(path)))
	}
	if err := writePointer(s.opts.FS, s.opts.Dir, name); err != nil {
		err = fmt.Errorf("restore %s: %w", dir, err)
		s.fail(err)
		return errors.Join(err, e.release())
	}
	s.mu.Lock()
	old := s.mu.engine
	s.installLocked(e, at)
	s.mu.changed.Broadcast()
	s.mu.Unlock()
	old.dispose.Store(true)
	if err := old.release(); err != nil {
		s.opts.Logger.Warn("old data stays until the next start", "dir", old.dir, "error", err)
	}
	return nil
}

// nextName returns a name for a data directory that no directory has.
func (s *Store) nextName() (string, error) {
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		return "", err
	}
	highest := uint64(0)
	for _, n := range names {
		if !strings.HasPrefix(n, dataPrefix) {
			continue
		}
		number, err := dataNumber(n)
		if err != nil {
			return "", err
		}
		highest = max(highest, number)
	}
	return dataName(highest + 1), nil
}

// stage copies a checkpoint to path, opens it and reads it through.
func (s *Store) stage(dir, path string) (*engine, position, error) {
	if err := copyDir(s.opts.FS, dir, path); err != nil {
		return nil, position{}, err
	}
	at, err := inspect(s.opts.FS, path, verify)
	if err != nil {
		return nil, at, err
	}
	e, err := openEngine(path, s.engineOptions())
	if err == nil && mutant.On("slots-of-another-checkpoint") { // of one from before the first slot
		err = e.db.DeleteRange([]byte{rowData}, []byte{rowData + 1}, pebble.NoSync)
	}
	if err == nil && mutant.On("restore-keeps-old-keys") {
		err = s.keepOld(e)
	}
	return e, at, err
}

// keepOld is a seeded bug: what is restored gets the rows of the store that it replaces besides.
func (s *Store) keepOld(e *engine) (err error) {
	it, err := s.mu.engine.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rowData}, UpperBound: []byte{rowData + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if _, closer, err := e.db.Get(it.Key()); err == nil {
			_ = closer.Close()
		} else if err := e.db.Set(it.Key(), it.Value(), pebble.NoSync); err != nil {
			return err
		}
	}
	return it.Error()
}

// copyDir copies a database's files and syncs them. Tables, which are never written to again, are linked if possible.
func copyDir(fsys vfs.FS, from, to string) error {
	names, err := fsys.List(from)
	if err != nil {
		return err
	}
	if err := makeDir(fsys, to); err != nil {
		return err
	}
	for _, n := range names {
		if n == lockFile {
			continue
		}
		from, to := fsys.PathJoin(from, n), fsys.PathJoin(to, n)
		put := vfs.Copy
		if strings.HasSuffix(n, ".sst") || strings.HasSuffix(n, ".blob") {
			put = vfs.LinkOrCopy
		}
		if err := put(fsys, from, to); err != nil {
			return fmt.Errorf("copy %s: %w", n, err)
		}
		f, err := fsys.OpenReadWrite(to, fileCategory)
		if err != nil {
			return fmt.Errorf("sync %s: %w", n, err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", n, err)
		}
	}
	return syncDir(fsys, to)
}

// verify reads every row once, so that a block that is damaged, a row that is malformed or one from above the applied
// index is found before the state is relied upon.
func verify(db *pebble.DB, at position) (err error) {
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if it.Key()[0] != rowData {
			continue
		}
		if _, _, err := ParseDataKey(it.Key()); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		o, err := decodeOperand(value)
		if err != nil {
			return err
		}
		if o.hi > at.index {
			return fmt.Errorf("%w: a slot of index %d in a state at %d", ErrCorrupt, o.hi, at.index)
		}
	}
	return it.Error()
}
