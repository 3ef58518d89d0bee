package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
	"github.com/watershed-db/watershed/processor/job"
)

const jobFile = `
name: counts
sources:
  - topic: events
    format: json
    time: {field: ts, unit: ms}
    max_future: none
    idle_after: 1s
    key: [k]
    aggregates: {n: count()}
window: {tumbling: 1s}
side_outputs: {invalid: {topic: broken}}
`

var generation = crdt.GenerationID{15: 1}

// fakeShard takes Advances by the rules, and fails as it is told.
type fakeShard struct {
	points crdt.Frontier
	count  map[string]uint64
	idle   map[crdt.Source]crdt.Mark
}

type fakeRegion struct {
	schema *crdt.Schema
	take   chan []Assigned

	mu      sync.Mutex
	shards  []*fakeShard
	down    map[int]bool
	most    int     // deltas that an Advance may have; 0: any
	invalid bool    // every Advance is
	full    bool    // no shard has room
	refuse  float64 // how often an Advance that fits is lost or refused
	random  *rand.Rand
	reports []Report
}

func (r *fakeRegion) Session(ctx context.Context, report func() []Report, take func([]Assigned)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-r.take:
			take(a)
		case <-tick.C:
			rs := report()
			r.mu.Lock()
			r.reports = rs
			r.mu.Unlock()
		}
	}
}

func (r *fakeRegion) Points(_ context.Context, shard int, g crdt.GenerationID) (crdt.Frontier, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down[shard] {
		return nil, false, errors.New("down")
	}
	out := make(crdt.Frontier)
	for s, p := range r.shards[shard].points {
		out[s] = p
	}
	return out, g == generation, nil
}

func (r *fakeRegion) Advance(ctx context.Context, shard int, a *crdt.Advance) (Reply, []crdt.Source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down[shard] {
		return 0, nil, errors.New("down")
	}
	switch {
	case r.full:
		return 0, nil, later{}
	case r.invalid:
		return 0, nil, fmt.Errorf("%w: a test", ErrInvalid)
	case r.most > 0 && len(a.Deltas) > r.most:
		return 0, nil, fmt.Errorf("%w: %d deltas", ErrTooLarge, len(a.Deltas))
	}
	s := r.shards[shard]
	lost := r.random.Float64() < r.refuse
	if lost && r.random.IntN(2) == 0 {
		return 0, nil, errors.New("lost on the way")
	}
	duplicate := true
	for _, x := range a.Ranges {
		duplicate = duplicate && x.To.Offset <= s.points[x.Source].Offset
	}
	if duplicate {
		return Accepted, nil, nil
	}
	for _, x := range a.Ranges {
		if s.points[x.Source].Mark() != x.From {
			return Refused, nil, nil
		}
	}
	for _, x := range a.Ranges {
		s.points[x.Source] = x.To
	}
	for _, d := range a.Deltas {
		c, err := crdt.DecodeCell(d.Cell)
		if err != nil {
			return 0, nil, err
		}
		s.count[string(d.Slot.Key)] += c.Records
	}
	if lost {
		return 0, nil, errors.New("answer lost")
	}
	return Accepted, nil, nil
}

func (r *fakeRegion) Idle(_ context.Context, shard int, _ crdt.GenerationID, at map[crdt.Source]crdt.Mark) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s, m := range at {
		if r.shards[shard].points[s].Mark() != m {
			return false, nil
		}
	}
	for s, m := range at {
		r.shards[shard].idle[s] = m
	}
	return true, nil
}

type bench struct {
	t       *testing.T
	region  *fakeRegion
	client  *kafka.Client
	sources []Source
	worker  *Worker
	stop    func()
}

// await waits until a condition holds, looking whenever something may have changed.
func (b *bench) await(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		b.region.mu.Lock()
		done := ok()
		b.region.mu.Unlock()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("waited too long until %s", what)
		}
	}
}

