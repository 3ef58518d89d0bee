package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

var (
	// ErrDeposed says that another node has become a shard's uploader, or another incarnation of the region its writer.
	ErrDeposed = errors.New("another uploader has taken over")
	// ErrBehind says that a replica holds less than the last checkpoint of its shard.
	ErrBehind = errors.New("this replica is behind the shard's last checkpoint")
)

// Source makes checkpoints of a replica.
type Source interface {
	// Checkpoint writes the replica's state into dir, which it makes, and returns the index and the hash chain that it
	// holds. It must not hold up the replica, and may be called while any command is applied.
	Checkpoint(dir string) (index uint64, chain []byte, err error)
	// WaitApplied returns when the replica has applied the command at index or one above it.
	WaitApplied(ctx context.Context, index uint64) error
}

// Scope says whose checkpoints they are.
type Scope struct {
	Deployment string
	Region     string
	Member     uint16
	Regions    []string // of the deployment, sorted
	Shards     int
	Node       string
	Nodes      []string // of the region, this one among them
}

// UploaderOptions says what an Uploader works with.
type UploaderOptions struct {
	Scope
	Store   objects.Store
	Sources []Source // by shard
	// Dir is a folder of the Uploader's own, on the file system of the shards' stores, so that tables are linked. What is
	// in it is removed at start.
	Dir string
	// Lineage is this node's knowledge of which history it belongs to.
	Lineage *Lineage
	Metrics *Metrics
	// Grace is how long what nothing names is left alone: an upload of a shard must take less than a quarter of it (default 3 h).
	Grace time.Duration
	// Look is how often what is in the bucket is looked at instead of remembered (default 10 min).
	Look time.Duration
	Now  func() time.Time // default: the system's
}

// DefaultGrace is how long a table stays that no manifest names.
const DefaultGrace = 3 * time.Hour

// defaultLook is how long it may take until tables that someone else has removed are missed.
const defaultLook = 10 * time.Minute

// Uploader sends checkpoints of this node's replicas. Any goroutine may call it; there is one upload of a shard at a time.
type Uploader struct {
	o      UploaderOptions
	place  place
	shards []uploading
}

// uploading is what an Uploader remembers of a shard.
type uploading struct {
	mu     sync.Mutex // held during an upload
	base   *Manifest  // the newest, nil when it is to be looked up
	sum    string     // of base
	there  map[string]bool
	looked time.Time // when there was listed
	sums   map[fileID]string
}

// fileID names a file that is never written again, over all its links.
type fileID struct {
	inode   uint64
	size    int64
	changed time.Time
}

// NewUploader returns an Uploader. It empties its folder.
func NewUploader(o UploaderOptions) (*Uploader, error) {
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Look == 0 {
		o.Look = defaultLook
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, fmt.Errorf("clear %s: %w", o.Dir, err)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder for checkpoints: %w", err)
	}
	return &Uploader{o: o, place: place(o.Region), shards: make([]uploading, len(o.Sources))}, nil
}

// Order asks for an upload of a shard.
type Order struct {
	Shard   int
	Term    uint64 // of the uploader
	Look    bool   // whether to look at what is there instead of remembering it
	Lineage string // of the region
	Least   uint64 // the index that the replica is to have applied first
}

