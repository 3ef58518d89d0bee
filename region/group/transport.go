package group

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// pooledConns is how many idle connections a group keeps to each peer.
	pooledConns = 3
	// redial is how often a leader looks whether a peer that is down is back.
	redial = 50 * time.Millisecond
)

// transport is Raft's transport with a few differences. Heartbeats go through Raft's main loop, since answering them
// beside it can let logs diverge (hashicorp/raft#695). Votes are asked for again when a pooled connection turns out to be
// dead, or the first election after a peer's restart would count that as a refusal. And replication to a peer that can't
// be reached waits for it here, because Raft's own pauses grow to ten seconds. And a leader whose disk stalls sends nothing;
// any other tells its followers soon what was committed last (notices). Snapshots travel beside it (tables.go).
type transport struct {
	*raft.NetworkTransport
	stream   *stream
	acks     acks
	patience time.Duration // within which a failed request for a vote is worth repeating
	reigns   atomic.Pointer[func() (term, commit uint64)]
	member   atomic.Pointer[func(id raft.ServerID) bool]
	stall    func() (stalled bool, changed <-chan struct{})
	silence  *silence // nil where there is nothing to rebuild
	tables   *tables
	holds    holds
	damaged  func(error) // told of a snapshot here that is damaged
	notices  notices
	inbox    chan raft.RPC // what Consumer returns, where the backlog is bounded
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

func newTransport(s *stream, cfg *Config, guard *guard, tables *tables, logger hclog.Logger) *transport {
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			ServerAddressProvider: s.listener.book,
			Logger:                logger,
			Stream:                s,
			MaxPool:               pooledConns,
			Timeout:               cfg.TransportTimeout,
		}),
		stream:   s,
		patience: cfg.ElectionTimeout / 2,
		stall:    guard.stall,
		tables:   tables,
	}
	t.notices.send, t.notices.reign = t.sendNotice, t.reign
	t.notices.mu.to = map[raft.ServerID]*notice{}
	return t
}

// leadBy tells the transport how to ask for the term at which this node leads, 0 where it doesn't, and its commit index.
func (t *transport) leadBy(reign func() (term, commit uint64)) { t.reigns.Store(&reign) }

func (t *transport) reign() (term, commit uint64) {
	if reign := t.reigns.Load(); reign != nil {
		return (*reign)()
	}
	return 0, 0
}

// leads says whether this node leads at a term.
func (t *transport) leads(term uint64) bool {
	now, _ := t.reign()
	return now == term
}

// sendNotice sends what tells a follower no more than what is committed. What goes wrong with it is left to the next
// message of Raft's own.
func (t *transport) sendNotice(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest) {
	if stalled, _ := t.stall(); !stalled {
		_ = t.NetworkTransport.AppendEntries(id, target, args, new(raft.AppendEntriesResponse))
	}
}

// servesBy tells the transport how to ask whether a node is in the group.
func (t *transport) servesBy(member func(id raft.ServerID) bool) { t.member.Store(&member) }

// SetHeartbeatHandler does nothing, which sends heartbeats through the main loop.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Close ends every connection, pooled ones too, and all calls that wait.
func (t *transport) Close() error {
	t.notices.close()
	err := t.NetworkTransport.Close()
	t.CloseStreams()
	return err
}

// AppendEntries sends entries. Where the peer can't be reached it tries on until it can, the leadership is over, or the
// transport is closed.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	for {
		if isHeartbeat(args) {
			if stalled, _ := t.stall(); stalled {
				return errStalled
			}
		} else if err := t.hold(args.Term); err != nil {
			return err
		}
		t.notices.sent(id, target, args)
		sent := time.Now()
		err := t.NetworkTransport.AppendEntries(id, target, args, resp)
		if err == nil {
			t.acks.note(id, args, resp, sent)
			t.reached(id, args, resp)
		}
		var unreachable *dialError
		if !errors.As(err, &unreachable) || isHeartbeat(args) {
			return err
		}
		if !t.leads(args.Term) {
			return err
		}
		if member := t.member.Load(); member != nil && !(*member)(id) { // it is to come back no more
			return err
		}
		select {
		case <-t.stream.closed:
			return raft.ErrTransportShutdown
		case <-time.After(redial):
		}
	}
}

// reached notes how much of the log a follower has.
func (t *transport) reached(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if !resp.Success || isHeartbeat(args) {
		return
	}
	_, commit := t.reign()
	t.holds.reached(id, args.PrevLogEntry+uint64(len(args.Entries)), commit)
}

// damagedSnapshot tells that a snapshot here is not what it was.
func (t *transport) damagedSnapshot(err error) {
	if t.damaged != nil {
		t.damaged(err)
	}
}

func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest,
	resp *raft.RequestVoteResponse) error {
	if t.silence.holds() {
		return errSilent
	}
	return t.retry(func() error { return t.NetworkTransport.RequestVote(id, target, args, resp) })
}

// RequestPreVote asks whether a vote would be given.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest,
	resp *raft.RequestPreVoteResponse) error {
	if t.silence.holds() {
		return errSilent
	}
	return t.retry(func() error { return t.NetworkTransport.RequestPreVote(id, target, args, resp) })
}

// retry repeats a call that fails quickly on an established connection: once for each that the pool may hold, and once
// on a new one.
func (t *transport) retry(call func() error) error {
	start := time.Now()
	for attempt := 0; ; attempt++ {
		err := call()
		var unreachable *dialError
		if err == nil || attempt >= pooledConns || errors.As(err, &unreachable) || time.Since(start) > t.patience {
			return err
		}
	}
}
