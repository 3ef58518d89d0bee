package group

import (
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// WatchFS returns fs with every call that reaches a disk put under Config.StoreTimeout: one that takes longer is Fatal. It
// is for the stores of a node's machines, which write behind: a slow call of theirs costs no leadership.
func (h *Host) WatchFS(fs vfs.FS) vfs.FS { return &watchFS{FS: fs, guard: h.guard} }

type watchFS struct {
	vfs.FS
	guard *guard
}

// beginBehind puts a call under the hard deadline alone, until the function returned is called.
func (g *guard) beginBehind(what, name string) (end func()) {
	w := &watched{guard: g, what: what, file: name}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(g.hard, w.hung)
	return w.end
}

func (f *watchFS) file(file vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchFile{File: file, guard: f.guard, name: name}, nil
}

// Create implements vfs.FS, as do all methods below.
func (f *watchFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	defer f.guard.beginBehind("create", name)()
	file, err := f.FS.Create(name, category)
	return f.file(file, name, err)
}

func (f *watchFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	defer f.guard.beginBehind("open", name)()
	file, err := f.FS.Open(name, opts...)
	return f.file(file, name, err)
}

func (f *watchFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	defer f.guard.beginBehind("open", name)()
	file, err := f.FS.OpenReadWrite(name, category, opts...)
	return f.file(file, name, err)
}

func (f *watchFS) OpenDir(name string) (vfs.File, error) {
	defer f.guard.beginBehind("open", name)()
	file, err := f.FS.OpenDir(name)
	return f.file(file, name, err)
}

func (f *watchFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	defer f.guard.beginBehind("reuse", name)()
	file, err := f.FS.ReuseForWrite(old, name, category)
	return f.file(file, name, err)
}

func (f *watchFS) Link(old, name string) error {
	defer f.guard.beginBehind("link", name)()
	return f.FS.Link(old, name)
}

func (f *watchFS) Remove(name string) error {
	defer f.guard.beginBehind("remove", name)()
	return f.FS.Remove(name)
}

func (f *watchFS) Rename(old, name string) error {
	defer f.guard.beginBehind("rename", name)()
	return f.FS.Rename(old, name)
}

func (f *watchFS) MkdirAll(dir string, perm os.FileMode) error {
	defer f.guard.beginBehind("make", dir)()
	return f.FS.MkdirAll(dir, perm)
}

func (f *watchFS) Lock(name string) (io.Closer, error) {
	defer f.guard.beginBehind("lock", name)()
	return f.FS.Lock(name)
}

func (f *watchFS) List(dir string) ([]string, error) {
	defer f.guard.beginBehind("list", dir)()
	return f.FS.List(dir)
}

func (f *watchFS) Stat(name string) (vfs.FileInfo, error) {
	defer f.guard.beginBehind("stat", name)()
	return f.FS.Stat(name)
}

func (f *watchFS) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	defer f.guard.beginBehind("measure", path)()
	return f.FS.GetDiskUsage(path)
}

func (f *watchFS) Unwrap() vfs.FS { return f.FS }

type watchFile struct {
	vfs.File
	guard *guard
	name  string
}

func (f *watchFile) Close() error {
	defer f.guard.beginBehind("close", f.name)()
	return f.File.Close()
}

func (f *watchFile) Read(p []byte) (int, error) {
	defer f.guard.beginBehind("read", f.name)()
	return f.File.Read(p)
}

func (f *watchFile) ReadAt(p []byte, at int64) (int, error) {
	defer f.guard.beginBehind("read", f.name)()
	return f.File.ReadAt(p, at)
}

func (f *watchFile) Write(p []byte) (int, error) {
	defer f.guard.beginBehind("write", f.name)()
	return f.File.Write(p)
}

func (f *watchFile) WriteAt(p []byte, at int64) (int, error) {
	defer f.guard.beginBehind("write", f.name)()
	return f.File.WriteAt(p, at)
}

func (f *watchFile) Preallocate(at, length int64) error {
	defer f.guard.beginBehind("preallocate", f.name)()
	return f.File.Preallocate(at, length)
}

func (f *watchFile) Stat() (vfs.FileInfo, error) {
	defer f.guard.beginBehind("stat", f.name)()
	return f.File.Stat()
}

func (f *watchFile) Sync() error {
	defer f.guard.beginBehind("sync", f.name)()
	return f.File.Sync()
}

func (f *watchFile) SyncTo(length int64) (bool, error) {
	defer f.guard.beginBehind("sync", f.name)()
	return f.File.SyncTo(length)
}

func (f *watchFile) SyncData() error {
	defer f.guard.beginBehind("sync", f.name)()
	return f.File.SyncData()
}
