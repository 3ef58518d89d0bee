package keyspace

import (
	"errors"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/watershed-db/watershed/crdt"
)

func genWindow(maxSize int64) *rapid.Generator[Window] {
	return rapid.Custom(func(t *rapid.T) Window {
		switch WindowKind(rapid.IntRange(1, 4).Draw(t, "kind")) {
		case Tumbling:
			return Window{Kind: Tumbling, Size: rapid.Int64Range(1, maxSize).Draw(t, "size")}
		case Session:
			return Window{Kind: Session, Size: rapid.Int64Range(1, maxSize).Draw(t, "gap")}
		case Hopping:
			n := rapid.Int64Range(1, min(20, maxSize)).Draw(t, "slices")
			every := rapid.Int64Range(1, maxSize/n).Draw(t, "every")
			return Window{Kind: Hopping, Size: n * every, Every: every}
		}
		return Window{Kind: Global}
	})
}

// span is a window, by its start and end.
type span struct{ start, end int64 }

// definition enumerates the windows that hold et, oldest first, by trying every start.
func definition(w Window, et int64) (all []span) {
	switch w.Kind {
	case Global:
		return []span{{crdt.MinTime, crdt.MaxTime}}
	case Session:
		return []span{{et, et + w.Size}}
	}
	step := w.Step()
	for start := et - w.Size; start <= et; start++ {
		if floorDiv(start, step)*step == start && et < start+w.Size {
			all = append(all, span{start, start + w.Size})
		}
	}
	return all
}

func floorDiv(a, b int64) int64 {
	q := new(big.Int)
	q.Div(big.NewInt(a), big.NewInt(b)) // Euclidean, b > 0
	return q.Int64()
}

func TestPlaceAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWindow(40).Draw(t, "window")
		if err := w.Validate(); err != nil {
			t.Fatal(err)
		}
		et := rapid.Int64Range(-100, 100).Draw(t, "et")
		wm := rapid.OneOf(rapid.Int64Range(-200, 200), rapid.SampledFrom([]int64{crdt.MinTime, crdt.MaxTime})).Draw(t, "wm")
		lateness := rapid.Int64Range(0, 50).Draw(t, "lateness")
		time, class, ok := w.Place(et, wm, lateness)

		var open []span
		for _, s := range definition(w, et) {
			if w.Kind == Global || wm != crdt.MaxTime && s.end+lateness > wm {
				open = append(open, s)
			}
		}
		if ok != (len(open) > 0) {
			t.Fatalf("placed %v, open windows %v", ok, open)
		}
		if !ok {
			return
		}
		if w.Kind == Session {
			if cell := w.SlotStart(time); cell > et || cell+w.Size <= et || floorDiv(cell, w.Size)*w.Size != cell {
				t.Fatalf("cell of %d starts at %d", et, cell)
			}
			return
		}
		// The windows that read the slot are the open ones, whichever way one asks.
		first, last := w.Windows(time, class)
		if first != open[0].end || last != open[len(open)-1].end {
			t.Fatalf("slot (%d,%d) serves ends %d..%d, open are %v", time, class, first, last, open)
		}
		for _, s := range definition(w, et) {
			from, to := w.SlotRange(s.end)
			reads := from <= time && time <= to && w.Serves(time, class, s.end)
			if isOpen := s.end >= open[0].end; reads != isOpen {
				t.Fatalf("window %v reads slot (%d,%d): %v, open: %v", s, time, class, reads, isOpen)
			}
			if w.Start(s.end) != s.start {
				t.Fatalf("window %v starts at %d", s, w.Start(s.end))
			}
		}
		if w.Kind != Global && (w.SlotStart(time) > et || time != last) {
			t.Fatalf("slot at %d of %d starts at %d and should go at %d", time, et, w.SlotStart(time), last)
		}
	})
}

// No slot outside SlotRange, and none of another class or step, serves a window.
func TestServesAgainstSlices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every, n := rapid.Int64Range(1, 5).Draw(t, "every"), rapid.Int64Range(1, 6).Draw(t, "slices")
		w := Window{Kind: Hopping, Size: n * every, Every: every}
		end := rapid.Int64Range(-40, 40).Draw(t, "end")
		slice := rapid.Int64Range(-20, 20).Draw(t, "slice") * every
		class := uint16(rapid.Int64Range(0, n-1).Draw(t, "class"))
		want := false
		for i := int64(class); i < n; i++ {
			want = want || slice+(i+1)*every == end
		}
		time := slice + w.Size
		if got := w.Serves(time, class, end); got != want {
			t.Fatalf("slot (%d,%d) serves %d: %v, want %v", time, class, end, got, want)
		}
		if from, to := w.SlotRange(end); want && (time < from || time > to) {
			t.Fatalf("slot time %d outside %d..%d", time, from, to)
		}
	})
}

func clampTime(x *big.Int) int64 {
	if x.IsInt64() {
		return x.Int64()
	}
	if x.Sign() < 0 {
		return crdt.MinTime
	}
	return crdt.MaxTime
}

