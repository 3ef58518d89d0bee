package group

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/region/limit"
)

// slow is a machine whose commands wait while it is held up.
type slow struct {
	*toy
	holding sync.Mutex
}

func (m *slow) Apply(index uint64, command []byte) any {
	m.holding.Lock()
	defer m.holding.Unlock()
	return m.toy.Apply(index, command)
}

// restartSlow starts a node anew, with a machine that can be held up.
func (c *cluster) restartSlow(i int) *slow {
	c.t.Helper()
	c.kill(i)
	cfg := c.configs[i]
	toy, err := openToy(cfg.Dir + "/toy")
	if err != nil {
		c.t.Fatal(err)
	}
	host, err := Open(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	m := &slow{toy: toy}
	c.nodes[i] = &node{host: host, toy: toy}
	if c.nodes[i].group, err = host.Start(testShard, m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

func TestBacklogCountsWhatIsCommitted(t *testing.T) {
	b := &Backlog{most: 100}
	store := func(from uint64, sizes ...int) {
		var list []*raft.Log
		for i, n := range sizes {
			list = append(list, &raft.Log{Index: from + uint64(i), Data: make([]byte, n)})
		}
		b.stored(list)
	}
	store(1, 60)
	store(2, 30, 30)
	store(4, 50)
	for _, step := range []struct {
		what   string
		do     func()
		commit uint64
		used   int64
		room   bool
	}{
		{"nothing is committed", func() {}, 0, 0, true},
		{"half of what was stored at once does not count", func() {}, 2, 60, true},
		{"past the bound", func() {}, 3, 120, false},
		{"a tail that is dropped was not committed", func() { b.dropped(4) }, 3, 120, false},
		{"one is applied", func() { b.applied(1) }, 3, 60, true},
		{"in its place came others", func() { store(4, 10) }, 4, 70, true},
		{"applied before the commit was heard of", func() { store(5, 200); b.applied(5) }, 4, 0, true},
	} {
		step.do()
		err := b.room(step.commit)
		if b.Used() != step.used || (err == nil) != step.room {
			t.Errorf("%s: %d bytes, %v", step.what, b.Used(), err)
		}
	}
	if b.Refused() != 2 {
		t.Errorf("refused %d", b.Refused())
	}
}

// A leader whose machine is behind refuses, with a time to wait, and takes commands again when it has caught up.
func TestALeaderBehindItsLogRefuses(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.MaxBacklog = 300 })
	m := c.restartSlow(0)
	g := c.nodes[c.leader()].group
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.holding.Lock()
	var let []*Proposal
	var busy *limit.Exhausted
	for refused := false; !refused && len(let) < 100; { // Raft itself waits for the machine after some more
		committed := g.raft.CommitIndex()
		p := g.Submit(ctx, make([]byte, 40))
		c.await("an entry more in the log, or a refusal", func() bool {
			select {
			case <-p.done:
				refused = true
			default:
			}
			return refused || g.raft.CommitIndex() > committed
		})
		if !refused {
			let = append(let, p)
		} else if !errors.As(p.err, &busy) || errors.Is(p.err, ErrIndefinite) || busy.Wait <= 0 {
			t.Errorf("refused with %v", p.err)
		}
	}
	used := g.Backlog().Used()
	m.holding.Unlock()
	if len(let) >= 100 || used < 300 {
		t.Errorf("%d commands were taken, %d bytes are committed and not applied", len(let), used)
	}
	for _, p := range let {
		if _, _, err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	c.propose("later")
	if used := g.Backlog().Used(); used != 0 {
		t.Errorf("all is applied, and %d bytes are not", used)
	}
}

// A follower whose machine is behind takes no more entries than its bound and what one message holds, goes on following, and
// gets the rest when it has caught up.
func TestAFollowerBehindItsLogHoldsEntriesOff(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.MaxBacklog = 4 << 10 })
	lead := c.leader()
	behind := (lead + 1) % 3
	m := c.restartSlow(behind)
	c.propose("first")
	last := c.propose("second")
	c.await("the follower", func() bool { return c.nodes[behind].toy.AppliedIndex() >= last })
	m.holding.Lock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const each = 1 << 10
	g := c.nodes[c.leader()].group
	for range 400 {
		if _, _, err := g.Propose(ctx, make([]byte, each)); err != nil {
			m.holding.Unlock()
			t.Fatal(err)
		}
	}
	c.await("entries to wait", func() bool { return c.nodes[behind].group.Backlog().Refused() > 0 })
	used := c.nodes[behind].group.Backlog().Used()
	stayed := c.nodes[behind].group.Leader().ID
	m.holding.Unlock()
	if most := int64(4<<10 + 2*64*each); used > most { // entries of a message, and of one that was let in beside it
		t.Errorf("%d bytes are committed and not applied, at most %d may be", used, most)
	}
	if stayed == "" {
		t.Error("the follower has lost its leader")
	}
	last = c.propose("last")
	c.await("the follower to catch up", func() bool { return c.nodes[behind].toy.AppliedIndex() >= last })
}

// TestTheBacklogEndsWithTheLastCommand: an entry of Raft's own behind it is never applied, and keeps nothing back.
func TestTheBacklogEndsWithTheLastCommand(t *testing.T) {
	b := &Backlog{most: 100}
	command := func(index uint64) *raft.Log {
		return &raft.Log{Index: index, Type: raft.LogCommand, Data: make([]byte, 60)}
	}
	b.stored([]*raft.Log{command(1), command(2), {Index: 3, Type: raft.LogBarrier}})
	b.stored([]*raft.Log{{Index: 4, Type: raft.LogNoop}})
	if b.room(4) == nil {
		t.Error("two commands fit")
	}
	b.applied(2)
	if err := b.room(4); err != nil || b.Used() != 0 {
		t.Errorf("all commands are applied: %v, %d bytes", err, b.Used())
	}
}
