package upkeep

import (
	"cmp"
	"slices"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace/mutant"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	horizonEvery = time.Second      // how far apart a generation's horizon moves
	checkEvery   = 10 * time.Second // how far apart replicas are compared
	stageAfter   = 2 * time.Second  // how long a copy is open that nobody fills, before it is given up
)

// Decider says what a shard's leader is to propose. It has no clock of its own and does nothing; it remembers what it
// said before, for one leadership. It is not safe for concurrent use.
type Decider struct {
	// UnreachableAfter is for how long nothing is heard from a region before it counts as unreachable.
	UnreachableAfter time.Duration
	// CheckEvery is how far apart the replicas are compared; 0 for 10 s.
	CheckEvery time.Duration

	horizons map[crdt.GenerationID]time.Time // when one was last proposed
	staged   map[copyOf]time.Time            // when a copy was first seen that nobody fills
	checked  time.Time
	compared uint64 // the index of the last check

	closed      time.Time // when old sessions on tables were last ended
	floored     time.Time // when their floor last rose
	beside      uint32    // a copy of tables that nobody fills
	besideSince time.Time
}

type copyOf struct {
	generation crdt.GenerationID
	group      crdt.RegionID
	copy       uint32
}

// Seen is what the leader sees at one moment.
type Seen struct {
	Now     time.Time
	State   *shard.State
	Peers   []peer.View                 // all other members
	Floors  map[crdt.GenerationID]int64 // own, of the generations that have one
	Joining bool                        // a copy is being filled
	Member  table.Actor                 // the region's own number
	Merge   *shard.TableMerge           // what is to be merged next of a copy of tables; nil for nothing
}

// Decide returns what to propose, in order. Where one of them fails, those after it must not be proposed.
func (d *Decider) Decide(s *Seen) []shard.Command {
	list := d.idle(s)
	if reach := d.reach(s); reach != nil {
		list = append(list, reach)
	}
	list = append(list, d.horizon(s)...)
	list = append(list, d.abandoned(s)...)
	list = append(list, d.tables(s)...)
	return append(list, d.check(s)...)
}

// silent reports whether a region can't be reached. One that could not is only reachable again when it has told where it
// stands: its idle flags here are from before.
func (d *Decider) silent(s *Seen, p *peer.View) bool {
	if s.Now.Sub(p.Heard) > d.UnreachableAfter {
		return true
	}
	return slices.Contains(s.State.Unreachable, p.Region) && !p.Connected
}

// reach returns which regions can't be reached, and which of them each generation fires without, where that has changed.
func (d *Decider) reach(s *Seen) shard.Command {
	c := &shard.Reach{}
	for i := range s.Peers {
		if p := &s.Peers[i]; d.silent(s, p) {
			c.Unreachable = append(c.Unreachable, p.Region)
		}
	}
	slices.Sort(c.Unreachable)
	changed := !slices.Equal(c.Unreachable, s.State.Unreachable)
	for _, g := range s.State.Generations() {
		var without []crdt.RegionID
		for i := range s.Peers {
			p := &s.Peers[i]
			partial := g.Job.Emit.Partial && s.Now.Sub(p.Heard) >= time.Duration(g.Job.Emit.PartialAfter)*time.Millisecond
			if slices.Contains(c.Unreachable, p.Region) && partial {
				without = append(without, p.Region)
			}
		}
		slices.Sort(without)
		changed = changed || !slices.Equal(without, g.Excluded)
		if len(without) > 0 {
			c.Excluded = append(c.Excluded, shard.Exclusion{Generation: g.ID, Regions: without})
		}
	}
	if !changed {
		return nil
	}
	return c
}

