package shard

import (
	"fmt"
	"maps"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/zeebo/xxh3"
)

// Config says which shard this is. It must be the same on all replicas and for the life of the shard, but for Found and
// Owner, which count before the first command alone.
type Config struct {
	Self    crdt.RegionID
	Regions []crdt.RegionID // all members, Self among them; sorted
	Shard   keyspace.ShardID
	Shards  int
	// Found is the record of ownership that the shard begins with, the same on all replicas. Without one (Self 0) the
	// members are the Regions, numbered in order, and Owner says whether this one owns the shard first, or the first other.
	Found ownership.Record
	Owner bool
}

// Check fails if the configuration contradicts itself.
func (c *Config) Check() error {
	switch {
	case c.Self.Validate() != nil || !slices.Contains(c.Regions, c.Self):
		return fmt.Errorf("shard configuration: Self %q is none of Regions %q", c.Self, c.Regions)
	case !slices.IsSorted(c.Regions) || len(slices.Compact(slices.Clone(c.Regions))) != len(c.Regions):
		return fmt.Errorf("shard configuration: Regions %q are not sorted, each once", c.Regions)
	case c.Shards < 1 || int(c.Shard) >= c.Shards:
		return fmt.Errorf("shard configuration: Shard %d of %d", c.Shard, c.Shards)
	}
	return nil
}

// Change says what a command changed, for those who watch. It is derived, never stored.
type Change struct {
	Generation crdt.GenerationID
	Slots      []crdt.Slot // slots that were added to; their Keys are valid during the call only
	Whole      bool        // anything may have changed: the horizon moved, or a copy was installed
	Out        OutKind     // as what other regions want the command; 0 where they do not
	Actor      table.Actor // OutTable: whose entry the command is
	Mark       table.Mark  // and where that one's history stands after it
}

// rows are the small values that the store holds, as the last command left them. They are read by commands that depend
// on more than the State; what such a command itself writes it must remember. A read that fails says that there is nothing
// and is told to the Machine, which then throws the command's work away.
type rows interface {
	get(key []byte) (value []byte, ok bool)
	// fail tells the Machine that what is stored can't be gone on from.
	fail(err error)
}

// applier applies one command: it makes the next State and collects the writes.
type applier struct {
	cfg            *Config
	rows           rows
	st             *State // the next state; what it shares with the last is cloned before it changes
	index          uint64
	edited         map[crdt.GenerationID]*Generation
	touched        map[touchedGroup]*group
	registryEdited bool
	headChanged    bool

	tablesEdited, tableHeadChanged bool

	w      Writes
	res    Result
	change Change
}

type touchedGroup struct {
	generation crdt.GenerationID
	region     crdt.RegionID
}

// apply is the state machine: from a state, the rows beside it and the command at index, the next state, what to write, what to answer, and
// what watchers may want to know. raw is the command's encoding, for the chain. The state given stays as it is, but for
// the dirty marks behind its outboxes, which only the newest state may use.
func apply(cfg *Config, st *State, stored rows, index uint64, raw []byte, c Command) (*State, Writes, Result, Change) {
	next := *st
	next.Index = index
	next.generations = maps.Clone(st.generations)
	a := &applier{cfg: cfg, rows: stored, st: &next, index: index, res: Result{Index: index},
		edited: map[crdt.GenerationID]*Generation{}, touched: map[touchedGroup]*group{}}
	if st.Index == 0 {
		a.w.set(identityKey(), cfg.identity())
		a.w.set(ownKey(), next.own.append(nil))
	}
	if f := uint32(c.kind().format()); f > st.Format {
		a.end(Malformed, "a command of format %d, in force is %d", f, st.Format)
	} else {
		a.dispatch(c)
	}
	a.finish()
	h := xxh3.New()
	_, _ = h.Write(st.Chain[:])
	_, _ = h.Write(raw)
	_, _ = h.Write(a.w.appendTo([]byte{byte(a.res.Outcome)}))
	next.Chain = h.Sum128().Bytes()
	return a.st, a.w, a.res, a.change
}

func (a *applier) dispatch(c Command) {
	switch c := c.(type) {
	case *Advance:
		a.advance(c)
	case *AddGeneration:
		a.addGeneration(c)
	case *UpdateGeneration:
		a.updateGeneration(c)
	case *DropGeneration:
		a.dropGeneration(c)
	case *AddSources:
		a.addSources(c)
	case *Horizon:
		a.horizon(c)
	case *Idle:
		a.idle(c)
	case *Reach:
		a.reach(c)
	case *StageBegin:
		a.stageBegin(c)
	case *StageChunk:
		a.stageChunk(c)
	case *StageAbandon:
		a.stageAbandon(c)
	case *Install:
		a.install(c)
	case *Plan:
		a.plan(c)
	case *Done:
		a.done(c)
	default:
		a.dispatchRegistry(c)
	}
}

