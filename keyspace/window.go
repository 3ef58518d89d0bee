package keyspace

import (
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// WindowKind says how event time is divided.
type WindowKind uint8

// The kinds of windows. The numbers are stored: never reuse one.
const (
	Tumbling WindowKind = 1 // [k*Size, (k+1)*Size)
	Hopping  WindowKind = 2 // [k*Every, k*Every+Size), stored as slices [k*Every, (k+1)*Every)
	Session  WindowKind = 3 // runs of events closer than Size, stored as cells [k*Size, (k+1)*Size)
	Global   WindowKind = 4 // all of time
)

// String returns the kind's name in a job file.
func (k WindowKind) String() string {
	switch k {
	case Tumbling:
		return "tumbling"
	case Hopping:
		return "hopping"
	case Session:
		return "session"
	case Global:
		return "global"
	}
	return fmt.Sprintf("WindowKind(%d)", uint8(k))
}

// MaxSlices is the greatest number of slices of a hopping window.
const MaxSlices = 1000

// Window is how a job divides event time. Windows begin at whole multiples of their step from 1970-01-01 UTC, also
// before it. A window or slice that reaches past crdt.MaxTime ends there.
type Window struct {
	Kind  WindowKind
	Size  int64 // ms: the length; of a session the gap; 0 for Global
	Every int64 // ms: the step of Hopping, a divisor of Size; 0 for the others
}

// ErrWindow marks a Window that breaks a rule of its kind.
var ErrWindow = errors.New("bad window")

// Validate checks that w can be used: every other method needs that it holds.
func (w Window) Validate() error {
	switch w.Kind {
	case Tumbling, Session:
		if w.Size <= 0 || w.Every != 0 {
			return fmt.Errorf("%w: %s of size %d ms, every %d ms: only a positive size", ErrWindow, w.Kind, w.Size, w.Every)
		}
	case Hopping:
		if w.Size <= 0 || w.Every <= 0 || w.Size%w.Every != 0 {
			return fmt.Errorf("%w: hopping of size %d ms is no multiple of every %d ms", ErrWindow, w.Size, w.Every)
		}
		if w.Size/w.Every > MaxSlices {
			return fmt.Errorf("%w: hopping of %d slices, at most %d", ErrWindow, w.Size/w.Every, MaxSlices)
		}
	case Global:
		if w.Size != 0 || w.Every != 0 {
			return fmt.Errorf("%w: global of size %d ms, every %d ms: it has neither", ErrWindow, w.Size, w.Every)
		}
	default:
		return fmt.Errorf("%w: %s", ErrWindow, w.Kind)
	}
	return nil
}

// Place says into which slot a record at event time et goes, and ok = false when it is late for all its windows: a
// window is closed to it when end + lateness is at or below watermark, its source's before this record. A record of a
// session is judged on its own [et, et + gap), one of a global window is never late. The results are the slot's Time
// and Class (rules A8).
func (w Window) Place(et, watermark, lateness int64) (time int64, class uint16, ok bool) {
	switch w.Kind {
	case Tumbling:
		end := addTime(et, w.Size-floorMod(et, w.Size))
		return end, 0, addTime(end, lateness) > watermark
	case Session:
		time = addTime(addTime(et, w.Size-floorMod(et, w.Size)), w.Size)
		return time, 0, addTime(addTime(et, w.Size), lateness) > watermark
	case Global:
		return crdt.MaxTime, 0, true
	}
	n, rest := w.Size/w.Every, floorMod(et, w.Every)
	closed := int64(0)
	switch {
	case watermark == crdt.MaxTime:
		closed = n
	case watermark > crdt.MinTime:
		// Window i of the slice, from 0, ends at start + (i+1)*Every.
		past := subTime(subTime(watermark, lateness), subTime(et, rest))
		closed = min(max(past, 0)/w.Every, n)
	}
	if mutant.On("slice-by-own-end") {
		return addTime(et, w.Every-rest), uint16(min(closed, n-1)), closed < n
	}
	return addTime(et, w.Size-rest), uint16(min(closed, n-1)), closed < n
}

// SlotStart returns where the window, slice or cell of a slot at time begins; crdt.MinTime for Global.
func (w Window) SlotStart(time int64) int64 {
	switch w.Kind {
	case Session:
		return subTime(subTime(time, w.Size), w.Size)
	case Global:
		return crdt.MinTime
	}
	return subTime(time, w.Size)
}

// Windows returns the ends of the first and the last window that a slot serves: one each step between them, both
// included. A session's windows are not known from a slot: for a cell both are its slot's time, above every end that a
// session whose last event lies in it can have.
func (w Window) Windows(time int64, class uint16) (firstEnd, lastEnd int64) {
	if w.Kind != Hopping {
		return time, time
	}
	return subTime(time, w.Size-(int64(class)+1)*w.Every), time
}

// SlotRange returns the least and the greatest time of the slots that the window ending at end reads. Not every slot
// of a hopping window's range serves it: Serves tells by the class. For a session that ends at end, last event + gap,
// the range begins at crdt.MinTime, since nothing bounds where the session began.
func (w Window) SlotRange(end int64) (from, to int64) {
	switch w.Kind {
	case Hopping:
		return end, addTime(end, w.Size-w.Every)
	case Session:
		to, _, _ = w.Place(subTime(end, w.Size), crdt.MinTime, 0)
		return crdt.MinTime, to
	}
	return end, end
}

// Serves reports whether the window ending at end reads the slot. For sessions it is true of every slot in SlotRange.
func (w Window) Serves(time int64, class uint16, end int64) bool {
	if w.Kind == Session {
		_, to := w.SlotRange(end)
		return time <= to
	}
	first, last := w.Windows(time, class)
	if end < first || end > last {
		return false
	}
	return w.Kind != Hopping || uint64(last-end)%uint64(w.Every) == 0
}

// Start returns where the window that ends at end begins: crdt.MinTime for Global. It means nothing for Session, whose
// rows carry their own bounds.
func (w Window) Start(end int64) int64 {
	if w.Kind == Global {
		return crdt.MinTime
	}
	return subTime(end, w.Size)
}

// FirstEndAfter returns the least window end above t; crdt.MaxTime for Global. Session ends lie anywhere: t + 1.
func (w Window) FirstEndAfter(t int64) int64 {
	switch w.Kind {
	case Global:
		return crdt.MaxTime
	case Session:
		return addTime(t, 1)
	}
	step := w.Step()
	return addTime(t, step-floorMod(t, step))
}

// Step returns the distance of neighbouring window ends in ms: 0 for Session and Global.
func (w Window) Step() int64 {
	switch w.Kind {
	case Tumbling:
		return w.Size
	case Hopping:
		return w.Every
	}
	return 0
}

// FinalAt returns the watermark from which on, when every source has reached it, nothing can change the window ending
// at end: end + lateness, for sessions a gap later (rules A9). crdt.MaxTime for Global.
func (w Window) FinalAt(end, lateness int64) int64 {
	if w.Kind == Session {
		end = addTime(end, w.Size)
	}
	return addTime(end, lateness)
}

// HorizonAt returns the greatest horizon that a watermark bears with retention ms of finished windows kept: for
// sessions a gap less (rules A9). The infinite watermarks stay as they are; that crdt.MaxTime moves no horizon is the
// caller's to see to (rules A7).
func (w Window) HorizonAt(watermark, retention int64) int64 {
	if w.Kind == Session {
		watermark = subTime(watermark, w.Size)
	}
	return subTime(watermark, retention)
}

// HeadLost reports whether a run of a session's cells that begins at the cell starting at start may have lost cells to
// the horizon, so that nobody can say where the session began (rules A9): the cell before it would be expired.
func (w Window) HeadLost(start, horizon int64) bool {
	return w.Kind == Session && addTime(start, w.Size) <= horizon
}

// addTime returns a + b for b >= 0, held within the range of times. The infinite times stay as they are.
func addTime(a, b int64) int64 {
	if a == crdt.MinTime {
		return a
	}
	if c := a + b; c >= a {
		return c
	}
	return crdt.MaxTime
}

// subTime returns a - b, held within the range of times. The infinite times stay as they are.
func subTime(a, b int64) int64 {
	if a == crdt.MinTime || a == crdt.MaxTime {
		return a
	}
	c := a - b
	switch {
	case b > 0 && c > a:
		return crdt.MinTime
	case b < 0 && c < a:
		return crdt.MaxTime
	}
	return c
}

// floorMod returns a - floor(a/b)*b for b > 0: in [0, b).
func floorMod(a, b int64) int64 {
	m := a % b
	if m < 0 {
		m += b
	}
	return m
}
