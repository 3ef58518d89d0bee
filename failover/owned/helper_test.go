package owned

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/failover/ownership"
)

// store keeps values in memory.
type store map[string][]byte

func (s store) Get(key []byte) ([]byte, error) { return s[string(key)], nil }

func (s store) Scan(from, to []byte, each func(key, value []byte) bool) error {
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if k >= string(from) && k < string(to) && !each([]byte(k), s[k]) {
			return nil
		}
	}
	return nil
}

// batch gathers what one command writes.
type batch struct {
	clears [][2]string
	sets   []change
}

func (b *batch) Clear(from, to []byte) {
	b.clears = append(b.clears, [2]string{string(from), string(to)})
}

func (b *batch) Set(key, value []byte) { b.sets = append(b.sets, change{string(key), value}) }

func (s store) apply(b *batch) {
	for _, c := range b.clears {
		maps.DeleteFunc(s, func(k string, _ []byte) bool { return k >= c[0] && k < c[1] })
	}
	for _, c := range b.sets {
		if c.value == nil {
			delete(s, c.key)
		} else {
			s[c.key] = c.value
		}
	}
}

func (b *batch) String() string { return fmt.Sprintf("%q %q", b.clears, b.sets) }

// command carries a command out, as a crash would have it: once in vain, then for good, and the same both times.
func (s store) command(t testing.TB, f func(*Log)) {
	t.Helper()
	var tries [2]batch
	for i := range tries {
		l := Open(s)
		f(l)
		if err := l.Close(&tries[i]); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := tries[0].String(), tries[1].String(); a != b {
		t.Fatalf("the same command writes different things:\n%s\n%s", a, b)
	}
	s.apply(&tries[1])
}

func (s store) read(t testing.TB) *Reader {
	t.Helper()
	r, err := Read(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rows returns the rows that a state shows at a position, by Scan, and checks that Get agrees.
func rows(t testing.TB, r *Reader, at ownership.Position, tables ...TableID) map[string]Row {
	t.Helper()
	v, err := r.At(at)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Row{}
	for _, table := range tables {
		for from := []byte(nil); ; {
			next, err := v.Scan(table, from, 3, func(key []byte, row Row) bool {
				got[rowKey(table, key)] = row
				same, ok, err := v.Get(table, key)
				if err != nil || !ok || same.Version != row.Version || !bytes.Equal(same.Value, row.Value) {
					t.Fatalf("Get %q is %v %v %v, Scan says %v", key, same, ok, err, row)
				}
				return len(got)%2 == 0
			})
			if err != nil {
				t.Fatal(err)
			}
			if next == nil {
				break
			}
			from = next
		}
	}
	return got
}

// model is a state by the most obvious means.
type model struct {
	time, closed int64
	rows         map[string]Row
	outcomes     map[ID]Result
	last         map[Session]uint64
}

type logEntry struct {
	mark    ownership.Mark
	control bool
	op      Op
}

// play returns what entries come to, and each one's result.
func play(list []logEntry) (*model, []Result) {
	m := &model{rows: map[string]Row{}, outcomes: map[ID]Result{}, last: map[Session]uint64{}}
	var results []Result
	for _, e := range list {
		r := Result{Verdict: Applied, At: e.mark}
		if !e.control {
			r = m.do(e)
		}
		results = append(results, r)
	}
	return m, results
}

func (m *model) do(e logEntry) Result {
	op := e.op
	m.time, m.closed = max(m.time, op.Time), max(m.closed, op.Closed)
	if op.Kind == Sweep {
		for _, s := range op.Sessions {
			if s.Born < m.closed {
				delete(m.last, s)
				maps.DeleteFunc(m.outcomes, func(id ID, _ Result) bool { return id.Session == s })
			}
		}
		for _, x := range op.Expired {
			if k := rowKey(x.Table, x.Key); !m.live(k) {
				delete(m.rows, k)
			}
		}
		for _, x := range op.Dropped {
			delete(m.rows, rowKey(x.Table, x.Key))
		}
		return Result{Verdict: Applied, At: e.mark}
	}
	id := op.ID
	if v := m.admit(op.Replays); op.Replays.Sequence > 0 && (v == Applied || v == 0 && m.outcomes[op.Replays].Verdict == Applied) {
		id = op.Replays
	}
	switch v := m.admit(id); v {
	case 0:
		r := m.outcomes[id]
		r.Again = true
		return r
	case Applied:
	default:
		return Result{Verdict: v, At: e.mark}
	}
	r := m.write(op, e.mark)
	m.outcomes[id] = r
	m.last[id.Session] = max(m.last[id.Session], id.Sequence)
	maps.DeleteFunc(m.outcomes, func(o ID, _ Result) bool {
		return o.Session == id.Session && o.Sequence+Window <= m.last[id.Session]
	})
	return r
}

func (m *model) live(k string) bool {
	r, ok := m.rows[k]
	return ok && (r.Expires == 0 || r.Expires > m.time)
}

func (m *model) admit(id ID) Verdict {
	_, done := m.outcomes[id]
	last := m.last[id.Session]
	switch {
	case done:
		return 0
	case id.Session.Born < m.closed:
		return Expired
	case id.Sequence+Window <= last:
		return Forgotten
	case id.Sequence > last+Window:
		return TooFar
	}
	return Applied
}

func (m *model) write(op Op, at ownership.Mark) Result {
	k := rowKey(op.Table, op.Key)
	old, there := m.rows[k], m.live(k)
	ok := true
	switch op.Expect.Kind {
	case Absent:
		ok = !there
	case AtVersion:
		ok = there && old.Version == op.Expect.Version
	case EqualValue:
		ok = there && string(old.Value) == string(op.Expect.Value)
	}
	switch {
	case !ok && there:
		return Result{Verdict: CompareFailed, At: at, Stands: true, Version: old.Version}
	case !ok:
		return Result{Verdict: CompareFailed, At: at}
	case op.Kind == Delete:
		delete(m.rows, k)
		return Result{Verdict: Applied, At: at}
	}
	row := Row{Version: at, Value: op.Value}
	if op.TTL > 0 {
		row.Expires = m.time + op.TTL
	}
	m.rows[k] = row
	return Result{Verdict: Applied, At: at, Stands: true, Version: at}
}

// shows returns the rows that readers see.
func (m *model) shows() map[string]Row {
	got := maps.Clone(m.rows)
	maps.DeleteFunc(got, func(k string, _ Row) bool { return !m.live(k) })
	return got
}

// sameRows says how rows differ.
func sameRows(want, got map[string]Row) error {
	var diff []string
	for k, w := range want {
		if g, ok := got[k]; !ok || g.Version != w.Version || g.Expires != w.Expires || string(g.Value) != string(w.Value) {
			diff = append(diff, fmt.Sprintf("%q is %v, not %v", k, g, w))
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			diff = append(diff, fmt.Sprintf("%q is %v, and should not be", k, g))
		}
	}
	if len(diff) > 0 {
		return errors.New(strings.Join(diff, "\n"))
	}
	return nil
}

func mark(epoch, position uint64) ownership.Mark {
	return ownership.Mark{Epoch: ownership.EpochOf(epoch, 1), Position: ownership.Position(position)}
}