func (a *applier) dispatchRegistry(c Command) {
	switch c := c.(type) {
	case *JobApply:
		a.jobApply(c)
	case *JobDelete:
		a.jobDelete(c)
	case *RegistryCopy:
		a.registryCopy(c)
	case *SourcesDecided:
		a.sourcesDecided(c)
	case *SourceStopped:
		a.sourceStopped(c)
	case *Check:
		a.end(Applied, "") // Machine compares; the state has no part in it
	case *Raise:
		a.raiseFormat(c)
	case *Note:
		a.note(c)
	case *Own:
		a.own(c)
	case *Rejoin:
		a.rejoin(c)
	case *OwnStage:
		a.ownStage(c)
	case *OwnChunk:
		a.ownChunk(c)
	case *OwnUnstage:
		a.ownUnstage(c)
	case *Discard:
		a.discard(c)
	default:
		if !a.dispatchTold(c) && !a.dispatchTables(c) && !a.dispatchNext(c) {
			panic(fmt.Sprintf("shard: command %T has no rule", c))
		}
	}
}

// end sets the outcome.
func (a *applier) end(o Outcome, reason string, args ...any) {
	a.res.Outcome = o
	if reason != "" {
		a.res.Reason = fmt.Sprintf(reason, args...)
	}
}

func (a *applier) unknown() { a.end(Unknown, "the shard has not been told of this generation") }

// edit returns the generation's version of the next state, free to change. It must be live.
func (a *applier) edit(id crdt.GenerationID) *Generation {
	g, ok := a.edited[id]
	if !ok {
		g = a.st.generations[id].clone()
		a.edited[id], a.st.generations[id] = g, g
		a.change.Generation = id
	}
	return g
}

func (a *applier) enterGeneration(g *Generation) {
	a.edited[g.ID], a.st.generations[g.ID] = g, g
	a.change.Generation = g.ID
}

// group returns a group of an edited generation, free to change, and makes it where there is none.
func (a *applier) group(g *Generation, region crdt.RegionID) *group {
	k := touchedGroup{g.ID, region}
	grp, ok := a.touched[k]
	if ok {
		return grp
	}
	if old := g.groups[region]; old != nil {
		grp = old.clone()
	} else {
		grp = &group{next: 1}
	}
	a.touched[k], g.groups[region] = grp, grp
	return grp
}

func (a *applier) editRegistry() *Registry {
	if !a.registryEdited {
		a.st.registry, a.registryEdited = a.st.registry.clone(), true
	}
	return a.st.registry
}

// OutKind says what kind of command an out marker stands for: one that moved a point or the horizon, so that other
// regions want it (rules A3, A6).
type OutKind uint8

// The kinds of out markers. The numbers are on disk.
const (
	OutAdvance OutKind = iota + 1
	OutSources
	OutHorizon
	OutInstall // only a notice: a peer takes the group's state
	OutTable   // one more entry of an actor's history, see Out.Mark
)

// KeptOut is how many indexes back the out markers reach. What lies further back is taken as state.
const KeptOut = 1 << 20

// outStride is how many indexes apart old out markers are cleared.
const outStride = 1 << 12

// out marks this command as one that other regions want.
func (a *applier) out(k OutKind) {
	a.w.set(keyspace.OutKey(a.index), []byte{byte(k)})
	a.change.Out = k
}

// outTable marks this command as an actor's entry.
func (a *applier) outTable(actor table.Actor, m table.Mark) {
	a.change.Out, a.change.Actor, a.change.Mark = OutTable, actor, m
	a.w.set(keyspace.OutKey(a.index), Out{Kind: OutTable, Actor: actor, Mark: m}.append(nil))
}

// finish writes the records of what was edited.
func (a *applier) finish() {
	a.finishTables()
	for _, g := range a.st.Generations() {
		if a.edited[g.ID] == nil {
			continue
		}
		a.w.set(headKey(g.ID), g.appendHead(nil))
		for _, region := range g.Groups() {
			if grp := a.touched[touchedGroup{g.ID, region}]; grp != nil {
				a.w.set(groupKey(g.ID, region), grp.appendHead(nil))
			}
		}
	}
	if a.headChanged {
		a.w.set(reachKey(), appendRegions([]byte{metaVersion}, a.st.Unreachable))
	}
	if a.index%outStride == 0 && a.index > KeptOut {
		a.w.clear(keyspace.OutKey(0), keyspace.OutKey(a.index-KeptOut))
	}
}

// moved writes a source's record.
func (a *applier) moved(g *Generation, st Standing) {
	a.w.set(standingKey(g.ID, st.Source), st.append(nil))
}

// keep writes a mark among the last KeptMarks of its source.
func (a *applier) keep(g *Generation, s crdt.Source, n uint64, m crdt.Mark) {
	a.w.set(keptKey(g.ID, s, n), appendMark(nil, m))
	if n >= KeptMarks {
		a.w.set(keptKey(g.ID, s, n-KeptMarks), nil)
	}
}
