package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"

	"github.com/watershed-db/watershed/crdt"
)

// maxDepth bounds how deep objects and arrays may nest.
const maxDepth = 1000

// manyNames is the number of members from which an object's names are looked up in a map instead of by scanning.
const manyNames = 64

// JSON decodes records that are one JSON object each, in one pass and without allocating. It holds to RFC 8259 and
// further refuses invalid UTF-8, lone surrogates, duplicate member names in any object, and nesting deeper than 1,000.
type JSON struct {
	root    node
	width   int
	names   []name // of the members seen so far of all open objects
	shape   shape
	scratch []byte // unescaped texts and names of this record
	row     *Row
	at      int    // where the record is malformed
	what    string // and why
}

// node is a wanted name, or a prefix of wanted paths.
type node struct {
	slot     int // index among the wanted fields, -1 for a prefix alone
	children []child
}

type child struct {
	hash uint64
	name string
	node *node
}

// name is a member name: bytes off to off+n of the record, or of the scratch space if it was escaped. A record's length
// fits.
type name struct {
	hash    uint64
	off     uint32
	n       uint32
	escaped bool
}

// NewJSON returns a decoder of the wanted fields, each a path of member names.
func NewJSON(wanted [][]string) (*JSON, error) {
	d := &JSON{root: node{slot: -1}, width: len(wanted)}
	for i, path := range wanted {
		n := &d.root
		for _, part := range path {
			n = n.grow(part)
		}
		if len(path) == 0 || n.slot >= 0 {
			return nil, fmt.Errorf("field %q: no path, or wanted twice", strings.Join(path, "."))
		}
		n.slot = i
	}
	return d, nil
}

func (n *node) grow(part string) *node {
	for _, c := range n.children {
		if c.name == part {
			return c.node
		}
	}
	c := child{hashName([]byte(part), 0, len(part)), part, &node{slot: -1}}
	n.children = append(n.children, c)
	return c.node
}

// find returns the child of that name, or nil.
func (n *node) find(hash uint64, name []byte) *node {
	for i := range n.children {
		if c := &n.children[i]; c.hash == hash && c.name == string(name) {
			return c.node
		}
	}
	return nil
}

// Decode implements Decoder.
func (d *JSON) Decode(record []byte, row *Row) error {
	if len(record) > MaxRecord {
		return tooLong(len(record))
	}
	row.Reset()
	d.row, d.names, d.scratch = row, d.names[:0], d.scratch[:0]
	i := skipSpace(record, 0)
	if i == len(record) || record[i] != '{' {
		return malformed(i, "not an object")
	}
	if i = d.object(record, i+1, &d.root, 1); i >= 0 {
		if i = skipSpace(record, i); i == len(record) {
			return nil
		}
		d.fail(i, "text after the object")
	}
	return malformed(d.at, d.what)
}

