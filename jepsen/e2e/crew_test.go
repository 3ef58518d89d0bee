package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// crew is a region whose nodes come and go, each run by `watershed node` as in production.
type crew struct {
	*deployment // its endpoints are those of the nodes that are there
	kafka       string
	shards      int
	more        string // for every node's configuration
	regions     string // of the deployment, as configurations list them
	members     []*member
}

// member is a node that is or was of the crew.
type member struct {
	*node
	id, config, zone string
	there            bool
}

// eastAlone is crew.regions of a deployment of one region.
const eastAlone = "[{name: " + east + ", member: 1}]"

// newCrew makes up a region that is founded by a node in each of some zones, and starts it.
func newCrew(t testing.TB, kafka string, shards int, more string, zones ...string) *crew {
	t.Helper()
	return newCrewAmong(t, eastAlone, kafka, shards, more, zones...)
}

// newCrewAmong is newCrew in a deployment of several regions.
func newCrewAmong(t testing.TB, regions, kafka string, shards int, more string, zones ...string) *crew {
	t.Helper()
	c := &crew{deployment: &deployment{t: t}, kafka: kafka, shards: shards, more: more, regions: regions}
	c.output = new(tail)
	for _, z := range zones {
		c.hire(z)
	}
	for _, m := range c.members {
		m.config = c.write(m, false)
		m.there = true
	}
	for _, m := range c.members {
		c.start(m)
	}
	c.list()
	for _, m := range c.members {
		c.ready(m)
	}
	return c
}

// hire makes up a node more.
func (c *crew) hire(zone string) *member {
	m := &member{node: newNode(c.t, c.kafka), id: fmt.Sprintf("m%d", len(c.members)+1), zone: zone}
	c.members = append(c.members, m)
	return m
}

