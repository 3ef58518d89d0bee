package processor

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
)

// shardModel is a shard by the obvious means: points, and the cells of slots.
type shardModel struct {
	points crdt.Frontier
	cells  map[string]*crdt.Cell
}

func newShardModel(sources []crdt.Source) *shardModel {
	s := &shardModel{points: crdt.Frontier{}, cells: map[string]*crdt.Cell{}}
	for _, src := range sources {
		s.points[src] = crdt.FirstPoint(src, 0)
	}
	return s
}

// apply takes an Advance as a shard does, and says what became of it.
func (s *shardModel) apply(a *crdt.Advance) string {
	duplicate := true
	for _, r := range a.Ranges {
		own := s.points[r.Source]
		if r.To.Offset == own.Offset && r.To != own {
			return "mismatch"
		}
		duplicate = duplicate && r.To.Offset <= own.Offset
	}
	if duplicate {
		return "duplicate"
	}
	for _, r := range a.Ranges {
		if s.points[r.Source].Mark() != r.From {
			return "refused"
		}
	}
	for _, r := range a.Ranges {
		s.points[r.Source] = r.To
	}
	for _, d := range a.Deltas {
		c, err := crdt.DecodeCell(d.Cell)
		if err != nil {
			panic(err)
		}
		key := fmt.Sprintf("%d/%x/%d", d.Slot.Time, d.Slot.Key, d.Slot.Class)
		if have := s.cells[key]; have != nil {
			have.Merge(c)
		} else {
			s.cells[key] = c
		}
	}
	return "applied"
}

// state is everything that shards must agree on.
func (s *shardModel) state() map[string]string {
	out := map[string]string{}
	for k, c := range s.cells {
		out[k] = string(c.AppendTo(nil))
	}
	for src, p := range s.points {
		out[src.String()] = fmt.Sprint(p)
	}
	return out
}

var windows = []string{"{tumbling: 10ms}", "{hopping: 12ms, every: 4ms}", "{session: 5ms}", "{global: true}"}

func feedJob(window string) string {
	return `
name: mixed
sources:
  - topic: rides
    format: json
    time: {field: ts, unit: ms}
    out_of_orderness: 1ms
    max_future: 50ms
    where: "fare > -5"
    key: [city]
    aggregates: {rides: count(), fares: sum(fare), riders: distinct(rider), last_rider: last(rider)}
  - topic: pings
    format: json
    time: {field: ts, unit: ms}
    key: {city: "city"}
    aggregates: {pings: count(), mean: avg(fare), low: min(fare), dev: stddev(fare)}
window: ` + window + `
allowed_lateness: 3ms
`
}

func drawLog(t *rapid.T, name string) []log.Record {
	n := rapid.IntRange(0, 40).Draw(t, name+" records")
	var out []log.Record
	offset, now := int64(0), int64(20)
	for range n {
		offset += rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "gap")
		now += rapid.Int64Range(0, 4).Draw(t, "step")
		et := now - rapid.SampledFrom([]int64{0, 0, 1, 2, 8, 20}).Draw(t, "behind")
		value := fmt.Sprintf(`{"ts":%d,"city":%d,"fare":%s,"rider":"r%d"}`, et, rapid.IntRange(0, 4).Draw(t, "city"),
			rapid.SampledFrom([]string{"1", "-9", "0.1", "1e10", "null", "7", `"x"`}).Draw(t, "fare"), rapid.IntRange(0, 3).Draw(t, "rider"))
		if rapid.IntRange(0, 20).Draw(t, "bad") == 0 {
			value = value[:len(value)-1]
		}
		out = append(out, log.Record{Offset: offset, Timestamp: now, Value: []byte(value)})
		offset++
	}
	return out
}

var feedSources = []crdt.Source{
	{Region: "us", Topic: "rides"}, {Region: "us", Topic: "rides", Partition: 1}, {Input: 1, Region: "us", Topic: "pings"},
}

// world feeds shards from logs, with every mishap that a worker meets.
type world struct {
	t      *rapid.T
	file   string
	logs   map[crdt.Source][]log.Record
	shards []*shardModel
	feed   *Feed
	net    []message // Advances under way, in any order
	old    []message // sent once: zombies
}

