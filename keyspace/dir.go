package keyspace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A store's directory holds a lock file, data directories, and a pointer file with the name of the one that counts.
// Others are what a crash left over, and are removed at Open.
const (
	lockFile    = "LOCK"
	pointerFile = "CURRENT"
	pointerTemp = "CURRENT.new"
	dataPrefix  = "data-"
)

// fileCategory is what this package's own files count as in the file system's statistics.
const fileCategory vfs.DiskWriteCategory = "watershed-store"

// maxPointer bounds the pointer file in bytes.
const maxPointer = 64

func dataName(number uint64) string { return fmt.Sprintf("%s%06d", dataPrefix, number) }

func dataNumber(name string) (uint64, error) {
	digits, ok := strings.CutPrefix(name, dataPrefix)
	if !ok {
		return 0, fmt.Errorf("%w: %q is no data directory", ErrCorrupt, name)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || dataName(n) != name {
		return 0, fmt.Errorf("%w: %q is no data directory", ErrCorrupt, name)
	}
	return n, nil
}

// lockDir makes a store's directory and locks it against other processes.
func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	if err := makeDir(fsys, dir); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	lock, err := fsys.Lock(fsys.PathJoin(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("lock store %s: %w", dir, err)
	}
	return lock, nil
}

// makeDir makes a directory and those above it, and syncs their parents, so that they survive a crash.
func makeDir(fsys vfs.FS, dir string) error {
	_, err := fsys.Stat(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := makeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDir(fsys, parent)
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readPointer returns the name of the data directory that counts, "" if there is none yet.
func readPointer(fsys vfs.FS, dir string) (string, error) {
	f, err := fsys.Open(fsys.PathJoin(dir, pointerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPointer))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("read %s: %w", pointerFile, err)
	}
	name, ok := strings.CutSuffix(string(b), "\n")
	if !ok {
		return "", fmt.Errorf("%w: %s reads %q", ErrCorrupt, pointerFile, b)
	}
	_, err = dataNumber(name)
	return name, err
}

// writePointer makes name the data directory that counts, durably. After an error either may count.
func writePointer(fsys vfs.FS, dir, name string) error {
	temp := fsys.PathJoin(dir, pointerTemp)
	f, err := fsys.Create(temp, fileCategory)
	if err != nil {
		return fmt.Errorf("write %s: %w", pointerFile, err)
	}
	_, err = io.WriteString(f, name+"\n")
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fsys.Rename(temp, fsys.PathJoin(dir, pointerFile))
	}
	if err == nil {
		err = syncDir(fsys, dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", pointerFile, err)
	}
	return nil
}

// openCurrent opens the data directory that counts, or makes the first one, and removes all others.
func openCurrent(fsys vfs.FS, dir string, o engineOptions) (*engine, error) {
	name, err := readPointer(fsys, dir)
	if err != nil {
		return nil, err
	}
	if err := removeOthers(fsys, dir, name); err != nil {
		return nil, err
	}
	if name != "" {
		path := fsys.PathJoin(dir, name)
		e, err := openEngine(path, o)
		return e, openDamage(path, err)
	}
	name = dataName(1)
	path := fsys.PathJoin(dir, name)
	if err := makeDir(fsys, path); err != nil {
		return nil, err
	}
	o.create = true
	e, err := openEngine(path, o)
	if err != nil {
		return nil, err
	}
	if err := writePointer(fsys, dir, name); err != nil {
		return nil, errors.Join(err, e.release())
	}
	return e, nil
}

// removeOthers removes all data directories but the named one. Without a pointer none has ever counted.
func removeOthers(fsys vfs.FS, dir, name string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == name || !strings.HasPrefix(n, dataPrefix) {
			continue
		}
		if err := fsys.RemoveAll(fsys.PathJoin(dir, n)); err != nil {
			return fmt.Errorf("remove leftover %s: %w", n, err)
		}
	}
	return nil
}