// idle carries the idle flags of other regions' sources over, as their regions told them at the points where the shard
// stands; and takes away those that their regions no longer hold, before anything else: a region that can be reached again
// must not be found with flags from before (fault 54).
func (d *Decider) idle(s *Seen) []shard.Command {
	var clears, sets []shard.Command
	for _, g := range s.State.Generations() {
		var set, unset []shard.SourceMark
		for i := range s.Peers {
			p := &s.Peers[i]
			told := p.Told[g.ID]
			if told == nil || !p.Connected || s.Now.Sub(p.Heard) > d.UnreachableAfter {
				continue
			}
			for _, st := range g.Standings(p.Region) {
				sm := shard.SourceMark{Source: st.Source, Mark: st.Point.Mark()}
				switch quiet, ok := quietAt(told, sm); {
				case !ok || quiet == st.Idle:
				case quiet:
					set = append(set, sm)
				case !mutant.On("idle-kept-at-heal"):
					unset = append(unset, sm)
				}
			}
		}
		if len(unset) > 0 {
			clears = append(clears, &shard.Idle{Generation: g.ID, Sources: inOrder(unset)})
		}
		if len(set) > 0 {
			sets = append(sets, &shard.Idle{Generation: g.ID, Sources: inOrder(set), Idle: true})
		}
	}
	return append(clears, sets...)
}

// quietAt reports whether a region says that a source of it is idle where the shard stands. It is not ok where the region
// has told of an earlier point, which says nothing of this one.
func quietAt(told *peer.Standing, at shard.SourceMark) (quiet, ok bool) {
	p, known := told.Frontier[at.Source]
	if !known || p.Offset < at.Mark.Offset {
		return false, false
	}
	_, found := slices.BinarySearchFunc(told.Idle, at.Source, crdt.CompareSources)
	return found && p.Mark() == at.Mark, true
}

func inOrder(list []shard.SourceMark) []shard.SourceMark {
	slices.SortFunc(list, func(a, b shard.SourceMark) int { return crdt.CompareSources(a.Source, b.Source) })
	return list
}

// horizon moves horizons as far as every member region bears (rules A7). One that has not told its floor holds it.
func (d *Decider) horizon(s *Seen) (list []shard.Command) {
	if d.horizons == nil {
		d.horizons = map[crdt.GenerationID]time.Time{}
	}
	for _, g := range s.State.Generations() {
		h, ok := s.Floors[g.ID]
		if !ok || s.Now.Sub(d.horizons[g.ID]) < horizonEvery {
			continue
		}
		for i := range s.Peers {
			floor := crdt.MinTime
			if told := s.Peers[i].Told[g.ID]; told != nil {
				floor = told.Floor
			}
			if !mutant.On("floors-of-peers-ignored") {
				h = min(h, floor)
			}
		}
		if h > g.Horizon && h != crdt.MaxTime {
			d.horizons[g.ID] = s.Now
			list = append(list, &shard.Horizon{Generation: g.ID, H: h})
		}
	}
	return list
}

// abandoned gives up copies that nobody fills any more.
func (d *Decider) abandoned(s *Seen) (list []shard.Command) {
	last := d.staged
	d.staged = map[copyOf]time.Time{}
	if s.Joining {
		return nil
	}
	for _, g := range s.State.Generations() {
		for _, region := range g.Groups() {
			n, _, open := g.Staged(region)
			if !open {
				continue
			}
			key := copyOf{g.ID, region, n}
			since, seen := last[key]
			if !seen {
				since = s.Now
			}
			if d.staged[key] = since; s.Now.Sub(since) >= stageAfter {
				list = append(list, &shard.StageAbandon{Generation: g.ID, Group: region, Copy: n})
			}
		}
	}
	return list
}

// check has the replicas compared, now and then while there is anything new.
func (d *Decider) check(s *Seen) []shard.Command {
	if d.checked.IsZero() {
		d.checked = s.Now
	}
	if s.Now.Sub(d.checked) < cmp.Or(d.CheckEvery, checkEvery) || s.State.Index <= d.compared+1 { // the last check is a command, too
		return nil
	}
	d.checked, d.compared = s.Now, s.State.Index
	return []shard.Command{&shard.Check{Index: s.State.Index, Chain: s.State.Chain}}
}
