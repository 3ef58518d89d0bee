package crdt

import (
	"cmp"
	"math"
)

// Cell is what one group has contributed to one slot: a number of records and an accumulator for each column. What only
// reads it (Result, AppendTo, Clone, Size, being merged from) may run concurrently, anything else not.
//
// Its content is a function of the multiset of what was added: no order and no grouping of Touch, Add and Merge can be
// told from another, and equal contents have equal encodings.
type Cell struct {
	// Records is the number of records: the cell's part of a row's revision.
	Records uint64
	// First and Last are the least and greatest event time of the records, where the Schema has Spans; 0 before the first.
	First, Last int64

	spans bool
	cols  []acc
}

// acc is the accumulator of one column.
type acc struct {
	op   Op
	kind Kind   // min, max: of the value held, whose bits stand in sum.lo; null before the first
	n    uint64 // number of values taken; for sum 1 for any
	sum  int128 // of the integers
	ext  any    // nil, or *moments, *held or *set
}

// moments holds what sums need beyond integers.
type moments struct {
	floats     bool // a float was added
	sum        exact
	squares    exact   // stddev: of the floats
	intSquares uint192 // stddev: of the integers
}

// held is a value with its record's place: first and last, and without a place the texts of min and max.
type held struct {
	v  Value
	at Order
}

// NewCell returns an empty cell. It keeps nothing of s.
func NewCell(s *Schema) *Cell {
	c := newCell(len(s.Ops), s.Spans)
	for i, o := range s.Ops {
		c.cols[i].op = o
	}
	return c
}

// newCell allocates once for few columns.
func newCell(n int, spans bool) *Cell {
	var c *Cell
	switch {
	case n <= 1:
		x := new(struct {
			Cell
			a [1]acc
		})
		c, x.cols = &x.Cell, x.a[:n]
	case n == 2:
		x := new(struct {
			Cell
			a [2]acc
		})
		c, x.cols = &x.Cell, x.a[:]
	case n == 3:
		x := new(struct {
			Cell
			a [3]acc
		})
		c, x.cols = &x.Cell, x.a[:]
	case n == 4:
		x := new(struct {
			Cell
			a [4]acc
		})
		c, x.cols = &x.Cell, x.a[:]
	default:
		c = &Cell{cols: make([]acc, n)}
	}
	c.spans = spans
	return c
}

// Columns returns the number of columns.
func (c *Cell) Columns() int { return len(c.cols) }

// Op returns the aggregate of a column.
func (c *Cell) Op(col int) Op { return c.cols[col].op }

// Touch counts a record with that event time.
func (c *Cell) Touch(time int64) { c.touch(1, time, time) }

func (c *Cell) touch(n uint64, first, last int64) {
	if c.spans && n > 0 {
		if c.Records == 0 {
			c.First, c.Last = first, last
		} else {
			c.First, c.Last = min(c.First, first), max(c.Last, last)
		}
	}
	c.Records = addCounts(c.Records, n)
}

// addCounts adds without running over: sums of counts stop at the greatest.
func addCounts(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return math.MaxUint64
}

// Add folds a value, as Check returned it for the column's Op, into column col. A null is skipped, but by OpRecords.
// Only OpFirst and OpLast look at at. Add copies what it keeps of v's bytes and keeps at's Source.
func (c *Cell) Add(col int, v Value, at Order) {
	a := &c.cols[col]
	if a.op == OpRecords {
		a.n++
		return
	}
	if v.kind == KindNull {
		return
	}
	switch a.op {
	case OpCount:
		a.n++
	case OpSum, OpAvg, OpStddev:
		a.addNumber(v)
	case OpMin, OpMax:
		a.addExtreme(v)
	case OpDistinct:
		a.set().addValue(v)
	case OpFirst, OpLast:
		a.addPlaced(v, at)
	}
}

func (a *acc) addNumber(v Value) {
	if a.op == OpSum {
		a.n = 1
	} else {
		a.n++
	}
	if v.kind == KindInt {
		a.sum.add(v.Int())
		if a.op == OpStddev {
			a.moments().intSquares.addSquare(v.Int())
		}
		return
	}
	m := a.moments()
	m.floats = true
	m.sum.add(v.Float())
	if a.op == OpStddev {
		m.squares.addSquare(v.Float())
	}
}

func (a *acc) moments() *moments {
	m, ok := a.ext.(*moments)
	if !ok {
		m = new(moments)
		a.ext = m
	}
	return m
}

func (a *acc) set() *set {
	s, ok := a.ext.(*set)
	if !ok {
		s = new(set)
		a.ext = s
	}
	return s
}

// extreme returns the value that min or max holds.
func (a *acc) extreme() Value {
	if a.kind == KindText {
		return a.ext.(*held).v
	}
	return Value{kind: a.kind, bits: a.sum.lo}
}

