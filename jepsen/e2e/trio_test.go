package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// trio is a region of three nodes, each run by `watershed node` as in production, and each of a build of its own.
type trio struct {
	t     testing.TB
	kafka string
	nodes [3]*node
}

// newTrio makes up a region whose nodes do not run yet.
func newTrio(t testing.TB, kafka string) *trio {
	t.Helper()
	r := &trio{t: t, kafka: kafka}
	for i := range r.nodes {
		r.nodes[i] = newNode(t, kafka)
	}
	return r
}

func (r *trio) name(i int) string { return fmt.Sprintf("solo-%d", i+1) }

// config writes a node's configuration and returns its file.
func (r *trio) config(i int) string {
	r.t.Helper()
	var members []string
	for j, n := range r.nodes {
		members = append(members, fmt.Sprintf(`  - {id: %s, raft: "%s", grpc: "%s", http: "%s"}`, r.name(j), n.raft, n.grpc, n.http))
	}
	text := fmt.Sprintf("deployment: rides\nregion: solo\nnode: %s\ndata: %s\nshards: 2\nregions: [{name: solo, member: 1}]\nnodes:\n%s\n"+
		"kafka: {brokers: [\"%s\"]}\n", r.name(i), r.nodes[i].data, strings.Join(members, "\n"), r.kafka)
	name := filepath.Join(r.t.TempDir(), "node.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return name
}

// start runs a node of a build until the test ends. It doesn't wait for it to be ready.
func (r *trio) start(i int, build string) {
	r.t.Helper()
	n := r.nodes[i]
	cmd := exec.Command(build, "node", "--config", r.config(i))
	if n.host != nil {
		cmd = n.host.command(cmd)
	}
	n.output = new(tail)
	cmd.Stdout, cmd.Stderr = n.output, n.output
	cmd.Env = environment()
	p, err := spawn(cmd)
	if err != nil {
		r.t.Fatal(err)
	}
	n.process = p
	r.t.Cleanup(func() {
		p.stop(stopWithin)
		if r.t.Failed() {
			r.t.Logf("%s said:\n%s", r.name(i), n.output)
		}
	})
}

// ready waits for a node to be ready.
func (r *trio) ready(i int) {
	r.t.Helper()
	n := r.nodes[i]
	await(r.t, readyWithin, r.name(i)+" to be ready", func() (bool, string) {
		if n.process.ended() {
			r.t.Fatalf("%s has ended: %v:\n%s", r.name(i), n.process.err, n.output)
		}
		return httpOK("http://" + n.http + "/readyz")
	})
}

// all starts every node of a build and waits for them.
func (r *trio) all(build string) {
	r.t.Helper()
	for i := range r.nodes {
		r.start(i, build)
	}
	for i := range r.nodes {
		r.ready(i)
	}
}

// endpoints are the flags that name every node.
func (r *trio) endpoints() (flags []string) {
	for _, n := range r.nodes {
		flags = append(flags, "--endpoint", n.grpc)
	}
	return flags
}