type message struct {
	shard int
	adv   *crdt.Advance
	feed  *Feed
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

// restart makes a new feed at the shards' points, as after a crash.
func (w *world) restart() {
	w.feed = NewFeed(parseJob(w.t, w.file), crdt.GenerationID{1}, "us", len(w.shards))
	for _, src := range feedSources {
		w.add(src)
	}
}

func (w *world) add(src crdt.Source) {
	var points []crdt.Point
	for _, s := range w.shards {
		points = append(points, s.points[src])
	}
	_, err := w.feed.Add(src, nil, points)
	w.must(err)
}

// read takes up to n records of a source.
func (w *world) read(src crdt.Source, n int) {
	r, err := w.feed.Reader(src)
	w.must(err)
	p, _ := w.feed.Point(src)
	for _, rec := range w.logs[src] {
		if rec.Offset >= p.Offset && n > 0 {
			_, err := r.Read(&rec)
			w.must(err)
			n--
		}
	}
}

func (w *world) send(shard int) {
	if a := w.feed.Flush(shard); a != nil {
		w.must(a.Validate(w.feed.schema))
		w.net = append(w.net, message{shard, a, w.feed})
	}
}

// deliver applies one message; the feed that sent it, if it is still the one at work, hears of a refusal.
func (w *world) deliver(m message) {
	out := w.shards[m.shard].apply(m.adv)
	if out == "mismatch" {
		w.t.Fatal("a sound log was found to mismatch")
	}
	if out == "refused" && m.feed == w.feed {
		if rapid.Bool().Draw(w.t, "stands down") {
			w.restart()
		} else if _, misfits := w.feed.Reset(m.shard, maps.Clone(w.shards[m.shard].points)); misfits != nil {
			w.t.Fatal("misfits of a sound log")
		}
	}
}

func (w *world) step() {
	g := func(name string, n int) int { return rapid.IntRange(0, n-1).Draw(w.t, name) }
	switch g("step", 14) {
	case 0, 1, 2, 3, 4:
		w.read(feedSources[g("source", 3)], 1+g("records", 8))
	case 5, 6:
		w.send(g("shard", len(w.shards)))
	case 7, 8:
		if len(w.net) > 0 {
			i := g("message", len(w.net))
			m := w.net[i]
			w.old = append(w.old, m)
			w.net = append(w.net[:i:i], w.net[i+1:]...)
			if g("lost", 6) > 0 {
				w.deliver(m)
			}
		}
	case 9:
		if len(w.old) > 0 {
			w.deliver(w.old[g("zombie", len(w.old))])
		}
	case 10:
		if g("crash", 3) == 0 {
			w.restart()
		}
	case 11:
		src := feedSources[g("source", 3)]
		_, err := w.feed.Remove(src)
		w.must(err)
		w.add(src)
	case 12:
		if shard := g("parked", len(w.shards)); shard > 0 { // one is always at work
			w.feed.Park(shard)
		}
	case 13:
		w.takeUp(g("taken up", len(w.shards)))
	}
}

// takeUp takes up a shard that was left behind.
func (w *world) takeUp(shard int) {
	if !w.feed.Parked(shard) {
		return
	}
	if _, misfits := w.feed.Reset(shard, maps.Clone(w.shards[shard].points)); misfits != nil {
		w.t.Fatal("misfits of a sound log")
	}
}

// Any cut of the sources into Advances, with lost, late and repeated ones, restarts, refusals and sources that come and
// go, gives what one Advance gives.
func TestAnyCutGivesTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, file: feedJob(rapid.SampledFrom(windows).Draw(t, "window")), logs: map[crdt.Source][]log.Record{}}
		for _, src := range feedSources {
			w.logs[src] = drawLog(t, src.String())
		}
		shards := rapid.IntRange(1, 3).Draw(t, "shards")
		start := func() {
			w.shards = nil
			for range shards {
				w.shards = append(w.shards, newShardModel(feedSources))
			}
			w.restart()
		}
		finish := func() []map[string]string {
			var out []map[string]string
			for range 4 { // a refusal shows what must be read again
				for _, src := range feedSources {
					w.read(src, 1<<30)
				}
				for i := range w.shards {
					w.send(i)
				}
				for len(w.net) > 0 {
					m := w.net[0]
					w.net = w.net[1:]
					w.deliver(m)
				}
			}
			for i, s := range w.shards {
				if w.feed.Moved(i) || w.feed.BatchLen(i) != 0 {
					t.Fatalf("shard %d still lacks something", i)
				}
				out = append(out, s.state())
			}
			if w.feed.Size() != 0 {
				t.Fatalf("empty batches take %d bytes", w.feed.Size())
			}
			return out
		}
		start()
		want := finish()
		start()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			w.step()
		}
		// A lost Advance is found out by the next that does not fit, or at the latest by a restart.
		w.net = nil
		w.restart()
		got := finish()
		for i := range want {
			if !maps.Equal(got[i], want[i]) {
				t.Fatalf("shard %d holds %v, want %v", i, got[i], want[i])
			}
		}
	})
}

func ridesOf(n int) []log.Record {
	var out []log.Record
	for i := range n {
		out = append(out, log.Record{Offset: int64(i), Timestamp: 100,
			Value: fmt.Appendf(nil, `{"ts":%d,"city":%d,"fare":1}`, 20+i, i%5)})
	}
	return out
}

