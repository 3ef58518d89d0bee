package checkpoint

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

// Follower keeps the newest checkpoint of a region on the disk of a node that is to take its place: a Fetch of it, or of
// one soon after it, finds nearly everything there. It is for one goroutine.
type Follower struct {
	store  objects.Store
	scope  Scope
	dir    string
	logger hclog.Logger
	have   map[string]File // by path: files that were verified since the start
	last   uint64
}

// NewFollower returns a Follower that fetches below dir, which nothing else may use, as Fetch does.
func NewFollower(store objects.Store, s Scope, dir string, logger hclog.Logger) *Follower {
	return &Follower{store: store, scope: s, dir: dir, logger: logger, have: map[string]File{}}
}

// Step brings what is on disk up to the newest checkpoint and returns that. It decides nothing: the region that is
// followed goes on, and the checkpoint to begin with is chosen when it is gone. After an error the next Step goes on.
func (f *Follower) Step(ctx context.Context) (*Cut, error) {
	if _, err := open(ctx, f.store, &f.scope); err != nil {
		return nil, err
	}
	at := place(f.scope.Region)
	id, err := newest(ctx, f.store, at.checkpoints())
	if err != nil {
		return nil, err
	}
	if id == 0 {
		return nil, fmt.Errorf("%w: region %s has none", ErrNone, f.scope.Region)
	}
	cut, _, err := readCut(ctx, f.store, at.checkpoint(id))
	if err != nil {
		return nil, err
	}
	if err := fits(cut, &f.scope); err != nil {
		return nil, err
	}
	if id == f.last {
		return cut, nil
	}
	var found found
	if err := fetchCut(ctx, f.store, cut, f.dir, f.logger, found.in(f.have)); err != nil {
		f.have = map[string]File{} // some of it may be overwritten
		return nil, err
	}
	f.have, f.last = found.files(), id
	return cut, nil
}

// found gathers the files of one step. Any goroutine may add to it.
type found struct {
	mu  sync.Mutex
	all map[string]File
}

// in returns a test whether a file is there: one of have is not read again.
func (x *found) in(have map[string]File) func(path string, f File) bool {
	x.all = map[string]File{}
	return func(path string, f File) bool {
		x.mu.Lock()
		x.all[path] = f // or will be, when the step succeeds
		x.mu.Unlock()
		return have[path] == f || isThere(path, f)
	}
}

func (x *found) files() map[string]File { return x.all }
