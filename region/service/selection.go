package service

import (
	"bytes"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// maxKeys bounds the keys that a filter of texts may stand for, beyond which rows are filtered instead.
	maxKeys = 64
	// maxSeen bounds the points that an answer is asked to reflect.
	maxSeen = 1 << 12
)

// selection is a request's choice of rows, checked against its job.
type selection struct {
	job    *job.Job
	local  bool // consistency
	closed bool
	// from and to bound the rows' window starts: [from, to).
	from, to int64
	// allowed are the values that each part of the key may have, nil for any.
	allowed [][]crdt.Value
	// keys are the only keys that can match, encoded and sorted, where every part is given; else nil.
	keys [][]byte
	seen []*watershedv1.SourcePoint
}

func newSelection(j *job.Job, in *watershedv1.Selection) (*selection, error) {
	s := &selection{
		job: j, closed: in.GetClosed(), from: crdt.MinTime, to: crdt.MaxTime, allowed: make([][]crdt.Value, len(j.KeyNames)),
		local: in.GetConsistency() == watershedv1.Consistency_CONSISTENCY_LOCAL, seen: in.GetSeen(),
	}
	if in.FromMs != nil {
		s.from = in.GetFromMs()
	}
	if in.ToMs != nil {
		s.to = in.GetToMs()
	}
	if len(s.seen) > maxSeen {
		return nil, status.Errorf(codes.InvalidArgument, "%d points are to be reflected, at most %d can be", len(s.seen), maxSeen)
	}
	for _, f := range in.GetKey() {
		i := slices.Index(j.KeyNames, f.GetName())
		if i < 0 {
			return nil, status.Errorf(codes.InvalidArgument, "%q is no part of the key of job %s, which has %q",
				f.GetName(), j.Name, j.KeyNames)
		}
		if s.allowed[i] != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the key's %s is given twice", f.GetName())
		}
		v, err := fromValue(f.GetValue())
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the key's %s: %v", f.GetName(), err)
		}
		s.allowed[i] = meanings(v, f.GetExact())
	}
	s.keys = s.enumerate()
	return s, nil
}

// meanings lists what a value of a filter may stand for: a text also for the number, boolean or null that it spells.
func meanings(v crdt.Value, exact bool) []crdt.Value {
	out := []crdt.Value{v}
	if exact || v.Kind() != crdt.KindText {
		return out
	}
	switch v.Text() {
	case "null":
		return append(out, crdt.Null())
	case "true":
		return append(out, crdt.Bool(true))
	case "false":
		return append(out, crdt.Bool(false))
	}
	if n, err := crdt.ParseNumber(v.Text()); err == nil && n.Kind() != crdt.KindBig {
		out = append(out, n)
	}
	return out
}

// enumerate returns all keys that can match, nil where some part of the key is not given or they are too many.
func (s *selection) enumerate() [][]byte {
	keys := [][]byte{nil}
	for _, values := range s.allowed {
		if values == nil || len(keys)*len(values) > maxKeys {
			return nil
		}
		var next [][]byte
		for _, k := range keys {
			for _, v := range values {
				next = append(next, v.AppendKey(slices.Clip(k)))
			}
		}
		keys = next
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal)
}

// shards lists the shards that can have rows.
func (s *selection) shards(of int) []keyspace.ShardID {
	var out []keyspace.ShardID
	if s.keys == nil {
		for i := range of {
			out = append(out, keyspace.ShardID(i))
		}
		return out
	}
	for _, k := range s.keys {
		out = append(out, keyspace.ShardOf(k, of))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// span returns the window ends to look at in a shard.
func (s *selection) span(g *shard.Generation) job.Span {
	span := job.Everything()
	switch w := s.job.Window; w.Kind {
	case keyspace.Tumbling, keyspace.Hopping:
		span.From, span.To = later(s.from, w.Size-1), later(s.to, w.Size-1)
	case keyspace.Session:
		span.From = s.from
	}
	if s.closed {
		span.To = min(span.To, g.Partial)
	}
	return span
}

// later returns t + d, with the infinite times as they are.
func later(t, d int64) int64 {
	if t == crdt.MinTime || t > crdt.MaxTime-d {
		return t
	}
	return t + d
}

// wants reports whether a row is of the selection, whose span it is in.
func (s *selection) wants(r *job.Row) bool {
	if !r.Global() && (r.Start < s.from || r.Start >= s.to && s.to != crdt.MaxTime) {
		return false
	}
	for i, values := range s.allowed {
		if values != nil && !slices.ContainsFunc(values, func(v crdt.Value) bool { return crdt.Compare(v, r.KeyValues[i]) == 0 }) {
			return false
		}
	}
	return true
}

// rows calls each with the selected rows of a shard, in order. each must not keep the row.
func (s *selection) rows(snap *shard.Snapshot, g *shard.Generation, each func(*job.Row) error) error {
	filter := func(r *job.Row) error {
		if !s.wants(r) {
			return nil
		}
		return each(r)
	}
	if len(s.keys) == 1 {
		return snap.RowsOf(g, s.keys[0], s.span(g), filter)
	}
	return snap.Rows(g, s.span(g), filter)
}
