package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// markFile in a node's Raft folder says that its log or its stable store was found damaged. A damaged block may not be read
// again for long: without the mark the next start would pass, and the node vote on what it has forgotten.
const (
	markFile    = "DAMAGED"
	markVersion = 1
	markWithin  = time.Second // to write it, when the process is to end
	maxMark     = 64 << 10    // of the file, in bytes
)

type mark struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	What    string    `json:"what"`
}

// checkMark fails with ErrLogDamaged where a folder is marked. A mark that can't be read is one.
func checkMark(dir string) error {
	path := filepath.Join(dir, markFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var m mark
	if err != nil || len(b) > maxMark || json.Unmarshal(b, &m) != nil || m.Version != markVersion {
		return fmt.Errorf("%w: so says %s, which can't be read", ErrLogDamaged, path)
	}
	return fmt.Errorf("%w: found at %s: %s", ErrLogDamaged, m.Time.Format(time.RFC3339), m.What)
}

// markDamage marks a folder where err is ErrLogDamaged and it isn't marked yet. It waits for the disk no longer than
// markWithin: the caller is about to end the process.
func markDamage(dir string, err error) {
	path := filepath.Join(dir, markFile)
	if !errors.Is(err, ErrLogDamaged) || mutant.On("damage-forgotten") {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		what := strings.ReplaceAll(err.Error(), ErrLogDamaged.Error()+": ", "")
		b, err := json.Marshal(mark{markVersion, time.Now().UTC(), what})
		if err != nil {
			return
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return // it is marked, or the disk takes nothing
		}
		_, err = f.Write(append(b, '\n'))
		if errors.Join(err, f.Sync(), f.Close()) == nil {
			_ = syncDir(vfs.Default, dir) // nobody is left to be told
		}
	}()
	select {
	case <-done:
	case <-time.After(markWithin):
	}
}
