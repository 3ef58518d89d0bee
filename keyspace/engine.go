package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// formatVersion is the version of everything that this package stores. A store of a newer one is refused.
const formatVersion = 1

// pebbleFormat is the database's own version: raised on purpose only, since older binaries can't read a raised one.
const pebbleFormat = pebble.FormatValueSeparation

// ErrFormat marks a store written by a newer version of Watershed than this one.
var ErrFormat = errors.New("store of a newer format")

var (
	keyFormat  = []byte{rowSystem, 'f'} // formatVersion (4)
	keyApplied = []byte{rowSystem, 'i'} // applied index (8) | chain (16)
)

// engine is one open database. It closes when its last holder releases it.
type engine struct {
	fs      vfs.FS
	dir     string
	db      *pebble.DB
	holders atomic.Int64
	dispose atomic.Bool // remove the directory when it is closed
}

// engineOptions says how to open a database.
type engineOptions struct {
	fs       vfs.FS
	cache    *pebble.Cache
	memTable uint64
	logger   hclog.Logger
	fatal    func(error)
	create   bool
	readOnly bool
}

// openEngine opens the database in dir, held once, and checks that it is of a format this package reads.
func openEngine(dir string, o engineOptions) (*engine, error) {
	opts := &pebble.Options{
		FS:                 o.fs,
		Cache:              o.cache,
		DisableWAL:         true,
		Merger:             cellMerger,
		MemTableSize:       o.memTable,
		FormatMajorVersion: pebbleFormat,
		Logger:             pebbleLogger{o.logger, o.fatal},
		ReadOnly:           o.readOnly,
		ErrorIfExists:      o.create,
		ErrorIfNotExists:   !o.create,
		// A database that can't write stops its process: an fsync that failed is never retried, and another replica leads.
		EventListener: &pebble.EventListener{
			BackgroundError: o.fatal,
			DiskSlow: func(i pebble.DiskSlowInfo) {
				o.logger.Warn("disk is slow", "operation", i.OpType.String(), "path", i.Path, "for", i.Duration)
			},
			DataCorruption: func(i pebble.DataCorruptionInfo) { o.fatal(&DamageError{File: i.Path, Err: i.Details}) },
		},
	}
	// The default scheduler looks ten times a second whether more compactions are allowed than were; here that never
	// changes, and a store for every shard would wake an idle node all the time.
	opts.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", dir, err)
	}
	e := &engine{fs: o.fs, dir: dir, db: db}
	e.holders.Store(1)
	if o.create {
		err = db.Set(keyFormat, binary.BigEndian.AppendUint32(nil, formatVersion), pebble.NoSync)
		if err == nil {
			err = db.Flush()
		}
	} else {
		err = checkFormat(db)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", dir, err), e.release())
	}
	return e, nil
}

func checkFormat(db *pebble.DB) error {
	b, err := getCopy(db, keyFormat)
	switch {
	case err != nil:
		return err
	case len(b) != 4:
		return fmt.Errorf("%w: no format version", ErrCorrupt)
	}
	if v := binary.BigEndian.Uint32(b); v > formatVersion {
		return fmt.Errorf("%w: version %d, this program reads up to %d", ErrFormat, v, formatVersion)
	}
	return nil
}

// getCopy returns a copy of a key's value, nil if there is none.
func getCopy(r pebble.Reader, key []byte) ([]byte, error) {
	b, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read key %x: %w", key, err)
	}
	b = append([]byte{}, b...)
	return b, closer.Close()
}

// position is how far a store or a part of it has applied the replicated log.
type position struct {
	index uint64
	chain crdt.Hash
}

// readPosition returns the position of a database: zero if it never applied anything.
func readPosition(r pebble.Reader) (p position, err error) {
	b, err := getCopy(r, keyApplied)
	if err != nil || b == nil {
		return p, err
	}
	if len(b) != 8+len(p.chain) {
		return p, fmt.Errorf("%w: applied index of %d bytes", ErrCorrupt, len(b))
	}
	return position{binary.BigEndian.Uint64(b), crdt.Hash(b[8:])}, nil
}

// hold keeps the database open until release. Somebody else must be holding it.
func (e *engine) hold() *engine {
	e.holders.Add(1)
	return e
}

// release lets go of the database. The last one closes it and gets its error.
func (e *engine) release() error {
	if e.holders.Add(-1) > 0 {
		return nil
	}
	err := e.db.Close()
	if err == nil && e.dispose.Load() {
		err = e.fs.RemoveAll(e.dir)
	}
	if err != nil {
		return fmt.Errorf("close database %s: %w", e.dir, err)
	}
	return nil
}

