package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/keyspace/mutant"
	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

var (
	// ErrNotFit says that a checkpoint is of another deployment, region or shape.
	ErrNotFit = errors.New("the checkpoint does not fit")
	// ErrMember says that a region would be restored under a member number that it has had.
	ErrMember = errors.New("a restored region is a new member of its deployment")
	// ErrTorn says that something of a checkpoint is missing, or not what it was.
	ErrTorn = errors.New("the checkpoint is not whole")
	// ErrNone says that there is no such checkpoint.
	ErrNone = errors.New("no such checkpoint")
)

// Plan is a restore that was decided on: every node of the incarnation comes to the same.
type Plan struct {
	Cut     *Cut
	Lineage string
}

// Choose decides which cut an incarnation of a region begins with: which is an ID, a savepoint's name or Latest. The first
// node to ask decides for all, for ever: replicas that began with different states would not be replicas. It fails with
// ErrNone, ErrNotFit, ErrMember and ErrTorn; each says what to do.
func Choose(ctx context.Context, store objects.Store, s *Scope, which string) (*Plan, error) {
	region, err := open(ctx, store, s)
	if err != nil {
		return nil, err
	}
	key, err := pinnedCut(ctx, store, s, region, which)
	if err != nil {
		return nil, err
	}
	cut, sum, err := readCut(ctx, store, key)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNone, which)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", which, err)
	}
	if err := fits(cut, s); err != nil {
		return nil, err
	}
	if err := whole(ctx, store, cut); err != nil {
		return nil, errors.Join(err, offer(ctx, store, cut))
	}
	p := pin{FormatVersion, s.Member, key, sum}
	_, err = store.Create(ctx, place(s.Region).restore(s.Member), encode(p))
	if errors.Is(err, objects.ErrExists) && which == Latest {
		return Choose(ctx, store, s, Latest) // another node was first, with another latest one
	}
	if errors.Is(err, objects.ErrExists) {
		return nil, fmt.Errorf("%w: member %d begins with another checkpoint already; give the region a number above %d", ErrMember,
			s.Member, s.Member)
	}
	if err != nil {
		return nil, err
	}
	return &Plan{cut, region.Lineage}, nil
}

// open returns which incarnation of the region writes, where the prefix is its deployment's.
func open(ctx context.Context, store objects.Store, s *Scope) (*regionIdentity, error) {
	body, _, err := store.Get(ctx, identityKey, maxSmall)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, fmt.Errorf("%w: nothing was ever written below this prefix", ErrNone)
	}
	if err == nil {
		err = checkPrefix(body, s)
	}
	if err != nil {
		return nil, err
	}
	region, _, err := readRegion(ctx, store, s.Region)
	if err == nil && region == nil {
		err = fmt.Errorf("%w: region %s has none", ErrNone, s.Region)
	}
	return region, err
}

// pinnedCut returns the key of the cut that was asked for, or that another node has decided on.
func pinnedCut(ctx context.Context, store objects.Store, s *Scope, region *regionIdentity, which string) (string, error) {
	at := place(s.Region)
	body, _, err := store.Get(ctx, at.restore(s.Member), maxSmall)
	if err == nil && which == Latest {
		var p pin
		err = decode(body, &p)
		return p.Cut, err
	}
	if err != nil && !errors.Is(err, objects.ErrNotFound) {
		return "", err
	}
	if region.Member >= s.Member && err != nil && !mutant.On("restored-under-its-old-number") {
		return "", fmt.Errorf("%w: %s writes there as member %d, so a restored one needs a number above that, in every region's "+
			"configuration; it has %d", ErrMember, s.Region, region.Member, s.Member)
	}
	if which != Latest {
		if id, err := strconv.ParseUint(which, 10, 64); err == nil {
			return at.checkpoint(id), nil
		}
		if !ValidName(which) {
			return "", fmt.Errorf("%w: %.100q is no id, no savepoint's name and not %s", ErrNone, which, Latest)
		}
		return at.savepoint(which), nil
	}
	id, err := newest(ctx, store, at.checkpoints())
	if err == nil && id == 0 {
		err = fmt.Errorf("%w: region %s has none", ErrNone, s.Region)
	}
	return at.checkpoint(id), err
}

