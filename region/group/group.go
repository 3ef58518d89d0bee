package group

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
	"github.com/watershed-db/watershed/region/limit"
)

// raftStableTerm is where Raft keeps its term in the stable store.
var raftStableTerm = []byte("CurrentTerm")

// Group is one shard's Raft group on this node. Its methods may be called by any goroutine.
type Group struct {
	host      *Host
	shard     uint32
	logger    *quietLogger
	log       *ShardLog
	snapshots *snapshotStore
	staging   *staging
	transport *transport
	fsm       *fsm
	position  position
	started   atomic.Bool // Raft is there: others may ask
	raft      *raft.Raft
	reads     readRounds
	underWay  *limit.Limit // bytes of commands without an outcome
	backlog   Backlog
	heir      atomic.Pointer[Member] // to whom leadership was handed when the disk stalled; nil while it doesn't

	leaderships *leaderships
	calls       *calls        // of raft
	stopped     chan struct{} // closed when stopping begins
	ended       chan struct{} // closed when Raft has ended: it answers nothing more
	watched     chan struct{} // closed when leadership is no longer watched
	stop        sync.Once
	stopErr     error
	running     sync.WaitGroup

	mu struct {
		sync.Mutex
		barrier uint64 // the term whose barrier this node has applied as its leader
	}
}

// Start joins the shard's group with machine, which it owns the writes of until the group has stopped. A shard may be
// started once at a time. Where the group has never run, it is founded with all of Config.Members as its voters.
func (h *Host) Start(shard uint32, machine Machine) (*Group, error) {
	return h.Found(shard, machine, h.cfg.seats())
}

// Found is Start for a group with other first members. They must be the same on all of them.
func (h *Host) Found(shard uint32, machine Machine, first []Seat) (*Group, error) {
	return h.start(shard, machine, first)
}

// Join is Start for a group that others have founded: where it has never run here, it waits for its leader to add this
// node, and does nothing until then.
func (h *Host) Join(shard uint32, machine Machine) (*Group, error) {
	return h.start(shard, machine, nil)
}

func (h *Host) start(shard uint32, machine Machine, first []Seat) (*Group, error) {
	g, err := h.newGroup(shard, machine, first)
	if err != nil {
		markDamage(h.cfg.Dir, err)
		return nil, fmt.Errorf("start group of shard %d: %w", shard, err)
	}
	return g, nil
}

func (h *Host) newGroup(shard uint32, machine Machine, first []Seat) (*Group, error) {
	dir := h.groupDir(shard)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, folderError(dir, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, checkpointFolder)); err != nil {
		return nil, fmt.Errorf("clear group folder: %w", err)
	}
	log, err := h.logs.Shard(shard)
	if err != nil {
		return nil, err
	}
	snapshots, err := openSnapshotStore(vfs.Default, dir)
	if err != nil {
		return nil, err
	}
	// A snapshot allows the log to be cut, so its folder must survive what it survives.
	for _, path := range [...]string{h.cfg.Dir, filepath.Dir(dir), dir, snapshots.dir} {
		if err := syncDir(vfs.Default, path); err != nil {
			return nil, err
		}
	}
	g := &Group{
		host: h, shard: shard, log: log, snapshots: snapshots, leaderships: newLeaderships(),
		logger: newQuietLogger(h.cfg.Logger.Named("raft").With("shard", shard)),
		calls:  newCalls(), stopped: make(chan struct{}), ended: make(chan struct{}), watched: make(chan struct{}),
	}
	g.underWay = limit.New("shard_proposal_bytes", "bytes", h.cfg.MaxUnderWay, busyWait)
	g.backlog.most = h.cfg.MaxBacklog
	g.fsm = &fsm{
		machine: machine, fs: vfs.Default, dir: dir, position: &g.position, backlog: &g.backlog, due: make(chan struct{}, 1),
		limitEntries: spread(h.cfg.SnapshotEntries, h.cfg.NodeID, shard), limitBytes: spread(h.cfg.SnapshotBytes, h.cfg.NodeID, shard),
	}
	if err := g.reconcile(); err != nil {
		return nil, err
	}
	stable := &shardStable{store: h.stable, shard: shard}
	if err := stable.checkTerm(log); err != nil {
		return nil, err
	}
	if err := g.bootstrap(stable, first); err != nil {
		return nil, err
	}
	if err := h.add(g); err != nil {
		return nil, err
	}
	if err := g.run(stable); err != nil {
		h.remove(g)
		return nil, err
	}
	g.started.Store(true)
	return g, nil
}

