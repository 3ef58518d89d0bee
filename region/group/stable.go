package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// stableStore holds terms and votes of all groups of a node: a few small writes an election. All of it is read when it is
// opened, and compared with its checksums: what a group is told later it is told from memory.
//
// Every value but the version is followed by the CRC-32C of its key and itself, big-endian. One more record, stableSum,
// holds how many others there are, in 4 bytes, and the exclusive or of their checksums, in 4: a record that the database
// lost, whose absence would be a vote forgotten, is found by it. Version 1 had neither.
type stableStore struct {
	bolt  *bbolt.DB
	guard *guard

	mu      sync.RWMutex
	records map[string][]byte // as stored

	gathered struct {
		sync.Mutex
		writes []*stableWrite
	}
	committing sync.Mutex // held by the write that commits what has gathered
}

// stableWrite is one record to be stored.
type stableWrite struct {
	key, value []byte
	done       bool // as is err, under committing
	err        error
}

// stableVersion is that of the stable store.
const stableVersion = 2

const stableChecksum = 4

var (
	stableBucket = []byte("conf") // named, as is the file's layout, by the package that wrote version 1
	stableSum    = []byte("\xffsum")
)

func openStableStore(path string, guard *guard) (*stableStore, error) {
	s := &stableStore{guard: guard, records: map[string][]byte{}}
	if err := s.open(path); err != nil {
		return nil, fmt.Errorf("open stable store: %w", err)
	}
	return s, nil
}

// open reads the file and writes it anew: the database, which trusts its pages, is never to see damaged ones.
func (s *stableStore) open(path string) error {
	err := s.load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("%w: %s: %w", ErrLogDamaged, path, err)
	case err != nil:
		return err
	}
	if err := s.rewrite(path); err != nil {
		return err
	}
	s.bolt, err = bbolt.Open(path, 0o600, boltOptions())
	return err
}

// rewrite puts a file with the records in place of the one at path, if there is one.
func (s *stableStore) rewrite(path string) error {
	temp := path + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	bolt, err := bbolt.Open(temp, 0o600, boltOptions())
	if err != nil {
		return err
	}
	err = bolt.Update(s.fill)
	if err := errors.Join(err, bolt.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(vfs.Default, filepath.Dir(path))
}

// boltOptions has the list of free pages not written: the file is read whole when it is opened.
func boltOptions() *bbolt.Options { return &bbolt.Options{Timeout: time.Second, NoFreelistSync: true} }

// load reads the file.
func (s *stableStore) load(path string) error {
	stored := map[string][]byte{}
	err := readBolt(path, stableBucket, func(key, value []byte) error {
		if _, twice := stored[string(key)]; twice {
			return fmt.Errorf("%w: two records %q", ErrCorrupt, key)
		}
		stored[string(key)] = bytes.Clone(value)
		return nil
	})
	if err != nil {
		return err
	}
	version, err := readStableVersion(stored[string(storeVersionKey)])
	if err != nil {
		return err
	}
	delete(stored, string(storeVersionKey))
	if version > 1 {
		return s.unseal(stored)
	}
	if stored[string(stableSum)] != nil {
		return fmt.Errorf("%w: version 1 had no sum of the records", ErrCorrupt)
	}
	s.records = stored
	return nil
}

// unseal takes the records over whose checksums are theirs, and whose sum is that of all.
func (s *stableStore) unseal(stored map[string][]byte) error {
	for key, value := range stored {
		value, err := unsealed([]byte(key), value)
		if err != nil {
			return err
		}
		s.records[key] = value
	}
	sum := s.records[string(stableSum)]
	delete(s.records, string(stableSum))
	if !bytes.Equal(sum, sumOf(s.records)) && !mutant.On("vote-lost") {
		return fmt.Errorf("%w: records are missing", ErrCorrupt)
	}
	return nil
}

// readStableVersion fails for a version that this build doesn't read.
func readStableVersion(value []byte) (int, error) {
	if len(value) != 4 {
		return 0, fmt.Errorf("%w version: %d bytes", ErrCorrupt, len(value))
	}
	version := int(binary.BigEndian.Uint32(value))
	if version == 1 {
		return version, nil
	}
	return version, checkVersion("stable store", version, stableVersion)
}

// fill writes the records, the sum of them and the version into a new file.
func (s *stableStore) fill(tx *bbolt.Tx) error {
	bucket, err := tx.CreateBucket(stableBucket)
	if err != nil {
		return err
	}
	for key, value := range s.records {
		if err := bucket.Put([]byte(key), sealed([]byte(key), value)); err != nil {
			return err
		}
	}
	if err := bucket.Put(stableSum, sealed(stableSum, sumOf(s.records))); err != nil {
		return err
	}
	return bucket.Put(storeVersionKey, binary.BigEndian.AppendUint32(nil, stableVersion))
}

// set stores a record durably. Records of several groups that come at about the same time, as they do when a node is lost
// and all that it led elect, share their syncs.
func (s *stableStore) set(key, value []byte) error {
	w := &stableWrite{key: key, value: value}
	s.gathered.Lock()
	s.gathered.writes = append(s.gathered.writes, w)
	s.gathered.Unlock()
	s.committing.Lock()
	defer s.committing.Unlock()
	if w.done {
		return w.err
	}
	s.gathered.Lock()
	writes := s.gathered.writes
	s.gathered.writes = nil
	s.gathered.Unlock()
	err := s.bolt.Update(func(tx *bbolt.Tx) error { return s.put(tx.Bucket(stableBucket), writes) })
	for _, w := range writes {
		w.done, w.err = true, err
	}
	return w.err
}

// put takes writes over, in their order.
func (s *stableStore) put(bucket *bbolt.Bucket, writes []*stableWrite) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range writes {
		s.records[string(w.key)] = w.value // a write that fails ends the process
		if err := bucket.Put(w.key, sealed(w.key, w.value)); err != nil {
			return err
		}
	}
	return bucket.Put(stableSum, sealed(stableSum, sumOf(s.records)))
}

func sumOf(records map[string][]byte) []byte {
	var all uint32
	for key, value := range records {
		all ^= stableCRC([]byte(key), value)
	}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(len(records))), all)
}

func stableCRC(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func sealed(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(value), stableCRC(key, value))
}

func unsealed(key, stored []byte) ([]byte, error) {
	n := len(stored) - stableChecksum
	if n < 0 || binary.BigEndian.Uint32(stored[n:]) != stableCRC(key, stored[:n]) {
		return nil, fmt.Errorf("%w: record %q does not have its checksum", ErrCorrupt, key)
	}
	return stored[:n:n], nil
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
	key, value = s.key(key), append([]byte{}, value...)
	return s.store.guard.do("store vote", func() error { return s.store.set(key, value) })
}

func (s *shardStable) Get(key []byte) ([]byte, error) {
	if err := s.store.guard.err(); err != nil {
		return nil, err
	}
	s.store.mu.RLock()
	defer s.store.mu.RUnlock()
	return bytes.Clone(s.store.records[string(s.key(key))]), nil
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

// checkTerm fails where the log holds an entry of a later term than the one that is kept: a term is kept before the first
// entry of it, so the stable store is not the one that belongs to the log.
func (s *shardStable) checkTerm(log *ShardLog) error {
	term, err := s.GetUint64(raftStableTerm)
	if err != nil {
		return fmt.Errorf("read term: %w", err)
	}
	if last := log.LastTerm(); last > term {
		return fmt.Errorf("%w: stable store: the term is %d, the log of shard %d ends in %d", ErrLogDamaged, term, s.shard, last)
	}
	return nil
}
