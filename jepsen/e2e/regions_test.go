package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

const east, west = "us-east", "eu-west"

// sinks and asides is what a job gets to write its rows and what it puts aside to topics.
const (
	sinkPart = "emit: {from: owner, unreachable: {partial: 2s}, sinks: [{kafka: {topic: e2e-rows}}]}\n"
	sidePart = "side_outputs: {late: {topic: e2e-late}, implausible: {topic: e2e-implausible}, invalid: {topic: e2e-invalid}}\n"
)

// deck is a deployment with loads that flow into it.
type deck struct {
	*deployment
	*traffic
	t     testing.TB
	loads []*load
	early []earlyAnswer
	peeks int
}

// earlyAnswer is an answer from the middle, kept to be checked when all keys are known.
type earlyAnswer struct {
	when, region string
	load         *load
	*answer
}

// faultLoads are jobs of every kind; those over the whole wiki file share its topic.
func faultLoads(t testing.TB) (all []*load) {
	t.Helper()
	for _, l := range []struct{ name, prefix, extra string }{
		{"wiki-tumbling", "", ""},
		{"wiki-hopping", "", ""},
		{"wiki-session", "", ""},
		{"wiki-global", "", ""},
		{"wiki-filtered", "", ""},
		{"wiki-two-sources", "", ""},
		{"wiki-tumbling", "", sinkPart},
		{"wiki-poisoned", "poisoned-", ""},
		{"pickups-hopping", "", ""},
		{"rides-surge", "", ""},
		{"rides-global", "global-", ""},
		{"rides-poisoned", "poisoned-", sidePart},
		{"rides-poisoned-sessions", "sessions-", ""},
		{"mixed-values", "", ""},
		{"fares-csv", "", ""},
	} {
		if made := newLoad(t, l.name, l.prefix, l.extra, east, west); made != nil {
			all = append(all, made)
		} else {
			t.Logf("%s is left out: its data is not there", l.name)
		}
	}
	return all
}

// deal starts a deployment, makes the topics and applies the jobs.
func deal(t testing.TB, loads []*load, flags ...string) *deck {
	t.Helper()
	dir := t.TempDir()
	regions := loads[0].regions()
	d := startDev(t, filepath.Join(dir, "deployment"), append([]string{"--regions", strings.Join(regions, ",")}, flags...)...)
	k := &deck{deployment: d, t: t, loads: loads}
	k.traffic = newTraffic(t, d, partitions(t, loads), "e2e-rows", "e2e-late", "e2e-implausible", "e2e-invalid")
	for i, l := range loads {
		name := filepath.Join(dir, l.job+".yaml")
		if err := os.WriteFile(name, l.file, 0o600); err != nil {
			t.Fatal(err)
		}
		d.apply(regions[i%len(regions)], name)
	}
	return k
}

// peek keeps what a region answers in the middle, every time for another third of the loads.
func (k *deck) peek(when, region string) {
	k.t.Helper()
	k.peeks++
	for i, l := range k.loads {
		if l.shared() || (i+k.peeks)%3 != 0 {
			continue
		}
		a, err := k.query(region, l.job)
		if err != nil {
			k.t.Logf("%s: no answer: %v", when, err) // a fault may stand in the way; the end is what must come
			continue
		}
		k.early = append(k.early, earlyAnswer{when, region, l, a})
	}
}

// check waits until both regions have taken everything and compares all they say with the oracle.
func (k *deck) check() {
	k.t.Helper()
	for _, l := range k.loads {
		var of map[string]int
		for _, region := range k.regions() {
			a := k.settle(region, l)
			l.checkWhole(k.t, region, a)
			of = shardsOf(k.t, a)
		}
		for _, e := range k.early {
			if e.load == l {
				l.checkPrefix(k.t, e.when+" in "+e.region, e.answer, of)
			}
		}
	}
	for _, e := range k.early {
		k.t.Logf("%s: %s in %s had %d rows", e.when, e.load.job, e.region, len(e.Rows))
	}
}

// apart waits until a region says that it can't reach another.
func (k *deck) apart(region, other string) {
	k.t.Helper()
	await(k.t, settleWithin, region+" to miss "+other, func() (bool, string) {
		a, err := k.query(region, k.loads[0].job, "--consistency", "local")
		if err != nil {
			return false, err.Error()
		}
		return slices.Contains(a.Missing, other), fmt.Sprintf("it misses %v", a.Missing)
	})
}

// leader returns the node of a region, from 0, that leads a shard.
func (k *deck) leader(region string, shard uint32) int {
	k.t.Helper()
	leader := ""
	await(k.t, settleWithin, "a leader", func() (bool, string) {
		top, err := k.topology(region)
		if err != nil {
			return false, err.Error()
		}
		for _, r := range top.GetRegions() {
			for _, s := range r.GetShards() {
				if r.GetName() == region && s.GetShard() == shard {
					leader = s.GetLeader()
				}
			}
		}
		return leader != "", "none"
	})
	var node int
	if _, err := fmt.Sscanf(strings.TrimPrefix(leader, region), "-%d", &node); err != nil {
		k.t.Fatalf("leader %q: %v", leader, err)
	}
	return node - 1
}