// reconcile brings machine, snapshot and log together after a crash: Raft takes for granted that the state is at least
// that of the newest snapshot, and that the log goes on from it.
func (g *Group) reconcile() error {
	newest, _, err := g.snapshots.newest()
	if err != nil {
		return err
	}
	f := g.fsm
	if f.machine.AppliedIndex() < newest.StateIndex { // it crashed between receiving and restoring
		_, archive, err := g.snapshots.Open(newest.Raft.ID)
		if err != nil {
			return err
		}
		if err := f.Restore(archive); err != nil {
			return err
		}
	}
	first, _ := g.log.FirstIndex()
	last, _ := g.log.LastIndex()
	if last != 0 && last < newest.Raft.Index {
		if err := g.log.DeleteRange(first, last); err != nil {
			return err
		}
		first, last = 0, 0
	}
	held := f.machine.AppliedIndex()
	if first > newest.Raft.Index+1 {
		return fmt.Errorf("%w: state at %d, log from %d, snapshot at %d", ErrStateBehind, held, first, newest.Raft.Index)
	}
	if end := max(last, newest.Raft.Index); held > end {
		return fmt.Errorf("%w: state at %d, log to %d", ErrStateAhead, held, end)
	}
	f.held = held
	if held <= newest.Raft.Index {
		f.seen = held // nothing of it will be replayed
	}
	g.position.advance(held)
	return nil
}

// bootstrap gives a group that has never run its first configuration: the same on all members, which makes it safe on
// each of them. Without one the group is founded already.
func (g *Group) bootstrap(stable *shardStable, first []Seat) error {
	if len(first) == 0 {
		return nil
	}
	_, snapshot, err := g.snapshots.newest()
	if err != nil {
		return err
	}
	term, err := stable.GetUint64(raftStableTerm)
	if err != nil {
		return fmt.Errorf("read term: %w", err)
	}
	if stage, _, err := stable.rebuild(); err != nil || stage != rebuildNone {
		return err // its leader tells it
	}
	// A term of 1 and nothing else is what a crash in here leaves.
	if last, _ := g.log.LastIndex(); snapshot || last != 0 || term > 1 {
		return nil
	}
	if err := stable.SetUint64(raftStableTerm, 1); err != nil {
		return err
	}
	return g.log.StoreLog(&raft.Log{
		Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configurationOf(first)),
	})
}

func (g *Group) run(stable *shardStable) error {
	cfg := &g.host.cfg
	self, _ := cfg.member(cfg.NodeID)
	g.staging = newStaging(g.snapshots, g.logger)
	s, err := newStream(g.host.listener, g.shard, self.Address, g.staging.take)
	if err != nil {
		return err
	}
	g.transport = newTransport(s, cfg, g.host.guard, g.host.tables, g.logger.Named("transport"))
	if m, ok := g.fsm.machine.(Damageable); ok {
		g.transport.damaged = m.Damaged
	}
	silence, err := g.silence(stable)
	if err != nil {
		return errors.Join(err, g.transport.Close())
	}
	g.transport.keepSilence(silence)
	g.transport.inbox = make(chan raft.RPC)
	notices := make(chan bool, 8)
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(cfg.NodeID)
	rc.HeartbeatTimeout = cfg.HeartbeatTimeout
	rc.ElectionTimeout = cfg.ElectionTimeout
	rc.LeaderLeaseTimeout = cfg.LeaderLeaseTimeout
	rc.CommitTimeout = cfg.CommitTimeout
	rc.BatchApplyCh = true
	rc.NotifyCh = notices
	rc.Logger = g.logger
	rc.NoSnapshotRestoreOnStart = true
	rc.NoLegacyTelemetry = true
	rc.TrailingLogs = cfg.TrailingEntries
	rc.SnapshotThreshold = math.MaxUint64 // takeSnapshots decides
	g.raft, err = raft.NewRaft(rc, g.fsm, countedLog{g.log, &g.backlog}, stable, g.snapshots, g.transport)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), g.transport.Close())
	}
	g.running.Go(func() { g.transport.pass(&g.backlog, g.raft.CommitIndex) })
	silence.ask(g.raft)
	g.transport.servesBy(g.isMember)
	g.transport.leadBy(func() (term, commit uint64) {
		if g.raft.State() != raft.Leader {
			return 0, 0
		}
		return g.raft.CurrentTerm(), g.raft.CommitIndex()
	})
	g.running.Go(func() {
		defer close(g.watched)
		g.watchLeader(notices)
	})
	g.running.Go(g.tellLeader)
	g.running.Go(g.takeSnapshots)
	g.running.Go(g.watchPeers)
	g.running.Go(g.watchAlone)
	g.running.Go(g.watchDisk)
	return nil
}

// UnderWay returns the bound on the bytes of commands that were proposed here and have no outcome yet.
func (g *Group) UnderWay() *limit.Limit { return g.underWay }

// Backlog returns the bound on what is committed here and not yet applied.
func (g *Group) Backlog() *Backlog { return &g.backlog }

// Shard returns the shard's number.
func (g *Group) Shard() uint32 { return g.shard }

// Stop leaves the group: it hands leadership to another member where it can, and waits for every goroutine. The machine
// is no longer used when it returns. It may be called more than once, but not from a call that OnLeader makes.
func (g *Group) Stop() error { return g.halt(true) }

