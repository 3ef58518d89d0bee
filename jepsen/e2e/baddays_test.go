package e2e

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// minAge lets a client see soon what changes in a test.
const minAge = 100 * time.Millisecond

// eventJob counts events by who in one window for ever.
const eventJob = `name: events
sources:
  - topic: events
    format: json
    time: {field: ts, unit: ms}
    max_future: none
    key: [who]
    aggregates: {n: count()}
window: {global: true}
`

func writeJob(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// produceEvents writes n events of who to partition 0 of the topic.
func produceEvents(t testing.TB, cl *kgo.Client, who string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var recs []*kgo.Record
	for i := range n {
		recs = append(recs, &kgo.Record{Topic: "events", Value: fmt.Appendf(nil, `{"ts":%d,"who":%q}`, i, who)})
	}
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// counted is the row of the events job.
func counted(who string, n int) string {
	return fmt.Sprintf(`{"window_start":null,"window_end":null,"key":{"who":%q},"n":%d,"revision":%d,"complete":false}`+"\n", who, n, n)
}

// awaitRows waits until a query prints the rows.
func awaitRows(t testing.TB, want string, args ...string) {
	t.Helper()
	await(t, settleWithin, "rows", func() (bool, string) {
		r := watershed(t, nil, append([]string{"query", "events", "--output", "jsonl"}, args...)...)
		return string(r.stdout) == want, fmt.Sprintf("%s%s", r.stdout, r.stderr)
	})
}

func TestNodeWaitsForABrokerThatIsDown(t *testing.T) {
	binary(t)
	address := freeAddress(t)
	n := newNode(t, address)
	n.start()
	n.lives()
	await(t, settleWithin, "a line about the broker", func() (bool, string) {
		return strings.Contains(n.output.String(), address), n.output.String()
	})
	said := must(t, "job", "apply", writeJob(t, eventJob), "--endpoint", n.grpc, "--output", "json")
	if !strings.Contains(string(said), "topics were not checked") {
		t.Errorf("it does not say that the topics could not be checked: %s", said)
	}
	_, cl := broker(t, address)
	createTopic(t, cl, "events", 1)
	produceEvents(t, cl, "a", 3)
	awaitRows(t, counted("a", 3), "--endpoint", n.grpc)
}

func TestJobOfATopicThatIsNotThere(t *testing.T) {
	binary(t)
	cluster, cl := broker(t, "")
	n := newNode(t, cluster.ListenAddrs()[0])
	n.start()
	r := watershed(t, nil, "job", "apply", writeJob(t, eventJob), "--endpoint", n.grpc, "--output", "json")
	if said := string(r.stdout) + string(r.stderr); !strings.Contains(said, "events") || !strings.Contains(said, "exist") {
		t.Errorf("status %d, and it does not say that the topic does not exist: %s", r.status, said)
	}
	createTopic(t, cl, "events", 1)
	produceEvents(t, cl, "a", 2)
	must(t, "job", "apply", writeJob(t, eventJob), "--endpoint", n.grpc, "--timeout", "60s")
	awaitRows(t, counted("a", 2), "--endpoint", n.grpc)
}

// A topic that is deleted and made again is another log: its source stops and says so, and what was counted stays.
func TestTopicMadeAgainStopsItsSource(t *testing.T) {
	binary(t)
	cluster, cl := broker(t, "")
	n := newNode(t, cluster.ListenAddrs()[0])
	n.start()
	createTopic(t, cl, "events", 1)
	produceEvents(t, cl, "a", 5)
	must(t, "job", "apply", writeJob(t, eventJob), "--endpoint", n.grpc)
	awaitRows(t, counted("a", 5), "--endpoint", n.grpc)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := kadm.NewClient(cl).DeleteTopic(ctx, "events"); err != nil {
		t.Fatal(err)
	}
	createTopic(t, cl, "events", 1)
	other, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	produceEvents(t, other, "b", 9)
	stopped := func() string {
		var job struct {
			Sources []struct {
				Topic, Stopped string
			}
		}
		r := watershed(t, nil, "job", "show", "events", "--endpoint", n.grpc, "--output", "json")
		if err := json.Unmarshal(r.stdout, &job); err != nil || len(job.Sources) != 1 {
			return ""
		}
		return job.Sources[0].Stopped
	}
	await(t, settleWithin, "the source to stop", func() (bool, string) { return stopped() != "", "it runs" })
	t.Logf("stopped: %s", stopped())
	awaitRows(t, counted("a", 5), "--endpoint", n.grpc)
	n.process.kill()
	n.start()
	await(t, settleWithin, "the source to be stopped after a restart", func() (bool, string) { return stopped() != "", "it runs" })
	awaitRows(t, counted("a", 5), "--endpoint", n.grpc)
}

func TestGarbageIsRefused(t *testing.T) {
	binary(t)
	cluster, cl := broker(t, "")
	n := newNode(t, cluster.ListenAddrs()[0])
	n.start()
	createTopic(t, cl, "events", 1)
	must(t, "job", "apply", writeJob(t, eventJob), "--endpoint", n.grpc)
	random := make([]byte, 64<<10)
	if _, err := crand.Read(random); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{n.raft, n.grpc, n.http} {
		for _, garbage := range [][]byte{
			nil, {0}, random, []byte(strings.Repeat("\xff", 1<<16)), make([]byte, 1<<20),
			[]byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("a", 1<<20) + "\r\n\r\n"),
			[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + string(random)),
			[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
		} {
			throw(t, address, garbage)
		}
	}
	n.lives()
	produceEvents(t, cl, "a", 4)
	awaitRows(t, counted("a", 4), "--endpoint", n.grpc)
	if !strings.Contains(n.output.String(), "node runs") || len(n.output.String()) > 8<<10 {
		t.Errorf("it logs too much about garbage:\n%s", n.output)
	}
}

// throw sends bytes to a port and waits until the other side hangs up, or for a moment.
func throw(t *testing.T, address string, garbage []byte) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(garbage); err != nil {
		return // it hung up
	}
	for buf := make([]byte, 1<<10); ; {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// Two nodes of three are killed: what must be linearizable is refused within a bound and as UNAVAILABLE, local reads go
// on and say how stale they are, and everything comes back with the majority.
func TestShardWithoutAMajority(t *testing.T) {
	binary(t)
	d := startDev(t, filepath.Join(t.TempDir(), "deployment"), "--regions", east, "--shards", "2", "--nodes", "3")
	tr := newTraffic(t, d, nil, "events")
	cl := tr.clients[east]
	d.apply(east, writeJob(t, eventJob))
	produceEvents(t, cl, "a", 7)
	awaitRows(t, counted("a", 7), d.endpoint(east)...)
	left := d.Regions[east].GRPC[0]
	// A follower knows only a little later than the leader what is committed, and alone it never would.
	awaitRows(t, counted("a", 7), "--endpoint", left, "--consistency", "local")
	d.kill(east, 1)
	d.kill(east, 2)
	selection := &watershedv1.Selection{Job: "events", Consistency: watershedv1.Consistency_CONSISTENCY_LINEARIZABLE,
		Key: []*watershedv1.KeyFilter{{Name: "who", Value: &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: "a"}}}}}
	get := func() (*watershedv1.GetResponse, error) {
		return askOne(left, 30*time.Second, watershedv1.NewStateServiceClient, watershedv1.StateServiceClient.Get,
			&watershedv1.GetRequest{Selection: selection})
	}
	await(t, settleWithin, "linearizable reads to be refused", func() (bool, string) {
		_, err := get()
		return err != nil, "one was answered"
	})
	start := time.Now()
	_, err := get()
	if took := time.Since(start); status.Code(err) != codes.Unavailable || took > 20*time.Second {
		t.Errorf("after %s: %v, want UNAVAILABLE within a bound", took, err)
	}
	watershed(t, nil, "query", "events", "--endpoint", left, "--timeout", "3s").refused(t, 1)
	start = time.Now()
	other := writeJob(t, strings.Replace(eventJob, "name: events", "name: others", 1))
	r := watershed(t, nil, "job", "apply", other, "--endpoint", left, "--timeout", "3s")
	if took := time.Since(start); r.status == 0 || took > time.Minute {
		t.Errorf("a write without a majority: status %d after %s", r.status, took)
	}
	selection.Consistency = watershedv1.Consistency_CONSISTENCY_LOCAL
	stale := int64(0)
	await(t, settleWithin, "a local read to be stale", func() (bool, string) {
		answer, err := get()
		if err != nil {
			t.Fatalf("a local read: %v", err)
		}
		if len(answer.GetRows()) != 1 || answer.GetRows()[0].GetRevision() != 7 {
			t.Fatalf("a local read gave %v", answer.GetRows())
		}
		stale = answer.GetShard().GetStalenessMs()
		return stale > 500, fmt.Sprintf("%d ms", stale)
	})
	awaitRows(t, counted("a", 7), "--endpoint", left, "--consistency", "local")
	if ok, _ := httpOK("http://" + d.Regions[east].HTTP[0] + "/readyz"); ok {
		t.Error("a node without a leader is ready")
	}
	if ok, why := httpOK("http://" + d.Regions[east].HTTP[0] + "/healthz"); !ok {
		t.Errorf("it is not even alive: %s", why)
	}
	produceEvents(t, cl, "a", 3)
	d.restartAll(east)
	awaitRows(t, counted("a", 10), d.endpoint(east)...)
}

// dev is stopped and killed, and goes on with its folder: the same ports, the same rows.
func TestDevGoesOnWithItsFolder(t *testing.T) {
	binary(t)
	flags := []string{"--regions", east, "--nodes", "1", "--shards", "2", "--partitions", "1", "--job", writeJob(t, eventJob)}
	dir := filepath.Join(t.TempDir(), "deployment")
	d := startDev(t, dir, flags...)
	address := d.Regions[east]
	cl, err := kgo.NewClient(kgo.SeedBrokers(address.Kafka...), kgo.MetadataMinAge(minAge))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	produceEvents(t, cl, "a", 5)
	awaitRows(t, counted("a", 5), d.endpoint(east)...)

	watershed(t, nil, "dev", "--data", dir).refused(t, 1, dir, "runs")
	watershed(t, nil, "dev", "restart", "nobody-1", "--data", dir).refused(t, 1, "nobody-1")
	watershed(t, nil, "dev", "cut", east, "nowhere", "--data", dir).refused(t, 1, "nowhere")
	d.stop()
	if _, err := os.Stat(filepath.Join(dir, "endpoints.json")); err == nil {
		t.Error("endpoints.json is left, and nothing listens")
	}
	watershed(t, nil, "dev", "restart", "us-east-1", "--data", dir).refused(t, 1)
	watershed(t, nil, "dev", "--data", dir, "--shards", "5").refused(t, 1, "shards")
	l, err := net.Listen("tcp", address.GRPC[0])
	if err != nil {
		t.Fatal(err)
	}
	watershed(t, nil, "dev", "--data", dir).refused(t, 1, address.GRPC[0], "in use")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	d.start(flags...)
	if got := d.Regions[east]; got.GRPC[0] != address.GRPC[0] || got.HTTP[0] != address.HTTP[0] || got.Kafka[0] != address.Kafka[0] {
		t.Errorf("other ports after a restart: %+v, were %+v", got, address)
	}
	awaitRows(t, counted("a", 5), d.endpoint(east)...)
	pid := d.Regions[east].PIDs[0]
	d.process.kill()
	await(t, time.Minute, "the node to die with dev", func() (bool, string) { return !alive(pid), "it runs" })
	d.start(flags...)
	produceEvents(t, cl, "a", 1)
	awaitRows(t, counted("a", 6), d.endpoint(east)...)
	d.surfaces()
}

// surfaces looks at what a node offers beside rows: health, pages, topology.
func (d *deployment) surfaces() {
	d.t.Helper()
	r := d.Regions[east]
	answer, err := ask(d.t, r.GRPC, 10*time.Second, grpc_health_v1.NewHealthClient, grpc_health_v1.HealthClient.Check,
		&grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		d.t.Errorf("health: %v, %v", answer, err)
	}
	for _, page := range []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/"} {
		if ok, why := httpOK("http://" + r.HTTP[0] + page); !ok {
			d.t.Errorf("%s: %s", page, why)
		}
	}
	var top struct {
		Shards  int
		Regions []struct {
			Name   string
			Shards []struct{ Leader, Owner string }
		}
	}
	if err := json.Unmarshal(must(d.t, append([]string{"topology", "--output", "json"}, d.endpoint(east)...)...), &top); err != nil {
		d.t.Fatal(err)
	}
	if top.Shards != 2 || len(top.Regions) != 1 || len(top.Regions[0].Shards) != 2 || top.Regions[0].Shards[1].Leader != "us-east-1" ||
		top.Regions[0].Shards[0].Owner != east {
		d.t.Errorf("topology %+v", top)
	}
}
