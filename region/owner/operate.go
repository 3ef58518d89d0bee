package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/ownership"
)

// ErrFlipBack says that a planned flip could not be finished, and the region went on as the owner or ceased to be it in
// another way.
var ErrFlipBack = errors.New("the shard could not be handed over, and its owner goes on")

// order is what an operator wants.
type order struct {
	to    crdt.RegionID
	cost  bool // tell what a force would cost, and do nothing
	force bool
	add   *addition

	out     Forced
	note    ownership.Note
	release func()
	err     error
	done    chan struct{}
	over    bool
}

type addition struct {
	region  crdt.RegionID
	instead ownership.MemberID
	number  ownership.MemberID
}

// finish is called by the driving goroutine alone.
func (o *order) finish(n ownership.Note, err error) {
	if o.over {
		return
	}
	o.over = true
	o.note, o.err = n, err
	if o.release != nil {
		o.release()
	}
	close(o.done)
}

// Forced is what a force costs, or did: as far as this region can tell.
type Forced struct {
	Remove []crdt.RegionID // that are left out
	ownership.Cost
}

// give has the driving goroutine take an order up, and waits until it is finished.
func (s *Shard) give(ctx context.Context, o *order) error {
	o.done = make(chan struct{})
	l := s.current()
	if l == nil || !l.order(o) {
		o.finish(ownership.Note{}, s.notLeader())
		return o.err
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// order has an order wait for its turn; false where it never comes.
func (l *leading) order(o *order) bool {
	l.in.Lock()
	defer l.in.Unlock()
	if l.in.ended || len(l.in.orders) >= maxOrders {
		return false
	}
	l.in.orders = append(l.in.orders, o)
	l.signal()
	return true
}

// maxOrders bounds the orders that wait.
const maxOrders = 64

// Flip hands the shard to another region, as planned: no write is lost, and those that come meanwhile wait. It returns the
// mark that this region ended with, and the new owner begins behind. A flip that can't be finished goes back by itself, with
// ErrFlipBack.
func (s *Shard) Flip(ctx context.Context, to crdt.RegionID) (ownership.Note, error) {
	o := &order{to: to}
	if s.o.Hold != nil {
		if err := s.mayFlip(to); err != nil {
			return ownership.Note{}, err
		}
		within, cancel := context.WithTimeout(ctx, s.o.Settings.Flip)
		release, err := s.o.Hold(within, to)
		cancel()
		if err != nil {
			return ownership.Note{}, fmt.Errorf("shard %d: %w: %w", s.id, ErrFlipBack, err)
		}
		o.release = release
	}
	err := s.give(ctx, o)
	if err != nil {
		return ownership.Note{}, err
	}
	return o.note, nil
}

// mayFlip refuses at once what can't be done.
func (s *Shard) mayFlip(to crdt.RegionID) error {
	st := s.o.Replica.State()
	if !st.Owns() {
		return s.notOwner()
	}
	if m, ok := st.Ownership().Record.Config().Member(string(to)); !ok || m.Role != ownership.Data {
		return fmt.Errorf("shard %d: region %.64q: %w", s.id, to, ownership.ErrNoMember)
	}
	if string(to) == string(s.o.Replica.Config().Self) {
		return fmt.Errorf("shard %d: %w", s.id, ownership.ErrIsOwner)
	}
	return nil
}

// Cost tells what a force would cost now that leaves out the regions which are not heard of.
func (s *Shard) Cost(ctx context.Context) (Forced, error) {
	o := &order{cost: true}
	err := s.give(ctx, o)
	return o.out, err
}

// Force makes this region the owner without those that are not heard of: they are left out, and come back as new members.
func (s *Shard) Force(ctx context.Context) (Forced, error) {
	o := &order{force: true}
	err := s.give(ctx, o)
	return o.out, err
}

// Add takes a region in again that comes back as a new member, in the place of an old one, and returns its number.
func (s *Shard) Add(ctx context.Context, region crdt.RegionID, instead ownership.MemberID) (ownership.MemberID, error) {
	a := &addition{region: region, instead: instead}
	err := s.give(ctx, &order{add: a})
	return a.number, err
}

// obey takes an operator's order up.
func (l *leading) obey(ctx context.Context, o *order) error {
	switch {
	case o.add != nil:
		return l.takeIn(ctx, o)
	case o.cost || o.force:
		return l.forced(ctx, o)
	}
	if l.flipping != nil {
		o.finish(ownership.Note{}, fmt.Errorf("shard %d: %w", l.id, ownership.ErrFlipping))
		return nil
	}
	m, _ := l.state.Record.Config().Member(string(o.to))
	l.flipping = o
	out, _, err := l.stepFor(ctx, ownership.Flip{To: m.ID}, l.o.Clock.Now(), nil)
	if err != nil {
		return err
	}
	if out.Refused != nil {
		l.flipping = nil
		err := fmt.Errorf("shard %d: %w", l.id, out.Refused)
		var other *ownership.NotOwnerError
		if errors.As(out.Refused, &other) {
			err = l.notOwner()
		}
		o.finish(ownership.Note{}, err)
	}
	return nil
}

// silent lists the members that were not heard of for so long that they would have been, were they there.
func (l *leading) silent() (ids []ownership.MemberID, regions []crdt.RegionID) {
	now, set := l.o.Clock.Now(), l.o.Settings
	patience := set.ClaimAfter + 2*set.Stagger + set.Alone
	for _, m := range l.state.Record.Config().Members {
		if m.ID == l.state.Record.Self {
			continue
		}
		if at, ok := l.heard[m.ID]; !ok || now-at > patience {
			ids, regions = append(ids, m.ID), append(regions, crdt.RegionID(m.Region))
		}
	}
	return ids, regions
}

func (l *leading) forced(ctx context.Context, o *order) error {
	ids, regions := l.silent()
	if len(ids) == 0 {
		o.finish(ownership.Note{}, fmt.Errorf("shard %d: %w", l.id, ErrNothingLost))
		return nil
	}
	cost, err := l.state.Cost(ids, l.o.Clock.Now())
	if err != nil {
		o.finish(ownership.Note{}, fmt.Errorf("shard %d: %w", l.id, err))
		return nil
	}
	o.out = Forced{regions, cost}
	if o.cost {
		o.finish(ownership.Note{}, nil)
		return nil
	}
	out, _, err := l.stepFor(ctx, ownership.Force{Remove: ids}, l.o.Clock.Now(), nil)
	if err != nil {
		o.finish(ownership.Note{}, err)
		return err
	}
	if out.Refused != nil {
		o.finish(ownership.Note{}, fmt.Errorf("shard %d: %w", l.id, out.Refused))
		return nil
	}
	l.logger.Warn("ownership is forced on an operator's word", "without", regions, "may cost acknowledged writes", cost.Unknown)
	o.finish(ownership.Note{}, nil)
	return nil
}

// takeIn adds a member. One that was added and has not come yet is the same.
func (l *leading) takeIn(ctx context.Context, o *order) error {
	a, conf := o.add, l.state.Record.Config()
	if m, ok := conf.Member(string(a.region)); ok && m.Joining && m.ID != a.instead && l.state.Standing() == ownership.Owning {
		a.number = m.ID
		var err error
		if _, wrote := l.state.Owner(); !l.confirmed(m.ID) {
			err = fmt.Errorf("shard %d: %w: epoch %v", l.id, ownership.ErrBusy, wrote)
		}
		o.finish(ownership.Note{}, err)
		return nil
	}
	var e ownership.Event = ownership.Add{Role: ownership.Data, Region: string(a.region), Instead: a.instead}
	if m, ok := conf.Find(a.instead); ok {
		if m.Region != string(a.region) {
			o.finish(ownership.Note{}, fmt.Errorf("shard %d: %w", l.id, ownership.ErrNoMember))
			return nil
		}
		e = ownership.Remove{Member: a.instead} // restored: its old member is gone for good
	} else if slices.ContainsFunc(conf.Members, func(m ownership.Member) bool { return m.Region == string(a.region) }) {
		o.finish(ownership.Note{}, fmt.Errorf("shard %d: region %s has a member: %w", l.id, a.region, ownership.ErrNoMember))
		return nil
	}
	out, _, err := l.stepFor(ctx, e, l.o.Clock.Now(), nil)
	if err == nil && out.Refused != nil {
		err := fmt.Errorf("shard %d: %w", l.id, out.Refused)
		var other *ownership.NotOwnerError
		if errors.As(out.Refused, &other) {
			err = l.notOwner()
		}
		o.finish(ownership.Note{}, err)
		return nil
	}
	if err == nil { // it asks again, until what was written is confirmed
		err2 := fmt.Errorf("shard %d: %w", l.id, ownership.ErrBusy)
		o.finish(ownership.Note{}, err2)
		return nil
	}
	o.finish(ownership.Note{}, err)
	return err
}

// confirmed says whether the configuration that has a member is confirmed: before, its number may be given again.
func (l *leading) confirmed(id ownership.MemberID) bool {
	for _, c := range l.state.Record.Control {
		if _, ok := c.Config.Find(id); ok {
			return c.Mark.Position <= l.state.Confirmed()
		}
	}
	return false
}

// View is how a shard's leader sees its ownership.
type View struct {
	Leads     bool
	Owner     crdt.RegionID
	Epoch     ownership.Epoch
	Standing  ownership.Standing
	Serves    bool
	Lease     time.Duration // what is left of it; 0 for none
	Last      ownership.Mark
	Confirmed ownership.Position
	Config    ownership.Config
}

// View returns how this node sees the shard's ownership.
func (s *Shard) View() View {
	st := s.o.Replica.State()
	owner, epoch := st.Owner()
	rec := st.Ownership().Record
	v := View{Owner: owner, Epoch: epoch, Last: rec.LastMark(), Confirmed: rec.Confirmed, Config: rec.Config()}
	l := s.current()
	if l == nil {
		return v
	}
	state := l.shown.Load()
	v.Leads, v.Standing, v.Confirmed, v.Serves = true, state.Standing(), state.Confirmed(), s.serves(state)
	if till, ok := state.Leased(); ok {
		v.Lease = max(0, till-s.o.Clock.Now())
	}
	return v
}
