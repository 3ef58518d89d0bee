package shard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// ErrDiverged marks a replica whose state is not that of the one that proposed a Check: one of them has computed
// something else from the same commands. It stops.
var ErrDiverged = errors.New("replica has diverged")

// Options says what a Machine runs on.
type Options struct {
	Config
	Store *keyspace.Store // the Machine's alone; closed by its Close
	// Fatal is told of what the replica can't go on after: a store that failed, a command of a newer version in the log,
	// ErrDiverged. It must end the process; where it returns (tests), the Machine applies nothing more.
	Fatal func(error)
	// Observe, if set, is called after each command that changed rows, by the applying goroutine: it must not block.
	Observe func(Change)
}

// Machine is a shard's replica: it applies commands one by one and gives consistent reads meanwhile. Apply, Checkpoint,
// Restore and Close are for one goroutine; everything else is for any.
type Machine struct {
	o       Options
	failed  error
	chains  chains
	outs    outs
	state   atomic.Pointer[State]
	applied atomic.Uint64

	reading sync.WaitGroup // snapshots

	mu struct { // held while store and state change together
		sync.Mutex
		changed chan struct{}
		closed  bool
	}
}

// Open makes a Machine of what its store holds.
func Open(o Options) (*Machine, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Store == nil || o.Fatal == nil {
		return nil, errors.New("shard options: Store and Fatal are needed")
	}
	m := &Machine{o: o}
	m.mu.changed = make(chan struct{})
	if err := m.reload(); err != nil {
		return nil, fmt.Errorf("open shard %d: %w", o.Shard, err)
	}
	return m, nil
}

func (m *Machine) reload() error {
	v, err := m.o.Store.View()
	if err != nil {
		return err
	}
	st, err := load(&m.o.Config, v)
	if err = errors.Join(err, v.Close()); err != nil {
		return err
	}
	m.chains = chains{}
	m.outs.reset(st.Index)
	m.publish(st)
	return nil
}

func (m *Machine) publish(st *State) {
	m.state.Store(st)
	m.applied.Store(st.Index)
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}

// Apply applies the command at index, above that of every one before, and returns its Result. It keeps nothing of
// command. After a failure that it told Fatal of it does nothing and returns the error.
func (m *Machine) Apply(index uint64, command []byte) any {
	if m.failed != nil {
		return m.failed
	}
	res, change, err := m.apply(index, command)
	if err != nil {
		m.failed = fmt.Errorf("shard %d: apply command %d: %w", m.o.Shard, index, err)
		m.o.Fatal(m.failed)
		return m.failed
	}
	if m.o.Observe != nil && (change.Whole || len(change.Slots) > 0) {
		m.o.Observe(change)
	}
	return res
}

func (m *Machine) apply(index uint64, raw []byte) (Result, Change, error) {
	st := m.state.Load()
	if index <= st.Index {
		return Result{}, Change{}, fmt.Errorf("%w: the state is at %d", keyspace.ErrStale, st.Index)
	}
	c, err := Decode(raw)
	if err != nil {
		return Result{}, Change{}, err
	}
	if check, ok := c.(*Check); ok {
		if own, ok := m.chains.at(check.Index); ok && own != check.Chain && !mutant.On("minority-stays") {
			return Result{}, Change{}, fmt.Errorf("%w: chain %x at index %d, %x elsewhere", ErrDiverged, own, check.Index, check.Chain)
		}
	}
	if raise, ok := c.(*Raise); ok {
		if err := raise.check(); err != nil {
			return Result{}, Change{}, err
		}
	}
	stored := storedRows{store: m.o.Store}
	next, w, res, change := apply(&m.o.Config, st, &stored, index, raw, c)
	if stored.err != nil {
		return Result{}, Change{}, stored.err
	}
	batch := keyspace.Writes{Index: index, Chain: next.Chain}
	w.into(&batch)

	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.o.Store.Apply(&batch); err != nil {
		return Result{}, Change{}, err
	}
	m.chains.put(index, next.Chain)
	m.outs.put(Out{index, change.Out, change.Actor, change.Mark})
	m.publish(next)
	return res, change, nil
}

// storedRows reads the store and keeps the first failure.
type storedRows struct {
	store *keyspace.Store
	err   error
}

func (r *storedRows) get(key []byte) ([]byte, bool) {
	value, ok, err := r.store.Get(key)
	if err != nil {
		r.fail(fmt.Errorf("read what the command depends on: %w", err))
	}
	return value, ok && err == nil
}

func (r *storedRows) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// AppliedIndex returns the index of the last command that the Machine holds.
func (m *Machine) AppliedIndex() uint64 { return m.applied.Load() }

