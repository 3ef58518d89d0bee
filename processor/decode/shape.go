package decode

// maxShape bounds the members of a shape: beyond so many, names are looked up in a map anyway.
const maxShape = manyNames - 1

// shape is the sequence of top-level names that the last record with another one had. Records of one source mostly have
// the same names in the same order, so a record is first compared with it name by name: names that come as in the shape
// differ from each other, and what is wanted of them is known. It is a cache: no result depends on it.
type shape struct {
	members []shapeMember
	misses  int // records that did not keep to it
}

type shapeMember struct {
	text string // the name with its quotes and colon
	hash uint64
	bit  uint64
	node *node // nil where nothing is wanted
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
		m := shapeMember{hash: n.hash, bit: filterBit(n.hash), node: root.find(n.hash, b[n.off:end])}
		m.text = string(b[n.off-1 : end+2])
		s.members = append(s.members, m)
	}
}
