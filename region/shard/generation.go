package shard

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/processor/job"
)

// ErrInvalid marks a command from outside whose content the shard can't hold.
var ErrInvalid = errors.New("invalid shard command")

func (a *applier) addGeneration(c *AddGeneration) {
	if g := a.st.generations[c.ID]; g != nil {
		if g.Meaning != c.Meaning || g.Name != c.Name {
			a.end(Refused, "the generation is there with another meaning")
			return
		}
		a.end(Duplicate, "")
		return
	}
	j, err := job.Parse(c.Name, bytes.Clone(c.File))
	if err != nil {
		a.end(Malformed, "%v", err)
		return
	}
	g := &Generation{ID: c.ID, Name: c.Name, Meaning: c.Meaning, Pinned: c.Pinned, Job: j, Horizon: crdt.MinTime,
		Watermark: crdt.MinTime, Partial: crdt.MinTime, groups: map[crdt.RegionID]*group{},
		Outbox: Outbox{Full: crdt.MinTime, Partial: crdt.MinTime, marks: newMarks()}}
	a.enterGeneration(g)
	a.w.set(fileKey(g.ID), j.File)
	a.end(Applied, "")
}

func (a *applier) updateGeneration(c *UpdateGeneration) {
	g := a.st.generations[c.ID]
	switch {
	case g == nil:
		a.unknown()
		return
	case g.Meaning != c.Meaning:
		a.end(Refused, "another meaning is another generation")
		return
	case bytes.Equal(g.Job.File, c.File):
		a.end(Duplicate, "")
		return
	}
	j, err := job.Parse(g.Name, bytes.Clone(c.File))
	if err != nil {
		a.end(Malformed, "%v", err)
		return
	}
	silent := !a.emits(g)
	g = a.edit(c.ID)
	g.Job = j
	if silent && a.emits(g) {
		a.rewind(g, g.Horizon) // what changed meanwhile was not marked
	}
	a.w.set(fileKey(g.ID), j.File)
	a.end(Applied, "")
}

func (a *applier) dropGeneration(c *DropGeneration) {
	g := a.st.generations[c.ID]
	if g == nil {
		a.end(Duplicate, "")
		return
	}
	delete(a.st.generations, c.ID)
	a.w.Drops = append(a.w.Drops, Drop{Generation: c.ID, All: true})
	for _, prefix := range generationPrefixes(c.ID) {
		a.w.clear(prefixRange(prefix))
	}
	a.change = Change{Generation: c.ID, Whole: true}
	a.end(Applied, "")
}

// records returns how many records an encoded cell holds; 0 where it is malformed, which Validate keeps out.
func records(cell []byte) uint64 {
	c, err := crdt.DecodeCell(cell)
	if err != nil {
		return 0
	}
	return c.Records
}

// Validate is the deep check of a command from outside, made once before it is proposed: that its cells are of the
// generation's schema and its keys of this shard, and that sources name inputs of the job. It fails with ErrInvalid. A
// generation unknown here passes: applying the command says so.
func (c *Config) Validate(s *State, cmd Command) error {
	if f := uint32(cmd.kind().format()); f > s.Format {
		return fmt.Errorf("%w: a command of format %d, in force is %d", ErrInvalid, f, s.Format)
	}
	switch cmd := cmd.(type) {
	case *TableWrite:
		return c.validateRow(cmd.Table, cmd.Key)
	case *TableForward:
		if cmd.Op != nil {
			return c.validateRow(cmd.Op.Table, cmd.Op.Key)
		}
	case *TableChunk:
		for _, row := range cmd.Rows {
			if err := c.validateRow(TableID(row.Row[:16]), row.Row[16:]); err != nil {
				return err
			}
		}
	case *Raise:
		if err := cmd.check(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	case *Advance:
		return c.validateDeltas(s, &cmd.Advance)
	case *StageChunk:
		return c.validateDeltas(s, &crdt.Advance{Generation: cmd.Generation, Group: cmd.Group, Deltas: cmd.Deltas})
	case *AddSources:
		g := s.generations[cmd.Generation]
		for _, sp := range cmd.Sources {
			if g != nil && int(sp.Source.Input) >= len(g.Job.Inputs) {
				return fmt.Errorf("%w: source %v of input %d", ErrInvalid, sp.Source, sp.Source.Input)
			}
		}
	}
	return nil
}

// validateRow checks that a key of a table is one of this shard.
func (c *Config) validateRow(id TableID, key []byte) error {
	if err := checkRowKey(key); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if at := table.ShardOf(id, key, c.Shards); at != c.Shard {
		return fmt.Errorf("%w: key %x of table %s is on shard %d, not %d", ErrInvalid, key, id, at, c.Shard)
	}
	return nil
}

func (c *Config) validateDeltas(s *State, x *crdt.Advance) error {
	g := s.generations[x.Generation]
	if g == nil {
		return nil
	}
	if err := x.Validate(g.Job.Schema()); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for i, d := range x.Deltas {
		if len(d.Slot.Key) > keyspace.MaxUserKey || keyspace.ShardOf(d.Slot.Key, c.Shards) != c.Shard {
			return fmt.Errorf("%w: delta %d: its key is not of shard %d", ErrInvalid, i, c.Shard)
		}
		if first, last := g.Job.Window.Windows(d.Slot.Time, d.Slot.Class); first > last {
			return fmt.Errorf("%w: delta %d: class %d serves no window", ErrInvalid, i, d.Slot.Class)
		}
	}
	return nil
}
