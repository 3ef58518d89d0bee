package shard

import (
	"math"

	"github.com/watershed-db/watershed/crdt"
)

func (a *applier) horizon(c *Horizon) {
	g := a.st.generations[c.Generation]
	switch {
	case g == nil:
		a.unknown()
	case c.H == crdt.MaxTime:
		a.end(Malformed, "an infinite watermark moves no horizon")
	case c.H <= g.Horizon:
		a.end(Duplicate, "")
	default:
		a.raise(a.edit(g.ID), c.H)
		a.end(Applied, "")
		a.out(OutHorizon)
	}
}

// raise takes the horizon up to h and removes what it passes: in every group, in staged copies and in the outbox.
func (a *applier) raise(g *Generation, h int64) {
	if h <= g.Horizon {
		return
	}
	g.Horizon = h
	for _, region := range g.Groups() {
		grp := g.groups[region]
		a.w.Drops = append(a.w.Drops, Drop{Generation: g.ID, Group: region, Copy: grp.copy, UpTo: h})
		if grp.staged != nil {
			a.w.Drops = append(a.w.Drops, Drop{Generation: g.ID, Group: region, Copy: grp.staged.copy, UpTo: h})
		}
	}
	a.forget(g, h)
	a.change.Whole = true
}

// less returns t - d for d >= 0, with the infinite times as they are and saturated below.
func less(t, d int64) int64 {
	switch {
	case t == crdt.MinTime || t == crdt.MaxTime:
		return t
	case t < math.MinInt64+d:
		return crdt.MinTime
	}
	return t - d
}
