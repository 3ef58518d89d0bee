package service

import (
	"fmt"
	"testing"
	"time"

	"github.com/watershed-db/watershed/processor/job"
)

func watcher(keys ...string) *watch {
	w := newWatch(nil, nil, &query{sel: &selection{}}, nil)
	for _, k := range keys {
		w.q.sel.keys = append(w.q.sel.keys, []byte(k))
	}
	return w
}

func testFeed(ws ...*watch) *feed {
	f := &feed{}
	f.watching.all, f.watching.broad = map[*watch]struct{}{}, map[*watch]struct{}{}
	f.watching.keyed = map[string]map[*watch]struct{}{}
	for _, w := range ws {
		f.add(w)
	}
	return f
}

// A change is told to those who want its key, and a feed rests the longer the more it told.
func TestAFeedTellsThoseWhoWant(t *testing.T) {
	x, y, all := watcher("x"), watcher("y", "z"), watcher()
	f := testFeed(x, y, all)
	took := f.tell(&told{rows: []*job.Row{{Key: []byte("x")}, {Key: []byte("q")}, {Key: []byte("x"), End: 1}}})
	if len(x.mu.queue) != 1 || x.mu.rows != 2 || len(y.mu.queue) != 0 || all.mu.rows != 3 {
		t.Errorf("x has %d, y %d, all %d", x.mu.rows, y.mu.rows, all.mu.rows)
	}
	if took <= 0 || f.tell(&told{rows: []*job.Row{{Key: []byte("q")}}}) >= took {
		t.Errorf("it rests for %v", took)
	}
	if f.remove(x) || f.remove(y) || !f.remove(all) || len(f.watching.keyed) != 0 {
		t.Errorf("left behind: %v", f.watching.keyed)
	}
}

// A watcher that doesn't read holds no more than its bound, and is told to look at everything.
func TestAWatcherThatFallsBehindHoldsABound(t *testing.T) {
	w := watcher()
	f := testFeed(w)
	rows := make([]*job.Row, 1000)
	for i := range rows {
		rows[i] = &job.Row{Key: fmt.Append(nil, i)}
	}
	for i := range 100 {
		f.tell(&told{rows: rows})
		if w.mu.rows > maxQueued {
			t.Fatalf("%d rows wait after %d changes", w.mu.rows, i+1)
		}
	}
	if !w.mu.all || len(w.mu.queue) != 0 {
		t.Errorf("it goes on with a part: %d of %d", w.mu.rows, maxQueued)
	}
}

// Telling a change costs a shard the same however many watch other keys.
func TestWatchersOfOtherKeysCostNothing(t *testing.T) {
	f := testFeed()
	for i := range 10_000 {
		f.add(watcher(fmt.Sprint(i)))
	}
	if took := f.tell(&told{rows: []*job.Row{{Key: []byte("5")}}}); took > time.Millisecond {
		t.Errorf("%v", took)
	}
}