// fail notes why the record is malformed; -1 is how every scanning method says so to its caller.
func (d *JSON) fail(at int, what string) int {
	d.at, d.what = at, what
	return -1
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// object scans the object whose brace is before i; n is nil where nothing in it is wanted.
func (d *JSON) object(b []byte, i int, n *node, depth int) int {
	if depth > maxDepth {
		return d.fail(i, "nested too deep")
	}
	if i = skipSpace(b, i); i < len(b) && b[i] == '}' {
		return i + 1
	}
	seen := nameSet{base: len(d.names)}
	known := 0 // members that came as the shape has them; -1 once one did not
	if depth > 1 {
		known = -1
	}
	for {
		var next *node
		if m := d.shape.at(known); m != nil && m.matches(b, i) {
			next = m.node
			d.shape.places[known] = uint32(i)
			known++
			i += len(m.text)
		} else {
			d.recall(known, &seen)
			known = -1
			if next, i = d.member(b, i, n, &seen); i < 0 {
				return -1
			}
		}
		if i = d.value(b, i, next, depth); i < 0 {
			return -1
		}
		if i < len(b) && b[i] != ',' && b[i] != '}' {
			i = skipSpace(b, i)
		}
		switch {
		case i < len(b) && b[i] == ',':
			if i++; i < len(b) && b[i] != '"' {
				i = skipSpace(b, i)
			}
		case i < len(b) && b[i] == '}':
			if depth == 1 && known < 0 {
				d.shape.miss(b, d.names, &d.root)
			}
			d.names = d.names[:seen.base]
			return i + 1
		default:
			return d.fail(i, "a comma or closing brace expected")
		}
	}
}

// recall puts the first names of the shape, which came as it has them, on the stack.
func (d *JSON) recall(known int, seen *nameSet) {
	for k := 0; k < known; k++ {
		m := &d.shape.members[k]
		d.names = append(d.names, name{m.hash, d.shape.places[k] + 1, uint32(len(m.text) - len(`"":`)), false})
		seen.filter |= filterBit(m.hash)
	}
}

// member scans a member's name and colon at i, and returns the node that is wanted under the name.
func (d *JSON) member(b []byte, i int, n *node, seen *nameSet) (*node, int) {
	if i >= len(b) || b[i] != '"' {
		return nil, d.fail(i, "a member name expected")
	}
	start := i + 1
	end, escaped := d.text(b, start)
	if end < 0 {
		return nil, -1
	}
	nm := name{off: uint32(start), n: uint32(end - start), escaped: escaped}
	if escaped {
		nm.off = uint32(len(d.scratch))
		d.scratch = unescape(d.scratch, b[start:end])
		nm.n = uint32(len(d.scratch)) - nm.off
		nm.hash = hashName(d.scratch, int(nm.off), int(nm.n))
	} else {
		nm.hash = hashName(b, start, end-start)
	}
	if !d.add(b, seen, nm) {
		return nil, d.fail(start, "duplicate member name")
	}
	var next *node
	if n != nil {
		next = n.find(nm.hash, d.bytesOf(b, nm))
	}
	if i = end + 1; i >= len(b) || b[i] != ':' {
		if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
			return nil, d.fail(i, "a colon expected")
		}
	}
	return next, i + 1
}

func (d *JSON) bytesOf(b []byte, n name) []byte {
	if n.escaped {
		b = d.scratch
	}
	return b[n.off : n.off+n.n]
}

// nameSet finds duplicate names in one object: few of them by a filter over their hashes and a scan, many by a map.
type nameSet struct {
	base   int // of the object's names on the stack
	filter uint64
	many   map[string]struct{}
}

// add takes a name into the set, and reports whether it is new.
func (d *JSON) add(b []byte, s *nameSet, n name) bool {
	if s.many != nil {
		before := len(s.many)
		s.many[string(d.bytesOf(b, n))] = struct{}{}
		return len(s.many) > before
	}
	bit := filterBit(n.hash)
	if s.filter&bit != 0 {
		for _, o := range d.names[s.base:] {
			if o.hash == n.hash && bytes.Equal(d.bytesOf(b, o), d.bytesOf(b, n)) {
				return false
			}
		}
	}
	s.filter |= bit
	if d.names = append(d.names, n); len(d.names)-s.base == manyNames {
		s.many = make(map[string]struct{}, 2*manyNames)
		for _, o := range d.names[s.base:] {
			s.many[string(d.bytesOf(b, o))] = struct{}{}
		}
	}
	return true
}

// filterBit is the bit of a nameSet's filter that a name sets.
func filterBit(hash uint64) uint64 { return 1 << (hash >> 58) }

// hashName mixes the first and last eight bytes and the length of b[off:off+n]: enough to tell a record's names apart,
// and no more than a filter, since equal hashes are always compared by bytes.
func hashName(b []byte, off, n int) uint64 {
	var first, last uint64
	switch {
	case n >= 8:
		first = binary.LittleEndian.Uint64(b[off:])
		last = binary.LittleEndian.Uint64(b[off+n-8:])
	case off+8 <= len(b):
		first = binary.LittleEndian.Uint64(b[off:]) & (1<<(8*uint(n)) - 1)
	default:
		for k := n - 1; k >= 0; k-- {
			first = first<<8 | uint64(b[off+k])
		}
	}
	return (first ^ bits.RotateLeft64(last, 29) ^ uint64(n)<<56) * 0x9e3779b97f4a7c15
}

