package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// node is a region of one node, run by `watershed node` as in production.
type node struct {
	t                testing.TB
	deployment, data string
	raft, grpc, http string
	kafka            string
	file             string // its configuration, where it is not that of region solo
	more             string // of its configuration
	host             *host  // that it runs on; nil for this one
	process          *process
	output           *tail
}

// given holds the addresses that freeAddress has returned: what is to listen there may not yet.
var given sync.Map

// freeAddress returns an address that nothing listens on, another one at every call, below those that systems give to
// outgoing connections.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(11000+rand.IntN(3500)))
		if l, err := net.Listen("tcp", address); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, taken := given.LoadOrStore(address, true); !taken {
				return address
			}
		}
	}
	t.Fatal("no port is free")
	return ""
}

// newNode makes up a node that does not run yet.
func newNode(t testing.TB, kafka string) *node {
	t.Helper()
	return &node{t: t, deployment: "rides", data: filepath.Join(t.TempDir(), "data"), raft: freeAddress(t), grpc: freeAddress(t),
		http: freeAddress(t), kafka: kafka}
}

// config writes the node's configuration and returns its file.
func (n *node) config() string {
	n.t.Helper()
	if n.file != "" {
		return n.file
	}
	text := fmt.Sprintf(`deployment: %s
region: solo
node: solo-1
data: %s
shards: 2
regions: [{name: solo, member: 1}]
nodes: [{id: solo-1, raft: "%s", grpc: "%s", http: "%s"}]
kafka: {brokers: ["%s"]}
`, n.deployment, n.data, n.raft, n.grpc, n.http, n.kafka) + n.more
	name := filepath.Join(n.t.TempDir(), "node.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return name
}

// start runs the node until the test ends, and waits until it is ready.
func (n *node) start() {
	n.t.Helper()
	cmd := exec.Command(binary(n.t), "node", "--config", n.config())
	n.output = new(tail)
	cmd.Stdout, cmd.Stderr = n.output, n.output
	cmd.Env = environment()
	p, err := spawn(cmd)
	if err != nil {
		n.t.Fatal(err)
	}
	n.process = p
	n.t.Cleanup(func() {
		p.stop(stopWithin)
		if n.t.Failed() {
			n.t.Logf("the node said:\n%s", n.output)
		}
	})
	await(n.t, readyWithin, "the node to be ready", func() (bool, string) {
		if p.ended() {
			n.t.Fatalf("the node has ended: %v:\n%s", p.err, n.output)
		}
		return httpOK("http://" + n.http + "/readyz")
	})
}

// stop ends the node cleanly.
func (n *node) stop() {
	n.t.Helper()
	if !n.process.stop(stopWithin) || n.process.err != nil {
		n.t.Errorf("the node stopped with %v", n.process.err)
	}
}

// lives asserts that the node runs and answers.
func (n *node) lives() {
	n.t.Helper()
	if n.process.ended() {
		n.t.Fatalf("the node has ended: %v", n.process.err)
	}
	if ok, why := httpOK("http://" + n.http + "/readyz"); !ok {
		n.t.Errorf("the node is not ready: %s", why)
	}
	must(n.t, "job", "list", "--endpoint", n.grpc)
}

// broker runs a Kafka of the test's own at an address, "" for any.
func broker(t testing.TB, address string) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	var opts []kfake.Opt
	if address != "" {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, kfake.Ports(n))
	} else {
		opts = append(opts, kfake.NumBrokers(1))
	}
	return brokerWith(t, opts...)
}

func brokerWith(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(minAge))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cluster, cl
}

// startRefused runs the node, which is to refuse with status 1 and one line that holds want.
func (n *node) startRefused(want ...string) {
	n.t.Helper()
	watershed(n.t, nil, "node", "--config", n.config()).refused(n.t, 1, want...)
}

func TestNodeRefusesAPortInUse(t *testing.T) {
	for _, which := range []string{"raft", "grpc", "http"} {
		t.Run(which, func(t *testing.T) {
			n := newNode(t, "127.0.0.1:1")
			address := map[string]string{"raft": n.raft, "grpc": n.grpc, "http": n.http}[which]
			binary(t)
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			n.startRefused(address, "in use")
		})
	}
}