// addExtreme keeps the lesser or greater value. Of an integer and a float that are equal it keeps the integer.
func (a *acc) addExtreme(v Value) {
	if a.kind != KindNull {
		var d int
		if v.kind == KindInt && a.kind == KindInt {
			d = cmp.Compare(v.Int(), int64(a.sum.lo))
		} else {
			d = Compare(v, a.extreme())
		}
		if a.op == OpMax {
			d = -d
		}
		if d > 0 || d == 0 && v.kind >= a.kind {
			return
		}
	}
	a.kind, a.sum.lo = v.kind, v.bits
	if v.kind != KindText {
		return
	}
	h, ok := a.ext.(*held)
	if !ok {
		h = new(held)
		a.ext = h
	}
	h.v = v.Clone()
}

// addPlaced keeps the value of the first or last record. Two values of one record, which no data have, go by size.
func (a *acc) addPlaced(v Value, at Order) {
	h, ok := a.ext.(*held)
	if !ok {
		a.ext = &held{v.Clone(), at}
		return
	}
	d := at.Compare(h.at)
	if d == 0 {
		if d = Compare(v, h.v); d == 0 {
			d = int(v.kind) - int(h.v.kind)
		}
	}
	if a.op == OpLast {
		d = -d
	}
	if d >= 0 {
		return
	}
	if h.at = at; v.kind == KindText && h.v.kind == KindText && v.text == h.v.text {
		return
	}
	h.v = v.Clone()
}

// Merge adds what o holds, which it leaves as it is; the cells share no memory that changes. Both must be of one Schema.
func (c *Cell) Merge(o *Cell) {
	if len(c.cols) != len(o.cols) || c.spans != o.spans {
		panic("crdt: cells of different schemas merged")
	}
	c.touch(o.Records, o.First, o.Last)
	for i := range c.cols {
		c.cols[i].merge(&o.cols[i])
	}
}

func (a *acc) merge(o *acc) {
	if a.op != o.op {
		panic("crdt: cells of different schemas merged")
	}
	switch a.op {
	case OpRecords, OpCount:
		a.n = addCounts(a.n, o.n)
	case OpSum, OpAvg, OpStddev:
		if a.op == OpSum {
			a.n |= o.n
		} else {
			a.n = addCounts(a.n, o.n)
		}
		a.sum.merge(o.sum)
		if m, ok := o.ext.(*moments); ok {
			a.moments().merge(m)
		}
	case OpMin, OpMax:
		if o.kind != KindNull {
			a.addExtreme(o.extreme())
		}
	case OpDistinct:
		if s, ok := o.ext.(*set); ok {
			a.set().merge(s)
		}
	case OpFirst, OpLast:
		if h, ok := o.ext.(*held); ok {
			a.addPlaced(h.v, h.at)
		}
	}
}

func (m *moments) merge(o *moments) {
	m.floats = m.floats || o.floats
	m.sum.merge(&o.sum)
	m.squares.merge(&o.squares)
	m.intSquares.merge(o.intSquares)
}

// reset empties the cell and keeps memory where it can.
func (c *Cell) reset() {
	c.Records, c.First, c.Last = 0, 0, 0
	for i := range c.cols {
		c.cols[i].reset()
	}
}

func (a *acc) reset() {
	m, _ := a.ext.(*moments)
	*a = acc{op: a.op}
	if m != nil {
		m.floats, m.intSquares = false, uint192{}
		m.sum.limbs, m.squares.limbs = m.sum.limbs[:0], m.squares.limbs[:0]
		a.ext = m
	}
}

// Clone returns a copy that shares no memory that changes.
func (c *Cell) Clone() *Cell {
	d := newCell(len(c.cols), c.spans)
	d.Records, d.First, d.Last = c.Records, c.First, c.Last
	copy(d.cols, c.cols)
	for i := range d.cols {
		switch x := d.cols[i].ext.(type) {
		case *moments:
			m := &moments{floats: x.floats, intSquares: x.intSquares}
			m.sum.copyFrom(&x.sum)
			m.squares.copyFrom(&x.squares)
			d.cols[i].ext = m
		case *held:
			h := *x
			d.cols[i].ext = &h
		case *set:
			d.cols[i].ext = x.clone()
		}
	}
	return d
}

// Size returns about how many bytes of memory the cell takes.
func (c *Cell) Size() int {
	n := 80 + 64*len(c.cols)
	for i := range c.cols {
		switch x := c.cols[i].ext.(type) {
		case *moments:
			n += 192 + 8*cap(x.sum.limbs) + 8*cap(x.squares.limbs)
		case *held:
			n += 80 + len(x.v.text)
		case *set:
			n += x.size()
		}
	}
	return n
}
