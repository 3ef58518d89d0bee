package group

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// snapshotFile is a file of a snapshot, as the snapshot's manifest names it.
type snapshotFile struct {
	Name string    `json:"name"` // slash-separated, relative to the state's folder
	Size int64     `json:"size"`
	Sum  digest    `json:"sha256"`
	Time time.Time `json:"time"` // when it was last written; does not travel
}

// digest is the SHA-256 of a file's content, in hexadecimal digits where it is text.
type digest [sha256.Size]byte

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *digest) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(d) {
		return fmt.Errorf("%w checksum: %d digits", ErrCorrupt, len(text))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// listFiles lists the files under dir, sorted by name, with everything but their checksums.
func listFiles(fsys vfs.FS, dir string) (files []snapshotFile, err error) {
	err = walk(fsys, dir, "", func(name string, info vfs.FileInfo) error {
		if !info.Mode().IsRegular() || len(name) > maxArchiveName {
			return fmt.Errorf("%s can't be archived", name)
		}
		files = append(files, snapshotFile{Name: name, Size: info.Size(), Time: info.ModTime().UTC()})
		return nil
	})
	if err == nil && len(files) > maxArchiveFiles {
		err = fmt.Errorf("%d files are too many", len(files))
	}
	if err != nil {
		return nil, fmt.Errorf("list the files of a snapshot: %w", err)
	}
	return files, nil
}

// walk calls each for every file under dir, in the order of their names.
func walk(fsys vfs.FS, dir, prefix string, each func(name string, info vfs.FileInfo) error) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := fsys.PathJoin(dir, name)
		info, err := fsys.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = walk(fsys, path, prefix+name+"/", each)
		} else {
			err = each(prefix+name, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sumFiles lists the files under dir with their checksums. Those that an earlier snapshot had already, which the two share
// as links, are not read again: tables are never written to once they are there.
func sumFiles(fsys vfs.FS, dir string, earlier []snapshotFile) ([]snapshotFile, error) {
	files, err := listFiles(fsys, dir)
	if err != nil {
		return nil, err
	}
	known := make(map[string]snapshotFile, len(earlier))
	for _, f := range earlier {
		known[f.Name] = f
	}
	for i := range files {
		f := &files[i]
		if was, ok := known[f.Name]; ok && isTable(f.Name) && was.Size == f.Size && was.Time.Equal(f.Time) {
			f.Sum = was.Sum
			continue
		}
		if f.Sum, err = sumFile(fsys, filepath.Join(dir, filepath.FromSlash(f.Name))); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// isTable says whether a file is, by its name, one that a Pebble never writes to again.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func sumFile(fsys vfs.FS, path string) (sum digest, err error) {
	f, err := fsys.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return sum, fmt.Errorf("checksum: %w", err)
	}
	h := sha256.New()
	_, err = io.CopyBuffer(h, f, make([]byte, chunkSize))
	if err = errors.Join(err, f.Close()); err != nil {
		return sum, fmt.Errorf("checksum of %s: %w", path, err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// checkName refuses what is not the name of a file within a snapshot.
func checkName(name string) error {
	if !fs.ValidPath(name) || name == "." || !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%w snapshot: file is named %q", ErrCorrupt, name)
	}
	return nil
}
