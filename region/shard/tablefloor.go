package shard

import (
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// TableStanding is what another region has told of its copy of the shard's tables, at one moment.
type TableStanding struct {
	Actor table.Actor // the number that the region has by now
	Marks table.Marks // of all actors; nil where it has told nothing yet
	Floor int64
}

// BeginAs returns the command by which a region begins to write under a number, nil where it must not yet. others are all
// other members: each has told of its copy, so it knows the number and raises no floor without hearing of it; and what
// they told is held here, so that the floor may be what the highest of them is.
func (t *Tables) BeginAs(self table.Actor, others []TableStanding) *TableBegin {
	if t.Begun && t.Actor == self {
		return nil
	}
	c := &TableBegin{Actor: self, Floor: t.Floor, Need: table.Marks{}}
	for _, o := range others {
		if o.Marks == nil || !t.Marks.Covers(o.Marks) {
			return nil
		}
		c.Floor = max(c.Floor, o.Floor)
		c.Need.Join(o.Marks)
	}
	return c
}

// NextFloor returns the command that raises the floor, nil where it can't rise. It is the least that the members' own marks
// have closed; and what is needed for it is all that they told they hold, of whatever actor: what an actor that is gone has
// left, some member held when it told.
func (t *Tables) NextFloor(others []TableStanding) *TableFloor {
	if !t.Begun {
		return nil
	}
	c := &TableFloor{Floor: t.Marks[t.Actor].Closed, Need: table.Marks{}}
	c.Need.Join(t.Marks)
	for _, o := range others {
		own, begun := o.Marks[o.Actor]
		if !begun && !mutant.On("table-floor-of-those-heard") {
			return nil
		}
		if begun {
			c.Floor = min(c.Floor, own.Closed)
		}
		c.Need.Join(o.Marks)
	}
	if c.Floor <= t.Floor || !t.Marks.Covers(c.Need) {
		return nil
	}
	return c
}
