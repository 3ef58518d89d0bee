package group

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// LogStore holds the Raft logs of all groups of a node in one Pebble with a synced WAL: writes of many groups that meet
// share one fsync. Its methods may be called concurrently, but the writes of one shard by one goroutine at a time.
type LogStore struct {
	db    *pebble.DB
	dir   string
	guard *guard

	mu struct {
		sync.Mutex
		shards map[uint32]*ShardLog
	}
}

// LogStoreConfig says how to open a LogStore.
type LogStoreConfig struct {
	FS      vfs.FS        // default: the disk
	Logger  hclog.Logger  // default: none
	Timeout time.Duration // how long a call may take, see Config.StoreTimeout (default 10 s)
	Fatal   func(error)   // see Config.Fatal; required
}

// OpenLogStore opens or makes the log store in dir.
func OpenLogStore(dir string, cfg LogStoreConfig) (*LogStore, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	orDuration(&cfg.Timeout, 10*time.Second)
	return openLogStore(dir, cfg.FS, cfg.Logger, newGuard(cfg.Timeout, cfg.Timeout, cfg.Fatal))
}

func openLogStore(dir string, fs vfs.FS, logger hclog.Logger, guard *guard) (*LogStore, error) {
	opts := &pebble.Options{
		FS:                          fs,
		FormatMajorVersion:          pebbleFormat,
		Logger:                      pebbleLogger{logger: logger, guard: guard},
		MemTableSize:                16 << 20, // what followers read is mostly still in here; the WAL keeps six of them
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       64,
		BytesPerSync:                1 << 20,
	}
	cache := pebble.NewCache(16 << 20)
	defer cache.Unref()
	opts.Cache = cache
	opts.EventListener = &pebble.EventListener{
		// A flush or compaction that failed is not tried again: the next one could take pages for written that are lost.
		BackgroundError: func(err error) { guard.fail(fmt.Errorf("log store background work: %w", err)) },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			guard.fail(fmt.Errorf("%w: %s: %w", ErrLogDamaged, info.Path, info.Details))
		},
		DiskSlow: func(info pebble.DiskSlowInfo) {
			logger.Warn("disk is slow", "operation", info.OpType.String(), "path", info.Path, "duration", info.Duration)
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			logger.Warn("log store stalls writes", "reason", info.Reason)
		},
	}
	there, err := pebble.Peek(dir, cmp.Or[vfs.FS](fs, vfs.Default))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	db, err := pebble.Open(dir, opts)
	if pebble.IsCorruptionError(err) {
		return nil, fmt.Errorf("open log store: %w: %s: %w", ErrLogDamaged, dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	if err := checkLogStore(db); err != nil {
		return nil, errors.Join(fmt.Errorf("open log store: %w", err), db.Close())
	}
	if there == nil || there.FormatMajorVersion < pebble.FormatWALSyncChunks {
		// A new database begins with a WAL of the oldest format, in which what stands behind a damaged record is taken for
		// a torn end and dropped. From the next one on the records say how far the file was synced, and damage is an error.
		if err := db.Flush(); err != nil {
			return nil, errors.Join(fmt.Errorf("open log store: %w", err), db.Close())
		}
	}
	s := &LogStore{db: db, dir: dir, guard: guard}
	s.mu.shards = make(map[uint32]*ShardLog)
	return s, nil
}

// Close closes the store. No group may use it any more.
func (s *LogStore) Close() error {
	if err := s.guard.err(); err != nil {
		return nil // a write may still hang in there; the process is on its way out
	}
	// What is in tables has checksums; at the end of a WAL damage and a torn write look alike.
	if err := errors.Join(s.db.Flush(), s.db.Close()); err != nil {
		return fmt.Errorf("close log store: %w", err)
	}
	return nil
}

// Shard returns the log of one shard, the same value for every call.
func (s *LogStore) Shard(shard uint32) (*ShardLog, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.mu.shards[shard]; ok {
		return l, nil
	}
	l := &ShardLog{store: s, shard: shard}
	if err := s.guard.read("open log", l.load); err != nil {
		return nil, fmt.Errorf("open log of shard %d: %w", shard, err)
	}
	s.mu.shards[shard] = l
	return l, nil
}

// FirstIndex returns the first index that the shard's log holds, 0 when it is empty.
func (s *LogStore) FirstIndex(shard uint32) (uint64, error) {
	l, err := s.Shard(shard)
	if err != nil {
		return 0, err
	}
	return l.FirstIndex()
}

// Read returns the command at index of the shard's log. It is not ok where the log doesn't reach that far back or
// forward, and where the entry is one of Raft's own. The caller sees to it that the entry is committed.
func (s *LogStore) Read(shard uint32, index uint64) (command []byte, ok bool, err error) {
	l, err := s.Shard(shard)
	if err != nil {
		return nil, false, err
	}
	var entry raft.Log
	switch err := l.GetLog(index, &entry); {
	case errors.Is(err, raft.ErrLogNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return entry.Data, entry.Type == raft.LogCommand, nil
}

// ShardLog is the log of one shard. It is a raft.LogStore without gaps.
type ShardLog struct {
	store *LogStore
	shard uint32

	mu struct {
		sync.RWMutex
		first, last uint64 // bounds of what is stored, both 0 when nothing is
		lastTerm    uint64 // of the entry at last, 0 where unknown
	}
}

var (
	_ raft.LogStore          = (*ShardLog)(nil)
	_ raft.MonotonicLogStore = (*ShardLog)(nil)
)

func (l *ShardLog) load() error {
	iter, err := l.store.db.NewIter(&pebble.IterOptions{
		LowerBound: appendShardKey(nil, l.shard),
		UpperBound: upperBound(l.shard, math.MaxUint64),
	})
	if err != nil {
		return err
	}
	defer iter.Close()
	if iter.First() {
		if l.mu.first, err = logIndexOf(iter.Key()); err != nil {
			return err
		}
	}
	if iter.Last() {
		if l.mu.last, err = logIndexOf(iter.Key()); err != nil {
			return err
		}
		var entry raft.Log
		if err := decodeLogValue(iter.Value(), &entry); err != nil {
			return err
		}
		l.mu.lastTerm = entry.Term
	}
	return iter.Error()
}

// upperBound returns the key just above the one of index.
func upperBound(shard uint32, index uint64) []byte {
	return append(appendLogKey(nil, shard, index), 0)
}

// IsMonotonic is true: entries follow one another without a gap.
func (l *ShardLog) IsMonotonic() bool { return true }

// FirstIndex returns the first index stored, 0 when there is none.
func (l *ShardLog) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.first, nil
}

// LastIndex returns the last index stored, 0 when there is none.
func (l *ShardLog) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.last, nil
}

// LastTerm returns the term of the last entry stored, 0 where that is not known: there is none, or a conflicting tail was
// just dropped.
func (l *ShardLog) LastTerm() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.lastTerm
}