// fits says why a cut is not for this region.
func fits(c *Cut, s *Scope) error {
	switch {
	case c.Deployment != s.Deployment:
		return fmt.Errorf("%w: it is of deployment %.64s, this is %s", ErrNotFit, c.Deployment, s.Deployment)
	case len(c.Parts) != s.Shards:
		return fmt.Errorf("%w: it has %d shards, this deployment has %d", ErrNotFit, len(c.Parts), s.Shards)
	case c.Region != s.Region:
		return fmt.Errorf("%w: it is of region %.64s, this is %s", ErrNotFit, c.Region, s.Region)
	case !slices.Equal(c.Regions, s.Regions):
		return fmt.Errorf("%w: its deployment has the regions %q, this one %q", ErrNotFit, c.Regions, s.Regions)
	case c.Member >= s.Member && !mutant.On("restored-under-its-old-number"):
		return fmt.Errorf("%w: the checkpoint is of member %d, so the region needs a number above that, in every region's "+
			"configuration; it has %d", ErrMember, c.Member, s.Member)
	}
	return nil
}

// whole looks whether all objects of a cut are there, with the right sizes; it reads manifests and no tables.
func whole(ctx context.Context, store objects.Store, c *Cut) error {
	for i := range c.Parts {
		m, err := manifestOf(ctx, store, c, i)
		if err != nil {
			return err
		}
		prefix := place(c.Region).tables(i)
		sizes := map[string]int64{}
		err = store.List(ctx, prefix, func(o objects.Info) bool { sizes[o.Key[len(prefix):]] = o.Size; return true })
		if err != nil {
			return err
		}
		for _, f := range m.Files {
			size, there := sizes[f.SHA256]
			switch {
			case !there:
				return fmt.Errorf("%w: of %s in shard %d of checkpoint %d nothing is there", ErrTorn, f.Name, i, c.ID)
			case size != f.Size:
				return fmt.Errorf("%w: %s in shard %d of checkpoint %d has %d bytes, not %d", ErrTorn, f.Name, i, c.ID, size, f.Size)
			}
		}
	}
	return nil
}

// manifestOf returns the manifest that a cut names for a shard.
func manifestOf(ctx context.Context, store objects.Store, c *Cut, shard int) (*Manifest, error) {
	part := c.Parts[shard]
	m, sum, err := readManifest(ctx, store, place(c.Region).manifest(shard, part.Number))
	switch {
	case errors.Is(err, objects.ErrNotFound):
		return nil, fmt.Errorf("%w: manifest %d of shard %d of checkpoint %d is not there", ErrTorn, part.Number, shard, c.ID)
	case errors.Is(err, ErrDamaged):
		return nil, fmt.Errorf("%w: %w", ErrTorn, err)
	case err != nil:
		return nil, err
	case sum != part.SHA256 || m.Index != part.Index || m.Shard != shard || m.Shards != len(c.Parts):
		return nil, fmt.Errorf("%w: manifest %d of shard %d is not the one that checkpoint %d names", ErrTorn, part.Number, shard, c.ID)
	}
	return m, nil
}

// offer names the newest checkpoint before a torn one that looks whole.
func offer(ctx context.Context, store objects.Store, torn *Cut) error {
	cuts, _, err := List(ctx, store, torn.Region)
	if err != nil {
		return err
	}
	slices.SortFunc(cuts, func(a, b *Cut) int { return b.At.Compare(a.At) })
	for _, c := range cuts {
		if (c.ID < torn.ID || c.ID == torn.ID && c.Name != torn.Name) && len(c.Parts) == len(torn.Parts) && whole(ctx, store, c) == nil {
			name := strconv.FormatUint(c.ID, 10)
			if c.Name != "" {
				name = c.Name
			}
			return fmt.Errorf("the one before it that looks whole is %s, of %s", name, c.At.Format("2006-01-02 15:04:05"))
		}
	}
	return errors.New("none before it is whole")
}

