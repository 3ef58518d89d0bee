package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// nextBuild makes the build after this one: it knows one more format, see region/shard.
var nextBuild = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "watershed-next")
	out, err := exec.Command("go", "build", "-tags", "watershed_next", "-o", path, "../../cmd/watershed").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the next watershed: %w\n%s", err, out)
	}
	return path, nil
})

type upgrade struct {
	InForce int `json:"in_force"`
	Nodes   []struct {
		ID    string `json:"id"`
		Knows *int   `json:"knows"`
	} `json:"nodes"`
}

// upgradeSays waits until every node answers, and returns what is in force and what each knows.
func upgradeSays(r *trio) (inForce int, knows []int) {
	r.t.Helper()
	await(r.t, settleWithin, "every node to say what it knows", func() (bool, string) {
		var u upgrade
		out := must(r.t, append([]string{"upgrade", "--output", "json"}, r.endpoints()...)...)
		if err := json.Unmarshal(out, &u); err != nil {
			r.t.Fatal(err)
		}
		inForce, knows = u.InForce, nil
		for _, n := range u.Nodes {
			if n.Knows == nil {
				return false, n.ID + " does not answer"
			}
			knows = append(knows, *n.Knows)
		}
		return len(knows) == len(r.nodes), string(out)
	})
	return inForce, knows
}

// TestRollingUpgrade takes a region that serves to the next build node by node, one node back, forward again, and raises the
// format: until then both builds work side by side, and from then on the older one says why it can't.
func TestRollingUpgrade(t *testing.T) {
	old := binary(t)
	next, err := nextBuild()
	if err != nil {
		t.Fatal(err)
	}
	cluster, cl := broker(t, "")
	createTopic(t, cl, "events", 1)
	r := newTrio(t, cluster.ListenAddrs()[0])
	r.all(old)
	must(t, append([]string{"job", "apply", writeJob(t, eventJob)}, r.endpoints()...)...)
	sent := 0
	traffic := func(when string) {
		t.Helper()
		produceEvents(t, cl, "a", 3)
		sent += 3
		t.Logf("%s: %d events", when, sent)
		awaitRows(t, counted("a", sent), r.endpoints()...)
	}
	change := func(i int, build, when string) {
		t.Helper()
		r.nodes[i].stop()
		r.start(i, build)
		r.ready(i)
		traffic(when)
	}
	raise := append([]string{"upgrade", "--to", "2", "--output", "json"}, r.endpoints()...)

	traffic("the old build")
	change(0, next, "one node of the next build")
	if inForce, knows := upgradeSays(r); inForce != 1 || fmt.Sprint(knows) != "[2 1 1]" {
		t.Fatalf("in force %d, known %v", inForce, knows)
	}
	watershed(t, nil, raise...).refused(t, 1, "knows formats up to 1, not 2")
	change(1, next, "two nodes of the next build")
	change(2, next, "all of the next build")
	change(1, old, "one taken back")
	change(1, next, "all of the next build again")
	must(t, raise...)
	if inForce, knows := upgradeSays(r); inForce != 2 || fmt.Sprint(knows) != "[2 2 2]" {
		t.Fatalf("in force %d, known %v", inForce, knows)
	}
	traffic("raised")

	r.nodes[2].stop()
	traffic("one node down")
	r.start(2, old)
	err = r.nodes[2].process.wait()
	if said := r.nodes[2].output.String(); err == nil || !strings.Contains(said, "has format 2, this build knows formats up to 1") {
		t.Fatalf("the old build on a raised folder: %v:\n%s", err, said)
	}
	r.start(2, next)
	r.ready(2)
	traffic("and back with the next build")
}
