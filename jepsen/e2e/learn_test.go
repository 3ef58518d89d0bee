package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestARegionOfOtherNodesIsFound: all addresses of a region that another one is configured with are of a node that is gone.
// The other one has learned where its successor is, goes on with it, and finds it again after it was killed itself.
func TestARegionOfOtherNodesIsFound(t *testing.T) {
	binary(t)
	kafka, cl := broker(t, "")
	far, _ := broker(t, "")
	w := newNode(t, far.ListenAddrs()[0])
	const owner = "owner: " + east + "\n"
	c := newCrewAmong(t, fmt.Sprintf(`[{name: %s, member: 1}, {name: %s, member: 2, grpc: ["%s"]}]`, east, west, w.grpc),
		kafka.ListenAddrs()[0], 2, owner, "")
	first := c.members[0]
	w.file = filepath.Join(t.TempDir(), "west.yaml")
	text := fmt.Sprintf("deployment: rides\nregion: %s\nnode: w1\ndata: %s\nshards: 2\nregions: [{name: %s, member: 1, grpc: [\"%s\"]}, "+
		"{name: %s, member: 2}]\nnodes: [{id: w1, raft: \"%s\", grpc: \"%s\", http: \"%s\"}]\nkafka: {brokers: [\"%s\"]}\n"+owner,
		west, w.data, east, first.grpc, west, w.raft, w.grpc, w.http, w.kafka)
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	createTopic(t, cl, "events", 1)
	c.apply(east, writeJob(t, eventJob))
	produceEvents(t, cl, "a", 3)
	there := []string{"--endpoint", w.grpc, "--consistency", "local"}
	awaitRows(t, counted("a", 3), there...)

	second := c.add()
	c.carried(first, second)
	await(t, settleWithin, "the new node to be known", func() (bool, string) {
		b, err := os.ReadFile(filepath.Join(w.data, "addresses.json"))
		return err == nil && strings.Contains(string(b), second.grpc), string(b)
	})
	c.remove(first, second)
	produceEvents(t, cl, "a", 4)
	awaitRows(t, counted("a", 7), there...)

	w.process.kill()
	produceEvents(t, cl, "a", 5)
	w.start()
	awaitRows(t, counted("a", 12), there...)
}
