package crdt

import (
	"fmt"
	"sync"
)

// accs lends scratch accumulators, one for each op.
var accs = sync.Pool{New: func() any {
	s := new([opEnd]acc)
	for op := range s {
		s[op].op = Op(op)
	}
	return s
}}

// MergeCells appends the encoding of the merge of two encoded cells to dst, which must not overlap them. What comes out
// depends on the bytes alone. It fails with ErrEncoding where either is malformed or their schemas differ, and dst's
// bytes beyond its length are then undefined.
func MergeCells(dst, a, b []byte) ([]byte, error) {
	r, s := open(a), open(b)
	out := mergeCells(dst, &r, &s)
	err := r.Done()
	if err == nil {
		err = s.Done()
	}
	if err != nil {
		return dst, fmt.Errorf("cell: %w", err)
	}
	return out, nil
}

func mergeCells(dst []byte, r, s *reader) []byte {
	n, spans := r.cellHead()
	if n2, spans2 := s.cellHead(); n != n2 || spans != spans2 {
		r.Fail("another schema")
	}
	c := Cell{spans: spans}
	c.mergeHead(r)
	c.mergeHead(s)
	dst = c.appendHead(dst, n)
	scratch := accs.Get().(*[opEnd]acc)
	for i := 0; i < n && !r.Failed() && !s.Failed(); i++ {
		dst = mergeColumn(dst, r, s, scratch)
	}
	accs.Put(scratch)
	return dst
}

func mergeColumn(dst []byte, r, s *reader, scratch *[opEnd]acc) []byte {
	x, y := r.Byte(), s.Byte()
	op := Op(x &^ colEmpty)
	if !op.valid() || op != Op(y&^colEmpty) {
		r.Fail("columns of ops %d and %d", x, y)
	}
	if r.Failed() || s.Failed() {
		return dst
	}
	if x&y&colEmpty != 0 {
		return append(dst, x)
	}
	dst = append(dst, byte(op))
	if op == OpDistinct {
		return mergeDistinct(dst, r, s, x, y)
	}
	a := &scratch[op]
	a.reset()
	if x&colEmpty == 0 {
		a.mergeFrom(r)
	}
	if y&colEmpty == 0 {
		a.mergeFrom(s)
	}
	if r.Failed() || s.Failed() {
		return dst
	}
	return a.appendPayload(dst)
}

func mergeDistinct(dst []byte, r, s *reader, x, y byte) []byte {
	if x&colEmpty != 0 {
		r = s
	} else if y&colEmpty == 0 {
		return mergeSets(dst, r, s)
	}
	whole := r.B
	k := newKeys(r)
	for k.next(r) {
	}
	return append(dst, whole[:len(whole)-len(r.B)]...)
}
