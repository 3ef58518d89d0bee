package region

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/limit"
)

// writer moves a point on at whoever leads shard 0.
type writer struct {
	*feed
	at int // the node that answered last
}

// write makes one write, and returns what the shard's leader says.
func (w *writer) write(ctx context.Context) error {
	next := w.next.After(w.next.Offset, crdt.Hash{9}, w.next.Watermark+1, crdt.Late)
	a := crdt.Advance{Generation: w.id, Group: w.source.Region,
		Ranges: []crdt.Range{{Source: w.source, From: w.next.Mark(), To: next}}}
	var err error
	for i := range w.c.nodes {
		w.at = i
		var out *regionv1.AdvanceResponse
		out, err = regionv1.NewShardServiceClient(w.c.conn(i)).Advance(ctx,
			&regionv1.AdvanceRequest{Deployment: "test", Advance: a.AppendTo(nil)})
		switch {
		case err == nil && (out.GetOutcome() == regionv1.Outcome_OUTCOME_APPLIED || out.GetOutcome() == regionv1.Outcome_OUTCOME_DUPLICATE):
			w.next = next
			return nil
		case err == nil:
			return errors.New(out.GetOutcome().String())
		case status.Code(err) != codes.Unavailable:
			return err
		}
	}
	return err
}

// A minority of disks that are nearly full stops no writes; a majority does, with numbers and names, until there is room.
// A leader that is one of the minority is replaced.
func TestDisksOfFollowersCount(t *testing.T) {
	var free [3]atomic.Uint64
	const much, least = 1 << 40, 1 << 30
	c := newClustersWith(t, 3, 1, func(o *Options) {
		mine := &free[slices.IndexFunc(o.Config.Nodes, func(n config.Node) bool { return n.ID == o.Config.Node })]
		mine.Store(much)
		o.Config.Store.MinFree = least
		o.StatFS = func(string) (limit.Space, error) { return limit.Space{Total: 2 * much, Free: mine.Load()}, nil }
	}, "a")[0]
	w := &writer{feed: c.feed(c.apply(0, toyJob).Job.Generation, 0)}
	w.send(0, 500, "x")
	w.next = w.feed.at[0]
	until(t, "a write", w.write)
	lead := w.at
	one, other := (lead+1)%3, (lead+2)%3
	name := func(i int) string { return c.config.Nodes[i].ID }

	free[one].Store(11111)
	until(t, "the leader knows", func(context.Context) error {
		if c.nodes[lead].node.short(name(one)) {
			return nil
		}
		return errors.New("it does not")
	})
	until(t, "a minority stops nothing", w.write)
	if text := c.page(lead, "/metrics"); !strings.Contains(text, `watershed_node_disk_short{node="`+name(one)+`"} 1`) ||
		!strings.Contains(text, `watershed_node_disk_free_bytes{node="`+name(one)+`"} 11111`) {
		t.Error("the follower's disk is not shown")
	}

	free[other].Store(22222)
	until(t, "a majority stops writes", func(ctx context.Context) error {
		err := w.write(ctx)
		if status.Code(err) != codes.ResourceExhausted {
			return errors.New("the write is not refused")
		}
		for _, want := range []string{"2 of 3 nodes", name(one) + ": 11111 bytes are free, 1073741824 are kept", name(other) + ": 22222 bytes"} {
			if !strings.Contains(err.Error(), want) || len(status.Convert(err).Details()) != 1 {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
		return nil
	})
	free[one].Store(much)
	until(t, "writes are taken again", w.write)
	free[other].Store(much)

	free[lead].Store(33333)
	until(t, "one with room leads", func(ctx context.Context) error {
		if err := w.write(ctx); err != nil || w.at == lead {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
}
