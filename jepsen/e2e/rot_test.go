package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// rotting is a region whose third node's disk is bad, with a job that has as many rows as there were events.
type rotting struct {
	*trio
	cl   *kgo.Client
	sent int
	rows []byte // as of the last look
}

const rotten = 2 // the node

// traffic writes events of keys that there were none of, and sees to it that every node of who answers the same.
func (r *rotting) traffic(who ...string) {
	r.t.Helper()
	const n = 800
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var recs []*kgo.Record
	for range n {
		recs = append(recs, &kgo.Record{Topic: "events", Value: fmt.Appendf(nil, `{"ts":1,"who":"somebody-%d"}`, r.sent)})
		r.sent++
	}
	if err := r.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	r.rows = nil
	for _, endpoint := range who {
		r.look(endpoint)
	}
}

// look waits until a node has counted every event, and compares its answer with that of the one asked before.
func (r *rotting) look(endpoint string, flags ...string) {
	r.t.Helper()
	var rows []byte
	await(r.t, settleWithin, "rows", func() (bool, string) {
		x := watershed(r.t, nil, append([]string{"query", "events", "--output", "jsonl", "--endpoint", endpoint}, flags...)...)
		rows = x.stdout
		n := bytes.Count(rows, []byte("\n"))
		return n == r.sent, fmt.Sprintf("%d of %d rows: %s", n, r.sent, x.stderr)
	})
	lines := bytes.SplitAfter(rows, []byte("\n"))
	slices.SortFunc(lines, bytes.Compare)
	rows = bytes.Join(lines, nil)
	if r.rows != nil && !bytes.Equal(rows, r.rows) {
		r.t.Errorf("%s answers with other rows than were answered before", endpoint)
	}
	r.rows = rows
}

