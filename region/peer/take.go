package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	maxUnderWay      = 256     // proposals of a stream under way at once
	maxUnderWayBytes = 4 << 20 // and their bytes, give or take one
)

// ahead is where the shard will stand once what is under way has been applied.
type ahead struct {
	st    *shard.State
	moved map[crdt.GenerationID]crdt.Frontier
	marks map[table.Actor]uint64 // positions
}

func (a *ahead) point(id crdt.GenerationID, src crdt.Source) (crdt.Point, bool) {
	if p, ok := a.moved[id][src]; ok {
		return p, true
	}
	st, ok := a.st.Generation(id).Standing(src)
	return st.Point, ok
}

// verdict is what an Advance would meet. Nothing rests on it but what is worth proposing: the machine decides.
type verdict int

const (
	fits verdict = iota
	known
	gap
	other // of another history
)

// judge says what an Advance would meet at the shard's points, and which sources are of another history.
func (a *ahead) judge(c *shard.Advance) (verdict, []crdt.Source) {
	behind, fit := true, true
	var others []crdt.Source
	for _, x := range c.Ranges {
		p, ok := a.point(c.Generation, x.Source)
		if !ok {
			behind, fit = false, false
			continue
		}
		if x.To.Offset == p.Offset && x.To.Chain != p.Chain || x.From.Offset == p.Offset && x.From.Chain != p.Chain {
			others = append(others, x.Source)
		}
		behind = behind && (x.To.Offset < p.Offset || x.To.Offset == p.Offset && x.To.Watermark <= p.Watermark)
		fit = fit && x.From.Offset == p.Offset
	}
	switch {
	case len(others) > 0:
		return other, others
	case behind:
		return known, nil
	case fit:
		return fits, nil
	}
	return gap, nil
}

func (a *ahead) move(c *shard.Advance) {
	f := a.moved[c.Generation]
	if f == nil {
		f = crdt.Frontier{}
		a.moved[c.Generation] = f
	}
	for _, x := range c.Ranges {
		f[x.Source] = x.To
	}
}

// pending is a proposal under way.
type pending struct {
	command shard.Command
	index   uint64 // in the peer's log
	wait    func(context.Context) (shard.Result, error)
}

// takeEntries proposes as many of the entries as may be under way at once, in order, waits for what they come to, and
// returns how many it has dealt with.
func (s *session) takeEntries(ctx context.Context, list []*peerv1.Entry) (n int, err error) {
	a := &ahead{s.replica.State(), map[crdt.GenerationID]crdt.Frontier{}, map[table.Actor]uint64{}}
	var underWay []pending
	size := 0
	for n < len(list) && len(underWay) < maxUnderWay && size < maxUnderWayBytes {
		e := list[n]
		n++
		s.entries.Add(1)
		s.bytes.Add(uint64(len(e.Command)))
		s.owed += uint64(len(e.Command)) + entryExtra
		s.waiting.Add(-int64(len(e.Command)) - entryExtra)
		c, err := shard.Decode(e.Command)
		if err != nil {
			return n, fmt.Errorf("%w: entry %d: %w", ErrProtocol, e.Index, err)
		}
		wanted, err := s.wanted(ctx, a, c, e.Index)
		if err != nil {
			return n, err
		}
		if wanted {
			underWay = append(underWay, pending{c, e.Index, s.replica.Submit(ctx, c, e.Command)})
			size += len(e.Command)
		}
	}
	var failed error
	for _, p := range underWay {
		res, err := p.wait(ctx)
		if err == nil {
			err = s.outcome(ctx, p, res)
		}
		if errors.Is(err, shard.ErrInvalid) {
			s.logger.Error("the peer sent what this shard can't hold", "index", p.index, "error", err)
			err = nil
		}
		failed = errors.Join(failed, err)
	}
	return n, failed
}