// One region of three nodes, while records flow: the leader of a shard is killed, then a second node in the place of the
// restarted one, then all of them at once.
func TestOneRegionAgreesThroughKills(t *testing.T) {
	binary(t)
	var loads []*load
	for _, name := range []string{"rides-surge", "mixed-values", "fares-csv"} {
		loads = append(loads, newLoad(t, name, "", "", east))
	}
	k := deal(t, loads, "--nodes", "3", "--shards", "3")
	const steps = 4
	first := k.leader(east, 0)
	k.beside(0, steps, func() { k.kill(east, first) })
	k.peek("a leader killed", east)
	k.beside(1, steps, func() {
		k.restart(east, first)
		k.kill(east, k.leader(east, 1))
	})
	k.peek("another leader killed", east)
	k.beside(2, steps, func() { k.killAll(east); k.restartAll(east) })
	k.peek("all killed", east)
	k.beside(3, steps, nil)
	k.check()
}

// In two regions, while records flow: nodes are killed and restarted, leaders among them, the regions are cut apart and
// healed, a whole region is killed. Whatever is answered on the way is what the records below the answer's points give,
// and in the end both regions have the oracle's rows to the byte.
func TestTwoRegionsAgreeThroughFaults(t *testing.T) {
	binary(t)
	k := deal(t, faultLoads(t), "--nodes", "3", "--shards", "4")
	const steps = 8
	k.beside(0, steps, nil)
	k.peek("at first", east)
	k.beside(1, steps, func() { k.kill(east, k.leader(east, 0)) })
	dead := slices.IndexFunc(k.Regions[east].PIDs, func(pid int) bool { return !alive(pid) })
	k.beside(2, steps, func() { k.order("cut", east, west); k.apart(east, west); k.apart(west, east) })
	k.peek("cut off", east)
	k.peek("cut off", west)
	k.beside(3, steps, func() { k.restart(east, dead) })
	k.beside(4, steps, func() { k.kill(west, k.leader(west, 1)) })
	k.peek("cut off, a node down", west)
	k.beside(5, steps, func() { k.order("heal", east, west) })
	k.peek("after the cut", east)
	k.beside(6, steps, func() { k.killAll(west); k.restartAll(west) })
	k.beside(7, steps, nil)
	k.peek("near the end", west)
	k.check()
	k.checkOutputs()
}

// Two regions that can't reach each other learn all of each other through a third one.
func TestThroughAThirdRegion(t *testing.T) {
	binary(t)
	const south = "sa-south"
	var loads []*load
	for _, l := range []struct{ name, prefix string }{
		{"rides-surge", ""}, {"rides-poisoned-sessions", "sessions-"}, {"mixed-values", ""},
	} {
		loads = append(loads, newLoad(t, l.name, l.prefix, "", east, west, south))
	}
	k := deal(t, loads, "--nodes", "1", "--shards", "2")
	k.beside(0, 3, nil)
	k.beside(1, 3, func() { k.order("cut", east, west); k.apart(east, west); k.apart(west, east) })
	k.peek("apart", west)
	k.beside(2, 3, nil)
	k.check()
	if a, err := k.query(east, loads[0].job, "--consistency", "local"); err != nil || !slices.Contains(a.Missing, west) {
		t.Errorf("the cut did not hold to the end: %v, %v", a, err)
	}
}

// topology asks a node of a region how the deployment stands.
func (d *deployment) topology(region string) (*watershedv1.TopologyResponse, error) {
	d.t.Helper()
	return ask(d.t, d.Regions[region].GRPC, 10*time.Second, watershedv1.NewClusterServiceClient,
		watershedv1.ClusterServiceClient.Topology, &watershedv1.TopologyRequest{})
}

// A leader stands still for longer than the others wait for it: they go on without it, its partitions too, and when it
// wakes the first thing it is asked is not answered with what it knew.
func TestPausedLeaderIsReplaced(t *testing.T) {
	binary(t)
	d := startDev(t, filepath.Join(t.TempDir(), "deployment"), "--regions", east, "--shards", "2", "--nodes", "3")
	k := &deck{deployment: d, t: t}
	cl := newTraffic(t, d, nil, "events").clients[east]
	d.apply(east, writeJob(t, eventJob))
	produceEvents(t, cl, "a", 5)
	awaitRows(t, counted("a", 5), d.endpoint(east)...)
	node := k.leader(east, 0)
	pid := d.Regions[east].PIDs[node]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // or it would never stop
	var others []string
	for n, address := range d.Regions[east].GRPC {
		if n != node {
			others = append(others, "--endpoint", address)
		}
	}
	produceEvents(t, cl, "a", 4)
	awaitRows(t, counted("a", 9), others...)
	first := make(chan result, 1)
	go func() {
		first <- watershed(t, nil, "query", "events", "--output", "jsonl", "--endpoint", d.Regions[east].GRPC[node], "--timeout", "60s")
	}()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r := <-first; r.status != 0 || string(r.stdout) != counted("a", 9) {
		t.Errorf("the leader that was paused answers with status %d: %s%s", r.status, r.stdout, r.stderr)
	}
}