func TestNodeRefusesAFolderThatIsNotItsOwn(t *testing.T) {
	binary(t)
	cluster, _ := broker(t, "")
	n := newNode(t, cluster.ListenAddrs()[0])
	n.start()

	t.Run("locked", func(t *testing.T) {
		second := newNode(t, n.kafka)
		second.data = n.data
		second.startRefused(n.data, "in use by another process")
		n.lives()
	})
	n.stop()
	t.Run("of another deployment", func(t *testing.T) {
		second := newNode(t, n.kafka)
		second.data, second.deployment = n.data, "others"
		second.startRefused(n.data, "deployment", "rides", "others")
	})
	t.Run("of a newer version", func(t *testing.T) {
		name := filepath.Join(n.data, "identity.json")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		newer := strings.Replace(string(text), `"version": 1`, `"version": 99`, 1)
		if err := os.WriteFile(name, []byte(newer), 0o600); err != nil {
			t.Fatal(err)
		}
		n.startRefused(n.data, "newer version")
		if after, err := os.ReadFile(name); err != nil || string(after) != newer {
			t.Errorf("the folder was changed: %s, %v", after, err)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("of something else", func(t *testing.T) {
		second := newNode(t, n.kafka)
		if err := os.MkdirAll(filepath.Join(second.data, "photos"), 0o755); err != nil {
			t.Fatal(err)
		}
		second.startRefused(second.data, "photos")
	})
	t.Run("that is a file", func(t *testing.T) {
		second := newNode(t, n.kafka)
		if err := os.WriteFile(second.data, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		second.startRefused(second.data)
	})
	t.Run("read-only", func(t *testing.T) {
		if err := os.WriteFile("/sys/watershed-e2e", nil, 0o600); err == nil {
			t.Skip("nothing here is read-only")
		}
		second := newNode(t, n.kafka)
		second.data = "/sys/watershed-e2e"
		second.startRefused(second.data, "not writable")
	})
	t.Run("on a full disk", func(t *testing.T) {
		second := newNode(t, n.kafka)
		disk := fullDisk(t)
		second.data = filepath.Join(disk, "data")
		second.startRefused(second.data, "full disk")
	})
	n.start() // nothing was harmed
	n.lives()
}

// fullDisk mounts a file system without room, or skips the test where that is not allowed.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "none", dir).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for {
		if _, err := fill.Write(make([]byte, 4096)); err != nil {
			return dir // no space left
		}
	}
}

func TestNodeRefusesAConfiguration(t *testing.T) {
	binary(t)
	n := newNode(t, "127.0.0.1:1")
	whole, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown field", "shards:", "shard: 1\nshards:", ":5:"},
		{"wrong type", "shards: 2", "shards: two", ":5:"},
		{"too many shards", "shards: 2", "shards: 5000", ":5:"},
		{"region that is none of the regions", "region: solo", "region: sola", "sola"},
		{"node that is none of the nodes", "node: solo-1", "node: solo-2", "solo-2"},
		{"no brokers", "kafka: {brokers: [\"127.0.0.1:1\"]}", "kafka: {brokers: []}", "brokers"},
		{"a bare secret", "kafka: {", "kafka: {sasl: {mechanism: plain, user: a, password: hunter2}, ", "password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(string(whole), c.old, c.new, 1)
			if text == string(whole) {
				t.Fatalf("%q is not in %s", c.old, whole)
			}
			file := filepath.Join(t.TempDir(), "node.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r := watershed(t, nil, "node", "--config", file)
			r.refused(t, 1, "node.yaml", c.want)
			if strings.Contains(string(r.stderr), "hunter2") {
				t.Error("the secret is told")
			}
			if _, err := os.Stat(n.data); !os.IsNotExist(err) {
				t.Errorf("a data folder was made: %v", err)
			}
		})
	}
	watershed(t, nil, "node", "--config", filepath.Join(t.TempDir(), "none.yaml")).refused(t, 1, "none.yaml")
	watershed(t, nil, "node").refused(t, 2, "--config")
}
