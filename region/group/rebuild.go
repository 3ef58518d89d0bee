package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// A replica is rebuilt by dropping what this node holds of its group, but for term and vote, and taking it from the
// leader. It has forgotten entries then which it once said that it had, and on which the group may rely: until its log
// reaches again as far as it did, it is silent. It neither gives nor asks for votes, so that nobody is elected who lacks
// what only this node and a dead leader had.

// keyRebuild is where the stable store keeps how a rebuilding stands: one byte of rebuildStage, then the last index that
// the log had, big-endian.
var keyRebuild = []byte("Rebuild")

type rebuildStage byte

const (
	rebuildNone     rebuildStage = iota
	rebuildDropping              // what there is goes; after a crash all of it goes again
	rebuildSilent                // it comes from the leader
)

var errSilent = errors.New("the replica is being rebuilt and has no vote yet")

func (s *shardStable) rebuild() (stage rebuildStage, last uint64, err error) {
	value, err := s.Get(keyRebuild)
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("read how far a rebuilding is: %w", err)
	case len(value) == 0:
		return rebuildNone, 0, nil
	case len(value) != 9 || value[0] > byte(rebuildSilent):
		return 0, 0, fmt.Errorf("%w: rebuilding record %x", ErrCorrupt, value)
	}
	return rebuildStage(value[0]), binary.BigEndian.Uint64(value[1:]), nil
}

func (s *shardStable) setRebuild(stage rebuildStage, last uint64) error {
	return s.Set(keyRebuild, binary.BigEndian.AppendUint64([]byte{byte(stage)}, last))
}

// Rebuild drops what this node holds of a shard whose group does not run here, with drop, which removes the machine's
// state: the next Start takes all of it from the leader. After a crash or an error in between, ResumeRebuild goes on.
func (h *Host) Rebuild(shard uint32, drop func() error) error {
	if h.Group(shard) != nil {
		return fmt.Errorf("rebuild shard %d: it runs", shard)
	}
	if !h.book.others(h.cfg.NodeID) {
		return fmt.Errorf("rebuild shard %d: %w", shard, ErrAlone)
	}
	log, err := h.logs.Shard(shard)
	if err != nil {
		return err
	}
	stable := &shardStable{store: h.stable, shard: shard}
	_, before, err := stable.rebuild()
	if err != nil {
		return err
	}
	last, _ := log.LastIndex()
	if err := stable.setRebuild(rebuildDropping, max(before, last, h.snapshotIndex(shard))); err != nil {
		return err
	}
	return h.ResumeRebuild(shard, drop)
}

// snapshotIndex returns the index of the shard's newest snapshot as its name tells it: its content may be damaged.
func (h *Host) snapshotIndex(shard uint32) uint64 {
	entries, _ := os.ReadDir(h.groupDir(shard) + "/" + snapshotFolder)
	highest := uint64(0)
	for _, e := range entries {
		var term, index, at uint64
		if n, _ := fmt.Sscanf(e.Name(), "%x-%x-%x", &term, &index, &at); n == 3 {
			highest = max(highest, index)
		}
	}
	return highest
}

// ResumeRebuild finishes a Rebuild that was cut short, if there is one. It is to be called before the machine is opened.
func (h *Host) ResumeRebuild(shard uint32, drop func() error) error {
	stable := &shardStable{store: h.stable, shard: shard}
	stage, last, err := stable.rebuild()
	if err != nil || stage != rebuildDropping {
		return err
	}
	log, err := h.logs.Shard(shard)
	if err != nil {
		return err
	}
	if err := drop(); err != nil {
		return fmt.Errorf("rebuild shard %d: %w", shard, err)
	}
	low, _ := log.FirstIndex()
	high, _ := log.LastIndex()
	if err := log.DeleteRange(low, high); err != nil {
		return err
	}
	if err := os.RemoveAll(h.groupDir(shard)); err != nil {
		return fmt.Errorf("rebuild shard %d: %w", shard, err)
	}
	return stable.setRebuild(rebuildSilent, last)
}

// silence is what a group that is being rebuilt keeps to.
type silence struct {
	until  uint64                    // the index that the log must reach
	raft   atomic.Pointer[raft.Raft] // nil at first
	rpcs   chan raft.RPC
	closed chan struct{} // by the transport's stream
}

// silence returns what the group keeps to, nil where its log is whole.
func (g *Group) silence(stable *shardStable) (*silence, error) {
	stage, until, err := stable.rebuild()
	if err != nil || stage == rebuildNone {
		return nil, err
	}
	newest, _, err := g.snapshots.newest()
	if err != nil {
		return nil, err
	}
	if last, _ := g.log.LastIndex(); max(last, newest.Raft.Index) >= until {
		return nil, stable.setRebuild(rebuildNone, 0)
	}
	return &silence{until: until}, nil
}

func (s *silence) holds() bool {
	if s == nil || mutant.On("rebuilt-votes-at-once") {
		return false
	}
	r := s.raft.Load()
	return r == nil || r.LastIndex() < s.until
}

// ask tells s whom to ask how far the log is.
func (s *silence) ask(r *raft.Raft) {
	if s != nil {
		s.raft.Store(r)
	}
}

// keepSilence has the transport keep to s. It is called before Raft has the transport.
func (t *transport) keepSilence(s *silence) {
	if s == nil {
		return
	}
	t.silence = s
	s.rpcs, s.closed = make(chan raft.RPC), t.stream.closed
	go s.filter(t.NetworkTransport.Consumer())
}

// calls returns the calls of other members.
func (t *transport) calls() <-chan raft.RPC {
	if t.silence != nil {
		return t.silence.rpcs
	}
	return t.NetworkTransport.Consumer()
}

// filter hands calls on, but refuses those that want a vote or a candidate.
func (s *silence) filter(calls <-chan raft.RPC) {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-calls:
		case <-s.closed:
			return
		}
		switch rpc.Command.(type) {
		case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
			if s.holds() {
				rpc.Respond(nil, errSilent)
				continue
			}
		}
		select {
		case s.rpcs <- rpc:
		case <-s.closed:
			return
		}
	}
}
