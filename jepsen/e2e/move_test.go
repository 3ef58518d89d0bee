package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// probeEvery is between two probes of a shard, probeTry bounds one try at one node.
	probeEvery = 10 * time.Millisecond
	probeTry   = 250 * time.Millisecond
	// gapAllowed is for how long a shard may not answer in a test that shares its machine with others. bench/move.sh
	// measures it alone.
	gapAllowed = 5 * time.Second
)

// gapsFile names the file that the longest gaps are added to, for bench/move.sh.
const gapsFile = "E2E_GAPS"

// watchdog probes the shards of the events job all the time, and knows for how long each was not to be had.
type watchdog struct {
	c       *crew
	keys    []string // one of each shard
	writer  *kgo.Client
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
	up    []string // addresses of nodes that are not about to go
	sent  int      // events of each key
	worst map[string]gap
}

// gap is the longest time between two successes, and when it ended.
type gap struct {
	ms int64
	at time.Time
}

// watchOver starts the probes of a region that has the events job.
func watchOver(c *crew, cl *kgo.Client) *watchdog {
	c.t.Helper()
	w := &watchdog{c: c, writer: cl, conns: map[string]*grpc.ClientConn{}, worst: map[string]gap{}, keys: make([]string, c.shards)}
	w.keep(c.members...)
	for i := range 64 {
		produceEvents(c.t, cl, fmt.Sprintf("k%d", i), 1)
	}
	await(c.t, settleWithin, "a key of each shard", func() (bool, string) {
		a, err := c.query(east, "events")
		if err != nil {
			return false, err.Error()
		}
		n := 0
		for key, s := range shardsOf(c.t, a) {
			if _, err := fmt.Sscanf(key, `{"who":%q}`, &w.keys[s]); err != nil {
				c.t.Fatalf("%s: %v", key, err)
			}
			n++
		}
		return n == 64, fmt.Sprintf("%d of 64 keys", n)
	})
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	c.t.Cleanup(w.stop)
	w.running.Go(func() { w.write(ctx) })
	for s := range w.keys {
		w.running.Go(func() { w.probe(ctx, fmt.Sprintf("write to shard %d", s), w.propose(uint32(s))) })
		w.running.Go(func() { w.probe(ctx, fmt.Sprintf("read of shard %d", s), w.read(s)) })
	}
	return w
}

// keep has the probes go to these nodes: every one that is there or comes, or a write would not find its leader.
func (w *watchdog) keep(members ...*member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up = nil
	for _, m := range members {
		a := m.grpc
		w.up = append(w.up, a)
		if w.conns[a] == nil {
			conn, err := grpc.NewClient("passthrough:///"+a, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
			if err != nil {
				w.c.t.Error(err)
				return
			}
			w.conns[a] = conn
		}
	}
}

func (w *watchdog) node(turn int) *grpc.ClientConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conns[w.up[turn%len(w.up)]]
}