func newBench(t *testing.T, shards int) *bench {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "events"), kfake.SeedTopics(1, "broken"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	ctx := context.Background()
	client, err := kafka.Dial(ctx, kafka.Config{Brokers: cluster.ListenAddrs()}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	j, err := job.Parse("job", []byte(jobFile))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, client: client}
	b.region = &fakeRegion{schema: j.Schema(), take: make(chan []Assigned), down: map[int]bool{},
		random: rand.New(rand.NewPCG(1, 2))}
	for range shards {
		s := &fakeShard{points: crdt.Frontier{}, count: map[string]uint64{}, idle: map[crdt.Source]crdt.Mark{}}
		b.region.shards = append(b.region.shards, s)
	}
	for p := range int32(2) {
		id := crdt.Source{Region: "here", Topic: "events", Partition: p}
		first := crdt.FirstPoint(id, 0)
		b.sources = append(b.sources, Source{ID: id, First: first})
		for _, s := range b.region.shards {
			s.points[id] = first
		}
	}
	return b
}

func (b *bench) start() {
	b.t.Helper()
	w, err := New(Config{Region: RegionConfig{"here", b.region}, Kafka: b.client, Shards: len(b.region.shards),
		Group: "lag", ParkAfter: 200 * time.Millisecond, EmptyInterval: 100 * time.Millisecond})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	b.worker = w
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
		if left := w.used.Load(); left != 0 {
			b.t.Errorf("a stopped worker holds %d bytes", left)
		}
	}
	b.region.take <- []Assigned{{Generation: generation, File: []byte(jobFile), Sources: b.sources}}
}

func (b *bench) produce(n int, value func(i int) string) {
	b.t.Helper()
	p, err := kafka.NewProducer(b.client, kafka.ProducerConfig{}, hclog.NewNullLogger())
	if err != nil {
		b.t.Fatal(err)
	}
	defer p.Close()
	var ms []kafka.Message
	for i := range n {
		ms = append(ms, kafka.Message{Topic: "events", Partition: int32(i % 2), Timestamp: 1000, Value: []byte(value(i))})
	}
	if err := p.Produce(context.Background(), ms); err != nil {
		b.t.Fatal(err)
	}
}

func event(i int) string { return fmt.Sprintf(`{"ts":%d,"k":"k%d"}`, 1000+i, i%10) }

// counted sums what the shards hold; the region's lock is held.
func (b *bench) counted() (n uint64) {
	for _, s := range b.region.shards {
		for _, c := range s.count {
			n += c
		}
	}
	return n
}

func (b *bench) everywhereAt(offset int64) bool {
	for _, s := range b.region.shards {
		for _, p := range s.points {
			if p.Offset != offset {
				return false
			}
		}
	}
	return true
}

func TestEveryRecordOnceThroughLostAnswersAndRestarts(t *testing.T) {
	b := newBench(t, 3)
	b.region.refuse = 0.3
	b.start()
	for round := range 4 {
		b.produce(500, event)
		want := int64(250 * (round + 1))
		if round%2 == 1 {
			b.stop()
			b.start()
		}
		b.await("all points stand at the end", func() bool { return b.everywhereAt(want) })
	}
	b.stop()
	if n := b.counted(); n != 2000 {
		t.Errorf("the shards hold %d records of 2000", n)
	}
}

func TestAShardThatIsDownHoldsUpNobodyAndIsCaughtUp(t *testing.T) {
	b := newBench(t, 3)
	b.region.down[1] = true
	b.start()
	defer func() { b.stop() }()
	b.produce(1000, event)
	b.await("the other shards have everything", func() bool {
		for _, shard := range []int{0, 2} {
			for _, p := range b.region.shards[shard].points {
				if p.Offset != 500 {
					return false
				}
			}
		}
		return true
	})
	b.region.mu.Lock()
	b.region.down[1] = false
	b.region.mu.Unlock()
	b.await("the shard has caught up", func() bool { return b.everywhereAt(500) && b.counted() == 1000 })
	b.produce(10, event)
	b.await("it is fed with the others again", func() bool { return b.everywhereAt(505) && b.counted() == 1010 })
}

func TestSilentSourcesAreIdleAtTheirPoint(t *testing.T) {
	b := newBench(t, 2)
	b.start()
	defer func() { b.stop() }()
	b.produce(10, event)
	b.await("both shards hold the flags at the end", func() bool {
		for _, s := range b.region.shards {
			for _, src := range b.sources {
				if p := s.points[src.ID]; p.Offset != 5 || s.idle[src.ID] != p.Mark() {
					return false
				}
			}
		}
		return true
	})
}