// write writes a node's configuration: with all nodes that are there now.
func (c *crew) write(m *member, join bool) string {
	c.t.Helper()
	var nodes []string
	for _, o := range c.members {
		if o.there || !join || o == m {
			nodes = append(nodes, fmt.Sprintf(`  - {id: %s, raft: "%s", grpc: "%s", http: "%s", zone: "%s"}`, o.id, o.raft, o.grpc, o.http, o.zone))
		}
	}
	text := fmt.Sprintf("deployment: rides\nregion: %s\nnode: %s\ndata: %s\nshards: %d\nregions: %s\njoin: %v\n"+
		"nodes:\n%s\nkafka: {brokers: [\"%s\"]}\n%s", east, m.id, m.data, c.shards, c.regions, join, strings.Join(nodes, "\n"), c.kafka, c.more)
	name := filepath.Join(c.t.TempDir(), m.id+".yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return name
}

// start runs a node until the test ends.
func (c *crew) start(m *member) {
	c.t.Helper()
	cmd := exec.Command(binary(c.t), "node", "--config", m.config)
	m.output = new(tail)
	cmd.Stdout, cmd.Stderr, cmd.Env = m.output, m.output, environment()
	p, err := spawn(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	m.process = p
	output := m.output
	c.t.Cleanup(func() {
		p.stop(stopWithin)
		if c.t.Failed() {
			c.t.Logf("%s said:\n%s", m.id, output)
		}
	})
}

func (c *crew) ready(m *member) {
	c.t.Helper()
	await(c.t, readyWithin, m.id+" to be ready", func() (bool, string) {
		if m.process.ended() {
			c.t.Fatalf("%s has ended: %v:\n%s", m.id, m.process.err, m.output)
		}
		return httpOK("http://" + m.http + "/readyz")
	})
}

// list has the deployment's endpoints be those of the nodes that are there.
func (c *crew) list() {
	c.t.Helper()
	var grpc, http []string
	for _, m := range c.members {
		if m.there {
			grpc, http = append(grpc, m.grpc), append(http, m.http)
		}
	}
	text, err := json.Marshal(map[string]any{"regions": map[string]any{east: map[string]any{
		"kafka": []string{c.kafka}, "grpc": grpc, "http": http,
	}}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.endpoints = endpoints{}
	if err := json.Unmarshal(text, &c.endpoints); err != nil {
		c.t.Fatal(err)
	}
}

// admin runs `watershed node` and what comes after it, for as long as a test may wait.
func (c *crew) admin(args ...string) {
	c.t.Helper()
	must(c.t, append(append([]string{"node"}, args...), append(c.endpoint(east), "--timeout", settleWithin.String())...)...)
}

// add starts a node more and admits it; it may not be active yet.
func (c *crew) add() *member {
	c.t.Helper()
	m := c.hire("")
	m.config = c.write(m, true)
	c.start(m)
	c.admin(append([]string{"add", m.id}, m.reach()...)...)
	return m
}

// reach are the flags that say where a node is.
func (m *member) reach() []string {
	return []string{"--raft", m.raft, "--grpc", m.grpc, "--http", m.http}
}

// carried waits until every plan is carried out, with these nodes active and no others there.
func (c *crew) carried(members ...*member) {
	c.t.Helper()
	var want []string
	for _, m := range members {
		m.there = true
		want = append(want, m.id+" active")
	}
	slices.Sort(want)
	c.list()
	await(c.t, settleWithin, "all plans to be carried out", func() (bool, string) {
		answer, err := c.topology(east)
		if err != nil {
			return false, err.Error()
		}
		r := answer.GetRegions()[0]
		var is []string
		for _, n := range r.GetNodes() {
			is = append(is, n.GetId()+" "+n.GetState())
		}
		p := r.GetPlacement()
		return slices.Equal(is, want) && p.GetDone() == p.GetPlan(), fmt.Sprintf("%v, plan %d of %d: %v", is, p.GetDone(), p.GetPlan(), r.GetShards())
	})
}

// leads returns the node that leads a shard.
func (c *crew) leads(shard uint32) (leader *member) {
	c.t.Helper()
	await(c.t, settleWithin, "a leader", func() (bool, string) {
		answer, err := c.topology(east)
		if err != nil {
			return false, err.Error()
		}
		for _, s := range answer.GetRegions()[0].GetShards() {
			for _, m := range c.members {
				if s.GetShard() == shard && s.GetLeader() == m.id {
					leader = m
				}
			}
		}
		return leader != nil, "none"
	})
	return leader
}

// crash kills a node at once and starts it again.
func (c *crew) crash(m *member) {
	c.t.Helper()
	m.process.kill()
	c.start(m)
}

// remove has a node removed, waits until its process has ended with the reason, and throws its disk away.
func (c *crew) remove(m *member, stay ...*member) {
	c.t.Helper()
	m.there = false
	c.list()
	c.admin("remove", m.id, "--wait")
	c.carried(stay...)
	c.turnedAway(m)
	if err := os.RemoveAll(m.data); err != nil {
		c.t.Fatal(err)
	}
}

// turnedAway waits until a node's process has ended since the node was removed.
func (c *crew) turnedAway(m *member) {
	c.t.Helper()
	err := m.process.wait()
	if said := m.output.String(); err == nil || errors.Is(err, errStillRuns) || !strings.Contains(said, "node "+m.id+" of "+east+" was removed from the region") {
		c.t.Fatalf("%s ended with %v:\n%s", m.id, err, said)
	}
}

// voters lists who votes on each shard.
func (c *crew) voters() (all [][]string) {
	c.t.Helper()
	answer, err := c.topology(east)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range answer.GetRegions()[0].GetShards() {
		all = append(all, slices.Sorted(slices.Values(s.GetVoters())))
	}
	return all
}

// selection asks for one key of the events job.
func selection(key string) *watershedv1.Selection {
	return &watershedv1.Selection{Job: "events", Consistency: watershedv1.Consistency_CONSISTENCY_LINEARIZABLE,
		Key: []*watershedv1.KeyFilter{{Name: "who", Value: &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: key}}}}}
}