// State returns the state as it is now.
func (m *Machine) State() *State { return m.state.Load() }

// Config returns the shard's configuration; not to be changed.
func (m *Machine) Config() *Config { return &m.o.Config }

// Validate is the deep check of a command from outside, see Config.Validate.
func (m *Machine) Validate(c Command) error { return m.o.Config.Validate(m.State(), c) }

// Changed returns a channel that is closed when the next command has been applied. To miss none: take the channel, look
// at the state, then wait.
func (m *Machine) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.changed
}

// ErrClosed says that a Machine was closed.
var ErrClosed = errors.New("the replica was closed")

// Snapshot returns state and slots at one applied index. It must be closed. It fails with ErrClosed.
func (m *Machine) Snapshot() (*Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil, fmt.Errorf("snapshot of shard %d: %w", m.o.Shard, ErrClosed)
	}
	v, err := m.o.Store.View()
	if err != nil {
		return nil, fmt.Errorf("snapshot of shard %d: %w", m.o.Shard, err)
	}
	m.reading.Add(1)
	return &Snapshot{State: m.state.Load(), cfg: &m.o.Config, view: v, closed: sync.OnceFunc(m.reading.Done)}, nil
}

// ChainAt returns the hash chain at an index, where it was applied not long ago.
func (m *Machine) ChainAt(index uint64) (crdt.Hash, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.chains.at(index)
}

// Verify reads the store's tables through, see keyspace.Store.Verify.
func (m *Machine) Verify(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	return m.o.Store.Verify(ctx, pace)
}

// Wake wakes those that wait for Changed, though nothing has.
func (m *Machine) Wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}

// NewCheck returns the Check to propose: this replica's chain at its applied index.
func (m *Machine) NewCheck() *Check {
	st := m.State()
	return &Check{st.Index, st.Chain}
}

// Checkpoint makes everything applied durable and writes a copy of it to dir, which must not exist. The index is the
// copy's own.
func (m *Machine) Checkpoint(dir string) (uint64, error) {
	index, _, err := m.o.Store.Checkpoint(dir)
	return index, err
}

// Copy is Checkpoint for any goroutine, with the hash chain at the copy's index. Commands go on being applied meanwhile.
func (m *Machine) Copy(dir string) (index uint64, chain crdt.Hash, err error) {
	return m.o.Store.Checkpoint(dir)
}

// Held returns the bytes of the store's tables in memory, and how often a command had to wait for one to be written.
func (m *Machine) Held() (bytes int64, stalls uint64) { return m.o.Store.Held() }

// Restore replaces everything with the checkpoint in dir, or nothing where it fails.
func (m *Machine) Restore(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.o.Store.Restore(dir); err != nil {
		return err
	}
	if err := m.reload(); err != nil {
		m.failed = fmt.Errorf("shard %d: restored state: %w", m.o.Shard, err)
		m.o.Fatal(m.failed)
		return m.failed
	}
	return nil
}

// Close closes the store, when the last snapshot was closed.
func (m *Machine) Close() error {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.reading.Wait()
	return m.o.Store.Close()
}

// keptChains is how many indexes back a replica can be compared with another.
const keptChains = 1 << 12

// chains remembers the hash chain at the last indexes.
type chains struct {
	ring [keptChains]struct {
		index uint64
		chain crdt.Hash
	}
}

func (c *chains) put(index uint64, chain crdt.Hash) {
	slot := &c.ring[index%keptChains]
	slot.index, slot.chain = index, chain
}

func (c *chains) at(index uint64) (crdt.Hash, bool) {
	slot := &c.ring[index%keptChains]
	return slot.chain, index > 0 && slot.index == index
}

// into hands the writes over in the order that they count in.
func (w *Writes) into(k *keyspace.Writes) {
	for _, d := range w.Drops {
		c := keyspace.Copy{Generation: d.Generation, Group: d.Group, Number: d.Copy}
		switch {
		case d.All:
			k.DropGeneration(d.Generation)
		case d.UpTo == crdt.MaxTime:
			k.DropCopy(c)
		default:
			k.Cut(c, d.UpTo)
		}
	}
	for _, c := range w.Clears {
		k.DeleteRange(c.From, c.To)
	}
	for _, a := range w.Adds {
		k.Add(keyspace.Copy{Generation: a.Generation, Group: a.Group, Number: a.Copy}, a.Deltas)
	}
	for _, s := range w.Sets {
		if s.Value == nil {
			k.Delete(s.Key)
		} else {
			k.Put(s.Key, s.Value)
		}
	}
}
