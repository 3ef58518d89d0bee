package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Folders of a group, next to each other on one file system.
const (
	snapshotFolder   = "snapshots"
	checkpointFolder = "checkpoint" // a checkpoint until a snapshot takes it
	incomingFolder   = "incoming"   // files of a snapshot that is on its way here, see tables.go
)

const (
	metaFile    = "meta.json"
	stateFolder = "state"
	unfinished  = "tmp-"
	metaVersion = 1
)

// snapshotMeta is the meta.json of a snapshot.
type snapshotMeta struct {
	Version    int               `json:"version"`
	Raft       raft.SnapshotMeta `json:"raft"`
	StateIndex uint64            `json:"state_index"` // last command in the state; at or below Raft.Index
	Files      []snapshotFile    `json:"files"`       // none in a snapshot that an older build has made
}

// snapshotStore keeps a group's newest snapshot as a folder with the machine's checkpoint: a snapshot made here is moved
// in, not copied. Only what travels is put into an archive.
type snapshotStore struct {
	fs       vfs.FS
	dir      string
	incoming string // where files are that archives only name

	mu struct {
		sync.Mutex                // held while snapshots are listed or removed
		open       map[string]int // readers by snapshot; those are not removed
	}
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

// openSnapshotStore makes a group's folder of snapshots when it is missing, and clears it of what a crash left unfinished.
func openSnapshotStore(fsys vfs.FS, group string) (*snapshotStore, error) {
	s := &snapshotStore{fs: fsys, dir: fsys.PathJoin(group, snapshotFolder), incoming: fsys.PathJoin(group, incomingFolder)}
	if err := fsys.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	names, err := fsys.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, unfinished) {
			if err := fsys.RemoveAll(fsys.PathJoin(s.dir, name)); err != nil {
				return nil, fmt.Errorf("open snapshot store: %w", err)
			}
		}
	}
	s.mu.open = make(map[string]int)
	return s, nil
}

// ids returns the snapshots, newest first. Their names sort by term, index and time.
func (s *snapshotStore) ids() ([]string, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []string
	for _, name := range names {
		if !strings.HasPrefix(name, unfinished) {
			ids = append(ids, name)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, nil
}

func (s *snapshotStore) meta(id string) (snapshotMeta, error) {
	var meta snapshotMeta
	raw, err := readFile(s.fs, s.fs.PathJoin(s.dir, id, metaFile))
	if err != nil {
		return meta, fmt.Errorf("read snapshot: %w", err)
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return meta, fmt.Errorf("read snapshot %s: %w: %w", id, ErrCorrupt, err)
	}
	return meta, checkVersion("snapshot "+id, meta.Version, metaVersion)
}

// newest returns the newest snapshot's meta; ok is false when there is none.
func (s *snapshotStore) newest() (meta snapshotMeta, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := s.ids()
	if err != nil || len(ids) == 0 {
		return snapshotMeta{}, false, err
	}
	meta, err = s.meta(ids[0])
	return meta, err == nil, err
}

// List returns the snapshots, newest first.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	metas := make([]*raft.SnapshotMeta, 0, len(ids))
	for _, id := range ids {
		meta, err := s.meta(id)
		if err != nil {
			return nil, err
		}
		metas = append(metas, &meta.Raft)
	}
	return metas, nil
}

// Open returns a snapshot's archive. The snapshot stays until it is closed.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	s.mu.open[id]++
	s.mu.Unlock()
	meta, err := s.meta(id)
	if err != nil {
		s.release(id)
		return nil, nil, err
	}
	state := s.fs.PathJoin(s.dir, id, stateFolder)
	archive, size, err := newPacker(s.fs, state, meta.StateIndex)
	if err != nil {
		s.release(id)
		return nil, nil, err
	}
	meta.Raft.Size = size
	return &meta.Raft, &snapshotReader{
		packer: archive, index: meta.StateIndex, sums: meta.Files, close: sync.OnceFunc(func() { s.release(id) }),
	}, nil
}

func (s *snapshotStore) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open[id]--; s.mu.open[id] == 0 {
		delete(s.mu.open, id)
	}
}

// snapshotReader reads a snapshot's archive, and knows the snapshot itself.
type snapshotReader struct {
	*packer
	index uint64
	sums  []snapshotFile // with checksums; empty where none were kept
	close func()
}

func (r *snapshotReader) Close() error {
	defer r.close()
	return r.packer.Close()
}

// reap removes all snapshots but the newest and those being read.
func (s *snapshotStore) reap() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for i, id := range ids {
		if i == 0 || s.mu.open[id] > 0 {
			continue
		}
		// Renamed first: a crash in between leaves nothing that looks whole.
		gone := s.fs.PathJoin(s.dir, unfinished+id)
		if err := s.fs.Rename(s.fs.PathJoin(s.dir, id), gone); err != nil {
			return fmt.Errorf("remove snapshot: %w", err)
		}
		if err := s.fs.RemoveAll(gone); err != nil {
			return fmt.Errorf("remove snapshot: %w", err)
		}
	}
	return nil
}

