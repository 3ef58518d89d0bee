package service

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// cursor is one shard's answer as the merge sees it.
type cursor struct {
	parts chan part // closed at the end
	rows  []entry
	state *watershedv1.ShardState
}

// next makes rows hold at least one row; it returns false at the end.
func (c *cursor) next() bool {
	for len(c.rows) == 0 {
		p, ok := <-c.parts
		if !ok {
			return false
		}
		if p.state != nil {
			c.state = p.state
		}
		c.rows = p.rows
	}
	return true
}

// merge reads shards at once and calls each with their rows in one order: window end, window start, key. It holds a few
// batches of each shard. It returns what the answers reflect, by shard.
func (s *Server) merge(ctx context.Context, q *query, each func(entry) error) ([]*watershedv1.ShardState, error) {
	reads, reading := errgroup.WithContext(ctx)
	cursors := make([]*cursor, len(q.shards))
	for i, id := range q.shards {
		c := &cursor{parts: make(chan part, 1)}
		cursors[i] = c
		reads.Go(func() error {
			defer close(c.parts)
			return s.readInto(reading, id, q, c.parts)
		})
	}
	reads.Go(func() error {
		live := slices.Clone(cursors)
		for {
			live = slices.DeleteFunc(live, func(c *cursor) bool { return !c.next() })
			if len(live) == 0 || reading.Err() != nil {
				return nil // where a read has failed, that says why
			}
			least := slices.MinFunc(live, func(a, b *cursor) int { return a.rows[0].compare(b.rows[0]) })
			if err := each(least.rows[0]); err != nil {
				return err
			}
			least.rows = least.rows[1:]
		}
	})
	if err := reads.Wait(); err != nil {
		return nil, err
	}
	states := make([]*watershedv1.ShardState, len(cursors))
	for i, c := range cursors {
		states[i] = c.state
	}
	return states, ctx.Err()
}

func (s *Server) readInto(ctx context.Context, id keyspace.ShardID, q *query, parts chan<- part) error {
	return s.readShard(ctx, id, q, func(p part) error {
		select {
		case parts <- p:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// MaxTop bounds how many rows of a window a ranked scan keeps.
const MaxTop = 10_000

// top keeps the greatest n rows of each window by one value, ties by key, and hands them on in their order.
type top struct {
	n, by int
	out   func(entry) error
	rows  []ranked // of the present window, the greatest first
}

type ranked struct {
	entry
	rank  crdt.Value
	valid bool // null ranks below everything
}

func (r ranked) compare(o ranked) int {
	switch {
	case r.valid && o.valid:
		if c := crdt.Compare(o.rank, r.rank); c != 0 {
			return c
		}
	case r.valid:
		return -1
	case o.valid:
		return 1
	}
	return r.entry.compare(o.entry)
}

func (t *top) add(e entry) error {
	if len(t.rows) > 0 && (t.rows[0].end != e.end || t.rows[0].start != e.start) {
		if err := t.flush(); err != nil {
			return err
		}
	}
	r := ranked{entry: e}
	r.rank, r.valid = rankOf(e.row.GetValues()[t.by])
	i, _ := slices.BinarySearchFunc(t.rows, r, ranked.compare)
	if i == t.n {
		return nil
	}
	t.rows = slices.Insert(t.rows, i, r)
	t.rows = t.rows[:min(len(t.rows), t.n)]
	return nil
}

func (t *top) flush() error {
	slices.SortFunc(t.rows, func(a, b ranked) int { return a.entry.compare(b.entry) })
	for _, r := range t.rows {
		if err := t.out(r.entry); err != nil {
			return err
		}
	}
	t.rows = t.rows[:0]
	return nil
}
