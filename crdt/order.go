package crdt

import (
	"cmp"
	"strings"
)

// Order is the place of a record among all records of a job: by event time, then topic, region, partition,
// incarnation, offset and input.
type Order struct {
	Time   int64
	Source *Source // shared and immutable; never nil in an Order handed to a Cell
	Offset int64
}

// Compare returns -1, 0 or 1 as the record at o stands before, at or after that at p.
func (o Order) Compare(p Order) int {
	if c := cmp.Compare(o.Time, p.Time); c != 0 {
		return c
	}
	if o.Source == p.Source {
		return cmp.Compare(o.Offset, p.Offset)
	}
	return o.compareRest(p)
}

// compareRest compares by all but the time. Each comparison stands alone, for this runs for every record of last(x).
func (o Order) compareRest(p Order) int {
	a, b := o.Source, p.Source
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	if c := strings.Compare(string(a.Region), string(b.Region)); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Partition, b.Partition); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Incarnation, b.Incarnation); c != 0 {
		return c
	}
	if c := cmp.Compare(o.Offset, p.Offset); c != 0 {
		return c
	}
	return cmp.Compare(a.Input, b.Input)
}
