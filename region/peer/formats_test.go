package peer

import (
	"fmt"
	"testing"
)

// TestNewerIsRefused: a region that speaks a later version is refused, and the message says both.
func TestNewerIsRefused(t *testing.T) {
	id := &Identity{Deployment: "d", Self: "a", Shards: 1, Members: []Member{{Region: "a", Number: 1}, {Region: "b", Number: 2}}}
	other := &Identity{Deployment: "d", Self: "b", Shards: 1, Members: id.Members}
	h := other.Hello(0)
	if reason, text := id.check(h); reason != "" {
		t.Fatalf("refused: %s", text)
	}
	h.Version = Version + 1
	reason, text := id.check(h)
	if want := fmt.Sprintf("protocol version %d, this is %d", Version+1, Version); reason != "version" || text != want {
		t.Errorf("%s: %s", reason, text)
	}
}
