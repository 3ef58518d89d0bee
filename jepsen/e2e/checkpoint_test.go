package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watershed-db/watershed/jepsen/s3"
)

// incarnation is a region that `watershed node` processes are, for a while.
type incarnation struct {
	*deployment
	dir       string
	nodes     []string
	configs   []string
	processes []*process
}

// newIncarnation writes the configurations of a region's nodes. more is the inside of the checkpoints section.
func newIncarnation(t *testing.T, kafka []string, member, shards int, more string, nodes ...string) *incarnation {
	t.Helper()
	in := &incarnation{dir: t.TempDir(), nodes: nodes, deployment: &deployment{t: t}}
	in.output = new(tail)
	var entries []string
	var grpc, http []string
	for _, n := range nodes {
		g, h := freeAddress(t), freeAddress(t)
		entries = append(entries, fmt.Sprintf(`  - {id: %s, raft: "%s", grpc: "%s", http: "%s"}`, n, freeAddress(t), g, h))
		grpc, http = append(grpc, g), append(http, h)
	}
	text, err := json.Marshal(map[string]any{"regions": map[string]any{east: map[string]any{
		"kafka": kafka, "grpc": grpc, "http": http, "pids": make([]int, len(nodes)),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &in.endpoints); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		config := fmt.Sprintf("deployment: rides\nregion: %s\nnode: %s\ndata: %s\nshards: %d\nregions: [{name: %s, member: %d}]\n"+
			"nodes:\n%s\nkafka: {brokers: [\"%s\"]}\ncheckpoints: {%s}\n", east, n, filepath.Join(in.dir, n), shards, east, member,
			strings.Join(entries, "\n"), strings.Join(kafka, `", "`), more)
		name := filepath.Join(t.TempDir(), n+".yaml")
		if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		in.configs = append(in.configs, name)
	}
	return in
}

// run starts all nodes and waits until they are ready. The test's end stops them.
func (in *incarnation) run() {
	in.t.Helper()
	for i, config := range in.configs {
		cmd := exec.Command(binary(in.t), "node", "--config", config)
		cmd.Stdout, cmd.Stderr, cmd.Env = in.output, in.output, environment()
		p, err := spawn(cmd)
		if err != nil {
			in.t.Fatal(err)
		}
		in.processes = append(in.processes, p)
		in.Regions[east].PIDs[i] = p.cmd.Process.Pid
	}
	in.t.Cleanup(func() {
		if in.t.Failed() {
			in.t.Logf("%v said:\n%s", in.nodes, in.output)
		}
		in.killAll(east)
	})
	for i := range in.nodes {
		in.ready(east, i)
	}
}

// wipe kills all nodes at once, and their disks with them.
func (in *incarnation) wipe() {
	in.t.Helper()
	in.killAll(east)
	if err := os.RemoveAll(in.dir); err != nil {
		in.t.Fatal(err)
	}
}

// checkpointRow is what `checkpoint list` prints.
type checkpointRow struct {
	ID        uint64 `json:"id"`
	Savepoint string `json:"savepoint"`
	Member    int    `json:"member"`
	Bytes     int64  `json:"bytes"`
}

func (in *incarnation) checkpoints(args ...string) (rows []checkpointRow) {
	in.t.Helper()
	out := must(in.t, append(append(args, "--output", "jsonl", "--timeout", "60s"), in.endpoint(east)...)...)
	for line := range strings.Lines(string(out)) {
		var r checkpointRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			in.t.Fatalf("%q: %v", line, err)
		}
		rows = append(rows, r)
	}
	return rows
}

// restoreLoads are a few jobs of different kinds.
func restoreLoads(t *testing.T) (loads []*load) {
	t.Helper()
	for _, name := range []string{"wiki-tumbling", "wiki-session", "rides-surge", "mixed-values", "fares-csv"} {
		if l := newLoad(t, name, "", "", east); l != nil {
			loads = append(loads, l)
		} else {
			t.Logf("%s is left out: its data is not there", name)
		}
	}
	return loads
}

// TestAWipedRegionComesBack: three nodes take half of what there is, with checkpoints all the while and an object store that
// fails now and then; then they are gone with their disks. One node of another name goes on from the last checkpoint, is
// wiped too, and three others go on from a savepoint. Rows are the oracle's at every answer's points, and at the end.
func TestAWipedRegionComesBack(t *testing.T) {
	binary(t)
	server, proxy := s3.Serve(t)
	url := proxy.Place("e2e")
	loads := restoreLoads(t)
	kafka, _ := broker(t, "")
	brokers := kafka.ListenAddrs()

	first := newIncarnation(t, brokers, 1, 4, fmt.Sprintf(`url: "%s", interval: 500ms`, url), "a1", "a2", "a3")
	first.run()
	tr := newTraffic(t, first.deployment, partitions(t, loads))
	for _, l := range loads {
		name := filepath.Join(t.TempDir(), l.job+".yaml")
		if err := os.WriteFile(name, l.file, 0o600); err != nil {
			t.Fatal(err)
		}
		first.apply(east, name)
	}
	tr.beside(0, 4, func() {
		server.Kill()
		if err := server.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
	saved := first.checkpoints("savepoint", "create", "early")
	if len(saved) != 1 || saved[0].Savepoint != "early" || saved[0].Bytes == 0 {
		t.Fatalf("%+v", saved)
	}
	n := 0
	proxy.Set(s3.Faults{Delay: func(r *http.Request) time.Duration {
		if r.Method == http.MethodPut {
			return 20 * time.Millisecond
		}
		return 0
	}})
	tr.beside(1, 4, func() {
		for range 3 {
			n = len(first.checkpoints("checkpoint", "now"))
		}
	})
	proxy.Set(s3.Faults{})
	if n != 1 {
		t.Errorf("checkpoint now prints %d rows", n)
	}
	first.wipe()

	second := newIncarnation(t, brokers, 2, 4, fmt.Sprintf(`url: "%s", interval: 500ms, restore: latest`, url), "b1")
	second.run()
	early := map[*load]*answer{}
	tr.beside(2, 4, func() {
		for _, l := range loads {
			if a, err := second.query(east, l.job); err == nil && !l.shared() {
				early[l] = a
			}
		}
	})
	for _, l := range loads {
		of := shardsOf(t, second.settlePart(l, 3, 4))
		if a := early[l]; a != nil {
			l.checkPrefix(t, "right after the restore", a, of)
		}
	}
	list := second.checkpoints("checkpoint", "list")
	if last := list[len(list)-1]; last.Savepoint != "early" || last.Member != 1 {
		t.Errorf("listed last: %+v", last)
	}
	second.wipe()

	third := newIncarnation(t, brokers, 3, 4, fmt.Sprintf(`url: "%s"`, url), "c1", "c2", "c3")
	for _, config := range third.configs {
		must(t, "checkpoint", "restore", "early", "--config", config)
	}
	third.run()
	tr.beside(3, 4, nil)
	for _, l := range loads {
		l.checkWhole(t, east, third.settle(east, l))
	}
	watershed(t, nil, "checkpoint", "restore", "early", "--config", third.configs[0]).refused(t, 1, "holds data already", "--replace")
}

// settlePart waits until the region has taken part i of n of a load.
func (in *incarnation) settlePart(l *load, i, n int) *answer {
	in.t.Helper()
	var last *answer
	await(in.t, settleWithin, "part of "+l.job, func() (bool, string) {
		a, err := in.query(east, l.job)
		if err != nil {
			return false, err.Error()
		}
		last = a
		for name, s := range a.Shards {
			for _, p := range l.logs {
				at := s.Frontiers[p.Region][fmt.Sprintf("%s/%d", l.topics[p.Topic], p.Number)]
				if want := int64(len(p.Records) * i / n); at != want {
					return false, fmt.Sprintf("%s: shard %s is at %d of %d", l.job, name, at, want)
				}
			}
		}
		return len(a.Shards) > 0, "no shard answered"
	})
	return last
}