// wanted says whether a command from the peer is worth proposing.
func (s *session) wanted(ctx context.Context, a *ahead, c shard.Command, index uint64) (bool, error) {
	switch c := c.(type) {
	case *shard.Advance:
		if !s.knows(a, c.Generation, index) || s.touchesStopped(c) {
			return false, nil
		}
		v, others := a.judge(c)
		switch v {
		case other:
			s.stop(ctx, c.Generation, others)
		case gap:
			s.gaps.Add(1)
		case fits:
			a.move(c)
		}
		return v == fits, nil
	case *shard.AddSources:
		if !s.knows(a, c.Generation, index) {
			return false, nil
		}
		g := a.st.Generation(c.Generation)
		wanted := !g.Declared(c.Group)
		for _, sp := range c.Sources {
			st, ok := g.Standing(sp.Source)
			if _, coming := a.point(c.Generation, sp.Source); !coming {
				a.move(&shard.Advance{Advance: crdt.Advance{Generation: c.Generation,
					Ranges: []crdt.Range{{Source: sp.Source, To: sp.Point}}}})
			}
			wanted = wanted || !ok || st.First == nil
		}
		return wanted, nil
	case *shard.TableForward:
		return s.wantedEntry(a, c, index), nil
	default:
		return false, fmt.Errorf("%w: entry %d is a %T", ErrProtocol, index, c)
	}
}

// knows reports whether a generation is known here; one that is not is noted, to be pulled again when it is.
func (s *session) knows(a *ahead, id crdt.GenerationID, index uint64) bool {
	if a.st.Generation(id) != nil {
		return true
	}
	if _, noted := s.unknown[id]; !noted && len(s.unknown) < maxGenerations {
		s.unknown[id] = index
	}
	return false
}

func (s *session) touchesStopped(c *shard.Advance) bool {
	return slices.ContainsFunc(c.Ranges, func(x crdt.Range) bool { return s.isStopped(c.Generation, x.Source) })
}

// outcome deals with what a proposal came to.
func (s *session) outcome(ctx context.Context, p pending, res shard.Result) error {
	switch res.Outcome {
	case shard.Refused: // another stream moved the point in between; what is missing shows in the standings
		s.gaps.Add(1)
	case shard.Mismatch:
		if c, ok := p.command.(*shard.Advance); ok {
			s.stop(ctx, c.Generation, res.Sources)
		} else if c, ok := p.command.(*shard.AddSources); ok {
			s.stop(ctx, c.Generation, res.Sources)
		}
	case shard.Unknown: // it was dropped just now
	case shard.Malformed:
		return fmt.Errorf("%w: entry %d: %s", ErrProtocol, p.index, res.Reason)
	}
	return nil
}

// look compares where the peer stands with where the shard does, once all that the peer had to tell has been taken:
// what it has beyond that, no delta will bring. It also takes over the peer's horizon.
func (s *session) look(ctx context.Context) error {
	st := s.replica.State()
	if s.rewind(st) || s.rewindEarly() {
		return errAgain
	}
	s.mu.Lock()
	now := sight{st.Index, s.news, s.cursor}
	if now == s.looked && s.even {
		s.in.level = time.Now()
		s.mu.Unlock()
		return nil
	}
	s.looked = now
	b := &book{told: maps.Clone(s.book.told), changed: maps.Clone(s.book.changed), marks: s.book.marks, marksAt: s.book.marksAt}
	s.mu.Unlock()
	level, err := s.lookAtTables(ctx, st, b)
	if err != nil {
		return err
	}
	for id, told := range b.told {
		g := st.Generation(id)
		if g == nil {
			continue
		}
		if told.Horizon > g.Horizon && told.Horizon != crdt.MaxTime {
			if _, err := s.replica.Propose(ctx, &shard.Horizon{Generation: id, H: told.Horizon}); err != nil {
				return err
			}
		}
		for _, region := range groupsOf(told) {
			key := groupKey{id, region}
			if missing := s.compare(ctx, g, told, region); !missing {
				delete(s.behind, key)
				delete(s.goals, key)
				continue
			}
			if level = false; s.overdue(g, told, key, b.changed[key]) {
				if err := s.level(ctx, g, key); err != nil {
					return err
				}
			}
		}
	}
	s.even = level
	return nil
}