// filesAtOnce is how many files are fetched at the same time.
const filesAtOnce = 8

// Fetch brings all shards of a plan below dir, in folders named by ShardDir, with every file's size and checksum
// verified and everything synced. What an earlier Fetch that was cut short, or a Follower, has left there is used where it
// is right and removed where it is not. It fails with ErrTorn.
func Fetch(ctx context.Context, store objects.Store, p *Plan, dir string, logger hclog.Logger) error {
	return fetchCut(ctx, store, p.Cut, dir, logger, isThere)
}

// fetchCut is Fetch; there says whether a file need not be fetched.
func fetchCut(ctx context.Context, store objects.Store, c *Cut, dir string, logger hclog.Logger,
	there func(path string, f File) bool) error {
	for i := range c.Parts {
		m, err := manifestOf(ctx, store, c, i)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, ShardDir(i))
		if err := prepareDir(to, m); err != nil {
			return fmt.Errorf("fetch checkpoint: %w", err)
		}
		files, ctx := errgroup.WithContext(ctx)
		files.SetLimit(filesAtOnce)
		for _, f := range m.Files {
			files.Go(func() error {
				path := filepath.Join(to, filepath.FromSlash(f.Name))
				if there(path, f) {
					return nil
				}
				return fetchFile(ctx, store, place(c.Region).tables(i)+f.SHA256, path, f)
			})
		}
		if err := files.Wait(); err != nil {
			return fmt.Errorf("fetch shard %d of checkpoint %d: %w", i, c.ID, err)
		}
		if err := syncDir(to); err != nil {
			return fmt.Errorf("fetch checkpoint: %w", err)
		}
		logger.Debug("a shard's checkpoint is here", "shard", i, "index", m.Index, "files", len(m.Files), "bytes", m.Bytes())
	}
	return syncDir(dir)
}

// prepareDir makes a shard's folder, and removes what is in it and not in the manifest.
func prepareDir(dir string, m *Manifest) error {
	names := map[string]bool{}
	for _, f := range m.Files {
		names[f.Name] = true
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || names[filepath.ToSlash(name)] {
			return err
		}
		return os.Remove(path)
	})
	if err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

// isThere reads a file to see whether it is what it is to be.
func isThere(path string, f File) bool {
	info, err := os.Stat(path)
	if err != nil || info.Size() != f.Size {
		return false
	}
	sum, err := sumFile(path)
	return err == nil && sum == f.SHA256
}

// tries is how often a file is asked for whose download breaks off, and between tries the wait grows by pauseStep.
const (
	tries     = 5
	pauseStep = 500 * time.Millisecond
)

// fetchFile downloads a file, again where the connection breaks.
func fetchFile(ctx context.Context, store objects.Store, key, path string, f File) error {
	for try := 1; ; try++ {
		err := download(ctx, store, key, path, f)
		if err == nil || try == tries || ctx.Err() != nil || errors.Is(err, ErrTorn) || errors.Is(err, fs.ErrPermission) {
			return err
		}
		select {
		case <-time.After(time.Duration(try) * pauseStep):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ShardDir names the folder of a shard below Fetch's.
func ShardDir(shard int) string { return fmt.Sprintf("%04d", shard) }

func download(ctx context.Context, store objects.Store, key, path string, f File) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	h := sha256.New()
	n, err := store.Download(ctx, key, io.MultiWriter(out, h))
	if errors.Is(err, objects.ErrNotFound) {
		return fmt.Errorf("%w: of %s nothing is there", ErrTorn, f.Name)
	}
	if err != nil {
		return err
	}
	want, err := hex.DecodeString(f.SHA256)
	if err != nil || n != f.Size || !bytes.Equal(h.Sum(nil), want) {
		return fmt.Errorf("%w: %s has %d of %d bytes, or another checksum", ErrTorn, f.Name, n, f.Size)
	}
	return out.Sync()
}
