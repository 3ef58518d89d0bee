package group

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// testFolder writes files, by slash-separated name, to a new folder.
func testFolder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, contents := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readFolder(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var testFiles = map[string]string{
	"000001.sst": strings.Repeat("sorted", 10_000), "MANIFEST-000002": "manifest", "empty": "", "deep/er/file": "x",
}

func testArchive(t testing.TB, files map[string]string, index uint64) []byte {
	t.Helper()
	p, size, err := newPacker(vfs.Default, testFolder(t, files), index)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	archive, err := io.ReadAll(iotest.OneByteReader(p))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(archive)) != size {
		t.Fatalf("archive has %d bytes, %d were announced", len(archive), size)
	}
	return archive
}

func sameFiles(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, contents := range a {
		if got, ok := b[name]; !ok || got != contents {
			return false
		}
	}
	return true
}

func TestArchiveRoundTrip(t *testing.T) {
	for _, files := range []map[string]string{nil, testFiles} {
		archive := testArchive(t, files, 42)
		dir := filepath.Join(t.TempDir(), "out")
		index, _, err := unpack(vfs.Default, bytes.NewReader(archive), dir, "")
		if err != nil || index != 42 {
			t.Fatalf("index %d, %v", index, err)
		}
		if got := readFolder(t, dir); !sameFiles(got, files) {
			t.Fatalf("got %d files, want %d", len(got), len(files))
		}
	}
}

// TestArchiveDamage flips every byte and cuts at every byte of a small archive.
func TestArchiveDamage(t *testing.T) {
	archive := testArchive(t, map[string]string{"a": "aaa", "b/c": "c"}, 7)
	dir := t.TempDir()
	try := func(what string, at int, damaged []byte) {
		out := filepath.Join(dir, "out")
		defer os.RemoveAll(out)
		if _, _, err := unpack(vfs.Default, bytes.NewReader(damaged), out, ""); err == nil {
			t.Errorf("byte %d: %s was not noticed", at, what)
		}
	}
	for i := range archive {
		flipped := bytes.Clone(archive)
		flipped[i] ^= 0x20
		try("damage", i, flipped)
		try("a cut", i, archive[:i])
	}
	try("more", len(archive), append(bytes.Clone(archive), 0))
}

func TestArchiveStaysInItsFolder(t *testing.T) {
	honest := testArchive(t, map[string]string{"xxxxxxxxx": "evil"}, 7)
	for _, name := range []string{"../escape", "/absolute", "a/../../b", "./dotted.", "aaaaaaaa/"} {
		p := packer{files: []snapshotFile{{Name: name, Size: 4}}}
		body := appendFileHeader(nil, p.files[0])
		archive := append(bytes.Clone(honest[:archiveHeader+archiveChecksum]), body...)
		dir := filepath.Join(t.TempDir(), "out")
		if _, _, err := unpack(vfs.Default, bytes.NewReader(archive), dir, ""); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	archive := testArchive(f, map[string]string{"a": "aaa", "b/c": "c"}, 7)
	f.Add(archive)
	f.Add(archive[:len(archive)-3])
	f.Add(testArchive(f, nil, 0))
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := filepath.Join(t.TempDir(), "out")
		index, _, err := unpack(vfs.Default, bytes.NewReader(archive), dir, "")
		if err != nil {
			return
		}
		p, size, err := newPacker(vfs.Default, dir, index)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if size != int64(len(archive)) {
			t.Fatalf("%d bytes became %d", len(archive), size)
		}
	})
}

func testSink(t *testing.T, s *snapshotStore, index uint64) *snapshotSink {
	t.Helper()
	sink, err := s.Create(raft.SnapshotVersionMax, index, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sink.(*snapshotSink)
}

func TestSnapshotStore(t *testing.T) {
	dir := t.TempDir()
	s, err := openSnapshotStore(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.newest(); ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
	first := testSink(t, s, 10)
	if err := first.adopt(testFolder(t, testFiles), 9); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	meta, archive, err := s.Open(first.ID())
	if err != nil {
		t.Fatal(err)
	}
	second := testSink(t, s, 20) // received
	n, err := io.Copy(second, archive)
	if err != nil || n != meta.Size {
		t.Fatalf("copied %d of %d: %v", n, meta.Size, err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if metas, err := s.List(); err != nil || len(metas) != 2 || metas[0].Index != 20 || metas[1].Index != 10 {
		t.Fatalf("while the first is read: %v, %v", metas, err)
	}
	if err := errors.Join(archive.Close(), s.reap()); err != nil {
		t.Fatal(err)
	}
	if got := readFolder(t, filepath.Join(s.dir, second.ID(), stateFolder)); !sameFiles(got, testFiles) {
		t.Fatalf("got %d files", len(got))
	}
	unfinishedSink := testSink(t, s, 30) // a crash in the middle
	if _, err := unfinishedSink.Write([]byte("WS")); err != nil {
		t.Fatal(err)
	}
	defer unfinishedSink.Cancel()
	again, err := openSnapshotStore(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	newest, ok, err := again.newest()
	if err != nil || !ok || newest.Raft.Index != 20 || newest.StateIndex != 9 || newest.Raft.Size != meta.Size {
		t.Fatalf("got %+v, %v, %v", newest, ok, err)
	}
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 1 {
		t.Fatalf("%d entries left, %v", len(entries), err)
	}
}

func TestBadSnapshotsAreNotKept(t *testing.T) {
	s, err := openSnapshotStore(vfs.Default, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	archive := testArchive(t, testFiles, 9)
	for name, fill := range map[string]func(*snapshotSink) error{
		"empty":    func(*snapshotSink) error { return nil },
		"cut off":  func(sink *snapshotSink) error { _, err := sink.Write(archive[:len(archive)-1]); return err },
		"ahead":    func(sink *snapshotSink) error { return sink.adopt(testFolder(t, testFiles), 11) },
		"canceled": func(sink *snapshotSink) error { _, err := sink.Write(archive); return errors.Join(err, sink.Cancel()) },
	} {
		sink := testSink(t, s, 10)
		if err := fill(sink); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := sink.Close(); err == nil && name != "canceled" {
			t.Errorf("%s: kept", name)
		}
		if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: %d entries left, %v", name, len(entries), err)
		}
	}
	damaged := bytes.Clone(archive)
	damaged[len(damaged)/2] ^= 1
	sink := testSink(t, s, 10)
	if _, err := sink.Write(damaged); err == nil {
		err = sink.Close()
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("damaged: %v", err)
		}
	} else if err := sink.Cancel(); err != nil {
		t.Error(err)
	}
}