// overdue reports whether the shard lacks what no delta will bring any more. The peer tells of new points faster than of
// its log, so what it told last may never be behind the cursor: the goal is what it told first, until that is reached.
func (s *session) overdue(g *shard.Generation, told *Standing, key groupKey, changed uint64) bool {
	x := s.goals[key]
	if x != nil && s.cursor < x.index {
		return false
	}
	if x != nil && x.lacks(g, key.group) {
		return true
	}
	points := maps.Clone(told.Frontier)
	maps.DeleteFunc(points, func(src crdt.Source, _ crdt.Point) bool { return src.Region != key.group })
	s.goals[key] = &goal{changed, points, slices.Contains(told.Declared, key.group)}
	return changed <= s.cursor
}

// rewind takes the cursor back to where commands of generations begin that were passed over and are known now.
func (s *session) rewind(st *shard.State) (rewound bool) {
	for id, index := range s.unknown {
		if st.Generation(id) != nil {
			s.cursor, rewound = min(s.cursor, index-1), true
			delete(s.unknown, id)
		}
	}
	return rewound
}

// groupsOf lists the groups that a standing tells of, sorted.
func groupsOf(s *Standing) []crdt.RegionID {
	set := map[crdt.RegionID]bool{}
	for src := range s.Frontier {
		set[src.Region] = true
	}
	for _, region := range s.Declared {
		set[region] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// compare reports whether the peer has anything of a group that lacks here and may be taken: it is ahead in some source,
// and behind in none. The group's own region is never behind: it has moved on since it told.
func (s *session) compare(ctx context.Context, g *shard.Generation, told *Standing, region crdt.RegionID) (missing bool) {
	missing = slices.Contains(told.Declared, region) && !g.Declared(region)
	own := g.Standings(region)
	for _, st := range own {
		p, ok := told.Frontier[st.Source]
		switch {
		case s.isStopped(g.ID, st.Source):
			return false
		case !ok || p.Offset < st.Point.Offset && region != s.peer.Region:
			return false
		case p.Offset < st.Point.Offset:
		case p.Offset == st.Point.Offset && p.Chain != st.Point.Chain:
			s.stop(ctx, g.ID, []crdt.Source{st.Source})
			return false
		case p.Offset > st.Point.Offset, p.Watermark > st.Point.Watermark:
			missing = true
		}
	}
	n := 0
	for src := range told.Frontier {
		if src.Region == region {
			n++
		}
	}
	return missing || n > len(own)
}

// level takes the group's state from the peer, if it is time for that.
func (s *session) level(ctx context.Context, g *shard.Generation, key groupKey) error {
	now, at := time.Now(), crdt.Frontier{}
	for _, st := range g.Standings(key.group) {
		at[st.Source] = st.Point
	}
	late := s.behind[key]
	if late == nil {
		late = &lateGroup{}
		s.behind[key] = late
	}
	if late.since.IsZero() || !maps.Equal(late.at, at) {
		late.since, late.at = now, at
	}
	patience := s.timing.Patience
	if key.group == s.peer.Region {
		patience = 0 // nobody else can be expected to bring it
	}
	if now.Sub(late.since) < patience || now.Before(late.again) {
		return nil
	}
	late.again = now.Add(s.timing.Again)
	stop := s.keepSaying(ctx)
	err := s.join(ctx, s.conn, key)
	stop()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errUnconfirmed):
		s.refusals.Add(1)
		s.logger.Error("a group is behind and stays so", "generation", fmt.Sprintf("%x", key.generation), "group", key.group, "error", err)
	case err != nil:
		s.logger.Warn("a group's state was not taken", "generation", fmt.Sprintf("%x", key.generation), "group", key.group, "error", err)
	default:
		delete(s.behind, key)
	}
	return nil
}
