package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Folders of a group, next to each other on one file system.
const (
	snapshotFolder   = "snapshots"
	checkpointFolder = "checkpoint" // a checkpoint until a snapshot takes it
	restoreFolder    = "restore"    // a snapshot until the machine takes it
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
}

// snapshotStore keeps a group's newest snapshot as a folder with the machine's checkpoint: a snapshot made here is moved
// in, not copied. Only what travels is put into an archive.
type snapshotStore struct {
	dir string

	mu struct {
		sync.Mutex                // held while snapshots are listed or removed
		open       map[string]int // readers by snapshot; those are not removed
	}
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

// openSnapshotStore makes dir when missing and clears it of what a crash left unfinished.
func openSnapshotStore(dir string) (*snapshotStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open snapshot store: %w", err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) {
			if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
				return nil, fmt.Errorf("open snapshot store: %w", err)
			}
		}
	}
	s := &snapshotStore{dir: dir}
	s.mu.open = make(map[string]int)
	return s, nil
}

// ids returns the snapshots, newest first. Their names sort by term, index and time.
func (s *snapshotStore) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), unfinished) {
			ids = append(ids, entry.Name())
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids, nil
}

func (s *snapshotStore) meta(id string) (snapshotMeta, error) {
	var meta snapshotMeta
	raw, err := os.ReadFile(filepath.Join(s.dir, id, metaFile))
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
	archive, size, err := newPacker(filepath.Join(s.dir, id, stateFolder), meta.StateIndex)
	if err != nil {
		s.release(id)
		return nil, nil, err
	}
	meta.Raft.Size = size
	return &meta.Raft, &snapshotReader{packer: archive, close: sync.OnceFunc(func() { s.release(id) })}, nil
}

func (s *snapshotStore) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open[id]--; s.mu.open[id] == 0 {
		delete(s.mu.open, id)
	}
}

type snapshotReader struct {
	*packer
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
		gone := filepath.Join(s.dir, unfinished+id)
		if err := os.Rename(filepath.Join(s.dir, id), gone); err != nil {
			return fmt.Errorf("remove snapshot: %w", err)
		}
		if err := os.RemoveAll(gone); err != nil {
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
	sink := &snapshotSink{store: s, dir: filepath.Join(s.dir, unfinished+id), meta: snapshotMeta{
		Version: metaVersion,
		Raft: raft.SnapshotMeta{
			Version: version, ID: id, Index: index, Term: term,
			Configuration: configuration, ConfigurationIndex: configurationIndex,
		},
	}}
	if err := os.Mkdir(sink.dir, 0o755); err != nil {
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

func (s *snapshotSink) adopt(dir string, index uint64) error {
	if err := os.Rename(dir, filepath.Join(s.dir, stateFolder)); err != nil {
		return fmt.Errorf("take checkpoint: %w", err)
	}
	s.meta.StateIndex = index
	return syncTree(filepath.Join(s.dir, stateFolder))
}

func (s *snapshotSink) Write(p []byte) (int, error) {
	if s.archive == nil {
		var reader *io.PipeReader
		reader, s.archive = io.Pipe()
		s.unpacked = make(chan error, 1)
		go func() {
			index, err := unpack(reader, filepath.Join(s.dir, stateFolder))
			s.meta.StateIndex = index
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
	state := filepath.Join(s.dir, stateFolder)
	if _, err := os.Stat(state); err != nil {
		return fmt.Errorf("%w: %w", errNoState, err)
	}
	if s.meta.StateIndex > s.meta.Raft.Index {
		return fmt.Errorf("%w snapshot: state at index %d, log at %d", ErrCorrupt, s.meta.StateIndex, s.meta.Raft.Index)
	}
	sizer, size, err := newPacker(state, s.meta.StateIndex)
	if err != nil {
		return err
	}
	sizer.Close()
	s.meta.Raft.Size = size
	raw, err := json.MarshalIndent(s.meta, "", "  ")
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	path := filepath.Join(s.dir, metaFile)
	if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	for _, p := range [...]string{path, s.dir} {
		if err := syncPath(p); err != nil {
			return err
		}
	}
	if err := os.Rename(s.dir, filepath.Join(s.store.dir, s.meta.Raft.ID)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return syncPath(s.store.dir)
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
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("drop snapshot: %w", err)
	}
	return nil
}
