package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/region/shard"
)

// Bounds of what waits for a leader.
const (
	maxInbox  = 1 << 12 // messages of other regions
	maxProofs = 1 << 12 // messages that wait for a proof of leadership
	// stepWithin bounds how long a step may take to be logged.
	stepWithin = 10 * time.Second
)

// incoming is a message of another region.
type incoming struct {
	from    crdt.RegionID
	message ownership.Message
	entries [][]byte
}

// leading is the shard's owned log under one leadership of this node. What has no guard named is the driving goroutine's.
type leading struct {
	*Shard
	ctx      context.Context
	led      uint64
	term     uint64
	last     time.Duration // of the clock; never goes back
	state    ownership.State
	revision uint64
	origins  map[ownership.MemberID]crdt.RegionID // of members that are in no configuration
	heard    map[ownership.MemberID]time.Duration
	fetching atomic.Bool // a state is being brought
	removed  bool        // told that it is no member any more
	waiting  []*write
	tail     tail
	weighed  time.Duration // when the log is weighed next
	flipping *order

	shown  atomic.Pointer[ownership.State] // the state whose commands are all applied
	prover sync.WaitGroup                  // what goes on beside the driving goroutine

	in struct {
		sync.Mutex
		ended  bool
		inbox  []incoming
		orders []*order
		writes []*write
		bytes  int
		proofs []ownership.Message
	}
	proofs chan struct{} // has a value while proofs wait
}

// lead returns what a node begins with that has just become the shard's leader.
func (s *Shard) lead(ctx context.Context, own shard.Ownership, led uint64) *leading {
	l := &leading{
		Shard: s, ctx: ctx, led: led, term: led >> 16, last: s.o.Clock.Now(), revision: own.Revision,
		origins: map[ownership.MemberID]crdt.RegionID{}, heard: map[ownership.MemberID]time.Duration{}, proofs: make(chan struct{}, 1),
	}
	l.state = ownership.Lead(own.Record, s.o.Settings, led, l.last)
	if sizes, err := s.Sizes(); err == nil { // else it counts from here
		l.tail.add(own.Record.Last, sizes.Waiting)
	}
	l.show()
	l.prover.Go(l.prove)
	if s.o.Now != nil {
		l.prover.Go(l.sweeps)
	}
	return l
}

func (l *leading) show() {
	state := l.state
	l.shown.Store(&state)
}

// end turns away all that waits.
func (l *leading) end() {
	l.in.Lock()
	l.in.ended = true
	orders, writes := l.in.orders, l.in.writes
	l.in.orders, l.in.writes, l.in.inbox = nil, nil, nil
	l.in.Unlock()
	if l.flipping != nil {
		orders = append(orders, l.flipping)
	}
	for _, o := range orders {
		o.finish(ownership.Note{}, l.notLeader())
	}
	for _, w := range writes {
		w.finish(nil, l.notLeader())
	}
	for _, w := range l.waiting {
		w.finish(nil, errOutcome)
	}
	l.prover.Wait()
}

func (l *leading) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *leading) offer(x incoming) {
	l.in.Lock()
	defer l.in.Unlock()
	if l.in.ended || len(l.in.inbox) >= maxInbox {
		l.stats.dropped.Add(1)
		return
	}
	l.in.inbox = append(l.in.inbox, x)
	l.signal()
}

// run steps until ctx ends or a step can't be logged.
func (l *leading) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			if !l.o.Clock.Trusted() {
				if err := l.step(ctx, ownership.Distrust{}, l.o.Clock.Now(), nil); err != nil {
					return err
				}
				return ErrClock
			}
			// All shards tick at the same instants, so that their asks have one stamp and go in one message.
			now := l.o.Clock.Now()
			l.weigh(now)
			if err := l.step(ctx, ownership.Tick{}, now-now%l.o.Tick, nil); err != nil {
				return err
			}
			timer.Reset(l.o.Tick - now%l.o.Tick)
		case <-l.wake:
		}
		if err := l.work(ctx); err != nil {
			return err
		}
		if l.removed {
			return l.rejoin(ctx, l.o.Replica.State().Ownership(), false)
		}
	}
}

// work takes up what has come: messages, then operators' orders, then writes.
func (l *leading) work(ctx context.Context) error {
	l.in.Lock()
	inbox, orders := l.in.inbox, l.in.orders
	l.in.inbox, l.in.orders = nil, nil
	l.in.Unlock()
	for _, x := range inbox {
		if err := l.receive(ctx, x); err != nil {
			return err
		}
	}
	for _, o := range orders {
		if err := l.obey(ctx, o); err != nil {
			return err
		}
	}
	if l.flipping == nil {
		return l.propose(ctx)
	}
	return nil
}

// receive takes a message of another member.
func (l *leading) receive(ctx context.Context, x incoming) error {
	m := x.message
	if member, ok := l.state.Record.Config().Find(m.From); ok && member.Region != string(x.from) {
		l.stats.dropped.Add(1)
		return nil
	} else if !ok {
		l.origins[m.From] = x.from
	}
	if m.Kind == ownership.Entries && !l.witness() && uint64(len(x.entries)) != shard.OwnEntriesOf(m.Write) {
		l.stats.dropped.Add(1) // positions without what stands at them must never be held
		return nil
	}
	now := l.o.Clock.Now()
	l.heard[m.From] = now
	if m.Kind == ownership.StateAt {
		if ok, err := l.held(x); !ok {
			return err
		}
	}
	return l.step(ctx, ownership.Receive{Message: m}, now, x.entries)
}

