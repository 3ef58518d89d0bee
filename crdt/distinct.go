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
	n := r.size()
	if n == 0 {
		r.fail("empty set")
	}
	var k []byte
	for range n {
		common := r.uvarint()
		rest := r.bytes()
		if r.failed() {
			return
		}
		if common > uint64(len(k)) || len(rest) == 0 || common < uint64(len(k)) && k[common] >= rest[0] {
			r.fail("set out of order")
			return
		}
		k = append(k[:common], rest...)
		if !isKey(k) {
			r.fail("set of no keys")
			return
		}
		s.add(k)
	}
}

// isKey reports whether k is exactly one encoded non-null value.
func isKey(k []byte) bool {
	if k[0] == tagText {
		for k = k[1:]; ; k = k[2:] {
			i := bytes.IndexByte(k, 0)
			if i < 0 || i+1 >= len(k) {
				return false
			}
			k = k[i:]
			if k[1] != 0xff {
				return k[1] == 0x01 && len(k) == 2
			}
		}
	}
	v, rest, err := CutKey(k)
	return err == nil && len(rest) == 0 && !v.IsNull()
}