// value scans the value at i, after any space; n is the wanted node it belongs to, or nil.
func (d *JSON) value(b []byte, i int, n *node, depth int) int {
	if i < len(b) && b[i] <= ' ' {
		i = skipSpace(b, i)
	}
	if i >= len(b) {
		return d.fail(i, "a value expected")
	}
	if n != nil && n.slot < 0 {
		if b[i] != '{' {
			n = nil
		}
	}
	switch b[i] {
	case '"':
		end, escaped := d.text(b, i+1)
		if end < 0 {
			return -1
		}
		if n != nil {
			d.row.set(n.slot, d.textValue(b[i+1:end], escaped))
		}
		return end + 1
	case '{':
		if n != nil && n.slot >= 0 {
			d.row.spoil(n.slot)
		}
		return d.object(b, i+1, n, depth+1)
	case '[':
		if n != nil {
			d.row.spoil(n.slot)
		}
		return d.array(b, i+1, depth+1)
	case 't':
		return d.literal(b, i, "true", n, crdt.Bool(true))
	case 'f':
		return d.literal(b, i, "false", n, crdt.Bool(false))
	case 'n':
		return d.literal(b, i, "null", n, crdt.Null())
	}
	if n == nil {
		return d.skipNumber(b, i)
	}
	return d.number(b, i, n)
}

func (d *JSON) array(b []byte, i, depth int) int {
	if depth > maxDepth {
		return d.fail(i, "nested too deep")
	}
	if i = skipSpace(b, i); i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = d.value(b, i, nil, depth); i < 0 {
			return -1
		}
		i = skipSpace(b, i)
		switch {
		case i < len(b) && b[i] == ',':
			i++
		case i < len(b) && b[i] == ']':
			return i + 1
		default:
			return d.fail(i, "a comma or closing bracket expected")
		}
	}
}

func (d *JSON) literal(b []byte, i int, word string, n *node, v crdt.Value) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return d.fail(i, "not a value")
	}
	if n != nil {
		d.row.set(n.slot, v)
	}
	return i + len(word)
}

const (
	ones    = 0x0101010101010101
	highs   = 0x8080808080808080
	quotes  = '"' * ones
	slashes = '\\' * ones
	spaces  = ' ' * ones
)

// text scans a text from after its opening quote and returns where its closing quote is, and whether it has escapes.
func (d *JSON) text(b []byte, i int) (end int, escaped bool) {
	start, high := i, uint64(0)
	for {
		// Eight bytes at a time up to the next quote, backslash or control character: the lowest byte flagged is one.
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			q, s := w^quotes, w^slashes
			if m := ((q-ones)&^q | (s-ones)&^s | (w-spaces)&^w) & highs; m != 0 {
				k := bits.TrailingZeros64(m) &^ 7
				high |= w & (1<<uint(k) - 1)
				i += k / 8
				break
			}
			high |= w
			i += 8
		}
		for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= ' ' {
			high |= uint64(b[i])
			i++
		}
		if i >= len(b) {
			return d.fail(i, "a text without end"), false
		}
		switch b[i] {
		case '"':
			if high&highs != 0 && !utf8.Valid(b[start:i]) {
				return d.fail(start, "invalid UTF-8"), false
			}
			return i, escaped
		case '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				return d.fail(i, "invalid escape"), false
			}
			i, escaped = i+n, true
		default:
			return d.fail(i, "a control character in a text"), false
		}
	}
}

// textValue returns the text between two quotes as a value.
func (d *JSON) textValue(raw []byte, escaped bool) crdt.Value {
	if !escaped {
		return crdt.Text(borrow(raw))
	}
	start := len(d.scratch)
	d.scratch = unescape(d.scratch, raw)
	return crdt.Text(borrow(d.scratch[start:]))
}
