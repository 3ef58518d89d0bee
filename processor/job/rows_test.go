package job

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"pgregory.net/rapid"
)

// event is a record that was decoded: its time, key, value and group.
type event struct {
	at    int64
	who   crdt.Value
	v     int64
	group int
}

// slots is a Stream over a list.
type slots struct {
	of []entry
	at int
}

type entry struct {
	slot crdt.Slot
	cell []byte
}

func (s *slots) Next() bool      { s.at++; return s.at <= len(s.of) }
func (s *slots) Slot() crdt.Slot { return s.of[s.at-1].slot }
func (s *slots) Cell() []byte    { return s.of[s.at-1].cell }
func (s *slots) Err() error      { return nil }

var testSource = crdt.Source{Region: "r", Topic: "t"}

// store folds events into slots, a stream for each group. classes gives the class of an event's slice.
func store(t testing.TB, j *Job, events []event, groups int, classes func(i int) uint16) []Stream {
	t.Helper()
	out := make([]Stream, groups)
	for g := range groups {
		cells := make(map[string]*crdt.Cell)
		var list []entry
		for i, e := range events {
			if e.group != g {
				continue
			}
			time, class, ok := j.Window.Place(e.at, crdt.MinTime, 0)
			if !ok {
				t.Fatal("late without a watermark")
			}
			if classes != nil {
				class = classes(i)
			}
			slot := crdt.Slot{Time: time, Class: class, Key: e.who.AppendKey(nil)}
			id := fmt.Sprint(slot)
			if cells[id] == nil {
				cells[id] = crdt.NewCell(j.Schema())
				list = append(list, entry{slot: slot})
			}
			cells[id].Touch(e.at)
			cells[id].Add(0, crdt.Null(), crdt.Order{})
			cells[id].Add(1, crdt.Int(e.v), crdt.Order{Time: e.at, Source: &testSource})
		}
		for i := range list {
			list[i].cell = cells[fmt.Sprint(list[i].slot)].AppendTo(nil)
		}
		slices.SortFunc(list, func(a, b entry) int { return compareSlots(a.slot, b.slot) })
		out[g] = &slots{of: list}
	}
	return out
}

// within cuts a store down to the slot times of a span, as a reader does.
func within(j *Job, span Span, streams []Stream) Stream {
	from, to := j.SlotTimes(span)
	var out []Stream
	for _, s := range streams {
		var list []entry
		for _, e := range s.(*slots).of {
			if e.slot.Time >= from && e.slot.Time <= to {
				list = append(list, e)
			}
		}
		out = append(out, &slots{of: list})
	}
	return MergeStreams(out...)
}

