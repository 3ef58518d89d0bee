package group

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
	"github.com/watershed-db/watershed/region/limit"
)

// Backlog is what a group has committed here and not yet applied, in bytes, and its bound. A leader refuses commands while
// it is used up, and a follower has its leader's entries wait: Raft holds in memory all that it has handed to the machine.
// What is replayed at a start is not in it; Config.SnapshotBytes bounds that. It is safe for any goroutine.
type Backlog struct {
	most int64

	mu struct {
		sync.Mutex
		spans     []span // stored here and not yet applied, in order
		committed int    // how many of them, from the first on
		bytes     int64  // of those
		refused   uint64
		moved     chan struct{} // closed when bytes get fewer; nil while nobody waits
	}
}

// span are the commands of what was stored at once.
type span struct {
	last  uint64
	bytes int64
}

// stored notes entries that follow those that were noted before. Those of Raft's own never come to be applied.
func (b *Backlog) stored(entries []*raft.Log) {
	var x span
	for _, e := range entries {
		if e.Type == raft.LogCommand {
			x.last, x.bytes = e.Index, x.bytes+int64(len(e.Data))
		}
	}
	if x.last == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.spans = append(b.mu.spans, x)
}

// dropped forgets entries from an index on, which are no more. None of them is committed.
func (b *Backlog) dropped(index uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := len(b.mu.spans); n > b.mu.committed && b.mu.spans[n-1].last >= index; n-- {
		b.mu.spans = b.mu.spans[:n-1]
	}
}

// commitLocked notes that all up to an index is committed.
func (b *Backlog) commitLocked(index uint64) {
	for n := b.mu.committed; n < len(b.mu.spans) && b.mu.spans[n].last <= index; n++ {
		b.mu.committed, b.mu.bytes = n+1, b.mu.bytes+b.mu.spans[n].bytes
	}
}

// applied notes that all up to an index is applied.
func (b *Backlog) applied(index uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.commitLocked(index)
	was := b.mu.bytes
	for len(b.mu.spans) > 0 && b.mu.spans[0].last <= index {
		b.mu.bytes -= b.mu.spans[0].bytes
		b.mu.spans = b.mu.spans[1:]
		b.mu.committed--
	}
	if b.mu.bytes < was && b.mu.moved != nil {
		close(b.mu.moved)
		b.mu.moved = nil
	}
}

// room fails with *limit.Exhausted while the bound is used up.
func (b *Backlog) room(commit uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.commitLocked(commit)
	if !b.fullLocked() {
		return nil
	}
	b.mu.refused++
	what := fmt.Sprintf("shard_backlog_bytes: %d bytes are committed and not applied, %d may be", b.mu.bytes, b.most)
	return &limit.Exhausted{What: what, Wait: busyWait}
}

func (b *Backlog) fullLocked() bool { return b.mu.bytes >= b.most && !mutant.On("backlog-unbounded") }

// await returns when there is room, or ended is closed.
func (b *Backlog) await(ended <-chan struct{}) {
	for {
		b.mu.Lock()
		if !b.fullLocked() {
			b.mu.Unlock()
			return
		}
		if b.mu.moved == nil {
			b.mu.moved = make(chan struct{})
		}
		moved := b.mu.moved
		b.mu.Unlock()
		select {
		case <-moved:
		case <-ended:
			return
		}
	}
}

// Most returns the bound in bytes.
func (b *Backlog) Most() int64 { return b.most }

// Used returns the bytes that are committed and not yet applied.
func (b *Backlog) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.bytes
}

// Refused returns how often a command was refused, or a leader's entries had to wait.
func (b *Backlog) Refused() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.refused
}

// countedLog is the log as Raft writes it.
type countedLog struct {
	*ShardLog
	backlog *Backlog
}

// StoreLog stores one entry durably.
func (l countedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries durably.
func (l countedLog) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	if err := l.ShardLog.StoreLogs(entries); err != nil {
		return err
	}
	l.backlog.stored(entries)
	return nil
}

// DeleteRange drops entries, see ShardLog.
func (l countedLog) DeleteRange(low, high uint64) error {
	if last, _ := l.LastIndex(); high >= last {
		l.backlog.dropped(low)
	}
	return l.ShardLog.DeleteRange(low, high)
}

// Consumer returns what Raft is to answer: all that comes in, but for entries that find no room in the backlog, which wait.
// Heartbeats do not wait, so this node goes on following.
func (t *transport) Consumer() <-chan raft.RPC {
	if t.inbox != nil {
		return t.inbox
	}
	return t.calls()
}

// pass fills the inbox, which was made before Raft had the transport, until that is closed.
func (t *transport) pass(b *Backlog, commit func() uint64) {
	calls := t.calls()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	hand := func(rpc raft.RPC) {
		select {
		case t.inbox <- rpc:
		case <-t.stream.closed:
		}
	}
	for {
		select {
		case <-t.stream.closed:
			return
		case rpc := <-calls:
			args, ok := rpc.Command.(*raft.AppendEntriesRequest)
			if !ok || len(args.Entries) == 0 || b.room(commit()) == nil {
				hand(rpc)
				continue
			}
			waiting.Go(func() { // its connection brings nothing more meanwhile
				b.await(t.stream.closed)
				hand(rpc)
			})
		}
	}
}
