package shard

import (
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
)

// ErrCommand marks bytes that are no command this version knows: from outside, a caller's mistake; in the replicated
// log, a reason to stop.
var ErrCommand = errors.New("malformed shard command")

// Encode returns a command as it stands in the log: kind, format (Kind.format), body. An Advance's crdt encoding is what
// follows the first two bytes.
func Encode(c Command) []byte { return c.appendBody(commandHeadOf(c.kind())) }

func commandHeadOf(k Kind) []byte { return []byte{byte(k), k.format()} }

// AdvanceCommand returns the command that holds an Advance, given its crdt encoding.
func AdvanceCommand(advance []byte) []byte { return append(commandHeadOf(KindAdvance), advance...) }

// KindOf returns the kind of an encoded command, 0 where there is none.
func KindOf(b []byte) Kind {
	if len(b) < commandHead || blank(Kind(b[0])) == nil || b[1] != Kind(b[0]).format() {
		return 0
	}
	return Kind(b[0])
}

// Decode takes an encoded command. What it returns may share b's bytes. It fails with ErrCommand for anything that Encode
// does not write, and with ErrNewer besides for what a newer build may have written.
func Decode(b []byte) (Command, error) {
	if len(b) < commandHead {
		return nil, fmt.Errorf("%w: %d bytes", ErrCommand, len(b))
	}
	if b[1] > Format {
		return nil, fmt.Errorf("%w: %w", ErrCommand, newer(fmt.Sprintf("a command of kind %d", b[0]), uint64(b[1])))
	}
	c := blank(Kind(b[0]))
	if c == nil {
		return nil, fmt.Errorf("%w: kind %d is unknown", ErrCommand, b[0])
	}
	if want := Kind(b[0]).format(); b[1] != want {
		return nil, fmt.Errorf("%w: kind %d of format %d, not %d", ErrCommand, b[0], b[1], want)
	}
	r := reader{b: b[commandHead:]}
	c.readBody(&r)
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("command of kind %d: %w", b[0], err)
	}
	return c, nil
}

func (c *AddGeneration) appendBody(b []byte) []byte {
	b = appendString(append(b, c.ID[:]...), c.Name)
	b = append(appendBytes(b, c.File), c.Meaning[:]...)
	return appendPins(b, c.Pinned)
}

func (c *AddGeneration) readBody(r *reader) {
	c.ID, c.Name, c.File = r.hash16(), r.string(MaxName), r.bytes(MaxFile)
	c.Meaning, c.Pinned = r.hash32(), r.pins()
}

func (c *UpdateGeneration) appendBody(b []byte) []byte {
	return append(appendBytes(append(b, c.ID[:]...), c.File), c.Meaning[:]...)
}

func (c *UpdateGeneration) readBody(r *reader) {
	c.ID, c.File, c.Meaning = r.hash16(), r.bytes(MaxFile), r.hash32()
}

func (c *DropGeneration) appendBody(b []byte) []byte { return append(b, c.ID[:]...) }

func (c *DropGeneration) readBody(r *reader) { c.ID = r.hash16() }

func (c *AddSources) appendBody(b []byte) []byte {
	b = appendString(append(b, c.Generation[:]...), string(c.Group))
	return appendSourcePoints(b, c.Sources)
}

func (c *AddSources) readBody(r *reader) {
	c.Generation, c.Group, c.Sources = r.hash16(), r.region(), r.sourcePoints()
}

func (c *Advance) appendBody(b []byte) []byte { return c.AppendTo(b) }

func (c *Advance) readBody(r *reader) {
	a, err := crdt.DecodeAdvance(r.rest())
	if r.crdt(err); err == nil {
		c.Advance = *a
	}
}

func (c *Horizon) appendBody(b []byte) []byte {
	return appendVarint(append(b, c.Generation[:]...), c.H)
}

func (c *Horizon) readBody(r *reader) { c.Generation, c.H = r.hash16(), r.varint() }

func (c *Idle) appendBody(b []byte) []byte {
	return appendBool(appendSourceMarks(append(b, c.Generation[:]...), c.Sources), c.Idle)
}

func (c *Idle) readBody(r *reader) {
	c.Generation, c.Sources, c.Idle = r.hash16(), r.sourceMarks(), r.bool()
}

func (c *Reach) appendBody(b []byte) []byte {
	b = appendUvarint(appendRegions(b, c.Unreachable), uint64(len(c.Excluded)))
	for _, x := range c.Excluded {
		b = appendRegions(append(b, x.Generation[:]...), x.Regions)
	}
	return b
}

func (c *Reach) readBody(r *reader) {
	c.Unreachable = r.regions()
	for i, n := 0, r.count(MaxSources); i < n && r.err == nil; i++ {
		x := Exclusion{Generation: r.hash16(), Regions: r.regions()}
		if i > 0 && string(c.Excluded[i-1].Generation[:]) >= string(x.Generation[:]) {
			r.fail("generations out of order")
		}
		c.Excluded = append(c.Excluded, x)
	}
}

func (c *StageBegin) appendBody(b []byte) []byte {
	return appendString(append(b, c.Generation[:]...), string(c.Group))
}

func (c *StageBegin) readBody(r *reader) { c.Generation, c.Group = r.hash16(), r.region() }

