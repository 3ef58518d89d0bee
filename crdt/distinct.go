package crdt

import (
	"bytes"
	"slices"

	"github.com/zeebo/xxh3"
)

// set is an exact set of canonical values, as their encoded keys. It only grows.
type set struct {
	data  []byte   // the keys, one after the other, as they came
	ends  []int    // where each key ends in data
	table []uint32 // number of a key + 1 at its hash's place, 0 for none; nil while there are few
	buf   []byte   // scratch
}

// fewKeys is how many keys are searched one by one.
const fewKeys = 8

func (s *set) key(i int) []byte {
	if i == 0 {
		return s.data[:s.ends[0]]
	}
	return s.data[s.ends[i-1]:s.ends[i]]
}

// addValue adds v's key.
func (s *set) addValue(v Value) {
	s.buf = v.AppendKey(s.buf[:0])
	s.add(s.buf)
}

// add adds a key, whose bytes it copies.
func (s *set) add(k []byte) {
	n := len(s.ends)
	if s.table == nil {
		for i := range n {
			if bytes.Equal(s.key(i), k) {
				return
			}
		}
		s.push(k)
		if n+1 > fewKeys {
			s.rehash(4 * fewKeys)
		}
		return
	}
	mask := uint32(len(s.table) - 1)
	for p := uint32(xxh3.Hash(k)) & mask; ; p = (p + 1) & mask {
		i := s.table[p]
		if i == 0 {
			s.push(k)
			s.table[p] = uint32(n + 1)
			break
		}
		if bytes.Equal(s.key(int(i-1)), k) {
			return
		}
	}
	if 4*(n+1) > 3*len(s.table) {
		s.rehash(2 * len(s.table))
	}
}

func (s *set) push(k []byte) {
	s.data = append(s.data, k...)
	s.ends = append(s.ends, len(s.data))
}

func (s *set) rehash(size int) {
	s.table = make([]uint32, size)
	mask := uint32(size - 1)
	for i := range s.ends {
		p := uint32(xxh3.Hash(s.key(i))) & mask
		for s.table[p] != 0 {
			p = (p + 1) & mask
		}
		s.table[p] = uint32(i + 1)
	}
}

func (s *set) merge(t *set) {
	for i := range t.ends {
		s.add(t.key(i))
	}
}

func (s *set) clone() *set {
	return &set{data: slices.Clone(s.data), ends: slices.Clone(s.ends), table: slices.Clone(s.table)}
}

func (s *set) size() int {
	return 120 + cap(s.data) + 8*cap(s.ends) + 4*cap(s.table) + cap(s.buf)
}

// appendTo appends the keys in order: each as what it shares with the one before, the length of the rest, the rest.
func (s *set) appendTo(b []byte) []byte {
	order := make([]uint32, len(s.ends))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(i, j uint32) int { return bytes.Compare(s.key(int(i)), s.key(int(j))) })
	b = appendUvarint(b, uint64(len(order)))
	var last []byte
	for _, i := range order {
		k := s.key(int(i))
		n := shared(last, k)
		b = appendUvarint(b, uint64(n))
		b = appendUvarint(b, uint64(len(k)-n))
		b = append(b, k[n:]...)
		last = k
	}
	return b
}

func shared(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// mergeFrom adds an encoded set.
func (s *set) mergeFrom(r *reader) {
	for k := newKeys(r); k.next(r); {
		s.add(k.key)
	}
}

// keys walks over an encoded set, which every call takes from the same reader.
type keys struct {
	left int
	key  []byte // the present one, valid until next
}

func newKeys(r *reader) keys {
	k := keys{left: r.Size()}
	if k.left == 0 {
		r.Fail("empty set")
	}
	return k
}

// next goes to the next key and reports false behind the last one and on failure.
func (k *keys) next(r *reader) bool {
	if k.left == 0 || r.Failed() {
		return false
	}
	k.left--
	common, rest := r.Uvarint(), r.bytes()
	if r.Failed() {
		return false
	}
	n := uint64(len(k.key))
	if common > n || len(rest) == 0 || common < n && k.key[common] >= rest[0] {
		r.Fail("set out of order")
		return false
	}
	k.key = append(k.key[:common], rest...)
	if k.key[0] == tagNull || keySize(k.key) != len(k.key) {
		r.Fail("set of no keys")
		return false
	}
	return true
}

// mergeSets appends the union of two encoded sets to dst. It works on the order they have, without hashing.
func mergeSets(dst []byte, r, s *reader) []byte {
	start, n := len(dst), 0
	var last []byte
	put := func(k []byte) {
		c := shared(last, k)
		dst = appendUvarint(dst, uint64(c))
		dst = appendUvarint(dst, uint64(len(k)-c))
		dst = append(dst, k[c:]...)
		last = append(last[:c], k[c:]...)
		n++
	}
	x, y := newKeys(r), newKeys(s)
	xs, ys := x.next(r), y.next(s)
	for xs && ys {
		c := bytes.Compare(x.key, y.key)
		if c <= 0 {
			put(x.key)
			xs = x.next(r)
		} else {
			put(y.key)
		}
		if c >= 0 {
			ys = y.next(s)
		}
	}
	for ; xs; xs = x.next(r) {
		put(x.key)
	}
	for ; ys; ys = y.next(s) {
		put(y.key)
	}
	var head [10]byte
	return slices.Insert(dst, start, appendUvarint(head[:0], uint64(n))...)
}
