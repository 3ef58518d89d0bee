package shard

import (
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// sameHistory reports whether two points at one offset can belong to one log. A source that has ended stands at the same
// offset with the greatest watermark.
func sameHistory(p, q crdt.Point) bool {
	if p.Watermark != q.Watermark && p.Watermark != crdt.MaxTime && q.Watermark != crdt.MaxTime {
		return false
	}
	p.Watermark = q.Watermark
	return p == q
}

// atOrBelow reports whether p is at or below q as far as the two points tell: at one offset they must be of one log; at a
// lower offset nothing here proves it (rules A5).
func atOrBelow(p, q crdt.Point) bool {
	if p.Offset == q.Offset {
		return sameHistory(p, q) && p.Watermark <= q.Watermark
	}
	return p.Offset < q.Offset
}

// judge says what an Advance meets at the shard's points, in the order of rules A3, and which sources mismatch.
func judge(own func(crdt.Source) (Standing, bool), ranges []crdt.Range) (Outcome, []crdt.Source) {
	var mismatched []crdt.Source
	behind, fits := true, true
	for _, x := range ranges {
		st, ok := own(x.Source)
		if !ok {
			behind, fits = false, false
			continue
		}
		other := x.To.Offset == st.Point.Offset && !sameHistory(x.To, st.Point) ||
			x.From.Offset == st.Point.Offset && x.From.Chain != st.Point.Chain
		if other && !mutant.On("hash-ignored") {
			mismatched = append(mismatched, x.Source)
		}
		behind = behind && (x.To.Offset < st.Point.Offset || x.To.Offset == st.Point.Offset && x.To.Watermark <= st.Point.Watermark)
		fits = fits && (x.From.Offset == st.Point.Offset || mutant.On("gap-accepted") && x.From.Offset > st.Point.Offset)
	}
	switch {
	case len(mismatched) > 0:
		return Mismatch, mismatched
	case behind:
		return Duplicate, nil
	case fits:
		return Applied, nil
	}
	return Refused, nil
}

// malformed says what is wrong in an Advance beyond what its decoder sees, "" for nothing.
func (a *applier) malformed(c *Advance) string {
	if !slices.Contains(a.cfg.Regions, c.Group) {
		return "its group is no region of the deployment"
	}
	if len(c.Ranges) == 0 {
		return "it names no source"
	}
	return ""
}

func (a *applier) advance(c *Advance) {
	g := a.st.generations[c.Generation]
	if g == nil {
		a.unknown()
		return
	}
	if why := a.malformed(c); why != "" {
		a.end(Malformed, "%s", why)
		return
	}
	outcome, mismatched := judge(g.Standing, c.Ranges)
	a.end(outcome, "")
	switch outcome {
	case Mismatch:
		a.res.Sources = mismatched
	case Refused:
		for _, x := range c.Ranges {
			if st, ok := g.Standing(x.Source); ok {
				a.res.Points = append(a.res.Points, SourcePoint{x.Source, st.Point})
			}
		}
	case Duplicate:
		if mutant.On("duplicate-applied") {
			a.add(a.edit(g.ID), c)
		}
	case Applied:
		g = a.edit(g.ID)
		a.add(g, c)
		for _, x := range c.Ranges {
			a.move(g, x.Source, x.To)
		}
		a.tick(g)
		a.out(OutAdvance)
	}
}

// add merges the cells that the horizon has not passed, and notes which rows they change.
func (a *applier) add(g *Generation, c *Advance) {
	keep := make([]crdt.Delta, 0, len(c.Deltas))
	for _, d := range c.Deltas {
		if d.Slot.Time <= g.Horizon && !mutant.On("horizon-ignored") {
			g.Expired += records(d.Cell)
			continue
		}
		keep = append(keep, d)
		a.touch(g, d.Slot)
	}
	if len(keep) > 0 {
		a.w.Adds = append(a.w.Adds, Add{g.ID, c.Group, g.Copy(c.Group), keep})
		a.change.Slots = append(a.change.Slots, slotsOf(keep)...)
	}
}

func slotsOf(deltas []crdt.Delta) []crdt.Slot {
	list := make([]crdt.Slot, len(deltas))
	for i, d := range deltas {
		list[i] = d.Slot
	}
	return list
}

// move sets a source's point, keeps the mark it comes to, and takes its idle flag away if it went anywhere.
func (a *applier) move(g *Generation, s crdt.Source, to crdt.Point) {
	grp := a.group(g, s.Region)
	st := Standing{Source: s}
	if i, ok := grp.find(s); ok {
		st = grp.sources[i]
	}
	if st.Point == to && st.Kept > 0 {
		return
	}
	if st.Point.Mark() != to.Mark() || st.Kept == 0 {
		a.keep(g, s, st.Kept, to.Mark())
		st.Kept++
	}
	st.Point, st.Idle = to, false
	grp.put(st)
	a.moved(g, st)
}

func (a *applier) addSources(c *AddSources) {
	g := a.st.generations[c.Generation]
	if g == nil {
		a.unknown()
		return
	}
	if !slices.Contains(a.cfg.Regions, c.Group) {
		a.end(Malformed, "its group is no region of the deployment")
		return
	}
	var unseen []SourcePoint
	var mismatched []crdt.Source
	for _, sp := range c.Sources {
		st, ok := g.Standing(sp.Source)
		switch {
		case sp.Source.Region != c.Group:
			a.end(Malformed, "source %v is of another group", sp.Source)
			return
		case !ok || st.First == nil:
			unseen = append(unseen, sp)
		case *st.First != sp.Point:
			mismatched = append(mismatched, sp.Source)
		}
	}
	if len(mismatched) > 0 {
		a.end(Mismatch, "begun at another point")
		a.res.Sources = mismatched
		return
	}
	if len(unseen) == 0 && g.Declared(c.Group) {
		a.end(Duplicate, "")
		return
	}
	g = a.edit(g.ID)
	grp := a.group(g, c.Group)
	grp.declared = true
	for _, sp := range unseen {
		first := sp.Point
		i, ok := grp.find(sp.Source)
		if !ok {
			a.move(g, sp.Source, first)
			i, _ = grp.find(sp.Source)
		}
		grp.sources[i].First = &first
		a.moved(g, grp.sources[i])
	}
	a.tick(g)
	a.end(Applied, "")
	a.out(OutSources)
}
