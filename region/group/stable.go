package group

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// stableStore holds terms and votes of all groups of a node: a few small writes an election.
type stableStore struct {
	bolt  *raftboltdb.BoltStore
	guard *guard
}

func openStableStore(path string, guard *guard) (*stableStore, error) {
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path})
	if err != nil {
		return nil, fmt.Errorf("open stable store: %w", err)
	}
	if err := checkStable(bolt); err != nil {
		return nil, errors.Join(fmt.Errorf("open stable store: %w", err), bolt.Close())
	}
	return &stableStore{bolt: bolt, guard: guard}, nil
}

func (s *stableStore) close() error {
	if s.guard.err() != nil {
		return nil
	}
	if err := s.bolt.Close(); err != nil {
		return fmt.Errorf("close stable store: %w", err)
	}
	return nil
}

// shardStable is one group's part of the stable store: its keys carry the shard's number in front.
type shardStable struct {
	store *stableStore
	shard uint32
}

var _ raft.StableStore = (*shardStable)(nil)

func (s *shardStable) key(key []byte) []byte {
	return append(appendShardKey(make([]byte, 0, shardKeySize+len(key)), s.shard), key...)
}

func (s *shardStable) Set(key, value []byte) error {
	key, value = s.key(key), append([]byte(nil), value...)
	return s.store.guard.do("store vote", func() error { return s.store.bolt.Set(key, value) })
}

func (s *shardStable) Get(key []byte) ([]byte, error) {
	var value []byte
	err := s.store.guard.read("read vote", func() (err error) {
		value, err = s.store.bolt.Get(s.key(key))
		return err
	})
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, nil
	}
	return value, err
}

func (s *shardStable) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s *shardStable) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	switch {
	case err != nil || len(value) == 0:
		return 0, err
	case len(value) != 8:
		return 0, fmt.Errorf("%w stable value %q: %d bytes", ErrCorrupt, key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
