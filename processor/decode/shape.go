package decode

import "encoding/binary"

// maxShape bounds the members of a shape: beyond so many, names are looked up in a map anyway.
const maxShape = manyNames - 1

// shape is the sequence of top-level names that the last record with another one had. Records of one source mostly have
// the same names in the same order, so a record is first compared with it name by name: names that come as in the shape
// differ from each other, and what is wanted of them is known. It is a cache: no result depends on it.
type shape struct {
	members []shapeMember
	places  [maxShape]uint32 // where in the record the members stand that came so far
	misses  int              // records that did not keep to it
}

type shapeMember struct {
	text string // the name with its quotes and colon
	hash uint64
	node *node // nil where nothing is wanted
	// The text's first sixteen bytes as two words, and which of their bits are the text's.
	words, masks [2]uint64
}

// matches reports whether the member's text stands in b at i.
func (m *shapeMember) matches(b []byte, i int) bool {
	if len(m.text) > 16 || len(b)-i < 16 {
		return len(b)-i >= len(m.text) && string(b[i:i+len(m.text)]) == m.text
	}
	first, second := binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(b[i+8:])
	return (first^m.words[0])&m.masks[0]|(second^m.words[1])&m.masks[1] == 0
}

// setText sets the text and the words by which it is compared.
func (m *shapeMember) setText(text string) {
	m.text = text
	var words, masks [16]byte
	for i := range min(copy(words[:], text), len(masks)) {
		masks[i] = 0xff
	}
	for i := range m.words {
		m.words[i] = binary.LittleEndian.Uint64(words[8*i:])
		m.masks[i] = binary.LittleEndian.Uint64(masks[8*i:])
	}
}

// at returns member i, nil if there is none.
func (s *shape) at(i int) *shapeMember {
	if uint(i) < uint(len(s.members)) {
		return &s.members[i]
	}
	return nil
}

// miss hears of a record that did not keep to the shape. The first becomes the shape, and later one in sixteen: to learn
// costs more than to look names up.
func (s *shape) miss(b []byte, names []name, root *node) {
	if s.misses++; s.misses%16 == 1 {
		s.learn(b, names, root)
	}
}

// learn takes the names of a record, up to the first that was escaped or stood apart from its colon.
func (s *shape) learn(b []byte, names []name, root *node) {
	s.members = s.members[:0]
	for _, n := range names[:min(len(names), maxShape)] {
		end := int(n.off + n.n)
		if n.escaped || b[end+1] != ':' {
			return
		}
		m := shapeMember{hash: n.hash, node: root.find(n.hash, b[n.off:end])}
		m.setText(string(b[n.off-1 : end+2]))
		s.members = append(s.members, m)
	}
}
