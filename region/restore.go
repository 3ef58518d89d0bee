package region

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/region/checkpoint"
	"github.com/watershed-db/watershed/region/config"
)

// Names in a data folder that is being restored.
const (
	restoreFile   = "restore.json" // which checkpoint, and how far that is; removed when the shards have it
	restoreTemp   = "restore.json.new"
	restoreFolder = "restore" // the shards' checkpoints, until the shards have them
)

// ErrNotEmpty says that a node that is to be restored has data.
var ErrNotEmpty = errors.New("holds data already")

// restoring is the content of restoreFile.
type restoring struct {
	Version int      `json:"version"`
	Which   string   `json:"which"`             // as it was asked for
	Cut     uint64   `json:"cut,omitempty"`     // what it came to, once all of it is here
	Indexes []uint64 `json:"indexes,omitempty"` // of each shard
}

// Restore fetches the checkpoint that the configuration's checkpoints.restore names into the node's data folder, all of
// it verified; Open gives it to the shards. A folder that holds data is left alone, with ErrNotEmpty; one whose restore
// was cut short is gone on with, whatever the configuration says by now. It is done where there is nothing to restore.
// Errors are one line and say what to do.
func Restore(ctx context.Context, c config.Config, logger hclog.Logger) error {
	if err := c.Validate(); err != nil {
		return err
	}
	found, err := readIdentity(c.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return folderError(c.Data, err)
	}
	marked, err := readRestore(c.Data)
	if err != nil {
		return folderError(c.Data, err)
	}
	switch {
	case marked == nil && c.Checkpoints.Restore == "":
		return nil
	case marked == nil && found != nil:
		return fmt.Errorf("data folder %s %w: nothing was restored into it", c.Data, ErrNotEmpty)
	case marked != nil && marked.Cut > 0:
		return nil
	case c.Checkpoints.URL == "":
		return errors.New("the restore of this node has not ended, and the configuration lacks checkpoints.url")
	}
	which := c.Checkpoints.Restore
	if marked != nil {
		which = marked.Which
	}
	return fetch(ctx, c, which, logger)
}