// A log that was cut and rewritten below a shard's point stops its source, and nothing of it is folded.
func TestMismatch(t *testing.T) {
	j := parseJob(t, feedJob(windows[0]))
	recs := ridesOf(10)
	readAll := func(f *Feed, recs []log.Record) error {
		r, err := f.Reader(rides)
		if err != nil {
			t.Fatal(err)
		}
		for i := range recs {
			if _, err := r.Read(&recs[i]); err != nil {
				return err
			}
		}
		return nil
	}
	first := crdt.FirstPoint(rides, 0)
	f := NewFeed(j, crdt.GenerationID{1}, "us", 2)
	if _, err := f.Add(rides, nil, []crdt.Point{first, first}); err != nil {
		t.Fatal(err)
	}
	if err := readAll(f, recs[:6]); err != nil {
		t.Fatal(err)
	}
	at6, _ := f.Point(rides)
	if err := readAll(f, recs[6:]); err != nil {
		t.Fatal(err)
	}
	at10, _ := f.Point(rides)

	rewritten := ridesOf(10)
	rewritten[3].Value = []byte(`{"ts":23,"city":3,"fare":2}`)
	again := NewFeed(j, crdt.GenerationID{1}, "us", 2)
	if from, err := again.Add(rides, nil, []crdt.Point{first, at6}); err != nil || from != first {
		t.Fatalf("from %v, %v", from, err)
	}
	if err := readAll(again, rewritten); !errors.Is(err, ErrMismatch) {
		t.Fatalf("a rewritten log: %v", err)
	}
	if p, _ := again.Point(rides); p.Offset != 5 {
		t.Errorf("the source went on to %d", p.Offset)
	}

	other := at10
	other.Chain[0]++
	if _, err := again.Add(crdt.Source{Input: 1, Region: "us", Topic: "pings"}, nil, []crdt.Point{at10, other}); !errors.Is(err, ErrMismatch) {
		t.Errorf("two shards on two histories: %v", err)
	}
	if _, misfits := f.Reset(0, crdt.Frontier{rides: other}); len(misfits) != 1 || misfits[0] != rides {
		t.Errorf("a shard on another history: misfits %v", misfits)
	}
}

// A shard that falls back brings its source back, and the others fold nothing twice.
func TestResetRewinds(t *testing.T) {
	j := parseJob(t, feedJob(windows[0]))
	first := crdt.FirstPoint(rides, 0)
	f := NewFeed(j, crdt.GenerationID{1}, "us", 2)
	if _, err := f.Add(rides, nil, []crdt.Point{first, first}); err != nil {
		t.Fatal(err)
	}
	shards := []*shardModel{newShardModel(feedSources), newShardModel(feedSources)}
	recs := ridesOf(10)
	r, err := f.Reader(rides)
	if err != nil {
		t.Fatal(err)
	}
	for i := range recs {
		if _, err := r.Read(&recs[i]); err != nil {
			t.Fatal(err)
		}
	}
	f.Flush(0) // lost
	back, _ := f.Reset(0, shards[0].points)
	if len(back) != 1 || back[0].To != first {
		t.Fatalf("rewinds %v", back)
	}
	if got := shards[1].apply(f.Flush(1)); got != "applied" { // its batch was whole
		t.Fatal(got)
	}
	for i := range recs {
		if _, err := r.Read(&recs[i]); err != nil {
			t.Fatal(err)
		}
	}
	if f.BatchLen(1) != 0 {
		t.Errorf("shard 1 was given %d slots again", f.BatchLen(1))
	}
	if got := shards[0].apply(f.Flush(0)); got != "applied" {
		t.Fatal(got)
	}
	records := uint64(0)
	for _, s := range shards {
		for _, c := range s.cells {
			records += c.Records
		}
	}
	if records != 10 {
		t.Errorf("%d records in the shards, want 10", records)
	}
}

func TestFeedRefuses(t *testing.T) {
	j := parseJob(t, feedJob(windows[0]))
	f := NewFeed(j, crdt.GenerationID{1}, "us", 1)
	first := crdt.FirstPoint(rides, 0)
	elsewhere := rides
	elsewhere.Region = "eu"
	if _, err := f.Add(elsewhere, nil, []crdt.Point{first}); err == nil {
		t.Error("a source of another group")
	}
	if _, err := f.Add(rides, nil, nil); err == nil {
		t.Error("too few points")
	}
	if _, err := f.Add(rides, nil, []crdt.Point{first}); err != nil {
		t.Error(err)
	}
	if _, err := f.Add(rides, nil, []crdt.Point{first}); err == nil {
		t.Error("a source twice")
	}
	if a := f.Flush(0); a != nil {
		t.Errorf("nothing to tell, but %v", a)
	}
	if _, err := f.Remove(elsewhere); !errors.Is(err, ErrNoSource) {
		t.Error(err)
	}
	if _, err := f.Reader(elsewhere); !errors.Is(err, ErrNoSource) {
		t.Error(err)
	}
}
