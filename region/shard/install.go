package shard

import (
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// stagedGroup returns the generation and group of a command that stages, for editing; nil after it has ended the command.
func (a *applier) stagedGroup(id crdt.GenerationID, region crdt.RegionID) (*Generation, *group) {
	if a.st.generations[id] == nil {
		a.unknown()
		return nil, nil
	}
	if !slices.Contains(a.cfg.Regions, region) {
		a.end(Malformed, "its group is no region of the deployment")
		return nil, nil
	}
	g := a.edit(id)
	return g, a.group(g, region)
}

func (a *applier) stageBegin(c *StageBegin) {
	g, grp := a.stagedGroup(c.Generation, c.Group)
	if g == nil {
		return
	}
	a.unstage(g, c.Group, grp)
	grp.staged = &staged{copy: grp.next}
	grp.next++
	a.res.Copy = grp.staged.copy
	a.end(Applied, "")
}

// unstage drops the copy that is being filled, if there is one.
func (a *applier) unstage(g *Generation, region crdt.RegionID, grp *group) {
	if grp.staged != nil {
		a.w.Drops = append(a.w.Drops, Drop{Generation: g.ID, Group: region, Copy: grp.staged.copy, UpTo: crdt.MaxTime})
		grp.staged = nil
	}
}

func (a *applier) stageChunk(c *StageChunk) {
	g, grp := a.stagedGroup(c.Generation, c.Group)
	switch {
	case g == nil:
	case grp.staged == nil || grp.staged.copy != c.Copy:
		a.end(Refused, "copy %d is not open", c.Copy)
	case c.Number < grp.staged.chunks:
		a.end(Duplicate, "")
	case c.Number > grp.staged.chunks:
		a.end(Refused, "chunk %d is missing", grp.staged.chunks)
	default:
		grp.staged.chunks++
		keep := slices.DeleteFunc(slices.Clone(c.Deltas), func(d crdt.Delta) bool { return d.Slot.Time <= g.Horizon })
		if len(keep) > 0 {
			a.w.Adds = append(a.w.Adds, Add{g.ID, c.Group, c.Copy, keep})
		}
		a.end(Applied, "")
	}
}

func (a *applier) stageAbandon(c *StageAbandon) {
	g, grp := a.stagedGroup(c.Generation, c.Group)
	switch {
	case g == nil:
	case grp.staged == nil || grp.staged.copy != c.Copy:
		a.end(Duplicate, "")
	default:
		a.unstage(g, c.Group, grp)
		a.end(Applied, "")
	}
}

// dominates says whether an Install's points are at or above every present point of its group (rules A5): equal, or
// higher where the lower mark was found on the same history. Otherwise it says what the Install meets.
func dominates(present []Standing, c *Install) (Outcome, []crdt.Source) {
	var mismatched []crdt.Source
	above := true
	for _, st := range present {
		to, ok := c.To[st.Source]
		switch {
		case !ok:
			above = false
		case to.Offset == st.Point.Offset:
			if !sameHistory(st.Point, to) {
				mismatched = append(mismatched, st.Source)
			}
			above = above && atOrBelow(st.Point, to)
		default:
			above = above && to.Offset > st.Point.Offset &&
				slices.Contains(c.Confirmed, SourceMark{st.Source, st.Point.Mark()})
		}
	}
	switch {
	case len(mismatched) > 0:
		return Mismatch, mismatched
	case !above:
		return Refused, nil
	}
	return Applied, nil
}

func (a *applier) install(c *Install) {
	g := a.st.generations[c.Generation]
	if g == nil {
		a.unknown()
		return
	}
	for s := range c.To {
		if s.Region != c.Group {
			a.end(Malformed, "a source is of another group")
			return
		}
	}
	if !slices.Contains(a.cfg.Regions, c.Group) || c.Horizon == crdt.MaxTime {
		a.end(Malformed, "no region of the deployment, or an infinite horizon")
		return
	}
	present := g.Standings(c.Group)
	outcome, mismatched := dominates(present, c)
	if outcome != Applied && !mutant.On("join-incomparable") {
		a.end(outcome, "")
		a.res.Sources = mismatched
		for _, st := range present {
			a.res.Points = append(a.res.Points, SourcePoint{st.Source, st.Point})
		}
		return
	}
	if copy, chunks, ok := g.Staged(c.Group); !ok || copy != c.Copy || chunks != c.Chunks {
		a.end(Refused, "copy %d with %d chunks is not what is staged", c.Copy, c.Chunks)
		return
	}
	g = a.edit(g.ID)
	grp := a.group(g, c.Group)
	if grp.declared && !a.gains(grp, c) && c.Horizon <= g.Horizon {
		a.unstage(g, c.Group, grp)
		a.end(Duplicate, "")
		return
	}
	if !mutant.On("install-keeps-horizon") {
		a.raise(g, c.Horizon) // before the switch, and for all groups
	}
	a.w.Drops = append(a.w.Drops, Drop{Generation: g.ID, Group: c.Group, Copy: grp.copy, UpTo: crdt.MaxTime})
	grp.copy, grp.staged, grp.declared = c.Copy, nil, true
	for _, sp := range sortedPoints(c.To) {
		a.move(g, sp.Source, sp.Point)
	}
	a.rewind(g, g.Horizon) // any row may have changed
	a.tick(g)
	a.change.Whole = true
	a.end(Applied, "")
	a.out(OutInstall)
}

// gains reports whether an Install moves any point of the group or brings a source.
func (a *applier) gains(grp *group, c *Install) bool {
	for s, to := range c.To {
		if i, ok := grp.find(s); !ok || grp.sources[i].Point != to {
			return true
		}
	}
	return false
}
