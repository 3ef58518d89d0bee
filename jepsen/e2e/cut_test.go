package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// host is a network namespace, joined with others and with the one that the tests run in by a bridge.
type host struct {
	t       testing.TB
	name    string
	address string
}

// hosts makes n hosts, for as long as the test lasts, and returns them with the address of the bridge. The test is skipped
// where that can't be done.
func hosts(t testing.TB, n int) (made []*host, bridge string) {
	t.Helper()
	id := rand.IntN(1 << 16)
	net := fmt.Sprintf("10.%d.%d.", 128+id>>9, id>>1&0xff)
	br := fmt.Sprintf("wsb%d", id)
	if out, err := exec.Command("ip", "link", "add", br, "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("no hosts of the test's own can be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { ip(t, "link", "del", br) })
	ip(t, "addr", "add", net+"1/24", "dev", br)
	ip(t, "link", "set", br, "up")
	for i := range n {
		h := &host{t: t, name: fmt.Sprintf("ws%d-%d", id, i+1), address: fmt.Sprintf("%s%d", net, i+11)}
		outside := fmt.Sprintf("wsv%d-%d", id, i+1)
		ip(t, "netns", "add", h.name)
		t.Cleanup(func() { ip(t, "netns", "del", h.name) })
		ip(t, "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", h.name)
		ip(t, "link", "set", outside, "master", br, "up")
		h.ip("addr", "add", h.address+"/24", "dev", "eth0")
		h.ip("link", "set", "eth0", "up")
		h.ip("link", "set", "lo", "up")
		made = append(made, h)
	}
	return made, net + "1"
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

func (h *host) ip(args ...string) {
	h.t.Helper()
	ip(h.t, append([]string{"-n", h.name}, args...)...)
}

// command returns cmd as it is run on the host, in the same process.
func (h *host) command(cmd *exec.Cmd) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.name}, cmd.Args...)...)
}

// lose has everything that the host sends to another one vanish without a word, and nothing of what comes from there.
func (h *host) lose(to *host) {
	h.t.Helper()
	h.ip("neigh", "replace", to.address, "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent") // nobody's
}

// find undoes lose.
func (h *host) find(to *host) {
	h.t.Helper()
	h.ip("neigh", "del", to.address, "dev", "eth0")
}

// TestLeaderCutOffOneWay cuts a leader off from its followers in one direction: they no longer hear it, or it no longer
// hears them. In both cases another one leads while the first one still runs and the cut lasts.
func TestLeaderCutOffOneWay(t *testing.T) {
	build := binary(t)
	hosts, bridge := hosts(t, 3)
	cluster, cl := brokerWith(t, kfake.NumBrokers(1), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		return net.Listen(network, net.JoinHostPort(bridge, "0"))
	}))
	createTopic(t, cl, "events", 4)
	r := newTrio(t, cluster.ListenAddrs()[0])
	for i, n := range r.nodes {
		n.host = hosts[i]
		n.raft, n.grpc, n.http = n.host.address+":7001", n.host.address+":7002", n.host.address+":7003"
	}
	r.all(build)
	must(t, append([]string{"job", "apply", writeJob(t, eventJob)}, r.endpoints()...)...)
	sent := 0
	traffic := func(who string) {
		t.Helper()
		produceEvents(t, cl, "a", 4)
		sent += 4
		awaitRows(t, counted("a", sent), "--endpoint", who)
	}
	traffic(r.nodes[0].grpc)
	for _, c := range []struct {
		name string
		each func(leader, other *host, do func(from, to *host))
	}{
		{"mute", func(leader, other *host, do func(from, to *host)) { do(leader, other) }},
		{"deaf", func(leader, other *host, do func(from, to *host)) { do(other, leader) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			leader := -1
			await(t, settleWithin, "a leader", func() (bool, string) {
				leader = r.leader(0, 0)
				return leader >= 0, "none"
			})
			cut := func(do func(from, to *host)) {
				for i := 1; i < 3; i++ {
					c.each(hosts[leader], hosts[(leader+i)%3], do)
				}
			}
			campaigns := r.campaigns(leader)
			start := time.Now()
			cut((*host).lose)
			await(t, settleWithin, "another leader", func() (bool, string) {
				now := r.leader(0, leader)
				return now >= 0 && now != leader, fmt.Sprint(now)
			})
			t.Logf("another node led %v after the cut", time.Since(start))
			if r.campaigns(leader) == campaigns {
				t.Error("no probe has found it: it took Raft's own timeouts")
			}
			traffic(r.nodes[(leader+1)%3].grpc)
			if r.nodes[leader].process.ended() {
				t.Error("the node that was cut off has ended")
			}
			cut((*host).find)
			traffic(r.nodes[leader].grpc)
		})
	}
}

// campaigns returns how often the nodes but one have asked for votes because of what their probes heard.
func (r *trio) campaigns(but int) (sum float64) {
	r.t.Helper()
	for i, n := range r.nodes {
		if i != but {
			sum += metric(r.t, n.http, "watershed_probe_campaigns_total")
		}
	}
	return sum
}

// metric returns the value of a metric without labels at a node.
func metric(t testing.TB, node, name string) float64 {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://" + node + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("%s shows no %s: %v", node, name, lines.Err())
	return 0
}
