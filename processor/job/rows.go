package job

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
)

// Stream is an ordered walk over slots: by time, key, class. A slot may come more than once, from several groups. What
// Slot and Cell return is valid until Next. keyspace.Iter is one.
type Stream interface {
	Next() bool
	Slot() crdt.Slot
	Cell() []byte
	Err() error
}

// ErrOrder marks a stream that is not in slot order.
var ErrOrder = errors.New("slots out of order")

// Span says which rows are wanted.
type Span struct {
	// From and To bound the rows' window ends: (From, To]. The global window ends at crdt.MaxTime.
	From, To int64
	// Horizon hides rows that end at or below it, and sessions that may have lost their head to it (rules A9). It is
	// the shard's; crdt.MinTime where nothing has expired.
	Horizon int64
	// Hidden asks for the rows that having hides too, with Row.Hidden set.
	Hidden bool
}

// Everything is the Span of all rows that having lets through, with nothing expired.
func Everything() Span { return Span{From: crdt.MinTime, To: crdt.MaxTime, Horizon: crdt.MinTime} }

// Row is one result of a job. It belongs to who made it and is valid until the next one: Clone it to keep it.
type Row struct {
	// Start and End bound the window in ms: [Start, End). For the global window they are crdt.MinTime and MaxTime.
	Start, End int64
	Key        []byte       // encoded, as in crdt.Slot
	KeyValues  []crdt.Value // in the order of Job.KeyNames
	Values     []crdt.Value // aggregates, then derived values
	Revision   uint64       // number of records merged into the row
	// Complete says that the window has closed with no region left out: what makes rows leaves it false.
	Complete bool
	Hidden   bool // having is not true of it
}

// Global reports whether r is a row of the global window.
func (r *Row) Global() bool { return r.End == crdt.MaxTime }

// Clone returns a row of its own.
func (r *Row) Clone() *Row {
	c := *r
	c.Key = bytes.Clone(r.Key)
	c.KeyValues = append([]crdt.Value(nil), r.KeyValues...)
	c.Values = append([]crdt.Value(nil), r.Values...)
	return &c
}

// SlotTimes returns the least and greatest slot time that a walk for s must cover; from > to if there is nothing to see.
func (j *Job) SlotTimes(s Span) (from, to int64) {
	low := max(s.From, s.Horizon)
	switch w := j.Window; w.Kind {
	case keyspace.Session:
		// A session may begin any number of cells before its end, and is known to have ended by the cell behind it.
		_, to = w.SlotRange(s.To)
		if s.To < crdt.MaxTime-2*w.Size {
			to = max(to, to+w.Size)
		}
		if s.Horizon == crdt.MaxTime {
			return crdt.MaxTime, crdt.MinTime
		}
		return s.Horizon + 1, to
	default:
		if low == crdt.MaxTime {
			return crdt.MaxTime, crdt.MinTime
		}
		_, to = w.SlotRange(s.To)
		return low + 1, to
	}
}

// Rows walks s and calls emit for every row of span, by window end, window start, key. The walk must cover SlotTimes;
// what lies outside is skipped. It keeps no more than the windows that are open at one slot: for tumbling and global
// windows a single row, for hopping ones the keys of a window's length, for sessions those of two cells. emit must not
// keep the row. An error of emit ends the walk and is returned as it is.
//
// The walk may be of some keys alone: rows of others are not missed.
func (j *Job) Rows(span Span, s Stream, emit func(*Row) error) error {
	m := &maker{job: j, span: span, emit: emit, schema: j.Schema()}
	m.span.From = max(span.From, span.Horizon)
	m.record = make([]crdt.Value, len(j.KeyNames)+len(j.Aggregates)+len(j.Derived))
	var b builder
	switch j.Window.Kind {
	case keyspace.Hopping:
		b = &hops{maker: m}
	case keyspace.Session:
		b = &sessions{maker: m, older: map[string]*run{}, newer: map[string]*run{}}
	default:
		b = &single{maker: m}
	}
	last := crdt.Slot{Time: crdt.MinTime}
	var key []byte
	for s.Next() {
		slot := s.Slot()
		if c := compareSlots(slot, last); c < 0 {
			return fmt.Errorf("make rows: %w", ErrOrder)
		}
		if err := b.add(slot, s.Cell()); err != nil {
			return err
		}
		key = append(key[:0], slot.Key...)
		last = crdt.Slot{Time: slot.Time, Key: key, Class: slot.Class}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("make rows: %w", err)
	}
	return b.close()
}

