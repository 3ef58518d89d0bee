package group

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Host is what a node's groups share: the lock on its folder, the listener, the log and the stable store.
type Host struct {
	cfg      Config
	lock     *os.File
	guard    *guard
	logs     *LogStore
	stable   *stableStore
	book     *book
	listener *listener
	tables   *tables
	turns    chan struct{} // of groups that make a snapshot because one is due: one at a time

	mu struct {
		sync.Mutex
		groups map[uint32]*Group
		closed bool
	}
}

// Open takes hold of the node's folder and address. No group runs yet.
func Open(cfg Config) (*Host, error) {
	h, err := open(cfg)
	if err != nil && cfg.Listener != nil {
		cfg.Listener.Close()
	}
	return h, err
}

func open(cfg Config) (host *Host, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	h := &Host{cfg: cfg, turns: make(chan struct{}, 1), tables: newTables(cfg.SnapshotRate), guard: newGuard(cfg.StallTimeout, cfg.StoreTimeout, func(err error) {
		markDamage(cfg.Dir, err)
		cfg.Fatal(err)
	})}
	h.book = newBook(cfg.Members)
	h.mu.groups = make(map[uint32]*Group)
	if h.lock, err = lockFolder(cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			markDamage(cfg.Dir, err)
			err = errors.Join(err, h.closeStores())
		}
	}()
	if err = checkMark(cfg.Dir); err != nil {
		return nil, err
	}
	listener := cfg.Listener
	if listener == nil {
		if listener, err = listen(cfg.Listen); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				listener.Close()
			}
		}()
	}
	logger := cfg.Logger.Named("log-store")
	if h.logs, err = openLogStore(filepath.Join(cfg.Dir, "log"), cfg.logFS, logger, h.guard); err != nil {
		return nil, err
	}
	if h.stable, err = openStableStore(filepath.Join(cfg.Dir, "stable.db"), h.guard); err != nil {
		return nil, err
	}
	if err = syncDir(vfs.Default, cfg.Dir); err != nil {
		return nil, err
	}
	self := preface{Deployment: cfg.Deployment, Region: cfg.Region, Node: cfg.NodeID}
	h.listener = newListener(listener, self, h.book, cfg.Expelled, cfg.Logger.Named("raft"))
	return h, nil
}

// Addr returns the address that the node listens on.
func (h *Host) Addr() net.Addr { return h.listener.net.Addr() }

// Stalled says whether a call of the node's stores has taken longer than Config.StallTimeout and still has not returned.
// While that is so the node's groups lead nothing: leadership was handed on, and no votes are asked for.
func (h *Host) Stalled() bool { return h.guard.stalled() }

// Stalls returns how many calls of the node's stores have taken longer than Config.StallTimeout so far.
func (h *Host) Stalls() uint64 { return h.guard.stalls.Load() }

// Log returns the log store of the node, for readers.
func (h *Host) Log() *LogStore { return h.logs }

// Group returns the shard's group, or nil when it is not running.
func (h *Host) Group(shard uint32) *Group {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.mu.groups[shard]; g != nil && g.started.Load() {
		return g
	}
	return nil
}

// Refused returns how many connections were refused so far, by reason.
func (h *Host) Refused() map[string]uint64 {
	counts := make(map[string]uint64)
	for v := refusedVersion; v <= refusedNode; v++ {
		counts[v.String()] = h.listener.refused[v].Load()
	}
	return counts
}

// DamagedFrames returns how many frames came in from other nodes that did not have their checksums.
func (h *Host) DamagedFrames() uint64 { return h.listener.damaged.Load() }

// Connections returns how many connections others have dialled, MaxConnections how many they may.
func (h *Host) Connections() int64 {
	n, _ := h.listener.connections()
	return n
}

// MaxConnections is explained with Connections.
func (h *Host) MaxConnections() int64 {
	_, most := h.listener.connections()
	return most
}

// Close stops every group, handing on leadership, and lets go of the folder and the address. It may be called twice.
func (h *Host) Close() error { return h.close(true) }

func (h *Host) close(transfer bool) error {
	h.mu.Lock()
	if h.mu.closed {
		h.mu.Unlock()
		return nil
	}
	h.mu.closed = true
	groups := make([]*Group, 0, len(h.mu.groups))
	for _, g := range h.mu.groups {
		groups = append(groups, g)
	}
	h.mu.Unlock()
	errs := make([]error, len(groups))
	var stopping sync.WaitGroup
	for i, g := range groups {
		stopping.Go(func() { errs[i] = g.halt(transfer) })
	}
	stopping.Wait()
	return errors.Join(errors.Join(errs...), h.listener.close(), h.closeStores())
}

func (h *Host) closeStores() error {
	var errs []error
	if h.stable != nil {
		errs = append(errs, h.stable.close())
	}
	if h.logs != nil {
		errs = append(errs, h.logs.Close())
	}
	return errors.Join(append(errs, h.lock.Close())...)
}

func (h *Host) add(g *Group) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.mu.closed:
		return ErrStopped
	case h.mu.groups[g.shard] != nil:
		return fmt.Errorf("shard %d runs already", g.shard)
	}
	h.mu.groups[g.shard] = g
	return nil
}

func (h *Host) remove(g *Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.groups[g.shard] == g {
		delete(h.mu.groups, g.shard)
	}
}

// Drop deletes what the host keeps of a shard whose group does not run here, but for its term and vote: a node that comes
// back to the group later must not vote twice. It may be called again after a crash.
func (h *Host) Drop(shard uint32) error {
	if h.Group(shard) != nil {
		return fmt.Errorf("drop shard %d: it runs", shard)
	}
	log, err := h.logs.Shard(shard)
	if err != nil {
		return err
	}
	first, _ := log.FirstIndex()
	last, _ := log.LastIndex()
	if err := log.DeleteRange(first, last); err != nil {
		return err
	}
	if err := os.RemoveAll(h.groupDir(shard)); err != nil {
		return fmt.Errorf("drop shard %d: %w", shard, err)
	}
	return nil
}