func (c *StageChunk) appendBody(b []byte) []byte {
	b = appendUvarint(appendUvarint(b, uint64(c.Copy)), uint64(c.Number))
	return (&crdt.Advance{Generation: c.Generation, Group: c.Group, Deltas: c.Deltas}).AppendTo(b)
}

func (c *StageChunk) readBody(r *reader) {
	c.Copy, c.Number = r.uint32(), r.uint32()
	a, err := crdt.DecodeAdvance(r.rest())
	r.crdt(err)
	if r.err != nil {
		return
	}
	if len(a.Ranges) > 0 {
		r.fail("a chunk that moves points")
	}
	c.Generation, c.Group, c.Deltas = a.Generation, a.Group, a.Deltas
}

func (c *StageAbandon) appendBody(b []byte) []byte {
	return appendUvarint(appendString(append(b, c.Generation[:]...), string(c.Group)), uint64(c.Copy))
}

func (c *StageAbandon) readBody(r *reader) {
	c.Generation, c.Group, c.Copy = r.hash16(), r.region(), r.uint32()
}

func (c *Install) appendBody(b []byte) []byte {
	b = appendSourceMarks(appendUvarint(b, uint64(c.Chunks)), c.Confirmed)
	return c.AppendTo(b)
}

func (c *Install) readBody(r *reader) {
	c.Chunks, c.Confirmed = r.uint32(), r.sourceMarks()
	x, err := crdt.DecodeInstall(r.rest())
	if r.crdt(err); err == nil {
		c.Install = *x
	}
}

func (c *Plan) appendBody(b []byte) []byte {
	return appendVarint(appendBool(appendUvarint(append(b, c.Generation[:]...), c.N), c.Partial), c.To)
}

func (c *Plan) readBody(r *reader) {
	c.Generation, c.N, c.Partial, c.To = r.hash16(), r.uint64(), r.bool(), r.varint()
}

func (c *Done) appendBody(b []byte) []byte {
	b = appendUvarint(appendUvarint(append(b, c.Generation[:]...), c.N), c.Index)
	b = appendUvarint(b, uint64(len(c.Marks)))
	for _, m := range c.Marks {
		b = appendBytes(appendVarint(b, m.End), m.Key)
	}
	return b
}

func (c *Done) readBody(r *reader) {
	c.Generation, c.N, c.Index = r.hash16(), r.uint64(), r.uint64()
	for i, n := 0, r.count(MaxMarks); i < n && r.err == nil; i++ {
		c.Marks = append(c.Marks, DirtyMark{End: r.varint(), Key: r.bytes(keyspace.MaxUserKey)})
	}
}

func (c *JobApply) appendBody(b []byte) []byte {
	b = appendString(appendUvarint(b, c.Epoch), c.Name)
	b = append(appendBytes(b, c.File), c.Meaning[:]...)
	return appendPins(b, c.Pinned)
}

func (c *JobApply) readBody(r *reader) {
	c.Epoch, c.Name, c.File = r.uint64(), r.string(MaxName), r.bytes(MaxFile)
	c.Meaning, c.Pinned = r.hash32(), r.pins()
}

func (c *JobDelete) appendBody(b []byte) []byte {
	return appendString(appendUvarint(b, c.Epoch), c.Name)
}

func (c *JobDelete) readBody(r *reader) { c.Epoch, c.Name = r.uint64(), r.string(MaxName) }

func (c *RegistryCopy) appendBody(b []byte) []byte {
	b = appendUvarint(b, uint64(len(c.Entries)))
	for _, e := range c.Entries {
		b = e.AppendTo(b)
	}
	return b
}

func (c *RegistryCopy) readBody(r *reader) {
	for i, n := 0, r.count(MaxSources); i < n && r.err == nil; i++ {
		c.Entries = append(c.Entries, r.entry())
	}
}

func (c *SourcesDecided) appendBody(b []byte) []byte {
	b = appendUvarint(append(b, c.Generation[:]...), uint64(len(c.Sources)))
	for _, d := range c.Sources {
		b = d.append(crdt.AppendSource(b, d.Source))
	}
	return b
}

func (c *SourcesDecided) readBody(r *reader) {
	c.Generation = r.hash16()
	var prev crdt.Source
	for i, n := 0, r.count(MaxSources); i < n && r.err == nil; i++ {
		d := Decided{SourcePoint: SourcePoint{Source: r.source()}}
		d.read(r)
		r.ordered(i, &prev, d.Source)
		c.Sources = append(c.Sources, d)
	}
}

// append appends all but the source.
func (d *Decided) append(b []byte) []byte { return appendString(appendPoint(b, d.Point), d.TopicID) }

func (d *Decided) read(r *reader) { d.Point, d.TopicID = r.point(), r.string(MaxTopicID) }

func (c *SourceStopped) appendBody(b []byte) []byte {
	return appendString(crdt.AppendSource(append(b, c.Generation[:]...), c.Source), c.Reason)
}

func (c *SourceStopped) readBody(r *reader) {
	c.Generation, c.Source, c.Reason = r.hash16(), r.source(), r.string(MaxReason)
}

func (c *Check) appendBody(b []byte) []byte { return append(appendUvarint(b, c.Index), c.Chain[:]...) }

func (c *Check) readBody(r *reader) { c.Index, c.Chain = r.uint64(), r.hash16() }
