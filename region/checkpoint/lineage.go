package checkpoint

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Lineage remembers, in a file of the node's, which history of the region the node's state belongs to. Names and numbers
// can be given twice by mistake, and a region that was wiped can be started anew: neither may write below the prefix of
// another history. It is safe for any goroutine.
type Lineage struct {
	path string

	mu sync.Mutex
	id string // "" while the node knows of none
}

type lineageFile struct {
	Version int    `json:"version"`
	Lineage string `json:"lineage"`
}

// ErrLineage says that a node belongs to another history of the region.
var ErrLineage = errors.New("this node's state belongs to another history of the region")

// OpenLineage reads a node's file, which may be missing.
func OpenLineage(path string) (*Lineage, error) {
	l := &Lineage{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read lineage: %w", err)
	}
	var f lineageFile
	if err := decode(b, &f); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	l.id = f.Lineage
	return l, nil
}

// ID returns the history's id, "" where none is known.
func (l *Lineage) ID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// Adopt makes id the node's for ever, where it has none yet; it fails with ErrLineage where it has another.
func (l *Lineage) Adopt(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.id {
	case id:
		return nil
	case "":
		if err := l.write(id); err != nil {
			return err
		}
		l.id = id
		return nil
	}
	return fmt.Errorf("%w: %.8s, not %.8s", ErrLineage, l.id, id)
}

// begin returns the node's history, a new one where it has none.
func (l *Lineage) begin() (string, error) {
	if id := l.ID(); id != "" {
		return id, nil
	}
	id := rand.Text()
	return id, l.Adopt(id)
}

func (l *Lineage) write(id string) error {
	next := l.path + ".new"
	err := writeSynced(next, encode(lineageFile{FormatVersion, id}))
	if err == nil {
		err = os.Rename(next, l.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(l.path))
	}
	if err != nil {
		return fmt.Errorf("write lineage: %w", err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