// Upload sends a checkpoint of a shard as it is now, and returns the part that it can have in a cut. Files that the last
// manifest names are not sent again; the manifest is written last, under the next number, which nobody can have taken. A
// state that has not changed since the last manifest is not sent. It fails with ErrDeposed and ErrBehind.
func (u *Uploader) Upload(ctx context.Context, o Order) (Part, error) {
	if o.Shard < 0 || o.Shard >= len(u.shards) {
		return Part{}, fmt.Errorf("there is no shard %d of %d", o.Shard, len(u.shards))
	}
	if err := u.o.Lineage.Adopt(o.Lineage); err != nil {
		return Part{}, err
	}
	s := &u.shards[o.Shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	began := u.o.Now()
	part, err := u.upload(ctx, s, o)
	u.o.Metrics.uploaded(o.Shard, u.o.Now().Sub(began), err)
	if err != nil {
		s.base, s.there = nil, nil // what was remembered may be why
		return Part{}, fmt.Errorf("checkpoint of shard %d: %w", o.Shard, err)
	}
	return part, nil
}

func (u *Uploader) upload(ctx context.Context, s *uploading, o Order) (Part, error) {
	if err := u.learn(ctx, s, o); err != nil {
		return Part{}, err
	}
	if err := u.o.Sources[o.Shard].WaitApplied(ctx, o.Least); err != nil {
		return Part{}, fmt.Errorf("wait for command %d: %w", o.Least, err)
	}
	dir := filepath.Join(u.o.Dir, fmt.Sprintf("%04d", o.Shard))
	if err := os.RemoveAll(dir); err != nil {
		return Part{}, fmt.Errorf("clear %s: %w", dir, err)
	}
	defer os.RemoveAll(dir)
	m := &Manifest{
		Version: FormatVersion, Number: 1, Shard: o.Shard, Shards: u.o.Shards, Member: u.o.Member, Term: o.Term, Node: u.o.Node,
		At: u.o.Now().UTC(),
	}
	index, chain, err := u.o.Sources[o.Shard].Checkpoint(dir)
	if err != nil {
		return Part{}, err
	}
	m.Index, m.Chain = index, hex.EncodeToString(chain)
	if b := s.base; b != nil {
		m.Number = b.Number + 1
		switch {
		case b.Member != m.Member: // another incarnation's: its indexes are not ours
		case index < b.Index:
			return Part{}, fmt.Errorf("%w: at %d, that is at %d", ErrBehind, index, b.Index)
		case index == b.Index && b.Term == m.Term && s.whole(b):
			return partOf(b, s.sum), nil
		}
	}
	if m.Files, err = s.files(dir); err != nil {
		return Part{}, err
	}
	began := u.o.Now()
	if err := u.send(ctx, s, dir, m); err != nil {
		return Part{}, err
	}
	if took := u.o.Now().Sub(began); took > u.o.Grace/4 {
		return Part{}, fmt.Errorf("it took %s, more than a quarter of what unnamed tables are kept for; what was sent is used next time",
			took.Round(time.Second))
	}
	body := encode(m)
	if len(body) > maxManifest {
		return Part{}, fmt.Errorf("its manifest has %d bytes, at most %d are read", len(body), maxManifest)
	}
	if _, err := u.o.Store.Create(ctx, u.place.manifest(o.Shard, m.Number), body); err != nil {
		if errors.Is(err, objects.ErrExists) {
			err = fmt.Errorf("%w: manifest %d is written", ErrDeposed, m.Number)
		}
		return Part{}, err
	}
	s.base, s.sum = m, sumOf(body)
	s.keep(m)
	return partOf(m, s.sum), nil
}

func partOf(m *Manifest, sum string) Part {
	return Part{Shard: m.Shard, Number: m.Number, SHA256: sum, Index: m.Index, Bytes: m.Bytes()}
}

// learn brings what is remembered of the bucket up to date: the newest manifest, and which tables are there.
func (u *Uploader) learn(ctx context.Context, s *uploading, o Order) error {
	if s.base != nil && !o.Look {
		// The bucket may have been emptied since.
		_, err := u.o.Store.Stat(ctx, u.place.manifest(o.Shard, s.base.Number))
		if errors.Is(err, objects.ErrNotFound) {
			s.base = nil
		} else if err != nil {
			return err
		}
	}
	if s.base == nil || o.Look {
		number, err := newest(ctx, u.o.Store, u.place.manifests(o.Shard))
		if err != nil {
			return err
		}
		s.base, s.there = nil, nil
		if number > 0 {
			if s.base, s.sum, err = readManifest(ctx, u.o.Store, u.place.manifest(o.Shard, number)); err != nil {
				return err
			}
		}
	}
	if b := s.base; b != nil && (b.Member > u.o.Member || b.Member == u.o.Member && b.Term > o.Term) {
		return fmt.Errorf("%w: manifest %d is of member %d in term %d, this is member %d in term %d", ErrDeposed, b.Number,
			b.Member, b.Term, u.o.Member, o.Term)
	}
	if s.there == nil || u.o.Now().Sub(s.looked) > u.o.Look {
		return u.look(ctx, s, o.Shard)
	}
	return nil
}

// look lists the tables that need not be sent: those that the newest manifest names, which nobody removes, and those that
// are too young to be removed.
func (u *Uploader) look(ctx context.Context, s *uploading, shard int) error {
	sizes := map[string]int64{}
	if s.base != nil {
		for _, f := range s.base.Files {
			sizes[f.SHA256] = f.Size
		}
	}
	there := map[string]bool{}
	now := u.o.Now()
	prefix := u.place.tables(shard)
	err := u.o.Store.List(ctx, prefix, func(i objects.Info) bool {
		sum := strings.TrimPrefix(i.Key, prefix)
		size, named := sizes[sum]
		there[sum] = named && size == i.Size || now.Sub(i.Modified) < u.o.Grace/2
		return true
	})
	if err != nil {
		return err
	}
	s.there, s.looked = there, now
	return nil
}

// whole says whether all tables of a manifest are there as far as is known.
func (s *uploading) whole(m *Manifest) bool {
	for _, f := range m.Files {
		if !s.there[f.SHA256] {
			return false
		}
	}
	return true
}

// keep forgets all tables but those of a manifest: nothing else is safe from removal for ever.
func (s *uploading) keep(m *Manifest) {
	there := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		there[f.SHA256] = true
	}
	s.there = there
}

// files lists the files below dir with their checksums. A table that has been summed before is not read again.
func (s *uploading) files(dir string) (list []File, err error) {
	known := map[fileID]string{}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		id, linked := idOf(info)
		sum := s.sums[id]
		if !linked || sum == "" {
			if sum, err = sumFile(path); err != nil {
				return err
			}
		}
		if linked {
			known[id] = sum
		}
		list = append(list, File{filepath.ToSlash(name), info.Size(), sum})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	s.sums = known
	return list, nil
}

// idOf names a file that has other links: those are never written again. Not ok for any other.
func idOf(info fs.FileInfo) (id fileID, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return id, false
	}
	return fileID{uint64(st.Ino), info.Size(), info.ModTime()}, true
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// send uploads the files of a manifest that are not there.
func (u *Uploader) send(ctx context.Context, s *uploading, dir string, m *Manifest) error {
	for _, f := range m.Files {
		if s.there[f.SHA256] {
			u.o.Metrics.reused(m.Shard, f.Size)
			continue
		}
		if err := u.sendFile(ctx, filepath.Join(dir, filepath.FromSlash(f.Name)), u.place.tables(m.Shard)+f.SHA256, f.Size); err != nil {
			return err
		}
		s.there[f.SHA256] = true
		u.o.Metrics.sent(m.Shard, f.Size)
	}
	return nil
}

func (u *Uploader) sendFile(ctx context.Context, path, key string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	defer f.Close()
	return u.o.Store.Upload(ctx, key, f, size)
}
