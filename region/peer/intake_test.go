package peer

import (
	"context"
	"sync"
	"testing"
	"time"

	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
)

// Messages that come while the first one is looked at must not hold up the stream.
func TestFirstMessageAmongOthers(t *testing.T) {
	done := make(chan struct{})
	in := newIntake(nil)
	in.list = []*peerv1.PullRequest{{Cursor: 7}}
	var waking sync.WaitGroup
	defer waking.Wait()
	defer close(done)
	waking.Go(func() { // as receive does
		for {
			select {
			case in.wake <- struct{}{}:
			case <-done:
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 1000 {
		got := make(chan *peerv1.PullRequest, 1)
		go func() {
			m, err := in.first(ctx, nil)
			if err != nil {
				t.Error(err)
			}
			got <- m
		}()
		select {
		case m := <-got:
			if m.GetCursor() != 7 {
				t.Fatalf("got %v", m)
			}
		case <-ctx.Done():
			t.Fatal("the first message is never answered")
		}
	}
}
