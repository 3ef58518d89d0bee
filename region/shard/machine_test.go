package shard

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
)

func mustJob(tb testing.TB, file []byte) *job.Job {
	tb.Helper()
	j, err := job.Parse("test", file)
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

// startJob applies a tumbling job with both regions' sources declared, and returns its generation.
func startJob(tb testing.TB, m *Machine, options ...string) crdt.GenerationID {
	tb.Helper()
	file, id := jobFile("{tumbling: 10ms}", options...), GenerationOf(1, 1)
	s := sourceOf("a", 0)
	for i, c := range []Command{
		&AddGeneration{ID: id, Name: "count", File: file, Meaning: mustJob(tb, file).Meaning()},
		&AddSources{id, "a", []SourcePoint{{s, crdt.FirstPoint(s, 0)}}},
		&AddSources{Generation: id, Group: "b"},
	} {
		if res, ok := m.Apply(uint64(i+1), Encode(c)).(Result); !ok || res.Outcome != Applied {
			tb.Fatalf("%T: %+v", c, res)
		}
	}
	return id
}

// step is an Advance of source a/0 by one record, from offset n, into window 10 under a key.
func step(tb testing.TB, j *job.Job, n int64, keys ...string) *Advance {
	s := sourceOf("a", 0)
	c := &Advance{crdt.Advance{Generation: GenerationOf(1, 1), Group: "a",
		Ranges: []crdt.Range{{Source: s, From: pointOf(s, "", n, 20).Mark(), To: pointOf(s, "", n+1, 20)}}}}
	for _, k := range keys {
		c.Deltas = append(c.Deltas, crdt.Delta{Slot: crdt.Slot{Time: 10, Key: keyOf(k)}, Cell: cellOf(tb, j, 5)})
	}
	sortedDeltas(c.Deltas)
	return c
}

func TestCheckStopsADivergedReplica(t *testing.T) {
	var fatal error
	fs := vfs.NewMem()
	m, err := Open(Options{Config: twoRegions(), Store: openStore(t, fs), Fatal: func(err error) { fatal = err }})
	if err != nil {
		t.Fatal(err)
	}
	defer closeMachine(t, m)
	startJob(t, m)
	good := m.NewCheck()
	if res, ok := m.Apply(4, Encode(good)).(Result); !ok || res.Outcome != Applied || fatal != nil {
		t.Fatalf("an equal chain: %+v, %v", res, fatal)
	}
	if _, ok := m.Apply(5, Encode(&Check{Index: 99, Chain: crdt.Hash{1}})).(Result); !ok {
		t.Fatal("a chain at an index unknown here stopped the replica")
	}
	bad := *good
	bad.Chain[3]++
	if err, ok := m.Apply(6, Encode(&bad)).(error); !ok || !errors.Is(err, ErrDiverged) || !errors.Is(fatal, ErrDiverged) {
		t.Fatalf("another chain: %v, fatal %v", err, fatal)
	}
	if err, ok := m.Apply(7, Encode(good)).(error); !ok || !errors.Is(err, ErrDiverged) || m.AppliedIndex() != 5 {
		t.Fatalf("a stopped replica applies on: %v, at %d", err, m.AppliedIndex())
	}
}

func TestAnUnknownCommandStopsTheReplica(t *testing.T) {
	var fatal error
	m, err := Open(Options{Config: twoRegions(), Store: openStore(t, vfs.NewMem()), Fatal: func(err error) { fatal = err }})
	if err != nil {
		t.Fatal(err)
	}
	defer closeMachine(t, m)
	if m.Apply(1, []byte{99, Format}); !errors.Is(fatal, ErrCommand) {
		t.Fatalf("fatal: %v", fatal)
	}
}

// TestTheChain: two replicas that hold different cells differ in their chains at the next
// command that touches them, and equal ones never do.
func TestTheChain(t *testing.T) {
	var chains []crdt.Hash
	for _, key := range []string{"k", "k", "l"} {
		m := openMachine(t, twoRegions(), vfs.NewMem())
		startJob(t, m)
		m.Apply(4, Encode(step(t, mustJob(t, jobFile("{tumbling: 10ms}")), 0, key)))
		chains = append(chains, m.State().Chain)
		closeMachine(t, m)
	}
	if chains[0] != chains[1] || chains[0] == chains[2] {
		t.Fatalf("chains %x", chains)
	}
}

func TestOpenRefusesAnotherShardsState(t *testing.T) {
	fs := vfs.NewMem()
	m := openMachine(t, twoRegions(), fs)
	startJob(t, m)
	closeMachine(t, m)
	for name, change := range map[string]func(*Config){
		"region":  func(c *Config) { c.Self = "b" },
		"members": func(c *Config) { c.Regions = []crdt.RegionID{"a", "b", "c"} },
		"shards":  func(c *Config) { c.Shards = 2 },
		"shard":   func(c *Config) { c.Shards, c.Shard = 2, 1 },
	} {
		cfg := twoRegions()
		change(&cfg)
		store := openStore(t, fs)
		if m, err := Open(Options{Config: cfg, Store: store, Fatal: func(error) {}}); !errors.Is(err, ErrState) {
			t.Errorf("another %s: %v, %v", name, m, err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	for name, c := range map[string]Config{
		"self is no member":    {Self: "c", Regions: []crdt.RegionID{"a", "b"}, Shards: 1},
		"regions out of order": {Self: "a", Regions: []crdt.RegionID{"b", "a"}, Shards: 1},
		"a region twice":       {Self: "a", Regions: []crdt.RegionID{"a", "a"}, Shards: 1},
		"no shards":            {Self: "a", Regions: []crdt.RegionID{"a"}},
		"a shard too many":     {Self: "a", Regions: []crdt.RegionID{"a"}, Shards: 1, Shard: 1},
	} {
		if c.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestCheckpointAndRestore(t *testing.T) {
	fs := vfs.NewMem()
	m := openMachine(t, twoRegions(), fs)
	defer closeMachine(t, m)
	startJob(t, m)
	j := mustJob(t, jobFile("{tumbling: 10ms}"))
	m.Apply(4, Encode(step(t, j, 0, "k")))
	at, err := m.Checkpoint("checkpoint")
	if err != nil || at != 4 {
		t.Fatalf("checkpoint at %d, %v", at, err)
	}
	want := image(t, m)
	m.Apply(5, Encode(step(t, j, 1, "k", "l")))
	changed := m.Changed()
	if err := m.Restore("checkpoint"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("a restore wakes nobody")
	}
	if got := image(t, m); got != want || m.AppliedIndex() != 4 {
		t.Fatalf("restored to %d:\n%s\nwant:\n%s", m.AppliedIndex(), got, want)
	}
}

func TestSnapshotStandsStill(t *testing.T) {
	m := openMachine(t, twoRegions(), vfs.NewMem())
	defer closeMachine(t, m)
	startJob(t, m)
	j := mustJob(t, jobFile("{tumbling: 10ms}"))
	m.Apply(4, Encode(step(t, j, 0, "k")))
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := dump(t, s)
	m.Apply(5, Encode(step(t, j, 1, "k", "l")))
	m.Apply(6, Encode(&Horizon{GenerationOf(1, 1), 15}))
	m.Apply(7, Encode(&DropGeneration{GenerationOf(1, 1)}))
	if after := dump(t, s); after != before {
		t.Fatalf("the snapshot became\n%s\nwas\n%s", after, before)
	}
}

func TestObserve(t *testing.T) {
	var seen []string
	m, err := Open(Options{Config: twoRegions(), Store: openStore(t, vfs.NewMem()), Fatal: func(err error) { t.Error(err) },
		Observe: func(c Change) {
			text := fmt.Sprint(c.Whole)
			for _, s := range c.Slots {
				text += fmt.Sprintf(" %d/%s", s.Time, keyName(s.Key))
			}
			seen = append(seen, text)
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeMachine(t, m)
	startJob(t, m)
	j := mustJob(t, jobFile("{tumbling: 10ms}"))
	m.Apply(4, Encode(step(t, j, 0, "k", "l")))
	m.Apply(5, Encode(step(t, j, 0, "k", "l")))
	m.Apply(6, Encode(&Horizon{GenerationOf(1, 1), 5}))
	if got := fmt.Sprint(seen); got != "[false 10/k 10/l true]" {
		t.Fatalf("observed %s", got)
	}
}

// TestMarksAreBounded: one dirty mark too many takes the cursors back instead, and cancels the plan under way.
func TestMarksAreBounded(t *testing.T) {
	m := openMachine(t, twoRegions(), vfs.NewMem())
	defer closeMachine(t, m)
	id := startJob(t, m, withSink)
	j := mustJob(t, jobFile("{tumbling: 10ms}", withSink))
	for i, c := range []Command{step(t, j, 0), &Plan{Generation: id, N: 1, To: 20}, &Done{Generation: id, N: 1, Index: 5},
		&Plan{Generation: id, N: 2, To: 20}} {
		m.Apply(uint64(i+4), Encode(c))
	}
	keys := make([]string, MaxMarks)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
	}
	m.Apply(8, Encode(step(t, j, 1, keys...)))
	if o := m.State().Generation(id).Outbox; o.Pending != MaxMarks || o.Full != 20 || o.Sent() != 9 {
		t.Fatalf("with %d marks: %+v", MaxMarks, o)
	}
	m.Apply(9, Encode(step(t, j, 2, "one more", "and one")))
	o := m.State().Generation(id).Outbox
	if o.Full != 9 || o.Open != nil || o.Pending > 1 || o.Sent() != 9 {
		t.Fatalf("with more: %+v", o)
	}
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if marks, err := s.DirtyMarks(s.Generation(id), 10); err != nil || len(marks) != o.Pending {
		t.Fatalf("stored marks %v, %v", marks, err)
	}
}

// TestKeptMarksAreBounded: the mark that falls out of the last KeptMarks goes in the same command.
func TestKeptMarksAreBounded(t *testing.T) {
	a := &applier{}
	g, s := &Generation{ID: GenerationOf(1, 1)}, sourceOf("a", 0)
	a.keep(g, s, KeptMarks-1, crdt.Mark{})
	a.keep(g, s, KeptMarks, crdt.Mark{})
	if n := len(a.w.Sets); n != 3 || a.w.Sets[2].Value != nil || string(a.w.Sets[2].Key) != string(keptKey(g.ID, s, 0)) {
		t.Fatalf("writes %q", a.w.Sets)
	}
}

func TestValidate(t *testing.T) {
	cfg := Config{Self: "a", Regions: []crdt.RegionID{"a", "b"}, Shards: 4, Owner: true}
	key := ""
	for i := 0; ; i++ {
		if key = fmt.Sprint(i); keyspace.ShardOf(keyOf(key), 4) == 0 {
			break
		}
	}
	m := openMachine(t, cfg, vfs.NewMem())
	defer closeMachine(t, m)
	startJob(t, m)
	j := mustJob(t, jobFile("{tumbling: 10ms}"))
	other := mustJob(t, jobFile("{session: 10ms}"))
	if err := m.Validate(step(t, j, 0, key)); err != nil {
		t.Fatalf("a good Advance: %v", err)
	}
	s := sourceOf("a", 0)
	s.Input = 1
	broken := step(t, j, 0, key)
	broken.Deltas[0].Cell = []byte{1, 2, 3}
	stray := "x"
	for i := 0; keyspace.ShardOf(keyOf(stray), 4) == 0; i++ {
		stray = fmt.Sprint("x", i)
	}
	for name, c := range map[string]Command{
		"a cell of another schema":    step(t, other, 0, key),
		"a broken cell":               broken,
		"a key of another shard":      step(t, j, 0, stray),
		"a source of no input":        &AddSources{GenerationOf(1, 1), "a", []SourcePoint{{s, crdt.FirstPoint(s, 0)}}},
		"a chunk of a foreign schema": &StageChunk{Generation: GenerationOf(1, 1), Group: "a", Deltas: step(t, other, 0, key).Deltas},
	} {
		if err := m.Validate(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
