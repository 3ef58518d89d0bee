package shard

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// jobFile returns a job that counts records by one text key; options are lines of YAML.
func jobFile(window string, options ...string) []byte {
	return []byte("name: count\n" +
		"sources:\n" +
		"  - topic: events\n" +
		"    format: json\n" +
		"    time: {field: ts, unit: ms}\n" +
		"    key: {k: k}\n" +
		"    aggregates:\n" +
		"      n: count()\n" +
		"window: " + window + "\n" + strings.Join(options, "\n") + "\n")
}

const withSink = "emit: {sinks: [{kafka: {topic: out}}]}"

// cellOf returns the encoded cell of records of the given event times.
func cellOf(tb testing.TB, j *job.Job, times ...int64) []byte {
	tb.Helper()
	c := crdt.NewCell(j.Schema())
	for _, t := range times {
		c.Touch(t)
		for i := range j.Aggregates {
			c.Add(i, crdt.Null(), crdt.Order{Time: t})
		}
	}
	return c.AppendTo(nil)
}

// pointOf returns the point of a source over records 0..offset-1 of one history of its log, every one counted.
func pointOf(s crdt.Source, history string, offset, watermark int64) crdt.Point {
	p := crdt.FirstPoint(s, 0)
	var h crdt.Hasher
	for i := range offset {
		record := h.Record(i, i, nil, []byte(history), nil)
		p = p.After(i, record, watermark, crdt.Counted)
	}
	return p
}

func keyOf(k string) []byte { return crdt.Text(k).AppendKey(nil) }

func keyName(key []byte) string {
	v, _, err := crdt.CutKey(key)
	if err != nil {
		return fmt.Sprintf("%x", key)
	}
	return v.Text()
}

func sourceOf(region string, partition int32) crdt.Source {
	return crdt.Source{Region: crdt.RegionID(region), Topic: "events", Partition: partition}
}

func openStore(tb testing.TB, fs vfs.FS) *keyspace.Store {
	tb.Helper()
	s, err := keyspace.Open(keyspace.Options{Dir: "store", FS: fs, TableBytes: 8 << 10, MaxAge: time.Hour,
		Fatal: func(err error) { tb.Errorf("store: %v", err) }})
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	return s
}

func openMachine(tb testing.TB, cfg Config, fs vfs.FS) *Machine {
	tb.Helper()
	m, err := Open(Options{Config: cfg, Store: openStore(tb, fs), Fatal: func(err error) { tb.Errorf("machine: %v", err) }})
	if err != nil {
		tb.Fatalf("open machine: %v", err)
	}
	return m
}

func closeMachine(tb testing.TB, m *Machine) {
	tb.Helper()
	if err := m.Close(); err != nil {
		tb.Errorf("close: %v", err)
	}
}

// twoRegions is shard 0 of 1 in region a of a and b, owned by a.
func twoRegions() Config {
	return Config{Self: "a", Regions: []crdt.RegionID{"a", "b"}, Shards: 1, Owner: true}
}

func timeText(t int64) string {
	switch t {
	case crdt.MinTime:
		return "-inf"
	case crdt.MaxTime:
		return "+inf"
	}
	return fmt.Sprint(t)
}

// historyOf names the history that a point lies on, by trying those in use.
func historyOf(s crdt.Source, p crdt.Point) string {
	for _, h := range []string{"", "x", "y"} {
		if pointOf(s, h, p.Offset, p.Watermark).Chain == p.Chain {
			return h
		}
	}
	return "?"
}