// probe tries one node after the other until one answers, and then again.
func (w *watchdog) probe(ctx context.Context, what string, try func(ctx context.Context, at *grpc.ClientConn) error) {
	last, turn := time.Now(), 0
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, probeTry)
		err := try(one, w.node(turn))
		cancel()
		pause := probeEvery
		if err != nil {
			turn++
			pause = 2 * time.Millisecond
		} else {
			w.seen(what, last)
			last = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// seen counts a success, the one before it was at last.
func (w *watchdog) seen(what string, last time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ms := time.Since(last).Milliseconds(); ms > w.worst[what].ms {
		w.worst[what] = gap{ms, time.Now()}
	}
}

// propose writes what goes through a shard's log and changes nothing: a format raised to the lowest one.
func (w *watchdog) propose(s uint32) func(context.Context, *grpc.ClientConn) error {
	command := shard.Encode(&shard.Raise{Format: 1})
	return func(ctx context.Context, at *grpc.ClientConn) error {
		_, err := regionv1.NewShardServiceClient(at).Propose(ctx, &regionv1.ProposeRequest{Deployment: "rides", Shard: s, Command: command})
		return err
	}
}

// read gets a key of a shard. The count must never go down: what was acknowledged to one reader is there for the next.
func (w *watchdog) read(s int) func(context.Context, *grpc.ClientConn) error {
	moved, had := time.Now(), uint64(0)
	return func(ctx context.Context, at *grpc.ClientConn) error {
		answer, err := watershedv1.NewStateServiceClient(at).Get(ctx, &watershedv1.GetRequest{Selection: selection(w.keys[s])})
		if err != nil {
			return err
		}
		if len(answer.GetRows()) != 1 || answer.GetRows()[0].GetRevision() < had {
			w.c.t.Errorf("shard %d had %d events of %s and then %v", s, had, w.keys[s], answer.GetRows())
			return nil
		}
		if now := answer.GetRows()[0].GetRevision(); now > had {
			w.seen(fmt.Sprintf("update of shard %d", s), moved)
			moved, had = time.Now(), now
		}
		return nil
	}
}

// write sends an event of each key every 20 ms.
func (w *watchdog) write(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ctx.Err() == nil; <-tick.C {
		for _, key := range w.keys {
			w.writer.Produce(context.Background(), &kgo.Record{Topic: "events", Value: fmt.Appendf(nil, `{"ts":1,"who":%q}`, key)},
				func(_ *kgo.Record, err error) {
					if err != nil {
						w.c.t.Errorf("produce: %v", err)
					}
				})
		}
		w.mu.Lock()
		w.sent++
		w.mu.Unlock()
	}
}

// stop ends the probes.
func (w *watchdog) stop() {
	w.cancel()
	w.running.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for a, conn := range w.conns {
		_ = conn.Close() // nothing is under way
		delete(w.conns, a)
	}
}

// check ends the probes, looks that every event counts once, and that no gap was too long.
func (w *watchdog) check() {
	t := w.c.t
	t.Helper()
	w.stop()
	for s, key := range w.keys {
		want := uint64(w.sent + 1)
		await(t, settleWithin, "all events of "+key, func() (bool, string) {
			answer, err := ask(t, w.c.Regions[east].GRPC, 5*time.Second, watershedv1.NewStateServiceClient,
				watershedv1.StateServiceClient.Get, &watershedv1.GetRequest{Selection: selection(key)})
			if err != nil || len(answer.GetRows()) != 1 {
				return false, fmt.Sprint(answer, err)
			}
			n := answer.GetRows()[0].GetRevision()
			if n > want {
				t.Fatalf("shard %d counts %d events of %s, %d were sent", s, n, key, want)
			}
			return n == want, fmt.Sprintf("%d of %d", n, want)
		})
	}
	longest := map[string]int64{}
	for _, what := range [...]string{"write to", "read of", "update of"} {
		for s := range w.keys {
			name := fmt.Sprintf("%s shard %d", what, s)
			g := w.worst[name]
			longest[what] = max(longest[what], g.ms)
			t.Logf("longest gap of a %s: %d ms, until %s", name, g.ms, g.at.Format("15:04:05.000"))
			if g.ms == 0 || time.Duration(g.ms)*time.Millisecond > gapAllowed {
				t.Errorf("%s: %d ms without one", name, g.ms)
			}
		}
	}
	if name := os.Getenv(gapsFile); name != "" {
		line := fmt.Appendf(nil, "%d %d %d\n", longest["write to"], longest["read of"], longest["update of"])
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(line); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestEveryNodeIsReplaced takes a region from three nodes to five and on to three others while records flow. On the way a node
// that comes is killed, and the one that carries out a plan. The disks of the first three are thrown away. Nothing is lost
// or counted twice, and no shard is away for long.
func TestEveryNodeIsReplaced(t *testing.T) {
	binary(t)
	var loads []*load
	for _, name := range []string{"rides-surge", "mixed-values", "fares-csv"} {
		loads = append(loads, newLoad(t, name, "", "", east))
	}
	kafka, _ := broker(t, "")
	c := newCrew(t, kafka.ListenAddrs()[0], 4, "", "", "", "")
	m1, m2, m3 := c.members[0], c.members[1], c.members[2]
	tr := newTraffic(t, c.deployment, partitions(t, loads), "events")
	jobs := []string{writeJob(t, eventJob)}
	for _, l := range loads {
		name := filepath.Join(t.TempDir(), l.job+".yaml")
		if err := os.WriteFile(name, l.file, 0o600); err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, name)
	}
	c.apply(east, jobs...)
	c.carried(m1, m2, m3)
	w := watchOver(c, tr.clients[east])

	const steps = 4
	var m4, m5, m6 *member
	tr.beside(0, steps, func() {
		m4 = c.add()
		c.crash(m4)
		m5 = c.add()
		w.keep(c.members...)
		c.crash(c.leads(0)) // it carries plans out
		c.carried(m1, m2, m3, m4, m5)
	})
	tr.beside(1, steps, func() {
		c.remove(m1, m2, m3, m4, m5)
		c.start(m1) // with nothing left of what it knew
		c.turnedAway(m1)
		c.remove(m2, m3, m4, m5)
	})
	tr.beside(2, steps, func() {
		m6 = c.add()
		w.keep(m3, m4, m5, m6)
		c.carried(m3, m4, m5, m6)
		c.remove(m3, m4, m5, m6)
	})
	w.keep(m4, m5, m6)
	tr.beside(3, steps, nil)
	for _, l := range loads {
		l.checkWhole(t, east, c.settle(east, l))
	}
	w.check()
	for s, voters := range c.voters() {
		if fmt.Sprint(voters) != "[m4 m5 m6]" {
			t.Errorf("shard %d is voted on by %v", s, voters)
		}
	}
}