// witness says whether this region holds control entries alone.
func (l *leading) witness() bool {
	m, _ := l.state.Record.Config().Find(l.state.Record.Self)
	return m.Role == ownership.Witness
}

// step takes one step, whole: its commands are applied when it returns, and its messages are on their way. After an error
// the state is of no use any more.
func (l *leading) step(ctx context.Context, e ownership.Event, now time.Duration, entries [][]byte) error {
	_, _, err := l.stepFor(ctx, e, now, entries)
	return err
}

func (l *leading) stepFor(ctx context.Context, e ownership.Event, now time.Duration, entries [][]byte) (ownership.Effects, []shard.Result, error) {
	l.last = max(l.last, now)
	next, out := l.state.Step(e, l.last)
	results, err := l.log(ctx, out.Commands, entries)
	if err != nil {
		return out, nil, err
	}
	l.state = next
	l.show()
	for _, m := range out.Messages {
		l.send(m)
	}
	l.toProve(out.Proved)
	for _, n := range out.Notes {
		l.note(n)
	}
	l.flipped(out.Notes)
	l.acknowledge()
	return out, results, nil
}

// log has the group apply the commands of a step, in order.
func (l *leading) log(ctx context.Context, commands []ownership.Command, entries [][]byte) ([]shard.Result, error) {
	if len(commands) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	waits := make([]func(context.Context) (shard.Result, error), len(commands))
	for i, c := range commands {
		own := &shard.Own{Revision: l.revision, Change: c}
		if c.Kind == ownership.Append && shard.OwnEntriesOf(c.Write) == uint64(len(entries)) {
			own.Entries = entries
		}
		waits[i] = l.o.Replica.Submit(ctx, own, shard.Encode(own))
		l.revision++
	}
	l.stats.logged.Add(uint64(len(commands)))
	results := make([]shard.Result, len(commands))
	var errs []error
	for i, wait := range waits {
		res, err := wait(ctx)
		if err == nil && res.Outcome != shard.Applied {
			err = fmt.Errorf("%v is %v: %s", commands[i], res.Outcome, res.Reason)
		}
		results[i] = res
		errs = append(errs, err)
	}
	return results, errors.Join(errs...)
}

// send has a message brought to the region of the member that it is for.
func (l *leading) send(m ownership.Message) {
	to := l.regionOf(m.To)
	if to == "" {
		return // it will speak first
	}
	if m.Kind != ownership.Entries {
		l.o.Send(to, m, nil)
		return
	}
	member, _ := l.state.Record.Config().Find(m.To)
	if member.Role == ownership.Witness || shard.OwnEntriesOf(m.Write) == 0 {
		l.o.Send(to, m, nil)
		return
	}
	if err := l.sendEntries(to, m); err != nil {
		l.logger.Warn("entries for another region can't be read", "region", to, "error", err)
	}
}

// regionOf returns the region of a member, "" where it isn't known.
func (l *leading) regionOf(id ownership.MemberID) crdt.RegionID {
	for _, c := range slices.Backward(l.state.Record.Control) {
		if m, ok := c.Config.Find(id); ok {
			return crdt.RegionID(m.Region)
		}
	}
	return l.origins[id]
}

// toProve keeps messages until this node has proved that it still leads.
func (l *leading) toProve(list []ownership.Message) {
	if len(list) == 0 {
		return
	}
	l.in.Lock()
	defer l.in.Unlock()
	if len(l.in.proofs)+len(list) > maxProofs {
		l.stats.dropped.Add(uint64(len(list)))
		return
	}
	l.in.proofs = append(l.in.proofs, list...)
	select {
	case l.proofs <- struct{}{}:
	default:
	}
}

// prove sends what waits for a proof, one proof for all that has gathered.
func (l *leading) prove() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.proofs:
		}
		l.in.Lock()
		list := l.in.proofs
		l.in.proofs = nil
		l.in.Unlock()
		if err := l.o.Replica.Linearizable(l.ctx); err != nil || l.ctx.Err() != nil || l.o.Replica.Status().Term != l.term {
			continue
		}
		state := l.shown.Load()
		for _, m := range list { // none of them has entries
			if member, ok := state.Record.Config().Find(m.To); ok {
				l.o.Send(crdt.RegionID(member.Region), m, nil)
			}
		}
	}
}

// note tells what happened.
func (l *leading) note(n ownership.Note) {
	l.stats.note(n.Kind)
	switch n.Kind {
	case ownership.NoteBegan, ownership.NoteEnded, ownership.NoteHandedOver, ownership.NoteFlipDone, ownership.NoteFlipBack,
		ownership.NoteConfig, ownership.NoteRemoved:
		l.logger.Info("ownership", "what", n.Kind, "epoch", n.Epoch, "at", n.Mark, "member", n.Member, "config", l.state.Record.Config())
	default:
		l.logger.Warn("ownership", "what", n.Kind, "epoch", n.Epoch, "at", n.Mark, "member", n.Member)
	}
	if n.Kind == ownership.NoteRemoved {
		l.removed = true
	}
}

// flipped finishes a planned flip that a step has brought to its end, one way or the other.
func (l *leading) flipped(notes []ownership.Note) {
	if l.flipping == nil {
		return
	}
	over := ownership.Note{}
	for _, n := range notes {
		switch n.Kind {
		case ownership.NoteHandedOver:
			l.flipping.finish(n, nil)
			l.flipping = nil
			return
		case ownership.NoteFlipBack, ownership.NoteEnded:
			over = n
		}
	}
	if over.Kind != 0 {
		l.flipping.finish(over, fmt.Errorf("shard %d: %w", l.id, ErrFlipBack))
		l.flipping = nil
	}
}
