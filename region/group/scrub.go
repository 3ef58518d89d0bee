package group

import (
	"fmt"
	"path/filepath"
)

// Tables returns the names of the tables that the log store consists of, and the folder that they are in, for who reads
// them through. They go away at any time.
func (s *LogStore) Tables() (dir string, names []string, err error) {
	if err := s.guard.err(); err != nil {
		return "", nil, err
	}
	levels, err := s.db.SSTables()
	if err != nil {
		return "", nil, fmt.Errorf("list tables of the log: %w", err)
	}
	for _, level := range levels {
		for _, t := range level {
			names = append(names, fmt.Sprintf("%06d.sst", uint64(t.BackingSSTNum)))
		}
	}
	return s.dir, names, nil
}

// Damaged ends the process, through Config.Fatal, for damage that somebody else has found in the log store's files.
func (s *LogStore) Damaged(err error) { s.guard.fail(fmt.Errorf("%w: %w", ErrLogDamaged, err)) }

// NewestSnapshot returns the folder with the state of the newest snapshot, "" where there is none. It goes away when there
// is a newer one.
func (g *Group) NewestSnapshot() (dir string, err error) {
	newest, ok, err := g.snapshots.newest()
	if err != nil || !ok {
		return "", err
	}
	return filepath.Join(g.snapshots.dir, newest.Raft.ID, stateFolder), nil
}
