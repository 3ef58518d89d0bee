package group

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// seedTerm is the term of a state that no leader of this group has made.
const seedTerm = 1

// Seed gives a group that has never run the machine's checkpoint in dir to begin with, whose last command is index: its
// log begins after it, and first are its members (nil: all of Config.Members, as voters). All of them must be given the same
// before any of them starts; a group whose members began with different states would not find out. It is done where the
// group has run already, or was seeded before. dir stays.
func (h *Host) Seed(shard uint32, dir string, index uint64, first []Seat) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("seed group of shard %d: %w", shard, err)
		}
	}()
	if first == nil {
		first = h.cfg.seats()
	}
	if index == 0 {
		return nil // there is nothing to begin with
	}
	if h.Group(shard) != nil {
		return errors.New("it runs")
	}
	log, err := h.logs.Shard(shard)
	if err != nil {
		return err
	}
	folder := h.groupDir(shard)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return folderError(folder, err)
	}
	snapshots, err := openSnapshotStore(vfs.Default, folder)
	if err != nil {
		return err
	}
	_, snapshot, err := snapshots.newest()
	if err != nil {
		return err
	}
	stable := &shardStable{store: h.stable, shard: shard}
	term, err := stable.GetUint64(raftStableTerm)
	if err != nil {
		return fmt.Errorf("read term: %w", err)
	}
	if last, _ := log.LastIndex(); snapshot || last != 0 || term > seedTerm {
		return nil
	}
	if err := stable.SetUint64(raftStableTerm, seedTerm); err != nil {
		return err
	}
	for _, path := range [...]string{h.cfg.Dir, filepath.Dir(folder), folder} {
		if err := syncDir(vfs.Default, path); err != nil {
			return err
		}
	}
	return h.seedSnapshot(snapshots, dir, index, first)
}

// seedSnapshot makes a snapshot of a copy of dir.
func (h *Host) seedSnapshot(snapshots *snapshotStore, dir string, index uint64, first []Seat) error {
	sink, err := snapshots.Create(raft.SnapshotVersionMax, index, seedTerm, configurationOf(first), 1, nil)
	if err != nil {
		return err
	}
	s := sink.(*snapshotSink)
	copied := s.dir + "-copy"
	err = linkTree(dir, copied)
	if err == nil {
		err = s.adopt(copied, index)
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return errors.Join(err, s.Cancel(), os.RemoveAll(copied))
	}
	return nil
}

// seats returns all members as voters.
func (c *Config) seats() []Seat {
	seats := make([]Seat, 0, len(c.Members))
	for _, m := range c.Members {
		seats = append(seats, Seat{m, true})
	}
	return seats
}

// configurationOf returns seats as Raft takes them.
func configurationOf(seats []Seat) raft.Configuration {
	var out raft.Configuration
	for _, s := range seats {
		suffrage := raft.Nonvoter
		if s.Voter {
			suffrage = raft.Voter
		}
		out.Servers = append(out.Servers, raft.Server{
			Suffrage: suffrage, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address),
		})
	}
	return out
}

// linkTree makes to a copy of a folder whose files are not written again: links where that is possible.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if os.Link(path, target) == nil {
			return nil
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
