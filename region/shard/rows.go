package shard

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
)

// Rows calls each with the rows of a generation in a span, by window end, window start, key; the span's Horizon is the
// shard's own, whatever it says. Rows are complete where the watermark has passed their window. each must not keep the
// row; its error ends the walk and is returned as it is.
func (s *Snapshot) Rows(g *Generation, span job.Span, each func(*job.Row) error) error {
	return s.rows(g, span, each, func(it *keyspace.Iter, _, _ int64) job.Stream { return it })
}

// RowsOf is Rows for one key alone. It passes over the slots of other keys.
func (s *Snapshot) RowsOf(g *Generation, key []byte, span job.Span, each func(*job.Row) error) error {
	return s.rows(g, span, each, func(it *keyspace.Iter, from, to int64) job.Stream {
		return &keyStream{Iter: it, key: key, next: crdt.Slot{Time: from, Key: key}, to: to}
	})
}

func (s *Snapshot) rows(g *Generation, span job.Span, each func(*job.Row) error,
	stream func(it *keyspace.Iter, from, to int64) job.Stream) (err error) {
	span.Horizon = g.Horizon
	from, to := g.Job.SlotTimes(span)
	if from > to {
		return nil
	}
	var streams []job.Stream
	for _, region := range g.Groups() {
		it, err := s.view.Iter(g.current(region), from, to)
		if err != nil {
			return fmt.Errorf("read rows of %s: %w", g.Name, err)
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		streams = append(streams, stream(it, from, to))
	}
	return g.Job.Rows(span, job.MergeStreams(streams...), func(r *job.Row) error {
		r.Complete = r.End <= g.Watermark
		return each(r)
	})
}

// current names the copy that holds a group's slots.
func (g *Generation) current(region crdt.RegionID) keyspace.Copy {
	return keyspace.Copy{Generation: g.ID, Group: region, Number: g.Copy(region)}
}

// keyStream walks over the slots of one key by leaps from time to time.
type keyStream struct {
	*keyspace.Iter
	key  []byte
	next crdt.Slot // the least slot that may come next
	to   int64
}

// Next implements job.Stream.
func (k *keyStream) Next() bool {
	for k.next.Time <= k.to && k.SeekGE(k.next) {
		at := k.Slot()
		switch c := bytes.Compare(at.Key, k.key); {
		case c == 0 && at.Class < 1<<16-1:
			k.next = crdt.Slot{Time: at.Time, Key: k.key, Class: at.Class + 1}
			return true
		case c < 0:
			k.next = crdt.Slot{Time: at.Time, Key: k.key}
		case at.Time == crdt.MaxTime:
			return false
		default:
			k.next = crdt.Slot{Time: at.Time + 1, Key: k.key}
		}
	}
	return false
}