// dump prints a snapshot: everything but the job's file and the history of marks.
func dump(tb testing.TB, s *Snapshot) string {
	tb.Helper()
	var b strings.Builder
	if len(s.Unreachable) > 0 {
		fmt.Fprintf(&b, "unreachable %v\n", s.Unreachable)
	}
	for _, g := range s.Generations() {
		fmt.Fprintf(&b, "g%d horizon %s watermark %s", binary.BigEndian.Uint64(g.ID[8:]), timeText(g.Horizon), timeText(g.Watermark))
		if g.Partial != g.Watermark {
			fmt.Fprintf(&b, " partial %s without %v", timeText(g.Partial), g.Excluded)
		}
		if g.Expired > 0 {
			fmt.Fprintf(&b, " expired %d", g.Expired)
		}
		b.WriteByte('\n')
		for _, region := range g.Groups() {
			dumpGroup(tb, &b, s, g, region)
		}
		dumpOutbox(tb, &b, s, g)
	}
	return b.String()
}

func dumpGroup(tb testing.TB, b *strings.Builder, s *Snapshot, g *Generation, region crdt.RegionID) {
	tb.Helper()
	fmt.Fprintf(b, "  %s copy %d", region, g.Copy(region))
	if !g.Declared(region) {
		b.WriteString(" undeclared")
	}
	if c, n, ok := g.Staged(region); ok {
		fmt.Fprintf(b, " staged %d chunks %d", c, n)
	}
	b.WriteByte('\n')
	for _, st := range g.Standings(region) {
		fmt.Fprintf(b, "    %d: %d%s@%s", st.Source.Partition, st.Point.Offset, historyOf(st.Source, st.Point), timeText(st.Point.Watermark))
		if st.Idle {
			b.WriteString(" idle")
		}
		b.WriteByte('\n')
	}
	err := s.Slots(g, region, crdt.MinTime, crdt.MaxTime, func(slot crdt.Slot, cell []byte) bool {
		fmt.Fprintf(b, "    slot %s/%s", timeText(slot.Time), keyName(slot.Key))
		if slot.Class > 0 {
			fmt.Fprintf(b, "/%d", slot.Class)
		}
		fmt.Fprintf(b, " = %d\n", records(cell))
		return true
	})
	if err != nil {
		tb.Fatal(err)
	}
}

func dumpOutbox(tb testing.TB, b *strings.Builder, s *Snapshot, g *Generation) {
	tb.Helper()
	o := g.Outbox
	if o.Last == 0 && o.Full == crdt.MinTime {
		return
	}
	fmt.Fprintf(b, "  outbox full %s partial %s sent %s plan %d", timeText(o.Full), timeText(o.Partial), timeText(o.Sent()), o.Last)
	if o.Open != nil {
		fmt.Fprintf(b, " open to %s", timeText(o.Open.To))
	}
	b.WriteByte('\n')
	marks, err := s.DirtyMarks(g, MaxMarks)
	if err != nil {
		tb.Fatal(err)
	}
	if len(marks) != o.Pending || o.Pending > 0 && marks[0].End != o.Oldest {
		tb.Errorf("stored marks %v, in memory %d from %d", marks, o.Pending, o.Oldest)
	}
	for _, m := range marks {
		fmt.Fprintf(b, "    dirty %s/%s at %d\n", timeText(m.End), keyName(m.Key), m.Index)
	}
}

// image is everything that a store holds, for comparing.
func image(tb testing.TB, m *Machine) string {
	tb.Helper()
	s, err := m.Snapshot()
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "index %d chain %x\n", s.Index, s.Chain)
	for _, r := range [][2][]byte{{keyspace.MetaKey(nil), keyspace.MetaKey([]byte{0xff})}, {keyspace.OutKey(0), keyspace.OutKey(1<<64 - 1)}} {
		if err := s.view.Scan(r[0], r[1], func(k, v []byte) bool {
			fmt.Fprintf(&b, "%q=%x\n", k, v)
			return true
		}); err != nil {
			tb.Fatal(err)
		}
	}
	b.WriteString(dump(tb, s))
	return b.String()
}

func sortedDeltas(list []crdt.Delta) []crdt.Delta {
	slices.SortFunc(list, func(a, b crdt.Delta) int { return crdt.CompareSlots(a.Slot, b.Slot) })
	return list
}
