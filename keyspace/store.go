package keyspace

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
)

var (
	// ErrClosed is what calls on a closed Store return.
	ErrClosed = errors.New("store is closed")
	// ErrStale marks a command at or below the index that the store has applied already.
	ErrStale = errors.New("command is applied already")
	// ErrNoSpace marks a failure for want of disk space.
	ErrNoSpace = errors.New("disk is full")
)

// Options says where a Store lives and what it may use.
type Options struct {
	Dir string // made if it is not there; belongs to the store alone
	// Fatal is called, once, with what makes the store unusable: a write or fsync that failed, or corruption. It must
	// end the process and not return. It is called with locks held: it must not call the store.
	Fatal func(error)

	FS     vfs.FS        // default: the operating system's
	Cache  *pebble.Cache // of read blocks, shared by the stores of a process; default: a small one for this store
	Logger hclog.Logger  // default: none
	// TableBytes is about how much the active table gathers before it is frozen; up to two more wait to be written.
	// Default 16 MiB.
	TableBytes int64
	// MaxAge is how long the active table gathers at most, so that a restart has little to replay. Default 5 s.
	MaxAge time.Duration
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" || o.Fatal == nil {
		return o, errors.New("store options: Dir and Fatal are needed")
	}
	if o.TableBytes < 0 || o.MaxAge < 0 {
		return o, fmt.Errorf("store options: TableBytes %d or MaxAge %s is negative", o.TableBytes, o.MaxAge)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.TableBytes == 0 {
		o.TableBytes = 16 << 20
	}
	if o.MaxAge == 0 {
		o.MaxAge = 5 * time.Second
	}
	return o, nil
}

// Store holds what one replica of a shard has: slots, small values, applied index and chain.
//
// Apply puts a command into the active table, in memory. Tables are frozen whole at one applied index and written
// behind, oldest first, one or several in one batch with applied index and chain, so that what the disk holds
// is always the state at one index; the database writes no log of its own. What a crash loses is above the index that
// AppliedIndex returns after the next Open, and is replayed from the replicated log.
//
// A View freezes the active table: so a view costs no copy and never holds up the writer. The small tables this leaves
// behind are folded by the readers that caused them.
//
// Apply, Get, Restore and Close are for one goroutine, the one that applies commands; all else is for any.
type Store struct {
	opts   Options
	lock   io.Closer
	failed atomic.Pointer[error]
	wake   chan struct{} // to the writer; holds one
	broken chan struct{} // closed by fail
	quit   chan struct{}
	tasks  sync.WaitGroup
	views  sync.WaitGroup // open ones; added to under mu while not closed

	folding sync.Mutex // held by the one reader that folds; taken before mu

	mu struct {
		sync.Mutex
		// changed is signalled when tables have been written, when the store fails and when it closes.
		changed *sync.Cond
		engine  *engine
		active  *table
		// frozen holds the tables not yet written, oldest first. The slice's elements are never written to in place.
		frozen  []*table
		writing int      // how many of the oldest the writer has taken
		bytes   int64    // of frozen
		applied position // of the newest command
		written uint64   // the last index the database has
		want    uint64   // the index up to which the writer is to write
		closed  bool

		stalls, batches, folds uint64
	}
}

// Open opens the store in a directory, or makes an empty one. It removes what a crash left half done.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, wake: make(chan struct{}, 1), broken: make(chan struct{}), quit: make(chan struct{})}
	s.mu.changed = sync.NewCond(&s.mu.Mutex)
	if s.lock, err = lockDir(o.FS, o.Dir); err != nil {
		return nil, err
	}
	e, err := openCurrent(o.FS, o.Dir, s.engineOptions())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", o.Dir, err), s.lock.Close())
	}
	at, err := readPosition(e.db)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", o.Dir, err), e.release(), s.lock.Close())
	}
	s.installLocked(e, at)
	s.tasks.Go(s.run)
	s.tasks.Go(s.tellFailure)
	return s, nil
}

// minMemTable is the least the database gathers before it flushes, in bytes.
const minMemTable = 64 << 10

func (s *Store) engineOptions() engineOptions {
	return engineOptions{
		fs: s.opts.FS, cache: s.opts.Cache, memTable: uint64(max(s.opts.TableBytes, minMemTable)), logger: s.opts.Logger, fatal: s.fail,
	}
}

// installLocked makes e the store's database and forgets all tables.
func (s *Store) installLocked(e *engine, at position) {
	s.mu.engine, s.mu.applied, s.mu.written, s.mu.want = e, at, at.index, at.index
	s.mu.active, s.mu.frozen, s.mu.writing, s.mu.bytes = newTable(), nil, 0, 0
}

// fail makes every later call fail with err and ends the process. It may be called with any lock held.
func (s *Store) fail(err error) {
	if vfs.IsNoSpaceError(err) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if !s.failed.CompareAndSwap(nil, &err) {
		return
	}
	s.opts.Logger.Error("store failed", "dir", s.opts.Dir, "error", err)
	s.opts.Fatal(err)
	close(s.broken)
}

// tellFailure wakes those that wait when the store fails: the writer may hang in the database then.
func (s *Store) tellFailure() {
	select {
	case <-s.broken:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.changed.Broadcast()
	case <-s.quit:
	}
}