func (g *Group) halt(transfer bool) error {
	g.stop.Do(func() {
		if transfer {
			g.transferLeadership()
		}
		g.calls.close(g.host.cfg.ProposeTimeout)
		g.logger.mute()
		close(g.stopped)
		closed := g.transport.Close() // first: Raft waits for calls under way
		g.staging.close()
		stopped := g.raft.Shutdown().Error()
		close(g.ended)
		g.running.Wait()
		g.host.remove(g)
		g.stopErr = errors.Join(closed, stopped)
	})
	return g.stopErr
}

// StepDown hands leadership to another member that is up, where this node leads, and goes on as its follower. It takes no
// longer than a few election timeouts.
func (g *Group) StepDown() { g.transferLeadership() }

// transferLeadership hands leadership to a member that is up, within a few election timeouts.
func (g *Group) transferLeadership() {
	if !g.IsLeader() {
		return
	}
	deadline := time.NewTimer(4 * g.host.cfg.ElectionTimeout)
	defer deadline.Stop()
	for _, m := range g.heirs() {
		done := make(chan error, 1)
		transfer := g.raft.LeadershipTransferToServer(raft.ServerID(m.ID), raft.ServerAddress(m.Address))
		go func() { done <- transfer.Error() }()
		select {
		case err := <-done:
			if err == nil || !g.IsLeader() {
				return
			}
			g.logger.Logger.Debug("leadership was not taken", "by", m.ID, "error", err)
		case <-deadline.C:
			return
		}
	}
}

// heirs returns the other voters, those first that have taken a heartbeat lately: one that is down holds the others up for an
// election timeout.
func (g *Group) heirs() []Member {
	heard, _ := g.transport.acks.since(g.raft.CurrentTerm(), time.Now().Add(-g.host.cfg.LeaderLeaseTimeout))
	var up, down []Member
	for _, m := range g.voters() {
		switch {
		case m.ID == g.host.cfg.NodeID:
		case heard[raft.ServerID(m.ID)]:
			up = append(up, m)
		default:
			down = append(down, m)
		}
	}
	return append(up, down...)
}

// takeSnapshots makes snapshots when the state machine says they are due.
func (g *Group) takeSnapshots() {
	const pause = 5 * time.Second // after a failure
	for {
		select {
		case <-g.fsm.due:
		case <-g.stopped:
			return
		}
		for {
			err := g.snapshotInTurn()
			if err == nil {
				break
			}
			g.logger.Warn("snapshot failed", "error", err)
			select {
			case <-time.After(pause):
			case <-g.stopped:
				return
			}
		}
	}
}

// snapshotInTurn makes a snapshot when no other group of the node makes one: together they would keep the disk busy for
// longer than a leader's entries can wait.
func (g *Group) snapshotInTurn() error {
	select {
	case g.host.turns <- struct{}{}:
		defer func() { <-g.host.turns }()
		return g.Snapshot()
	case <-g.stopped:
		return ErrStopped
	}
}

// spread returns a number within a quarter of n, always the same for a group on a node.
func spread(n uint64, node string, shard uint32) uint64 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", node, shard)
	return n - n/4 + n/2*uint64(h.Sum32()%1024)/1024
}

// Snapshot makes a snapshot now and drops the log behind it, but for what is kept for followers and peers.
func (g *Group) Snapshot() error {
	if err := g.raft.ReloadConfig(g.reloadable()); err != nil {
		return fmt.Errorf("set trailing logs: %w", err)
	}
	err := g.raft.Snapshot().Error()
	switch {
	case err == nil:
		g.host.tables.made.Add(1)
		return nil
	case errors.Is(err, raft.ErrNothingNewToSnapshot):
		return nil
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrStopped
	default:
		return fmt.Errorf("snapshot of shard %d: %w", g.shard, err)
	}
}

// reloadable bounds what a snapshot leaves of the log, in entries, by the bytes they have had of late.
func (g *Group) reloadable() raft.ReloadableConfig {
	const least = 64
	cfg := g.raft.ReloadableConfig()
	holdable := uint64(math.MaxUint64)
	cfg.TrailingLogs = g.host.cfg.TrailingEntries
	if bytes := g.fsm.bytes.Load(); bytes > 0 {
		mean := max(bytes/max(g.fsm.entries.Load(), 1), 1)
		cfg.TrailingLogs = min(cfg.TrailingLogs, max(g.host.cfg.TrailingBytes/mean, least))
		holdable = g.host.cfg.HoldBytes / mean
	}
	if from, ok := g.transport.holds.least(time.Now()); ok && !mutant.On("log-not-held") {
		if last := g.raft.LastIndex(); last > from { // with the entry at from, whose term what follows is sent with
			cfg.TrailingLogs = max(cfg.TrailingLogs, min(last-from+1, holdable))
		}
	}
	return cfg
}

func (h *Host) groupDir(shard uint32) string {
	return filepath.Join(h.cfg.Dir, "groups", strconv.FormatUint(uint64(shard), 10))
}

var _ hclog.Logger = (*quietLogger)(nil)
