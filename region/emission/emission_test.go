package emission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/region/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const file = `
name: counts
sources:
  - topic: events
    format: json
    time: {field: ts, unit: ms}
    key: [k]
    aggregates: {n: count()}
window: {tumbling: 10ms}
having: "n != 3"
emit: {sinks: [{kafka: {topic: out}}], unreachable: {partial: 1ms}}
`

// machine is a shard without Raft: what is proposed is applied.
type machine struct {
	t *testing.T
	*shard.Machine
	mu sync.Mutex
	id crdt.GenerationID
	j  *job.Job
}

func (m *machine) Propose(_ context.Context, c shard.Command) (shard.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.Apply(m.AppliedIndex()+1, shard.Encode(c)).(shard.Result)
	if !ok {
		return r, errors.New("not applied")
	}
	return r, nil
}

func (m *machine) must(c shard.Command) {
	m.t.Helper()
	if r, err := m.Propose(context.Background(), c); err != nil || r.Outcome != shard.Applied {
		m.t.Fatalf("%T: %v %+v", c, err, r)
	}
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	store, err := keyspace.Open(keyspace.Options{Dir: "store", FS: vfs.NewMem(), MaxAge: time.Hour, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, id: shard.GenerationOf(1, 1)}
	m.Machine, err = shard.Open(shard.Options{Store: store, Fatal: fatal, Config: shard.Config{Self: "a",
		Regions: []crdt.RegionID{"a", "b"}, Shards: 1, Owner: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if m.j, err = job.Parse("job", []byte(file)); err != nil {
		t.Fatal(err)
	}
	m.must(&shard.AddGeneration{ID: m.id, Name: "counts", File: []byte(file), Meaning: m.j.Meaning()})
	for _, r := range []crdt.RegionID{"a", "b"} {
		s := source(r)
		m.must(&shard.AddSources{Generation: m.id, Group: r, Sources: []shard.SourcePoint{{Source: s,
			Point: crdt.FirstPoint(s, 0)}}})
	}
	return m
}

func source(r crdt.RegionID) crdt.Source { return crdt.Source{Region: r, Topic: "events"} }

// advance adds a record with event time t and key k to a region's source, whose watermark then is w.
func (m *machine) advance(r crdt.RegionID, k string, t, w int64) {
	m.t.Helper()
	s := source(r)
	at, _ := m.State().Generation(m.id).Standing(s)
	c := crdt.NewCell(m.j.Schema())
	c.Touch(t)
	c.Add(0, crdt.Null(), crdt.Order{Time: t, Source: &s})
	m.must(&shard.Advance{Advance: crdt.Advance{Generation: m.id, Group: r,
		Ranges: []crdt.Range{{Source: s, From: at.Point.Mark(),
			To: at.Point.After(at.Point.Offset, crdt.Hash{byte(at.Point.Offset)}, w, crdt.Counted)}},
		Deltas: []crdt.Delta{{Slot: crdt.Slot{Time: t - t%10 + 10, Key: crdt.Text(k).AppendKey(nil)},
			Cell: c.AppendTo(nil)}}}})
}

// sink keeps what was written, and fails as it is told.
type sink struct {
	mu     sync.Mutex
	values []string
	fail   error
	hold   chan struct{} // if set, Write waits for it
	wrote  chan struct{} // told of each Write before it holds
}

func (s *sink) Write(ctx context.Context, to job.Sink, rows []job.Output) error {
	if s.wrote != nil {
		s.wrote <- struct{}{}
	}
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	for _, r := range rows {
		v := strings.NewReplacer(`"window_start":"1970-01-01T00:00:00`, "", `Z","window_end":"1970-01-01T00:00:00`, "-",
			`Z","key":{"k":"`, " ", `"},`, " ", `{`, "", `}`, "").Replace(string(r.Value))
		s.values = append(s.values, v)
	}
	return nil
}

func (s *sink) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.values)
}

func start(m *machine, s *sink) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		New(Config{Replica: m, Sink: s}).Run(ctx)
	}()
	return func() { cancel(); <-done }
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// settled says that nothing is left to send up to a window end.
func (m *machine) settled(end int64) bool {
	o := m.State().Generation(m.id).Outbox
	return o.Open == nil && o.Pending == 0 && o.Full == end
}

func check(t *testing.T, s *sink, want ...string) {
	t.Helper()
	if got := s.taken(); !slices.Equal(got, want) {
		t.Errorf("the sink holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRowsGoOutOnWatermarkAndAgainWhenTheyChange(t *testing.T) {
	m, s := newMachine(t), &sink{}
	defer start(m, s)()
	m.advance("a", "x", 5, 15)
	m.advance("b", "y", 6, 25)
	await(t, "window 10 is sent", func() bool { return m.settled(10) })
	check(t, s, `-.010 x "n":1,"revision":1,"complete":true`, `-.010 y "n":1,"revision":1,"complete":true`)
	m.advance("a", "x", 7, 15)
	await(t, "the change is sent", func() bool { return m.settled(10) && len(s.taken()) == 3 })
	m.advance("a", "x", 8, 15) // n = 3: having hides it
	await(t, "it is taken back", func() bool { return m.settled(10) && len(s.taken()) == 4 })
	m.advance("a", "z", 12, 35)
	await(t, "window 20 is sent", func() bool { return m.settled(20) })
	check(t, s, `-.010 x "n":1,"revision":1,"complete":true`, `-.010 y "n":1,"revision":1,"complete":true`,
		`-.010 x "n":2,"revision":2,"complete":true`, `-.010 x "revision":3,"retracted":true`,
		`.010-.020 z "n":1,"revision":1,"complete":true`)
}

func TestUnreachableRegionsAreLeftOutAndCorrected(t *testing.T) {
	m, s := newMachine(t), &sink{}
	defer start(m, s)()
	m.advance("a", "x", 5, 15)
	m.must(&shard.Reach{Unreachable: []crdt.RegionID{"b"},
		Excluded: []shard.Exclusion{{Generation: m.id, Regions: []crdt.RegionID{"b"}}}})
	await(t, "the incomplete row is sent", func() bool { return len(s.taken()) == 1 })
	m.must(&shard.Reach{})
	m.advance("b", "x", 6, 25)
	await(t, "the complete row is sent", func() bool { return m.settled(10) })
	got := s.taken()
	if got[0] != `-.010 x "n":1,"revision":1,"complete":false` || got[len(got)-1] != `-.010 x "n":2,"revision":2,"complete":true` {
		t.Errorf("the sink holds %q", got)
	}
}

func TestAChangeWhileABatchIsUnderWayIsSentAfterIt(t *testing.T) {
	m, s := newMachine(t), &sink{hold: make(chan struct{}), wrote: make(chan struct{}, 16)}
	defer start(m, s)()
	m.advance("a", "x", 5, 15)
	m.advance("b", "y", 6, 25)
	<-s.wrote
	m.advance("a", "x", 7, 15)
	close(s.hold)
	await(t, "both are sent", func() bool { return m.settled(10) && len(s.taken()) == 3 })
	check(t, s, `-.010 x "n":1,"revision":1,"complete":true`, `-.010 y "n":1,"revision":1,"complete":true`,
		`-.010 x "n":2,"revision":2,"complete":true`)
}

func TestTheNextLeaderSendsWhatItsPredecessorLeftOpen(t *testing.T) {
	m, s := newMachine(t), &sink{hold: make(chan struct{}), wrote: make(chan struct{}, 16)}
	stop := start(m, s)
	m.advance("a", "x", 5, 15)
	m.advance("b", "y", 6, 25)
	<-s.wrote
	stop()
	if o := m.State().Generation(m.id).Outbox; o.Open == nil {
		t.Fatal("no plan is open after the leader died in the middle of a batch")
	}
	next := &sink{}
	defer start(m, next)()
	await(t, "the open plan is closed", func() bool { return m.settled(10) })
	check(t, next, `-.010 x "n":1,"revision":1,"complete":true`, `-.010 y "n":1,"revision":1,"complete":true`)
}

func TestASinkThatFailsIsTriedAgain(t *testing.T) {
	m, s := newMachine(t), &sink{fail: fmt.Errorf("broker down"), wrote: make(chan struct{}, 1024)}
	defer start(m, s)()
	m.advance("a", "x", 5, 15)
	m.advance("b", "y", 6, 25)
	<-s.wrote
	<-s.wrote
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	await(t, "the rows are sent", func() bool { return m.settled(10) })
	check(t, s, `-.010 x "n":1,"revision":1,"complete":true`, `-.010 y "n":1,"revision":1,"complete":true`)
}