// GetLog fills entry with a copy of what is stored at index, or returns raft.ErrLogNotFound.
func (l *ShardLog) GetLog(index uint64, entry *raft.Log) error {
	l.mu.RLock()
	within := index >= l.mu.first && index <= l.mu.last && l.mu.last != 0
	l.mu.RUnlock()
	if !within {
		return raft.ErrLogNotFound
	}
	err := l.store.guard.read("read log entry", func() error { return l.read(index, entry) })
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return fmt.Errorf("read log entry %d of shard %d: %w", index, l.shard, err)
	}
	return err
}

func (l *ShardLog) read(index uint64, entry *raft.Log) error {
	var key [logKeySize]byte
	value, closer, err := l.store.db.Get(appendLogKey(key[:0], l.shard, index))
	if errors.Is(err, pebble.ErrNotFound) {
		return raft.ErrLogNotFound // and no wrapping: Raft compares
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if err := decodeLogValue(value, entry); err != nil {
		return err
	}
	entry.Index = index
	return nil
}

// StoreLog stores one entry durably.
func (l *ShardLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries that follow the last one stored. They are durable when it returns nil; when it doesn't, the
// process is about to end (Config.Fatal).
func (l *ShardLog) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.mu.RLock()
	last := l.mu.last
	l.mu.RUnlock()
	if last != 0 && entries[0].Index != last+1 {
		return fmt.Errorf("store log entry %d of shard %d: the last one is %d", entries[0].Index, l.shard, last)
	}
	size := 0
	for i, entry := range entries {
		if entry.Index != entries[0].Index+uint64(i) {
			return fmt.Errorf("store log entries of shard %d: %d follows %d", l.shard, entry.Index, entries[i-1].Index)
		}
		size += logKeySize + logValueSize(entry) + 16
	}
	batch := l.store.db.NewBatchWithSize(size)
	for _, entry := range entries {
		op := batch.SetDeferred(logKeySize, logValueSize(entry))
		appendLogKey(op.Key[:0], l.shard, entry.Index)
		putLogValue(op.Value, entry)
		if err := op.Finish(); err != nil {
			return l.store.guard.fail(fmt.Errorf("store log entries: %w", err))
		}
	}
	if err := l.commit("store log entries", batch); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.first == 0 {
		l.mu.first = entries[0].Index
	}
	l.mu.last, l.mu.lastTerm = entries[len(entries)-1].Index, entries[len(entries)-1].Term
	return nil
}

// DeleteRange drops the entries from low to high, both included: from the log's start (compaction), to its end (a
// follower's conflicting tail), or all. A range in the middle would leave a gap and is refused.
func (l *ShardLog) DeleteRange(low, high uint64) error {
	l.mu.RLock()
	first, last := l.mu.first, l.mu.last
	l.mu.RUnlock()
	if last == 0 || high < first || low > last || low > high {
		return nil
	}
	if low > first && high < last {
		return fmt.Errorf("delete log entries %d to %d of shard %d: would leave a gap in %d to %d", low, high, l.shard, first, last)
	}
	// The bounds move before the entries go, so that no reader takes a deleted entry for a hole; a write that fails ends
	// the process.
	l.mu.Lock()
	switch {
	case low <= first && high >= last:
		l.mu.first, l.mu.last, l.mu.lastTerm = 0, 0, 0
	case low <= first:
		l.mu.first = high + 1
	default:
		l.mu.last, l.mu.lastTerm = low-1, 0 // the leader's entries follow at once
	}
	l.mu.Unlock()
	batch := l.store.db.NewBatch()
	if err := batch.DeleteRange(appendLogKey(nil, l.shard, low), upperBound(l.shard, high), nil); err != nil {
		return l.store.guard.fail(fmt.Errorf("delete log entries: %w", err))
	}
	return l.commit("delete log entries", batch)
}

func (l *ShardLog) commit(what string, batch *pebble.Batch) error {
	return l.store.guard.do(what, func() error {
		durably := pebble.Sync
		if mutant.On("acknowledged-before-fsync") {
			durably = pebble.NoSync
		}
		if err := batch.Commit(durably); err != nil {
			return err
		}
		return batch.Close()
	})
}
