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
	a, b := o.Source, p.Source
	return cmp.Or(strings.Compare(a.Topic, b.Topic), strings.Compare(string(a.Region), string(b.Region)),
		cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Incarnation, b.Incarnation),
		cmp.Compare(o.Offset, p.Offset), cmp.Compare(a.Input, b.Input))
}
