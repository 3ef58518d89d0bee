package peer

import (
	"testing"

	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
)

// Messages that wait are worked on together: each alone would wait for a commit of its own.
func TestWaitingMessagesAreJoined(t *testing.T) {
	entry := func(index uint64) []*peerv1.Entry { return []*peerv1.Entry{{Index: index}} }
	s := &session{}
	s.enqueue(item{registry: [][]byte{{1}}, entries: entry(1), applied: 1})
	s.enqueue(item{entries: entry(2), applied: 2})
	s.enqueue(item{applied: 3})
	s.enqueue(item{registry: [][]byte{{2}}, applied: 4}) // not before the entries that it came after
	s.enqueue(item{entries: entry(5), applied: 5})
	items, err := s.dequeue()
	if err != nil || len(items) != 2 {
		t.Fatalf("%v, %v", items, err)
	}
	if x := items[0]; len(x.entries) != 2 || x.entries[1].Index != 2 || x.applied != 3 || len(x.registry) != 1 {
		t.Errorf("%+v", x)
	}
	if x := items[1]; len(x.entries) != 1 || x.applied != 5 || x.registry[0][0] != 2 {
		t.Errorf("%+v", x)
	}
}
