package e2e

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// started runs a crew with the events job, 7 events of which are counted.
func started(t *testing.T, shards int, more string, zones ...string) (c *crew, traffic func(when string)) {
	t.Helper()
	binary(t)
	kafka, cl := broker(t, "")
	c = newCrew(t, kafka.ListenAddrs()[0], shards, more, zones...)
	createTopic(t, cl, "events", 1)
	c.apply(east, writeJob(t, eventJob))
	c.carried(c.members...)
	sent := 0
	return c, func(when string) {
		t.Helper()
		produceEvents(t, cl, "a", 7)
		sent += 7
		t.Log(when)
		awaitRows(t, counted("a", sent), c.endpoint(east)...)
	}
}

// TestAReplicationOfFive bears the loss of two nodes at once.
func TestAReplicationOfFive(t *testing.T) {
	c, traffic := started(t, 2, "replication: 5\n", "", "", "", "", "")
	for s, voters := range c.voters() {
		if len(voters) != 5 {
			t.Errorf("shard %d is voted on by %v", s, voters)
		}
	}
	traffic("all there")
	for _, m := range c.members[:2] {
		m.process.kill()
		m.there = false
	}
	c.list()
	traffic("two of five killed")
}

// TestAReplicationOfOne moves the only replica of every shard to another node.
func TestAReplicationOfOne(t *testing.T) {
	c, traffic := started(t, 4, "replication: 1\n", "")
	traffic("alone")
	first := c.members[0]
	second := c.add()
	c.carried(first, second)
	traffic("two")
	held := map[string]int{}
	for s, voters := range c.voters() {
		if len(voters) != 1 {
			t.Fatalf("shard %d is voted on by %v", s, voters)
		}
		held[voters[0]]++
	}
	if held[first.id] != 2 || held[second.id] != 2 {
		t.Errorf("four shards are held as %v", held)
	}
	c.remove(first, second)
	traffic("the other one alone")
}

// TestZonesArePartedAndMerge: no two replicas of a shard are in one zone while there are enough zones, and when there are no
// more they are where there is room.
func TestZonesArePartedAndMerge(t *testing.T) {
	c, traffic := started(t, 4, "", "a", "a", "b", "c")
	for s, voters := range c.voters() {
		if len(voters) != 3 || slices.Contains(voters, "m1") && slices.Contains(voters, "m2") {
			t.Errorf("shard %d is voted on by %v, m1 and m2 are of one zone", s, voters)
		}
	}
	traffic("three zones")
	c.admin("drain", "m4", "--wait")
	for s, voters := range c.voters() {
		if strings.Join(voters, " ") != "m1 m2 m3" {
			t.Errorf("shard %d is voted on by %v", s, voters)
		}
	}
	traffic("two zones")
}

// TestNodeCommandsAreRefused for what can't be, each with the reason, and what is under way survives who asked for it.
func TestNodeCommandsAreRefused(t *testing.T) {
	c, traffic := started(t, 2, "", "", "", "")
	admin := func(args ...string) result {
		t.Helper()
		return watershed(t, nil, append(append([]string{"node"}, args...), c.endpoint(east)...)...)
	}
	m1, m3 := c.members[0], c.members[2]
	other := c.hire("")
	admin("drain", "m1").refused(t, 1, "region us-east: node m1 can't be drained, it holds shard 0, 1",
		"2 active nodes are left for 3 replicas of every shard")
	admin("remove", "m1").refused(t, 1, "2 active nodes are left for 3 replicas of every shard")
	for _, what := range []string{"drain", "remove"} {
		admin(what, "eu-west-1").refused(t, 1, `node `+what+`: region us-east: unknown node "eu-west-1"`)
	}
	admin(append([]string{"add", "m1"}, other.reach()...)...).refused(t, 1, "node id m1 is taken: it is at "+m1.grpc)
	admin("add", "m4", "--raft", m1.raft, "--grpc", other.grpc, "--http", other.http).refused(t, 1,
		"address "+m1.raft+" is taken by node m1")
	admin("add", "m4", "--raft", "here", "--grpc", other.grpc, "--http", other.http).refused(t, 1, `its address is "here", want HOST:PORT`)
	admin(append([]string{"add", "m4", "--weight", "4000000"}, other.reach()...)...).refused(t, 1, "weight")
	watershed(t, nil, "node", "drain", "m1", "--endpoint", freeAddress(t), "--timeout", "1s").refused(t, 1, "node drain: ")

	m3.process.kill()
	admin("remove", "m1").refused(t, 1, "region us-east: node m1 can't be removed, shard 0, 1: no majority without it")
	c.start(m3)
	c.ready(m3)

	// One that is admitted and never runs: who waits is told so, and may stop waiting.
	r := admin(append([]string{"add", "m4", "--wait", "--timeout", "1s"}, other.reach()...)...)
	if said := string(r.stderr); r.status != 1 || !strings.Contains(said, "not carried out within 1s: node m4 is joining") ||
		!strings.Contains(said, "it goes on") {
		t.Errorf("status %d: %s", r.status, said)
	}
	interrupted(t, append(append([]string{"node", "add", "m4", "--wait"}, other.reach()...), c.endpoint(east)...)...)
	other.config = c.write(other, true)
	c.start(other)
	c.carried(c.members...)
	c.remove(m3, m1, c.members[1], other)
	admin(append([]string{"add", "m3"}, other.reach()...)...).refused(t, 1, "node m3 was removed from the region; a node id is never used again")
	admin("remove", "m3").refused(t, 1, "node m3 was removed")
	traffic("after all that")
}

// interrupted runs a command that waits, interrupts it, and looks that it says what goes on.
func interrupted(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(binary(t), args...)
	out := new(tail)
	cmd.Stderr, cmd.Env = out, environment()
	p, err := spawn(cmd)
	if err != nil {
		t.Fatal(err)
	}
	await(t, settleWithin, "the command to wait", func() (bool, string) {
		return strings.Contains(out.String(), "node m4 is joining"), out.String()
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = p.wait()
	if said := out.String(); cmd.ProcessState.ExitCode() != 130 || cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() ||
		!strings.Contains(said, "the region goes on without this command: node m4 is joining") {
		t.Errorf("interrupted, with %v: %s", cmd.ProcessState, said)
	}
}

// TestMoreReplicasThanNodes are refused with both numbers before a data folder is made.
func TestMoreReplicasThanNodes(t *testing.T) {
	binary(t)
	c := &crew{deployment: &deployment{t: t}, regions: eastAlone, kafka: "127.0.0.1:1", shards: 2, more: "replication: 5\n"}
	for range 3 {
		c.hire("")
	}
	watershed(t, nil, "node", "--config", c.write(c.members[0], false)).refused(t, 1, "replication", "at most 3, the number of nodes", "is 5")
	if _, err := os.Stat(c.members[0].data); !os.IsNotExist(err) {
		t.Errorf("a data folder was made: %v", err)
	}
}