func TestInvalidRecordsGoAside(t *testing.T) {
	b := newBench(t, 2)
	b.start()
	defer func() { b.stop() }()
	b.produce(4, func(i int) string {
		if i == 2 {
			return `{"ts":`
		}
		return event(i)
	})
	b.await("all is taken", func() bool { return b.everywhereAt(2) })
	rec, err := b.client.At(context.Background(), log.Partition{Topic: "broken"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"source": "here/events/0", "offset": "1", "event_time": ""}
	for _, h := range rec.Headers {
		if w, ok := want[h.Key]; ok && w != string(h.Value) {
			t.Errorf("header %s is %q, want %q", h.Key, h.Value, w)
		}
		delete(want, h.Key)
	}
	if len(want) > 0 || string(rec.Value) != `{"ts":` {
		t.Errorf("the record aside is %q with %v, headers missing: %v", rec.Value, rec.Headers, want)
	}
}

func TestALogThatDoesNotFitStopsItsSourceAlone(t *testing.T) {
	b := newBench(t, 2)
	b.produce(10, event)
	bad := b.sources[0].ID
	for _, s := range b.region.shards {
		p := s.points[bad].After(0, crdt.Hash{1}, 5, crdt.Counted)
		s.points[bad] = p
	}
	b.start()
	defer func() { b.stop() }()
	b.await("the source is reported as stopped and the other is read", func() bool {
		stopped, read := false, false
		for _, r := range b.region.reports {
			stopped = stopped || r.Source == bad && r.Stopped != ""
		}
		for _, s := range b.region.shards {
			read = s.points[b.sources[1].ID].Offset == 5
		}
		return stopped && read
	})
}

// later is what a shard without room says.
type later struct{}

func (later) Error() string             { return "no room" }
func (later) RetryAfter() time.Duration { return 20 * time.Millisecond }

func TestAShardThatIsFullLosesNothing(t *testing.T) {
	b := newBench(t, 3)
	b.region.full = true
	b.start()
	defer func() { b.stop() }()
	b.produce(1000, event)
	b.await("shards are left behind", func() bool {
		f := b.worker.feederOf(generation)
		return f != nil && f.isParked(0) && f.isParked(1) && f.isParked(2)
	})
	b.region.mu.Lock()
	b.region.full = false
	b.region.mu.Unlock()
	b.await("everything is there", func() bool { return b.everywhereAt(500) && b.counted() == 1000 })
}

func (w *Worker) feederOf(g crdt.GenerationID) *feeder {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.feeders[g]
}

func TestAdvancesThatAreTooLargeAreMadeSmaller(t *testing.T) {
	b := newBench(t, 1)
	b.region.most = 2000
	many := func(i int) string { return fmt.Sprintf(`{"ts":%d,"k":"key-%d"}`, 1000+i, i) }
	b.produce(20_000, many)
	b.start()
	defer func() { b.stop() }()
	b.await("everything is there", func() bool { return b.everywhereAt(10_000) })
	if n := b.counted(); n != 20_000 {
		t.Errorf("the shard holds %d records of 20000", n)
	}
	if bytes := b.worker.feederOf(generation).batchBytes(); bytes >= maxBatch {
		t.Error("no Advance was too large: this test shows nothing")
	}
}

func TestWhatNoShardTakesStopsItsSources(t *testing.T) {
	b := newBench(t, 2)
	b.region.invalid = true
	b.start()
	defer func() { b.stop() }()
	b.produce(10, event)
	b.await("both sources are reported as stopped, and why", func() bool {
		stopped := 0
		for _, r := range b.region.reports {
			if strings.Contains(r.Stopped, "will not take it") && strings.Contains(r.Stopped, "a test") {
				stopped++
			}
		}
		return stopped == 2
	})
}

// TestFlushesGetFewerWhereTheyTakeLong: but never so few that records wait for more than four intervals.
func TestFlushesGetFewerWhereTheyTakeLong(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ took, want time.Duration }{{0, 40 * ms}, {20 * ms, 40 * ms}, {50 * ms, 100 * ms}, {time.Hour, 160 * ms}} {
		if got := pace(40*ms, c.took); got != c.want {
			t.Errorf("after a flush of %v the next gathers for %v, want %v", c.took, got, c.want)
		}
	}
}