// flipped changes a byte of the largest file that a pattern finds below the bad node's data folder, and returns its name.
func (r *rotting) flipped(pattern string, at float64) string {
	r.t.Helper()
	found, err := filepath.Glob(filepath.Join(r.nodes[rotten].data, pattern))
	if err != nil || len(found) == 0 {
		r.t.Fatalf("no %s: %v", pattern, err)
	}
	size := func(name string) int {
		info, err := os.Stat(name)
		if err != nil {
			r.t.Fatal(err)
		}
		return int(info.Size())
	}
	name := slices.MaxFunc(found, func(a, b string) int { return size(a) - size(b) })
	b, err := os.ReadFile(name)
	if err != nil {
		r.t.Fatal(err)
	}
	b[int(float64(len(b))*at)] ^= 0x20
	if err := os.WriteFile(name, b, 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("a byte of %s is flipped, which has %d", name, len(b))
	return name
}

// refuses starts the bad node twice, which is to end by itself each time, saying where the damage is.
func (r *rotting) refuses(where string) {
	r.t.Helper()
	for _, when := range []string{"after the damage", "once more"} {
		r.start(rotten, binary(r.t))
		n := r.nodes[rotten]
		if err := n.process.wait(); err == nil || !strings.Contains(n.output.String(), "Raft log is damaged") ||
			!strings.Contains(n.output.String(), where) {
			r.t.Fatalf("%s: %v, want %s in:\n%s", when, err, where, n.output)
		}
	}
}

// damage returns the file in which a replica of the bad node is damaged, as topology has it; "" where none is.
func (r *rotting) damage() (shard int, file string) {
	r.t.Helper()
	var told struct {
		Regions []struct {
			Nodes []struct {
				ID      string `json:"id"`
				Damaged []struct {
					Shard int    `json:"shard"`
					File  string `json:"file"`
				} `json:"damaged"`
			} `json:"nodes"`
		} `json:"regions"`
	}
	out := must(r.t, "topology", "--output", "json", "--endpoint", r.nodes[0].grpc)
	if err := json.Unmarshal(out, &told); err != nil {
		r.t.Fatal(err)
	}
	for _, n := range told.Regions[0].Nodes {
		if n.ID == r.name(rotten) && len(n.Damaged) > 0 {
			return n.Damaged[0].Shard, n.Damaged[0].File
		}
	}
	return 0, ""
}

// TestARottenDisk flips bytes below a node that is down: in a table of a shard, in its terms and votes, in its log. It says
// what and where, the region serves on, and the replica is rebuilt, or the node replaced, by the commands of the runbook.
func TestARottenDisk(t *testing.T) {
	build := binary(t)
	cluster, cl := broker(t, "")
	createTopic(t, cl, "events", 4)
	r := &rotting{trio: newTrio(t, cluster.ListenAddrs()[0]), cl: cl}
	r.all(build)
	must(t, append([]string{"job", "apply", writeJob(t, eventJob)}, r.endpoints()...)...)
	first, second, bad := r.nodes[0].grpc, r.nodes[1].grpc, r.nodes[rotten]
	r.traffic(first, second, bad.grpc)

	bad.stop() // which leaves tables
	file := r.flipped("shards/0001/data-*/*.sst", 0.5)
	r.traffic(first, second)
	r.start(rotten, build)
	await(t, settleWithin, "the damage to be told", func() (bool, string) {
		shard, where := r.damage()
		return shard == 1 && where == file, fmt.Sprintf("shard %d: %s", shard, where)
	})
	if said := bad.output.String(); !strings.Contains(said, "the replica is damaged and out") || !strings.Contains(said, file) {
		t.Errorf("the node with the flipped byte said:\n%s", said)
	}
	r.traffic(first, second, bad.grpc)
	if out := must(t, "shard", "rebuild", "--node", r.name(rotten), "--endpoint", first); string(out) != "{\"rebuilt\":[1]}\n" {
		t.Errorf("rebuild: %s", out)
	}
	r.ready(rotten)
	r.look(bad.grpc, "--consistency", "local")

	bad.stop()
	stable := filepath.Join(bad.data, "raft", "stable.db")
	whole, err := os.ReadFile(stable)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stable, bytes.ReplaceAll(whole, []byte("LastVoteTerm"), []byte("LastVoteTurm")), 0o600); err != nil {
		t.Fatal(err)
	}
	r.refuses(stable)
	r.traffic(first, second)
	if err := os.WriteFile(stable, whole, 0o600); err != nil { // nothing is forgotten, so the test may take it back
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bad.data, "raft", "DAMAGED")); err != nil {
		t.Fatal(err)
	}
	r.start(rotten, build)
	r.ready(rotten)
	for range 4 { // damage is told from a torn end by what was written after it
		r.traffic(first, second, bad.grpc)
	}

	bad.process.kill() // which leaves everything in the log's WAL
	r.flipped("raft/log/*.log", 0.1)
	r.refuses(filepath.Join(bad.data, "raft", "log"))
	r.traffic(first, second)
	r.replace(first)
	r.traffic(first, second)
}

// replace gives the bad node's place to one with another id, and looks at its answers.
func (r *rotting) replace(endpoint string) {
	r.t.Helper()
	fresh := newNode(r.t, r.kafka)
	text := fmt.Sprintf("deployment: rides\nregion: solo\nnode: solo-4\njoin: true\ndata: %s\nshards: 2\nregions: [{name: solo, member: 1}]\nnodes:\n"+
		"  - {id: solo-4, raft: %q, grpc: %q, http: %q}\n  - {id: solo-1, raft: %q, grpc: %q, http: %q}\nkafka: {brokers: [%q]}\n",
		fresh.data, fresh.raft, fresh.grpc, fresh.http, r.nodes[0].raft, r.nodes[0].grpc, r.nodes[0].http, r.kafka)
	config := filepath.Join(r.t.TempDir(), "node.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(binary(r.t), "node", "--config", config)
	fresh.output = new(tail)
	cmd.Stdout, cmd.Stderr, cmd.Env = fresh.output, fresh.output, environment()
	p, err := spawn(cmd)
	if err != nil {
		r.t.Fatal(err)
	}
	fresh.process = p
	r.t.Cleanup(func() {
		p.stop(stopWithin)
		if r.t.Failed() {
			r.t.Logf("solo-4 said:\n%s", fresh.output)
		}
	})
	must(r.t, "node", "add", "solo-4", "--raft", fresh.raft, "--grpc", fresh.grpc, "--http", fresh.http, "--wait", "--timeout", "60s",
		"--endpoint", endpoint)
	must(r.t, "node", "remove", r.name(rotten), "--wait", "--timeout", "60s", "--endpoint", endpoint)
	r.look(fresh.grpc, "--consistency", "local")
}