func print(t testing.TB, j *Job, span Span, s Stream) string {
	t.Helper()
	var b []byte
	err := j.Rows(span, s, func(r *Row) error {
		b = append(j.AppendRow(b, r, false), '\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func rowsJob(t testing.TB, window, rest string) *Job {
	return mustParse(t, `name: rows
sources:
  - topic: t
    format: json
    time: {field: ts, unit: ms}
    key: [who]
    aggregates: {n: count(), total: sum(v)}
window: `+window+"\n"+rest)
}

var golden = []event{
	{at: 1000, who: crdt.Text("b"), v: 1}, {at: 500, who: crdt.Text("a"), v: 2, group: 1}, {at: 59_999, who: crdt.Text("a"), v: 3},
	{at: 60_000, who: crdt.Int(7), v: 4, group: 1}, {at: 61_500, who: crdt.Null(), v: 5}, {at: 61_500, who: crdt.Bool(true), v: -6},
	{at: -1, who: crdt.Float(0.5), v: 7}, {at: 130_250, who: crdt.Text("a"), v: 8}, {at: 130_249, who: crdt.Text("\"\u00e9\n"), v: 9},
}

func TestGoldenRows(t *testing.T) {
	for _, c := range []struct{ window, rest, want string }{
		{"{tumbling: 1m}", "", `
{"window_start":"1969-12-31T23:59:00Z","window_end":"1970-01-01T00:00:00Z","key":{"who":0.5},"n":1,"total":7}
{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"a"},"n":2,"total":5}
{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"b"},"n":1,"total":1}
{"window_start":"1970-01-01T00:01:00Z","window_end":"1970-01-01T00:02:00Z","key":{"who":null},"n":1,"total":5}
{"window_start":"1970-01-01T00:01:00Z","window_end":"1970-01-01T00:02:00Z","key":{"who":true},"n":1,"total":-6}
{"window_start":"1970-01-01T00:01:00Z","window_end":"1970-01-01T00:02:00Z","key":{"who":7},"n":1,"total":4}
{"window_start":"1970-01-01T00:02:00Z","window_end":"1970-01-01T00:03:00Z","key":{"who":"\"é\n"},"n":1,"total":9}
{"window_start":"1970-01-01T00:02:00Z","window_end":"1970-01-01T00:03:00Z","key":{"who":"a"},"n":1,"total":8}`},
		{"{global: true}", "derive: {mean: total / n, half: mean / 2, bad: total / (n - n), known: who != nil}\nhaving: n > 1", `
{"window_start":null,"window_end":null,"key":{"who":"a"},"n":3,"total":13,"mean":4.333333333333333,"half":2.1666666666666665,"bad":null,"known":true}`},
		{"{hopping: 2m, every: 1m}", "having: total > 8", `
{"window_start":"1970-01-01T00:01:00Z","window_end":"1970-01-01T00:03:00Z","key":{"who":"\"é\n"},"n":1,"total":9}
{"window_start":"1970-01-01T00:02:00Z","window_end":"1970-01-01T00:04:00Z","key":{"who":"\"é\n"},"n":1,"total":9}`},
		{"{session: 70s}", "having: who == 'a'", `
{"window_start":"1970-01-01T00:00:00.500Z","window_end":"1970-01-01T00:02:09.999Z","key":{"who":"a"},"n":2,"total":5}
{"window_start":"1970-01-01T00:02:10.250Z","window_end":"1970-01-01T00:03:20.250Z","key":{"who":"a"},"n":1,"total":8}`},
	} {
		j := rowsJob(t, c.window, c.rest)
		want := strings.ReplaceAll(strings.TrimPrefix(c.want, "\n"), "\n{", "\x00{")
		want = strings.ReplaceAll(strings.ReplaceAll(want, "\n", `\n`), "\x00", "\n") + "\n"
		if got := print(t, j, Everything(), MergeStreams(store(t, j, golden, 2, nil)...)); got != want {
			t.Errorf("%s\n%s\nwant\n%s", c.window, got, want)
		}
	}
}

func TestOtherForms(t *testing.T) {
	j := rowsJob(t, "{tumbling: 1m}", "having: n > 1")
	var out []string
	err := j.Rows(Span{From: 0, To: 60_000, Horizon: crdt.MinTime, Hidden: true}, MergeStreams(store(t, j, golden, 2, nil)...),
		func(r *Row) error {
			c := r.Clone()
			c.Complete = !c.Hidden
			out = append(out, string(j.AppendRow(nil, c, true)), string(j.AppendRetraction(nil, c)), fmt.Sprint(c.Hidden))
			if key, err := j.DecodeKey(c.Key); err != nil || string(j.AppendKey(nil, key)) != string(j.AppendKey(nil, c.KeyValues)) {
				t.Error(key, err)
			}
			return nil
		})
	want := []string{
		`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"a"},"n":2,"total":5,"revision":2,"complete":true}`,
		`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"a"},"revision":2,"retracted":true}`, "false",
		`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"b"},"n":1,"total":1,"revision":1,"complete":false}`,
		`{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z","key":{"who":"b"},"revision":1,"retracted":true}`, "true",
	}
	if err != nil || !slices.Equal(out, want) {
		t.Errorf("%v\n%s", err, strings.Join(out, "\n"))
	}
	if _, err := j.DecodeKey([]byte{9}); !errors.Is(err, crdt.ErrKey) {
		t.Error(err)
	}
	if _, err := j.DecodeKey([]byte{1, 1}); !errors.Is(err, crdt.ErrKey) {
		t.Error(err)
	}
}

func TestRowsFail(t *testing.T) {
	j := rowsJob(t, "{tumbling: 1m}", "")
	cell := crdt.NewCell(j.Schema()).AppendTo(nil)
	null := crdt.Null().AppendKey(nil)
	none := func(*Row) error { return nil }
	for name, c := range map[string]struct {
		of   []entry
		want error
	}{
		"order of times":   {[]entry{{crdt.Slot{Time: 120_000, Key: null}, cell}, {crdt.Slot{Time: 60_000, Key: null}, cell}}, ErrOrder},
		"order of classes": {[]entry{{crdt.Slot{Time: 60_000, Key: null, Class: 1}, cell}, {crdt.Slot{Time: 60_000, Key: null}, cell}}, ErrOrder},
		"a key":            {[]entry{{crdt.Slot{Time: 60_000, Key: []byte{0x44}}, cell}}, crdt.ErrKey},
		"a longer key":     {[]entry{{crdt.Slot{Time: 60_000, Key: append(null, null...)}, cell}}, crdt.ErrKey},
		"a cell":           {[]entry{{crdt.Slot{Time: 60_000, Key: null}, []byte{1, 2, 3}}}, crdt.ErrEncoding},
	} {
		if err := j.Rows(Everything(), &slots{of: c.of}, none); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop := errors.New("stop")
	one := &slots{of: []entry{{crdt.Slot{Time: 60_000, Key: null}, cell}}}
	if err := j.Rows(Everything(), one, func(*Row) error { return stop }); err != stop {
		t.Error(err)
	}
	if err := j.Rows(Everything(), MergeStreams(&slots{}, broken{}), none); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

var errBroken = errors.New("broken")

type broken struct{ *slots }

func (broken) Next() bool { return false }
func (broken) Err() error { return errBroken }

// oneRow is a row as its definition gives it.
type oneRow struct {
	start, end int64
	key        string
	n, total   int64
}

// naive makes rows from events and the windows' definition. late(i) says for how many of its oldest windows event i is.
func naive(w keyspace.Window, events []event, late func(i int) uint16) []oneRow {
	byRow := make(map[oneRow]*oneRow)
	var out []*oneRow
	put := func(start, end int64, e event) {
		id := oneRow{start: start, end: end, key: string(e.who.AppendKey(nil))}
		if byRow[id] == nil {
			r := id
			byRow[id], out = &r, append(out, &r)
		}
		byRow[id].n++
		byRow[id].total += e.v
	}
	if w.Kind == keyspace.Session {
		events = slices.Clone(events)
		slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
		starts := make(map[string]int64)
		for i, e := range events {
			key := string(e.who.AppendKey(nil))
			before, end := crdt.MinTime, e.at
			for _, f := range events[:i] {
				if crdt.Compare(f.who, e.who) == 0 {
					before = f.at
				}
			}
			if before == crdt.MinTime || e.at-before >= w.Size {
				starts[key] = e.at
			}
			for _, f := range events[i+1:] {
				if crdt.Compare(f.who, e.who) == 0 && f.at-end < w.Size {
					end = f.at
				}
			}
			put(starts[key], end+w.Size, e)
		}
	} else {
		step := cmp.Or(w.Every, w.Size)
		for i, e := range events {
			skip := int64(late(i))
			for start := (e.at/step - w.Size/step - 2) * step; start <= e.at; start += step {
				if e.at < start+w.Size {
					if skip--; skip < 0 {
						put(start, start+w.Size, e)
					}
				}
			}
		}
	}
	rows := make([]oneRow, len(out))
	for i, r := range out {
		rows[i] = *r
	}
	slices.SortFunc(rows, func(a, b oneRow) int {
		return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.start, b.start), strings.Compare(a.key, b.key))
	})
	return rows
}

func collect(t testing.TB, j *Job, span Span, s Stream) []oneRow {
	t.Helper()
	var out []oneRow
	err := j.Rows(span, s, func(r *Row) error {
		out = append(out, oneRow{r.Start, r.End, string(r.Key), r.Values[0].Int(), r.Values[1].Int()})
		if r.Revision != uint64(r.Values[0].Int()) {
			t.Errorf("revision %d of %d records", r.Revision, r.Values[0].Int())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRowsAsDefined compares rows with the windows' definition: all of them, by spans of window ends, by single keys,
// and above a horizon.
func TestRowsAsDefined(t *testing.T) {
	jobs := []*Job{rowsJob(t, "{tumbling: 10ms}", ""), rowsJob(t, "{hopping: 50ms, every: 10ms}", ""),
		rowsJob(t, "{hopping: 10ms, every: 10ms}", ""), rowsJob(t, "{session: 10ms}", "")}
	rapid.Check(t, func(rt *rapid.T) {
		j := rapid.SampledFrom(jobs).Draw(rt, "job")
		var events []event
		var late []uint16
		slices10 := uint16(1)
		if j.Window.Kind == keyspace.Hopping {
			slices10 = uint16(j.Window.Size / j.Window.Every)
		}
		for range rapid.IntRange(0, 40).Draw(rt, "events") {
			events = append(events, event{rapid.Int64Range(-60, 200).Draw(rt, "at"), crdt.Int(rapid.Int64Range(0, 3).Draw(rt, "key")),
				rapid.Int64Range(-5, 5).Draw(rt, "v"), rapid.IntRange(0, 2).Draw(rt, "group")})
			late = append(late, uint16(rapid.IntRange(0, int(slices10)-1).Draw(rt, "late")))
		}
		lateOf := func(i int) uint16 { return late[i] }
		all := naive(j.Window, events, lateOf)
		streams := func() []Stream { return store(t, j, events, 3, lateOf) }
		if got := collect(t, j, Everything(), MergeStreams(streams()...)); !slices.Equal(got, all) {
			rt.Fatalf("%v\nwant %v", got, all)
		}
		cut := rapid.Int64Range(-70, 260).Draw(rt, "cut")
		if n := len(events); n > 0 && rapid.Bool().Draw(rt, "at an end") {
			cut = events[rapid.IntRange(0, n-1).Draw(rt, "whose")].at + 10
		}
		low := Span{From: crdt.MinTime, To: cut, Horizon: crdt.MinTime}
		high := Span{From: cut, To: crdt.MaxTime, Horizon: crdt.MinTime}
		if got := append(collect(t, j, low, within(j, low, streams())), collect(t, j, high, within(j, high, streams()))...); !slices.Equal(got, all) {
			rt.Fatalf("cut at %d: %v\nwant %v", cut, got, all)
		}
		above := Span{From: crdt.MinTime, To: crdt.MaxTime, Horizon: cut}
		var want []oneRow
		for _, r := range all {
			cell := r.start - ((r.start%j.Window.Size)+j.Window.Size)%j.Window.Size
			if r.end > cut && (j.Window.Kind != keyspace.Session || cell+j.Window.Size > cut) {
				want = append(want, r)
			}
		}
		if got := collect(t, j, above, within(j, above, streams())); !slices.Equal(got, want) {
			rt.Fatalf("above %d: %v\nwant %v", cut, got, want)
		}
		byKey(t, rt, j, all, streams())
	})
}

// byKey checks that the slots of one key alone give the rows of that key.
func byKey(t *testing.T, rt *rapid.T, j *Job, all []oneRow, streams []Stream) {
	key := crdt.Int(rapid.Int64Range(0, 3).Draw(rt, "one")).AppendKey(nil)
	for _, s := range streams {
		s.(*slots).of = slices.DeleteFunc(s.(*slots).of, func(e entry) bool { return !bytes.Equal(e.slot.Key, key) })
	}
	want := slices.DeleteFunc(slices.Clone(all), func(r oneRow) bool { return r.key != string(key) })
	if got := collect(t, j, Everything(), MergeStreams(streams...)); !slices.Equal(got, want) {
		rt.Fatalf("of one key: %v\nwant %v", got, want)
	}
}

func BenchmarkRows(b *testing.B) {
	j := rowsJob(b, "{tumbling: 1m}", "derive: {mean: total / n}")
	var events []event
	for i := range 10_000 {
		events = append(events, event{int64(i) * 100, crdt.Int(int64(i % 997)), int64(i), 0})
	}
	list := store(b, j, events, 1, nil)[0].(*slots).of
	var buf []byte
	for b.Loop() {
		err := j.Rows(Everything(), &slots{of: list}, func(r *Row) error {
			buf = j.AppendRow(buf[:0], r, true)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list)), "ns/row")
}