func (s *Store) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Store) usableLocked() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	if s.mu.closed {
		return ErrClosed
	}
	return nil
}

// AppliedIndex returns the index of the newest command in the store, and the chain there. Right after Open it is what
// the disk held: the replicated log is to be replayed from the index after it.
func (s *Store) AppliedIndex() (uint64, crdt.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.applied.index, s.mu.applied.chain
}

// Apply makes a command's writes visible to later Views, whole. It waits while two tables' worth is waiting to be
// written. It fails with ErrStale for an index that is applied already, and with ErrKey for a malformed key, both
// before it has changed anything; after any other error the store is unusable.
func (s *Store) Apply(w *Writes) error {
	if err := w.check(); err != nil {
		return fmt.Errorf("apply index %d: %w", w.Index, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.bytes >= (Tables-1)*s.opts.TableBytes {
		s.mu.stalls++
	}
	for s.usableLocked() == nil && s.mu.bytes >= (Tables-1)*s.opts.TableBytes {
		s.mu.changed.Wait()
	}
	if err := s.usableLocked(); err != nil {
		return err
	}
	if w.Index <= s.mu.applied.index {
		return fmt.Errorf("apply index %d at %d: %w", w.Index, s.mu.applied.index, ErrStale)
	}
	if err := s.mu.active.apply(w); err != nil {
		err = fmt.Errorf("apply index %d: %w", w.Index, err)
		s.fail(err)
		return err
	}
	s.mu.applied = position{w.Index, w.Chain}
	if s.mu.active.bytes >= s.opts.TableBytes {
		s.freezeLocked()
		s.wantLocked(w.Index)
	}
	return nil
}

// Get returns a copy of the small value under a MetaKey or an OutKey as the last command left it, nil and false if there
// is none. Unlike a View it freezes nothing: it is for commands that depend on what is stored.
func (s *Store) Get(key []byte) (value []byte, ok bool, err error) {
	if !isMeta(key) {
		return nil, false, fmt.Errorf("%w: %x is not for small values", ErrKey, key)
	}
	s.mu.Lock()
	if err := s.usableLocked(); err != nil {
		s.mu.Unlock()
		return nil, false, err
	}
	active, frozen, e := s.mu.active, s.mu.frozen, s.mu.engine.hold()
	s.mu.Unlock()
	defer func() { err = errors.Join(err, e.release()) }()

	// The active table is written to by this goroutine alone. What the writer takes away meanwhile the database has.
	if value, ok, known := active.meta.lookup(key); known {
		return value, ok, nil
	}
	for _, t := range slices.Backward(frozen) {
		if value, ok, known := t.meta.lookup(key); known {
			return value, ok, nil
		}
	}
	value, err = getCopy(e.db, key)
	return value, value != nil, err
}

// freezeLocked closes the active table and opens a fresh one, unless it is empty.
func (s *Store) freezeLocked() {
	if s.mu.active.isEmpty() {
		return
	}
	s.mu.frozen = append(s.mu.frozen, s.mu.active)
	s.mu.bytes += s.mu.active.bytes
	s.mu.active = newTable()
	if s.mu.bytes >= s.opts.TableBytes {
		s.wantLocked(s.mu.applied.index)
	}
}

// wantLocked asks the writer to write up to an index.
func (s *Store) wantLocked(index uint64) {
	s.mu.want = max(s.mu.want, index)
	s.wakeWriter()
}

// Close writes and flushes everything, waits for open Views, and closes. It can be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	_, err := s.writeBehind()
	s.mu.Lock()
	s.mu.closed = true
	e := s.mu.engine
	s.mu.changed.Broadcast()
	s.mu.Unlock()
	close(s.quit)
	s.tasks.Wait()
	s.views.Wait()
	if err == nil {
		err = e.db.Flush()
	}
	return errors.Join(err, e.release(), s.lock.Close())
}

// Tables is how many tables of Options.TableBytes a Store holds in memory: the active one, and those that wait to be
// written, which Apply waits for.
const Tables = 3

// Held returns the bytes of the tables in memory, roughly, and how often Apply had to wait for one to be written.
func (s *Store) Held() (bytes int64, stalls uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.bytes + s.mu.active.bytes, s.mu.stalls
}

// Metrics is what a Store is doing.
type Metrics struct {
	TableBytes int64 // in memory, not yet written
	Tables     int   // in memory, the active one included
	Stalls     uint64
	Batches    uint64
	Folds      uint64
	Database   *pebble.Metrics
}

// Metrics returns what the store is doing now. Stalls counts the calls of Apply that had to wait, Batches the writes
// behind, Folds the tables folded by readers, since Open.
func (s *Store) Metrics() (Metrics, error) {
	s.mu.Lock()
	if err := s.usableLocked(); err != nil {
		s.mu.Unlock()
		return Metrics{}, err
	}
	m := Metrics{
		TableBytes: s.mu.bytes + s.mu.active.bytes, Tables: len(s.mu.frozen) + 1,
		Stalls: s.mu.stalls, Batches: s.mu.batches, Folds: s.mu.folds,
	}
	e := s.mu.engine.hold()
	s.mu.Unlock()
	m.Database = e.db.Metrics()
	return m, e.release()
}
