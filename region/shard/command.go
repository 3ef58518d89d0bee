package shard

import (
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
)

// Bounds of what commands may hold. Decoding refuses more with ErrCommand.
const (
	MaxFile     = 1 << 20 // bytes of a job file
	MaxName     = 255     // bytes of a job's name or a region
	MaxTopicID  = 64      // bytes of a Decided.TopicID
	MaxReason   = 1 << 10 // bytes of a reason
	MaxPins     = 1 << 12 // pinned versions of a generation
	MaxSources  = 1 << 16 // sources, regions, generations or registry entries in one command
	maxPoint    = 1 << 8  // bytes of an encoded point
	commandHead = 2       // kind and format stand before every command's body
)

// Command is one entry of a shard's replicated log. The set is closed: the types of this file.
type Command interface {
	kind() Kind
	appendBody(b []byte) []byte
	readBody(r *reader)
}

// Kind says which command an encoding holds. The numbers are on disk.
type Kind uint8

// The kinds of commands.
const (
	KindAddGeneration Kind = iota + 1
	KindUpdateGeneration
	KindDropGeneration
	KindAddSources
	KindAdvance
	KindHorizon
	KindIdle
	KindReach
	KindStageBegin
	KindStageChunk
	KindStageAbandon
	KindInstall
	KindPlan
	KindDone
	KindJobApply
	KindJobDelete
	KindRegistryCopy
	KindSourcesDecided
	KindSourceStopped
	KindCheck
	KindRaise
	KindNote
	KindRegisterTable
	KindUnregisterTable
	KindTellTables
	KindOwn
	KindRejoin
	KindOwnStage
	KindOwnChunk
	KindOwnUnstage
	KindDiscard
	KindTableWrite
	KindTableForward
	KindTableClose
	KindTableBegin
	KindTableFloor
	KindTableStage
	KindTableChunk
	KindTableAdopt
	KindTableMerge
	KindTableAbandon
	kindEnd // one above the greatest
)

// SourcePoint is a source and a point of it.
type SourcePoint struct {
	Source crdt.Source
	Point  crdt.Point
}

// SourceMark is a source and a mark of it.
type SourceMark struct {
	Source crdt.Source
	Mark   crdt.Mark
}

// AddGeneration tells the shard of a live generation of its region's registry (rules A10). The same again changes
// nothing; another file under the same id is refused.
type AddGeneration struct {
	ID      crdt.GenerationID
	Name    string // the job's
	File    []byte
	Meaning [32]byte     // hash of all that can change a result
	Pinned  []job.Pinned // versions of built-ins, see rules A11
}

// UpdateGeneration replaces a generation's file by one of the same meaning.
type UpdateGeneration struct {
	ID      crdt.GenerationID
	File    []byte
	Meaning [32]byte
}

// DropGeneration removes a generation with all its state.
type DropGeneration struct{ ID crdt.GenerationID }

// AddSources lets sources of one group in at their first points, and declares the group: from then on all that it
// contributes is known to come through its points (rules A2). It travels between regions in the group's own order.
type AddSources struct {
	Generation crdt.GenerationID
	Group      crdt.RegionID
	Sources    []SourcePoint // in crdt.CompareSources order, all of Group
}

// Advance is a crdt.Advance as it was proposed (rules A3, A6).
type Advance struct{ crdt.Advance }

// Horizon raises the horizon to H, if it is below. That H is no higher than every region bears is the proposer's care
// (rules A7, Floor).
type Horizon struct {
	Generation crdt.GenerationID
	H          int64
}

// Idle sets or clears the idle flags of sources, each only if the source still stands at the named mark.
type Idle struct {
	Generation crdt.GenerationID
	Sources    []SourceMark
	Idle       bool
}

// Reach says which regions can't be reached, and which of those each generation fires without. It replaces what the last
// one said. Lists are sorted.
type Reach struct {
	Unreachable []crdt.RegionID
	Excluded    []Exclusion
}

// Exclusion names the regions that a generation fires without.
type Exclusion struct {
	Generation crdt.GenerationID
	Regions    []crdt.RegionID
}

// StageBegin opens a new copy of a group, to be filled by chunks; one that was open before is dropped. The result's
// Copy is its number.
type StageBegin struct {
	Generation crdt.GenerationID
	Group      crdt.RegionID
}

// StageChunk adds cells to the open copy. Chunks are numbered from 0 and taken each once, in order.
type StageChunk struct {
	Generation crdt.GenerationID
	Group      crdt.RegionID
	Copy       uint32
	Number     uint32
	Deltas     []crdt.Delta
}

// StageAbandon drops the open copy, if it has that number.
type StageAbandon struct {
	Generation crdt.GenerationID
	Group      crdt.RegionID
	Copy       uint32
}

// Install switches a group to the open copy (rules A5).
type Install struct {
	crdt.Install
	Chunks uint32 // how many chunks the copy has; another number staged is refused
	// Confirmed are marks of this shard that the sender, or the own copy of the log, has found on the way to Install.To.
	Confirmed []SourceMark
}

