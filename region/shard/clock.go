package shard

import (
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

func (a *applier) idle(c *Idle) {
	g := a.st.generations[c.Generation]
	if g == nil {
		a.unknown()
		return
	}
	changed := false
	for _, sm := range c.Sources {
		st, ok := g.Standing(sm.Source)
		if !ok || st.Point.Mark() != sm.Mark {
			if ok {
				a.res.Points = append(a.res.Points, SourcePoint{sm.Source, st.Point})
			}
			continue
		}
		if st.Idle == c.Idle {
			continue
		}
		g = a.edit(g.ID)
		st.Idle = c.Idle
		a.group(g, sm.Source.Region).put(st)
		a.moved(g, st)
		changed = true
	}
	switch {
	case changed:
		a.tick(g)
		a.end(Applied, "")
	case len(a.res.Points) > 0:
		a.end(Refused, "the sources stand elsewhere")
	default:
		a.end(Duplicate, "")
	}
}

func (a *applier) reach(c *Reach) {
	a.st.Unreachable = c.Unreachable
	a.headChanged = true
	for _, g := range a.st.Generations() {
		var excluded []crdt.RegionID
		for _, x := range c.Excluded {
			if x.Generation != g.ID {
				continue
			}
			for _, region := range x.Regions {
				if slices.Contains(c.Unreachable, region) {
					excluded = append(excluded, region)
				}
			}
		}
		g = a.edit(g.ID)
		g.Excluded = excluded
		a.tick(g)
	}
	a.end(Applied, "")
}

// tick takes the watermarks as far as the present points, flags and reach allow. They never go back.
func (a *applier) tick(g *Generation) {
	full, ok := leastWatermark(g, a.cfg.Regions, a.st.Unreachable, nil)
	if ok && (full > g.Watermark || mutant.On("watermark-goes-back")) {
		g.Watermark = full
	}
	g.Partial = max(g.Partial, g.Watermark)
	if len(g.Excluded) == 0 {
		return
	}
	if partial, ok := leastWatermark(g, a.cfg.Regions, a.st.Unreachable, g.Excluded); ok {
		g.Partial = max(g.Partial, partial)
	}
}

// leastWatermark returns the least watermark over the active sources of all members but the excluded ones; false where
// none is active, which lets the watermark stand. A source of an unreachable region is active whatever its flag says: it
// may have been written to since. A member whose sources nobody has told of holds everything back.
func leastWatermark(g *Generation, members, unreachable, excluded []crdt.RegionID) (least int64, ok bool) {
	least = crdt.MaxTime
	lower := func(t int64) { least, ok = min(least, t), true }
	for _, region := range members {
		if slices.Contains(excluded, region) {
			continue
		}
		away := slices.Contains(unreachable, region)
		if away && mutant.On("unreachable-as-idle") {
			continue
		}
		if !g.Declared(region) {
			lower(crdt.MinTime)
			continue
		}
		for _, st := range g.Standings(region) {
			if !st.Idle || away && !mutant.On("idle-while-unreachable") {
				lower(st.Point.Watermark)
			}
		}
	}
	return least, ok
}