// Create begins a snapshot. The transport is not used.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("create snapshot: version %d", version)
	}
	id := fmt.Sprintf("%016x-%016x-%016x", term, index, time.Now().UnixNano())
	sink := &snapshotSink{store: s, dir: s.fs.PathJoin(s.dir, unfinished+id), meta: snapshotMeta{
		Version: metaVersion,
		Raft: raft.SnapshotMeta{
			Version: version, ID: id, Index: index, Term: term,
			Configuration: configuration, ConfigurationIndex: configurationIndex,
		},
	}}
	if err := s.fs.MkdirAll(sink.dir, 0o755); err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	return sink, nil
}

// snapshotSink takes a snapshot's state, either as a folder (adopt) or as an archive (Write), which is unpacked and
// checked as it comes.
type snapshotSink struct {
	store *snapshotStore
	dir   string
	meta  snapshotMeta
	ended bool

	archive  *io.PipeWriter // nil until the first Write
	unpacked chan error
}

var _ raft.SnapshotSink = (*snapshotSink)(nil)

func (s *snapshotSink) ID() string { return s.meta.Raft.ID }

func (s *snapshotSink) state() string { return s.store.fs.PathJoin(s.dir, stateFolder) }

func (s *snapshotSink) adopt(dir string, index uint64) error {
	fsys, state := s.store.fs, s.state()
	if err := fsys.Rename(dir, state); err != nil {
		return fmt.Errorf("take checkpoint: %w", err)
	}
	s.meta.StateIndex = index
	return syncTree(fsys, state)
}

func (s *snapshotSink) Write(p []byte) (int, error) {
	if s.archive == nil {
		var reader *io.PipeReader
		reader, s.archive = io.Pipe()
		s.unpacked = make(chan error, 1)
		go func() {
			index, files, err := unpack(s.store.fs, reader, s.state(), s.store.incoming)
			s.meta.StateIndex, s.meta.Files = index, files
			reader.CloseWithError(err) // a Write that waits fails
			s.unpacked <- err
		}()
	}
	return s.archive.Write(p)
}

var errNoState = errors.New("snapshot without state")

// Close makes the snapshot durable and removes older ones.
func (s *snapshotSink) Close() error {
	if s.ended {
		return nil
	}
	if err := s.finish(); err != nil {
		return errors.Join(err, s.Cancel())
	}
	s.ended = true
	if s.archive != nil {
		if err := s.store.fs.RemoveAll(s.store.incoming); err != nil {
			return fmt.Errorf("clear what came for a snapshot: %w", err)
		}
	}
	return s.store.reap()
}

func (s *snapshotSink) finish() error {
	if s.archive != nil {
		s.archive.Close()
		err := <-s.unpacked
		s.unpacked <- err // for Cancel
		if err != nil {
			return fmt.Errorf("receive snapshot: %w", err)
		}
	}
	fsys, state := s.store.fs, s.state()
	if _, err := fsys.Stat(state); err != nil {
		return fmt.Errorf("%w: %w", errNoState, err)
	}
	if s.meta.StateIndex > s.meta.Raft.Index {
		return fmt.Errorf("%w snapshot: state at index %d, log at %d", ErrCorrupt, s.meta.StateIndex, s.meta.Raft.Index)
	}
	sizer, size, err := newPacker(fsys, state, s.meta.StateIndex)
	if err != nil {
		return err
	}
	sizer.Close()
	s.meta.Raft.Size = size
	if err := s.sum(state); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(s.meta, "", "  ")
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := writeFile(fsys, fsys.PathJoin(s.dir, metaFile), append(raw, '\n')); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := syncDir(fsys, s.dir); err != nil {
		return err
	}
	if err := fsys.Rename(s.dir, fsys.PathJoin(s.store.dir, s.meta.Raft.ID)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return syncDir(fsys, s.store.dir)
}

// sum notes the files' checksums where they did not come with them.
func (s *snapshotSink) sum(state string) error {
	if s.meta.Files != nil {
		for i := range s.meta.Files { // as they are here
			f := &s.meta.Files[i]
			info, err := s.store.fs.Stat(s.store.fs.PathJoin(state, filepath.FromSlash(f.Name)))
			if err != nil {
				return fmt.Errorf("write snapshot: %w", err)
			}
			f.Time = info.ModTime().UTC()
		}
		return nil
	}
	earlier, _, err := s.store.newest()
	if err != nil {
		return err
	}
	s.meta.Files, err = sumFiles(s.store.fs, state, earlier.Files)
	return err
}

// writeFile writes and syncs a file.
func writeFile(fsys vfs.FS, path string, content []byte) error {
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func readFile(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxManifest))
	return content, errors.Join(err, f.Close())
}

var errCanceled = errors.New("snapshot canceled")

// Cancel drops the snapshot.
func (s *snapshotSink) Cancel() error {
	if s.ended {
		return nil
	}
	s.ended = true
	if s.archive != nil {
		s.archive.CloseWithError(errCanceled)
		<-s.unpacked
	}
	if err := s.store.fs.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("drop snapshot: %w", err)
	}
	return nil
}