// Near the ends of time nothing wraps around: the slow twin computes without bounds and clamps once.
func TestPlaceSaturates(t *testing.T) {
	edge := rapid.OneOf(rapid.Int64Range(crdt.MinTime+1, crdt.MinTime+5000), rapid.Int64Range(crdt.MaxTime-5000, crdt.MaxTime-1),
		rapid.Int64Range(-100, 100))
	rapid.Check(t, func(t *rapid.T) {
		w := genWindow(1000).Draw(t, "window")
		et, wm := edge.Draw(t, "et"), rapid.OneOf(edge, rapid.SampledFrom([]int64{crdt.MinTime, crdt.MaxTime})).Draw(t, "wm")
		lateness := rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Just(crdt.MaxTime)).Draw(t, "lateness")
		time, class, ok := w.Place(et, wm, lateness)
		if w.Kind == Global {
			if time != crdt.MaxTime || class != 0 || !ok {
				t.Fatalf("global: (%d,%d) %v", time, class, ok)
			}
			return
		}
		b := big.NewInt
		step := w.Size
		if w.Kind == Hopping {
			step = w.Every
		}
		start := new(big.Int).Mul(new(big.Int).Div(b(et), b(step)), b(step))
		reach, n := w.Size, int64(1)
		switch w.Kind {
		case Session:
			reach = 2 * w.Size
		case Hopping:
			n = w.Size / w.Every
		}
		if want := clampTime(new(big.Int).Add(start, b(reach))); time != want {
			t.Fatalf("slot time %d, want %d", time, want)
		}
		closed := int64(0)
		for i := range n {
			end := new(big.Int).Add(start, b((i+1)*step))
			if w.Kind == Session {
				end = new(big.Int).Add(b(et), b(w.Size))
			}
			if wm == crdt.MaxTime || wm != crdt.MinTime && end.Add(end, b(lateness)).Cmp(b(wm)) <= 0 {
				closed++
			}
		}
		if ok != (closed < n) || ok && int64(class) != closed {
			t.Fatalf("class %d ok %v, closed %d of %d", class, ok, closed, n)
		}
	})
}

func TestFinality(t *testing.T) {
	for _, c := range []struct {
		w                       Window
		final, horizon, endless int64
	}{
		{Window{Kind: Tumbling, Size: 10}, 105, 93, crdt.MaxTime},
		{Window{Kind: Hopping, Size: 10, Every: 5}, 105, 93, crdt.MaxTime},
		{Window{Kind: Session, Size: 10}, 115, 83, crdt.MaxTime},
		{Window{Kind: Global}, 105, 93, crdt.MaxTime},
	} {
		if got := c.w.FinalAt(100, 5); got != c.final {
			t.Errorf("%s: final at %d, want %d", c.w.Kind, got, c.final)
		}
		if got := c.w.HorizonAt(100, 7); got != c.horizon {
			t.Errorf("%s: horizon %d, want %d", c.w.Kind, got, c.horizon)
		}
		if got := c.w.FinalAt(crdt.MaxTime, 5); got != c.endless {
			t.Errorf("%s: endless window final at %d", c.w.Kind, got)
		}
		if got := c.w.HorizonAt(crdt.MinTime, 7); got != crdt.MinTime {
			t.Errorf("%s: horizon before the first event %d", c.w.Kind, got)
		}
	}
}

// A run has lost its head exactly when the cell before its first is expired (model.py, reaches_below).
func TestHeadLost(t *testing.T) {
	w := Window{Kind: Session, Size: 10}
	for horizon := int64(-50); horizon <= 50; horizon++ {
		for start := int64(-40); start <= 40; start += 10 {
			before, _, _ := w.Place(start-10, crdt.MinTime, 0)
			if got, want := w.HeadLost(start, horizon), before <= horizon; got != want {
				t.Fatalf("cell %d, horizon %d: %v, want %v", start, horizon, got, want)
			}
		}
	}
}

func TestFirstEndAfter(t *testing.T) {
	w := Window{Kind: Hopping, Size: 20, Every: 5}
	for at := int64(-23); at < 23; at++ {
		end := w.FirstEndAfter(at)
		if end <= at || end > at+5 || floorDiv(end, 5)*5 != end {
			t.Fatalf("first end after %d: %d", at, end)
		}
	}
	if end := w.FirstEndAfter(crdt.MaxTime - 1); end != crdt.MaxTime {
		t.Fatalf("end past all time: %d", end)
	}
}

func TestValidate(t *testing.T) {
	for name, w := range map[string]Window{
		"no kind":             {},
		"unknown kind":        {Kind: 9, Size: 1},
		"tumbling of nothing": {Kind: Tumbling},
		"tumbling with every": {Kind: Tumbling, Size: 2, Every: 1},
		"session of nothing":  {Kind: Session, Size: -1},
		"hopping no every":    {Kind: Hopping, Size: 2},
		"hopping no multiple": {Kind: Hopping, Size: 5, Every: 2},
		"hopping too fine":    {Kind: Hopping, Size: MaxSlices + 1, Every: 1},
		"global with size":    {Kind: Global, Size: 1},
	} {
		if err := w.Validate(); !errors.Is(err, ErrWindow) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
