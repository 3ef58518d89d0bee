package shard

import (
	"bytes"
	"maps"
)

// MaxNote bounds the value of a Note in bytes.
const MaxNote = 1 << 20

// Note replaces one of a shard's notes: small values that this region alone keeps, that are in no join, and that only mean
// something to whoever wrote them. The present revision must be the one that is named, 0 where there is no such note;
// else it is refused, or a duplicate where it says the same.
type Note struct {
	Name     string // at most MaxName bytes
	Revision uint64 // the present one
	Value    []byte // at most MaxNote bytes
}

// KeptNote is a note as the shard has it.
type KeptNote struct {
	Revision uint64 // how often it was written
	Index    uint64 // of the command that wrote it
	Value    []byte // not to be changed
}

func (*Note) kind() Kind { return KindNote }

func (c *Note) appendBody(b []byte) []byte {
	return appendBytes(appendUvarint(appendString(b, c.Name), c.Revision), c.Value)
}

func (c *Note) readBody(r *reader) {
	c.Name, c.Revision, c.Value = r.string(MaxName), r.uint64(), r.bytes(MaxNote)
}

// Note returns one of the shard's notes, of revision 0 where it was never written.
func (s *State) Note(name string) KeptNote { return s.notes[name] }

func noteKey(note string) []byte { return name(nameNote, []byte(note)) }

func (a *applier) note(c *Note) {
	kept := a.st.notes[c.Name]
	switch {
	case kept.Revision == c.Revision+1 && bytes.Equal(kept.Value, c.Value):
		a.end(Duplicate, "")
		return
	case kept.Revision != c.Revision:
		a.end(Refused, "the note has revision %d, not %d", kept.Revision, c.Revision)
		return
	}
	next := KeptNote{c.Revision + 1, a.index, bytes.Clone(c.Value)}
	notes := maps.Clone(a.st.notes)
	if notes == nil {
		notes = map[string]KeptNote{}
	}
	notes[c.Name] = next
	a.st.notes = notes
	a.w.set(noteKey(c.Name), appendBytes(appendUvarint(appendUvarint([]byte{metaVersion}, next.Revision), next.Index), next.Value))
	a.end(Applied, "")
}

func (l *loader) note(name, value *reader) {
	value.version()
	if l.st.notes == nil {
		l.st.notes = map[string]KeptNote{}
	}
	l.st.notes[string(name.rest())] = KeptNote{value.uint64(), value.uint64(), value.bytes(MaxNote)}
}
