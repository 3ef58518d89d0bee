package keyspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Verify reads every table of the store through and compares its blocks with their checksums, at the rate that pace allows:
// it is called after every read with the bytes that were read, and ends the pass with its error. Damage is told Fatal, as
// whatever finds it is, and returned.
func (s *Store) Verify(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	s.mu.Lock()
	if err := s.usableLocked(); err != nil {
		s.mu.Unlock()
		return err
	}
	e := s.mu.engine.hold()
	s.mu.Unlock()
	tables, err := liveTables(e.db)
	if err == nil {
		err = VerifyTables(ctx, e.fs, e.dir, tables, pace)
	}
	err = errors.Join(err, e.release())
	if IsDamage(err) {
		s.fail(err)
	}
	return err
}

// liveTables returns the names of the tables that a database consists of: others in its directory may be half written.
func liveTables(db *pebble.DB) ([]string, error) {
	levels, err := db.SSTables()
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	var names []string
	for _, level := range levels {
		for _, t := range level {
			names = append(names, fmt.Sprintf("%06d.sst", uint64(t.BackingSSTNum)))
		}
	}
	return names, nil
}

// VerifyTables is Verify for tables of any database, by their names in its directory. Those that go away meanwhile are left
// out. Damage is a *DamageError.
func VerifyTables(ctx context.Context, fsys vfs.FS, dir string, names []string,
	pace func(ctx context.Context, bytes int) error) error {
	for _, name := range names {
		err := verifyTable(ctx, fsys, fsys.PathJoin(dir, name), pace)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// pacedFile slows down what reads it.
type pacedFile struct {
	vfs.File
	ctx  context.Context
	pace func(ctx context.Context, bytes int) error
	err  error // of pace
}

// ReadAt implements io.ReaderAt.
func (f *pacedFile) ReadAt(p []byte, at int64) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.File.ReadAt(p, at)
	if f.err = f.pace(f.ctx, n); f.err != nil {
		return n, f.err
	}
	return n, err
}

func verifyTable(ctx context.Context, fsys vfs.FS, path string, pace func(ctx context.Context, bytes int) error) error {
	file, err := fsys.Open(path)
	if err != nil {
		return err
	}
	paced := &pacedFile{File: file, ctx: ctx, pace: pace}
	readable, err := sstable.NewSimpleReadable(paced)
	if err != nil {
		return errors.Join(fmt.Errorf("verify %s: %w", path, err), file.Close())
	}
	err = checkTable(ctx, readable)
	if err == nil || paced.err != nil || ctx.Err() != nil {
		return errors.Join(paced.err, ctx.Err())
	}
	return &DamageError{File: path, Err: err}
}

// checkTable compares a table's blocks with their checksums, and closes it.
func checkTable(ctx context.Context, table objstorage.Readable) error {
	options := &pebble.Options{}
	options.EnsureDefaults()
	read := options.MakeReaderOptions()
	read.Mergers = map[string]*pebble.Merger{cellMerger.Name: cellMerger}
	r, err := sstable.NewReader(ctx, table, read)
	if err != nil {
		return errors.Join(err, table.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}