// write commits frozen tables, oldest first, in one batch with their last one's position.
func (e *engine) write(tables []*table) error {
	if err := e.writeApart(tables[len(tables)-1]); err != nil {
		return err
	}
	size := int64(1 << 10)
	for _, t := range tables {
		size += t.bytes
	}
	b := e.db.NewBatchWithSize(int(min(size, 1<<26)))
	for _, t := range tables {
		if err := errors.Join(appendDeletions(b, t), appendSlots(b, t), appendMeta(b, &t.meta)); err != nil {
			return errors.Join(fmt.Errorf("gather batch up to index %d: %w", t.last, err), b.Close())
		}
	}
	last := tables[len(tables)-1]
	applied := append(binary.BigEndian.AppendUint64(nil, last.last), last.chain[:]...)
	if err := b.Set(keyApplied, applied, nil); err != nil {
		return errors.Join(fmt.Errorf("gather batch up to index %d: %w", last.last, err), b.Close())
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("write batch up to index %d: %w", last.last, err)
	}
	return nil
}

// writeApart writes nothing. Seeded bugs let what belongs into the batch reach the disk before it.
func (e *engine) writeApart(t *table) error {
	index, points := mutant.On("index-outside-batch"), mutant.On("points-before-slots")
	if !index && !points {
		return nil
	}
	b := e.db.NewBatch()
	if points {
		if err := appendMeta(b, &t.meta); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	if index {
		if err := b.Set(keyApplied, append(binary.BigEndian.AppendUint64(nil, t.last), t.chain[:]...), nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(pebble.NoSync), e.db.Flush())
}

// copyEnd returns the least key above those of a copy's slots up to a time.
func copyEnd(c Copy, time int64) []byte {
	prefix := appendCopy(nil, c)
	if time == crdt.MaxTime {
		return successor(prefix)
	}
	return appendTime(prefix, time+1)
}

func appendDeletions(b *pebble.Batch, t *table) error {
	for g := range t.dropped {
		from := appendGeneration(nil, g)
		if err := b.DeleteRange(from, successor(from), nil); err != nil {
			return err
		}
	}
	for c, ct := range t.copies {
		if !ct.isCut {
			continue
		}
		if err := b.DeleteRange(appendCopy(nil, c), copyEnd(c, ct.cut), nil); err != nil {
			return err
		}
	}
	return nil
}

// appendSlots appends what a frozen table added, in the order of the keys, which the database takes fastest.
func appendSlots(b *pebble.Batch, t *table) error {
	var key, value []byte
	for c, ct := range t.copies {
		times := make([]int64, 0, len(ct.times))
		for time := range ct.times {
			times = append(times, time)
		}
		slices.Sort(times)
		key = appendCopy(key[:0], c)
		prefix := len(key)
		for _, time := range times {
			tt := ct.times[time]
			for n, i := range tt.sorted() {
				if n%2 == 1 && mutant.On("half-a-table-written") {
					continue
				}
				o := tt.operand(i)
				key = append(appendTime(key[:prefix], time), tt.entries[i].tail...)
				value = append(appendOperandHead(value[:0], o.lo, o.hi), o.cell...)
				if err := b.Merge(key, value, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func appendMeta(b *pebble.Batch, m *metaTable) error {
	for i := range m.cuts {
		if err := b.DeleteRange(m.cuts[i].from, m.cuts[i].to, nil); err != nil {
			return err
		}
	}
	for key := range m.ops {
		op, ok := m.get(key)
		var err error
		switch {
		case !ok:
		case op.deleted:
			err = b.Delete([]byte(key), nil)
		default:
			err = b.Set([]byte(key), op.value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pebbleLogger passes the database's messages on. A fatal one ends the process by way of fatal.
type pebbleLogger struct {
	hclog.Logger
	fatal func(error)
}

// Infof implements pebble.Logger.
func (l pebbleLogger) Infof(format string, args ...any) {
	if l.IsTrace() {
		l.Trace(fmt.Sprintf(format, args...))
	}
}

// Errorf implements pebble.Logger.
func (l pebbleLogger) Errorf(format string, args ...any) { l.Error(fmt.Sprintf(format, args...)) }

// Fatalf implements pebble.Logger. It does not return: the database relies on it.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("database: "+format, args...)
	l.fatal(err)
	panic(fmt.Sprintf("keyspace: Options.Fatal returned from %v", err))
}
