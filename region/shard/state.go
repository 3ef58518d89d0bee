package shard

import (
	"bytes"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
)

// State is what a shard holds beside its slots. A State that was handed out never changes: applying a command makes the
// next one, which shares with it what the command left alone.
type State struct {
	Index       uint64          // of the last command applied
	Chain       crdt.Hash       // over all commands applied, their outcomes and logical writes
	Format      uint32          // in force, at least 1: commands above it are refused, see Raise
	Unreachable []crdt.RegionID // as the last Reach said; sorted

	own         Ownership
	restored    bool // the record is of another incarnation than the configuration: it owns nothing
	generations map[crdt.GenerationID]*Generation
	registry    *Registry
	told        *ToldTables
	notes       map[string]KeptNote // replaced, never changed
	tables      *Tables             // never nil
}

// Generation is one live generation on the shard. It is immutable once it was handed out.
type Generation struct {
	ID      crdt.GenerationID
	Name    string
	Meaning [32]byte
	Pinned  []job.Pinned
	Job     *job.Job

	// Horizon is the window end at and below which the shard holds nothing; crdt.MinTime at first.
	Horizon int64
	// Watermark is the least watermark of the active sources, Partial the same without the excluded regions. Both are of
	// the clock part and never go back. Partial is never below Watermark.
	Watermark, Partial int64
	Excluded           []crdt.RegionID // unreachable regions that Partial leaves out; sorted
	// Expired counts records of this region's Advances that the horizon had already passed: a metric, in no digest.
	Expired uint64
	Outbox  Outbox

	groups map[crdt.RegionID]*group
}

// group is all sources of one origin region.
type group struct {
	declared bool   // its sources are known; else its watermark is crdt.MinTime
	copy     uint32 // which copy readers and Advances use
	next     uint32 // the number of the next staged copy
	staged   *staged
	sources  []Standing // in source order
}

// staged is a copy that is being filled.
type staged struct{ copy, chunks uint32 }

// Standing is where the shard stands in one source.
type Standing struct {
	Source crdt.Source
	Point  crdt.Point
	First  *crdt.Point // where it began; nil where the source came by a state join and nobody has said yet
	Idle   bool        // flagged idle at Point
	Kept   uint64      // how many marks of it were ever kept; the last KeptMarks of them are in the store
}

func newState() *State {
	return &State{Format: 1, generations: map[crdt.GenerationID]*Generation{}, registry: &Registry{}, told: &ToldTables{},
		tables: newTables()}
}

// Generations lists the live generations in order of their ids.
func (s *State) Generations() []*Generation {
	list := slices.Collect(maps.Values(s.generations))
	slices.SortFunc(list, func(a, b *Generation) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return list
}

// Generation returns a live generation, nil for an unknown one.
func (s *State) Generation(id crdt.GenerationID) *Generation { return s.generations[id] }

// Registry returns the region's copy of the registry. It is empty on every shard but 0.
func (s *State) Registry() *Registry { return s.registry }

// Told returns the tables that the shard was told of.
func (s *State) Told() *ToldTables { return s.told }

// Groups lists the origin regions that have anything here, sorted.
func (g *Generation) Groups() []crdt.RegionID { return slices.Sorted(maps.Keys(g.groups)) }

// Declared reports whether the sources of a region are known.
func (g *Generation) Declared(region crdt.RegionID) bool {
	grp := g.groups[region]
	return grp != nil && grp.declared
}

// Copy returns the number of the copy that holds a group's slots.
func (g *Generation) Copy(region crdt.RegionID) uint32 {
	if grp := g.groups[region]; grp != nil {
		return grp.copy
	}
	return 0
}

// Staged returns the number of the copy of a group that is being filled, if one is: the region's own workers stand down
// for that group meanwhile (rules A5).
func (g *Generation) Staged(region crdt.RegionID) (copy, chunks uint32, ok bool) {
	if grp := g.groups[region]; grp != nil && grp.staged != nil {
		return grp.staged.copy, grp.staged.chunks, true
	}
	return 0, 0, false
}

// Standings lists where the shard stands in every source of a group, in source order. The caller must not change it.
func (g *Generation) Standings(region crdt.RegionID) []Standing {
	if grp := g.groups[region]; grp != nil {
		return grp.sources
	}
	return nil
}

// Standing returns where the shard stands in one source.
func (g *Generation) Standing(s crdt.Source) (Standing, bool) {
	if grp := g.groups[s.Region]; grp != nil {
		if i, ok := grp.find(s); ok {
			return grp.sources[i], true
		}
	}
	return Standing{}, false
}

// Points returns the generation's points over all groups, as a map of the caller's own.
func (g *Generation) Points() crdt.Frontier {
	f := crdt.Frontier{}
	for _, grp := range g.groups {
		for _, st := range grp.sources {
			f[st.Source] = st.Point
		}
	}
	return f
}

func (grp *group) find(s crdt.Source) (int, bool) {
	return slices.BinarySearchFunc(grp.sources, s, func(st Standing, s crdt.Source) int {
		return crdt.CompareSources(st.Source, s)
	})
}

// put inserts or replaces a standing. The group must be a clone.
func (grp *group) put(st Standing) {
	i, ok := grp.find(st.Source)
	if ok {
		grp.sources[i] = st
		return
	}
	grp.sources = slices.Insert(grp.sources, i, st)
}

// clone copies what commands change in place; groups are cloned when one is edited.
func (g *Generation) clone() *Generation {
	c := *g
	c.groups = maps.Clone(g.groups)
	return &c
}

func (grp *group) clone() *group {
	c := *grp
	c.sources = slices.Clone(grp.sources)
	if grp.staged != nil {
		s := *grp.staged
		c.staged = &s
	}
	return &c
}