// Plan opens batch N of the outbox: rows of all windows whose end is above the cursor, up to To (rules A15).
type Plan struct {
	Generation crdt.GenerationID
	N          uint64 // one more than the last plan's
	Partial    bool   // rows go out marked incomplete, up to the partial watermark
	To         int64
}

// Done closes plan N, whose rows were made from one view at Index.
type Done struct {
	Generation crdt.GenerationID
	N          uint64
	Index      uint64
	Marks      []DirtyMark // which dirty marks the batch covered; their own Index is not used
}

// DirtyMark is a window and key whose row changed after it was planned or sent.
type DirtyMark struct {
	End   int64
	Key   []byte
	Index uint64 // the applied index of the last change
}

// JobApply enters a job into the registry. Only where the own region owns shard 0.
type JobApply struct {
	Epoch   uint64 // of the owner: counter x 2^16 + member number (rules A12)
	Name    string
	File    []byte
	Meaning [32]byte
	Pinned  []job.Pinned
}

// JobDelete takes a job out of the registry.
type JobDelete struct {
	Epoch uint64
	Name  string
}

// RegistryCopy takes the owner's registry entries over, in order of position.
type RegistryCopy struct{ Entries []Entry }

// SourcesDecided records on shard 0 the first points of own sources, before any shard is told (rules A2).
type SourcesDecided struct {
	Generation crdt.GenerationID
	Sources    []Decided // in crdt.CompareSources order
}

// Decided is a source of the own region, the first point that was decided for it, and in which log.
type Decided struct {
	SourcePoint
	// TopicID is what the log's keeper calls the topic, at most MaxTopicID bytes, "" where it has no name for it: a topic
	// that is made again has another one.
	TopicID string
}

// SourceStopped records on shard 0 that a source's log does not fit its point.
type SourceStopped struct {
	Generation crdt.GenerationID
	Source     crdt.Source
	Reason     string
}

// Check carries the proposer's hash chain at an index; a replica whose own differs there stops.
type Check struct {
	Index uint64
	Chain crdt.Hash
}

func (*AddGeneration) kind() Kind    { return KindAddGeneration }
func (*UpdateGeneration) kind() Kind { return KindUpdateGeneration }
func (*DropGeneration) kind() Kind   { return KindDropGeneration }
func (*AddSources) kind() Kind       { return KindAddSources }
func (*Advance) kind() Kind          { return KindAdvance }
func (*Horizon) kind() Kind          { return KindHorizon }
func (*Idle) kind() Kind             { return KindIdle }
func (*Reach) kind() Kind            { return KindReach }
func (*StageBegin) kind() Kind       { return KindStageBegin }
func (*StageChunk) kind() Kind       { return KindStageChunk }
func (*StageAbandon) kind() Kind     { return KindStageAbandon }
func (*Install) kind() Kind          { return KindInstall }
func (*Plan) kind() Kind             { return KindPlan }
func (*Done) kind() Kind             { return KindDone }
func (*JobApply) kind() Kind         { return KindJobApply }
func (*JobDelete) kind() Kind        { return KindJobDelete }
func (*RegistryCopy) kind() Kind     { return KindRegistryCopy }
func (*SourcesDecided) kind() Kind   { return KindSourcesDecided }
func (*SourceStopped) kind() Kind    { return KindSourceStopped }
func (*Check) kind() Kind            { return KindCheck }

// blank returns an empty command of a kind, nil for an unknown one.
func blank(k Kind) Command {
	switch k {
	case KindAddGeneration:
		return &AddGeneration{}
	case KindUpdateGeneration:
		return &UpdateGeneration{}
	case KindDropGeneration:
		return &DropGeneration{}
	case KindAddSources:
		return &AddSources{}
	case KindAdvance:
		return &Advance{}
	case KindHorizon:
		return &Horizon{}
	case KindIdle:
		return &Idle{}
	case KindReach:
		return &Reach{}
	case KindStageBegin:
		return &StageBegin{}
	case KindStageChunk:
		return &StageChunk{}
	case KindStageAbandon:
		return &StageAbandon{}
	case KindInstall:
		return &Install{}
	case KindPlan:
		return &Plan{}
	case KindDone:
		return &Done{}
	}
	return blankRegistry(k)
}

func blankRegistry(k Kind) Command {
	switch k {
	case KindJobApply:
		return &JobApply{}
	case KindJobDelete:
		return &JobDelete{}
	case KindRegistryCopy:
		return &RegistryCopy{}
	case KindSourcesDecided:
		return &SourcesDecided{}
	case KindSourceStopped:
		return &SourceStopped{}
	case KindCheck:
		return &Check{}
	case KindRaise:
		return &Raise{}
	case KindNote:
		return &Note{}
	case KindOwn:
		return &Own{}
	case KindRejoin:
		return &Rejoin{}
	case KindOwnStage:
		return &OwnStage{}
	case KindOwnChunk:
		return &OwnChunk{}
	case KindOwnUnstage:
		return &OwnUnstage{}
	case KindDiscard:
		return &Discard{}
	}
	return blankTold(k)
}