func compareSlots(a, b crdt.Slot) int {
	switch {
	case a.Time != b.Time:
		if a.Time < b.Time {
			return -1
		}
		return 1
	case !bytes.Equal(a.Key, b.Key):
		return bytes.Compare(a.Key, b.Key)
	}
	return int(a.Class) - int(b.Class)
}

// builder puts the slots of one kind of window together.
type builder interface {
	add(slot crdt.Slot, cell []byte) error
	close() error
}

// maker turns merged cells into rows.
type maker struct {
	job    *Job
	span   Span // From is not below the horizon
	schema *crdt.Schema
	emit   func(*Row) error
	row    Row
	record []crdt.Value // of the row: key members, aggregates, derived values
}

// wanted reports whether a window that ends at end is in the span.
func (m *maker) wanted(end int64) bool { return end > m.span.From && end <= m.span.To }

func (m *maker) fold(into *crdt.Cell, cell []byte) error {
	if err := into.MergeEncoded(cell); err != nil {
		return fmt.Errorf("make rows: read cell: %w", err)
	}
	return nil
}

// make computes derive and having over a merged cell and hands the row on.
func (m *maker) make(start, end int64, key []byte, cell *crdt.Cell) error {
	j, r := m.job, &m.row
	keys, rest := len(j.KeyNames), key
	var err error
	for i := range keys {
		if m.record[i], rest, err = crdt.CutKey(rest); err != nil {
			return fmt.Errorf("make rows: read key: %w", err)
		}
	}
	if len(rest) > 0 {
		return fmt.Errorf("make rows: read key: %w: more than %d values", crdt.ErrKey, keys)
	}
	for i := range j.Aggregates {
		m.record[keys+i] = cell.Result(i)
	}
	for i, d := range j.Derived {
		v, err := d.Program.Eval(m.record)
		if err != nil {
			v = crdt.Null()
		}
		m.record[keys+len(j.Aggregates)+i] = v
	}
	hidden := false
	if j.Having != nil {
		v, err := j.Having.Eval(m.record)
		hidden = err != nil || v.Kind() != crdt.KindBool || !v.Bool()
		if hidden && !m.span.Hidden {
			return nil
		}
	}
	*r = Row{Start: start, End: end, Key: key, KeyValues: m.record[:keys:keys], Values: m.record[keys:],
		Revision: cell.Records, Hidden: hidden}
	return m.emit(r)
}

// single makes rows of windows that are one slot each: tumbling and global ones.
type single struct {
	*maker
	open bool
	end  int64
	key  []byte
	cell *crdt.Cell
}

func (b *single) add(slot crdt.Slot, cell []byte) error {
	if b.open && (slot.Time != b.end || !bytes.Equal(slot.Key, b.key)) {
		if err := b.close(); err != nil {
			return err
		}
	}
	if !b.wanted(slot.Time) {
		return nil
	}
	if !b.open {
		b.open, b.end, b.key, b.cell = true, slot.Time, append(b.key[:0], slot.Key...), crdt.NewCell(b.schema)
	}
	return b.fold(b.cell, cell)
}

func (b *single) close() error {
	if !b.open {
		return nil
	}
	b.open = false
	return b.make(b.job.Window.Start(b.end), b.end, b.key, b.cell)
}
