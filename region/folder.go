package region

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/watershed-db/watershed/region/config"
)

// What can be wrong with a data folder. Nothing in it has been changed then.
var (
	// ErrLocked says that another process has the folder open.
	ErrLocked = errors.New("is in use by another process")
	// ErrForeign says that the folder is of another deployment, region or node, or of nothing of ours.
	ErrForeign = errors.New("is not this node's data folder")
	// ErrNewer says that a newer version of watershed has written the folder.
	ErrNewer = errors.New("was written by a newer version of watershed")
	// ErrReadOnly says that the folder can't be written to.
	ErrReadOnly = errors.New("is not writable")
	// ErrNoSpace says that its disk is full.
	ErrNoSpace = errors.New("is on a full disk")
	// ErrDamaged says that the file that names the folder's owner can't be read.
	ErrDamaged = errors.New("has a damaged identity file")
)

// Names in a data folder.
const (
	identityFile = "identity.json"
	identityTemp = "identity.json.new"
	lockName     = "LOCK"
	raftFolder   = "raft"
	shardsFolder = "shards"
)

// FolderVersion is the version of everything in a data folder.
const FolderVersion = 1

// maxIdentity bounds the identity file in bytes.
const maxIdentity = 1 << 20

// identity says whose data folder one is. It is written before the first use and never changed.
type identity struct {
	Version    int      `json:"version"`
	Deployment string   `json:"deployment"`
	Shards     int      `json:"shards"`
	Regions    []member `json:"regions"` // by name
	Region     string   `json:"region"`
	Node       string   `json:"node"`
}

type member struct {
	Name   string `json:"name"`
	Member uint16 `json:"member"`
}

func identityOf(c config.Config) identity {
	id := identity{Version: FolderVersion, Deployment: c.Deployment, Shards: c.Shards, Region: c.Region, Node: c.Node}
	for _, r := range c.Regions {
		id.Regions = append(id.Regions, member{r.Name, r.Member})
	}
	slices.SortFunc(id.Regions, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return id
}

// openFolder takes hold of the node's data folder: it makes and marks an empty or missing one, and refuses one that is
// not this node's. The folder is held until the returned file is closed.
func openFolder(c config.Config) (lock *os.File, err error) {
	defer func() { err = folderError(c.Data, err) }()
	if err := os.MkdirAll(c.Data, 0o755); err != nil {
		return nil, err
	}
	found, err := readIdentity(c.Data)
	if err != nil {
		return nil, err
	}
	want := identityOf(c)
	if found != nil {
		if err := found.check(want); err != nil {
			return nil, err
		}
	}
	if lock, err = lockData(c.Data); err != nil {
		return nil, err
	}
	if found == nil || !slices.Equal(found.Regions, want.Regions) {
		if err := writeIdentity(c.Data, want); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
	}
	return lock, nil
}

// lockData locks a data folder for this process, until the returned file is closed.
func lockData(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// readIdentity returns nil for a folder that nothing was kept in yet.
func readIdentity(dir string) (*identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, checkFresh(dir)
	}
	if err != nil {
		return nil, err
	}
	if len(b) > maxIdentity {
		return nil, ErrDamaged
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil || head.Version < 1 {
		return nil, ErrDamaged
	}
	if head.Version > FolderVersion {
		return nil, fmt.Errorf("%w: its format is %d, this one knows up to %d", ErrNewer, head.Version, FolderVersion)
	}
	var id identity
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&id); err != nil {
		return nil, ErrDamaged
	}
	return &id, nil
}

// checkFresh refuses a folder without an identity that holds anything else but what a crash before its first use leaves.
func checkFresh(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case lockName, identityTemp, restoreFile, restoreTemp, restoreFolder, "lost+found":
		default:
			return fmt.Errorf("%w: it holds %s and no %s", ErrForeign, e.Name(), identityFile)
		}
	}
	return nil
}

// check fails with ErrForeign when the folder is not want's.
func (id *identity) check(want identity) error {
	differ := func(what string, has, wants any) error {
		return fmt.Errorf("%w: its %s is %v, the configuration says %v", ErrForeign, what, has, wants)
	}
	switch {
	case id.Deployment != want.Deployment:
		return differ("deployment", id.Deployment, want.Deployment)
	case id.Region != want.Region:
		return differ("region", id.Region, want.Region)
	case id.Node != want.Node:
		return differ("node", id.Node, want.Node)
	case id.Shards != want.Shards:
		return differ("number of shards", id.Shards, want.Shards)
	case !id.becomes(want):
		return differ("list of regions", id.Regions, want.Regions)
	}
	return nil
}

// becomes says whether the regions are the same, but for others that were restored since: those have higher numbers.
func (id *identity) becomes(want identity) bool {
	return slices.EqualFunc(id.Regions, want.Regions, func(has, wants member) bool {
		return has.Name == wants.Name && (has.Member == wants.Member || has.Name != id.Region && has.Member < wants.Member)
	})
}

func writeIdentity(dir string, id identity) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(dir, identityTemp, identityFile, append(b, '\n'))
}

// writeWhole writes a file of a folder, durably: it is either the old one or the new one.
func writeWhole(dir, tempName, name string, b []byte) error {
	temp := filepath.Join(dir, tempName)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// folderError puts a name to what the file system says.
func folderError(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("data folder %s %w", dir, ErrLocked)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("data folder %s %w", dir, ErrReadOnly)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("data folder %s %w", dir, ErrNoSpace)
	default:
		return fmt.Errorf("data folder %s %w", dir, err)
	}
}