// fetch marks the folder, makes it the node's, and fills it.
func fetch(ctx context.Context, c config.Config, which string, logger hclog.Logger) (err error) {
	store, location, err := openStore(c.Checkpoints)
	if err != nil {
		return err
	}
	defer store.Close()
	// What is chosen is chosen for ever: not while something else has the folder.
	if _, err := os.Stat(c.Data); err == nil {
		lock, err := lockData(c.Data)
		if err != nil {
			return folderError(c.Data, err)
		}
		if err := lock.Close(); err != nil {
			return folderError(c.Data, err)
		}
	}
	scope := scopeOf(c)
	plan, err := checkpoint.Choose(ctx, store, &scope, which)
	if err != nil {
		return fmt.Errorf("restore %s from %s: %w", which, location, err)
	}
	// The mark is there before the identity: a folder with an identity and no mark is not to be restored.
	mark := restoring{Version: 1, Which: which}
	if err := os.MkdirAll(c.Data, 0o755); err != nil {
		return folderError(c.Data, err)
	}
	if err := mark.write(c.Data); err != nil {
		return folderError(c.Data, err)
	}
	lock, err := openFolder(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	logger.Info("restoring", "checkpoint", plan.Cut.ID, "savepoint", plan.Cut.Name, "of", plan.Cut.At, "member", plan.Cut.Member,
		"bytes", plan.Cut.Bytes(), "from", location.String())
	dir := filepath.Join(c.Data, restoreFolder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return folderError(c.Data, err)
	}
	if err := checkpoint.Fetch(ctx, store, plan, dir, logger); err != nil {
		return fmt.Errorf("restore from %s: %w", location, err)
	}
	lineage, err := checkpoint.OpenLineage(filepath.Join(c.Data, lineageFile))
	if err == nil {
		err = lineage.Adopt(plan.Lineage)
	}
	if err != nil {
		return err
	}
	mark.Cut = plan.Cut.ID
	for _, p := range plan.Cut.Parts {
		mark.Indexes = append(mark.Indexes, p.Index)
	}
	return folderError(c.Data, mark.write(c.Data))
}

// Follow keeps the newest checkpoint of the region in the folder of a node that does not run, until ctx ends: so that
// Restore finds nearly all of it there. told, if set, is called with each checkpoint that has come whole. A failure is
// logged once a minute, and tried again.
func Follow(ctx context.Context, c config.Config, logger hclog.Logger, told func(id uint64)) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Checkpoints.URL == "" {
		return errors.New("the configuration lacks checkpoints.url: there is nothing to follow")
	}
	dir := filepath.Join(c.Data, restoreFolder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return folderError(c.Data, err)
	}
	found, err := readIdentity(c.Data)
	if err != nil {
		return folderError(c.Data, err)
	}
	if found != nil {
		return fmt.Errorf("data folder %s %w: nothing is followed into it", c.Data, ErrNotEmpty)
	}
	lock, err := lockData(c.Data)
	if err != nil {
		return folderError(c.Data, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	store, location, err := openStore(c.Checkpoints)
	if err != nil {
		return err
	}
	defer store.Close()
	logger.Info("following checkpoints", "in", location.String(), "into", dir)
	return follow(ctx, checkpoint.NewFollower(store, scopeOf(c), dir, logger), c.Checkpoints.Interval.D(), logger, told)
}

func follow(ctx context.Context, f *checkpoint.Follower, every time.Duration, logger hclog.Logger, told func(id uint64)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var logged time.Time
	last := uint64(0)
	for {
		cut, err := f.Step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && time.Since(logged) >= time.Minute:
			logged = time.Now()
			logger.Warn("the newest checkpoint can't be followed", "error", err)
		case err == nil && cut.ID != last:
			last = cut.ID
			logger.Info("a checkpoint is here", "id", cut.ID, "of", cut.At, "bytes", cut.Bytes())
			if told != nil {
				told(cut.ID)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// MoveAside renames a node's data folder, so that it can be restored, and returns its new name; "" where there is none.
func MoveAside(c config.Config, now time.Time) (string, error) {
	if _, err := os.Stat(c.Data); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if found, err := readIdentity(c.Data); err == nil && found != nil {
		lock, err := lockData(c.Data)
		if err != nil {
			return "", folderError(c.Data, err)
		}
		defer lock.Close()
	}
	aside := strings.TrimSuffix(c.Data, "/") + ".before-restore-" + now.UTC().Format("20060102T150405Z")
	if err := os.Rename(c.Data, aside); err != nil {
		return "", folderError(c.Data, err)
	}
	return aside, nil
}

// readRestore returns nil for a folder that is not being restored.
func readRestore(dir string) (*restoring, error) {
	b, err := os.ReadFile(filepath.Join(dir, restoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(restoring)
	if err := json.Unmarshal(b, r); err != nil || r.Version < 1 {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, restoreFile)
	}
	if r.Version > 1 {
		return nil, fmt.Errorf("%w: %s has format %d, this one knows up to 1", ErrNewer, restoreFile, r.Version)
	}
	return r, nil
}

func (r restoring) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(dir, restoreTemp, restoreFile, append(b, '\n'))
}

// seed gives the shards the checkpoints that Restore has fetched. No group runs yet.
func (n *Node) seed() error {
	c := n.o.Config
	mark, err := readRestore(c.Data)
	if err != nil || mark == nil {
		return folderError(c.Data, err)
	}
	if mark.Cut == 0 || len(mark.Indexes) != c.Shards {
		return fmt.Errorf("data folder %s: a restore of checkpoint %s has not ended", c.Data, mark.Which)
	}
	for i, index := range mark.Indexes {
		if !n.founding.Holds(c.Node, i) {
			continue
		}
		if err := n.host.Seed(uint32(i), filepath.Join(c.Data, restoreFolder, checkpoint.ShardDir(i)), index, seats(n.founding, i)); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	return nil
}

// seeded forgets the restore: every shard has its state.
func (n *Node) seeded() error {
	dir := n.o.Config.Data
	mark, err := readRestore(dir)
	if err != nil {
		return folderError(dir, err)
	}
	if mark == nil { // what a standby that was not needed has left
		return folderError(dir, os.RemoveAll(filepath.Join(dir, restoreFolder)))
	}
	if err = os.RemoveAll(filepath.Join(dir, restoreFolder)); err == nil {
		err = os.Remove(filepath.Join(dir, restoreFile)) // last: without it nobody would look for the folder
	}
	if err != nil {
		return folderError(dir, err)
	}
	n.o.Logger.Info("restored", "checkpoint", mark.Cut)
	return nil
}
