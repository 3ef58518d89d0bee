package shard

import (
	"bytes"

	"github.com/watershed-db/watershed/crdt/table"
)

func (*TableWrite) kind() Kind   { return KindTableWrite }
func (*TableForward) kind() Kind { return KindTableForward }
func (*TableClose) kind() Kind   { return KindTableClose }
func (*TableBegin) kind() Kind   { return KindTableBegin }
func (*TableFloor) kind() Kind   { return KindTableFloor }
func (*TableStage) kind() Kind   { return KindTableStage }
func (*TableChunk) kind() Kind   { return KindTableChunk }
func (*TableAdopt) kind() Kind   { return KindTableAdopt }
func (*TableMerge) kind() Kind   { return KindTableMerge }
func (*TableAbandon) kind() Kind { return KindTableAbandon }

func (o *TableOp) append(b []byte) []byte {
	b = appendBytes(append(append(b, o.Table[:]...), byte(o.Type)), o.Key)
	return appendBytes(b, o.Op.Append(nil))
}

func (o *TableOp) read(r *reader) {
	o.Table, o.Type, o.Key = r.hash16(), r.tableType(), r.rowKey()
	b := r.bytes(maxOp)
	if r.err == nil {
		var err error
		o.Op, err = table.DecodeOp(b)
		r.crdt(err)
	}
}

func (c *TableWrite) appendBody(b []byte) []byte {
	b = (&TableOp{c.Table, c.Type, c.Key, c.Op}).append(appendUvarint(b, uint64(c.Actor)))
	l := &c.Limits
	b = appendUvarint(appendUvarint(b, uint64(c.Now)), uint64(l.MaxAhead))
	return appendUvarint(appendUvarint(b, uint64(l.Open)), uint64(l.Gaps))
}

func (c *TableWrite) readBody(r *reader) {
	c.Actor = r.actor()
	var o TableOp
	o.read(r)
	c.Table, c.Type, c.Key, c.Op = o.Table, o.Type, o.Key, o.Op
	c.Now, c.Limits.MaxAhead = r.millis(), r.millis()
	c.Limits.Open, c.Limits.Gaps = int(r.uvarint(maxOpen)), int(r.uvarint(maxOpen))
}

func (c *TableForward) appendBody(b []byte) []byte {
	b = appendTableMark(appendUvarint(b, uint64(c.Actor)), c.Mark)
	if b = appendBool(b, c.Op != nil); c.Op != nil {
		b = c.Op.append(b)
	}
	return b
}

func (c *TableForward) readBody(r *reader) {
	c.Actor, c.Mark = r.actor(), r.tableMark()
	if r.bool() {
		c.Op = &TableOp{}
		c.Op.read(r)
	}
}

func (c *TableClose) appendBody(b []byte) []byte {
	return appendUvarint(appendUvarint(b, uint64(c.Actor)), uint64(c.Born))
}

func (c *TableClose) readBody(r *reader) { c.Actor, c.Born = r.actor(), r.millis() }

func (c *TableBegin) appendBody(b []byte) []byte {
	b = appendUvarint(appendUvarint(b, uint64(c.Actor)), uint64(c.Floor))
	return appendBytes(b, c.Need.Append(nil))
}

func (c *TableBegin) readBody(r *reader) { c.Actor, c.Floor, c.Need = r.actor(), r.millis(), r.marks() }

func (c *TableFloor) appendBody(b []byte) []byte {
	return appendBytes(appendUvarint(b, uint64(c.Floor)), c.Need.Append(nil))
}

func (c *TableFloor) readBody(r *reader) { c.Floor, c.Need = r.millis(), r.marks() }

func (c *TableStage) appendBody(b []byte) []byte { return b }

func (c *TableStage) readBody(*reader) {}

func (c *TableChunk) appendBody(b []byte) []byte {
	b = appendUvarint(appendUvarint(b, uint64(c.Copy)), uint64(c.Number))
	b = appendUvarint(b, uint64(len(c.Rows)))
	for _, row := range c.Rows {
		b = appendBytes(appendBytes(b, row.Row), row.Value)
	}
	if b = appendBool(b, c.Sessions != nil); c.Sessions != nil {
		b = append(b, c.Sessions...)
	}
	return b
}

func (c *TableChunk) readBody(r *reader) {
	c.Copy, c.Number = r.uint32(), r.uint32()
	for i, n := 0, r.count(maxChunkRows); i < n && r.err == nil; i++ {
		row := TableRow{r.rowName(), r.bytes(MaxTableJoined)}
		if i > 0 && bytes.Compare(c.Rows[i-1].Row, row.Row) >= 0 {
			r.fail("rows out of order")
		}
		if of, ok := table.TypeOf(row.Value); !ok && r.err == nil {
			r.fail("a value of no type")
		} else if r.err == nil {
			_, err := table.Decode(of, row.Value)
			r.crdt(err)
		}
		c.Rows = append(c.Rows, row)
	}
	if r.bool() {
		c.Sessions = r.rest()
		_, err := table.DecodeSessions(c.Sessions)
		r.crdt(err)
	}
}

// rowName takes the name of a row.
func (r *reader) rowName() []byte {
	b := r.bytes(maxRowName)
	switch {
	case r.err != nil:
	case len(b) < 16:
		r.fail("the name of a row has %d bytes", len(b))
	default:
		if err := checkRowKey(b[16:]); err != nil {
			r.fail("%v", err)
		}
	}
	return b
}

func (c *TableAdopt) appendBody(b []byte) []byte {
	b = appendUvarint(appendUvarint(b, uint64(c.Copy)), uint64(c.Chunks))
	return appendBytes(appendUvarint(b, uint64(c.Floor)), c.Marks.Append(nil))
}

func (c *TableAdopt) readBody(r *reader) {
	c.Copy, c.Chunks, c.Floor, c.Marks = r.uint32(), uint32(r.uvarint(maxParts)), r.millis(), r.marks()
}

func (c *TableMerge) appendBody(b []byte) []byte {
	b = appendBytes(appendBytes(appendUvarint(b, uint64(c.Copy)), c.From), c.To)
	b = appendUvarint(appendBool(b, c.End), uint64(len(c.Keys)))
	for _, row := range c.Keys {
		b = appendBytes(b, row)
	}
	return b
}

func (c *TableMerge) readBody(r *reader) {
	c.Copy, c.From, c.To, c.End = r.uint32(), r.bytes(maxRowName+1), r.bytes(maxRowName), r.bool()
	last := c.From
	for i, n := 0, r.count(maxChunkRows); i < n && r.err == nil; i++ {
		row := r.rowName()
		if c := bytes.Compare(last, row); c > 0 || i > 0 && c == 0 {
			r.fail("keys out of order")
		}
		c.Keys, last = append(c.Keys, row), row
	}
	if bytes.Compare(last, c.To) > 0 && !(c.End && len(c.Keys) == 0) {
		r.fail("keys beyond the last")
	}
}

func (c *TableAbandon) appendBody(b []byte) []byte { return appendUvarint(b, uint64(c.Copy)) }

func (c *TableAbandon) readBody(r *reader) { c.Copy = r.uint32() }

func blankTable(k Kind) Command {
	switch k {
	case KindTableWrite:
		return &TableWrite{}
	case KindTableForward:
		return &TableForward{}
	case KindTableClose:
		return &TableClose{}
	case KindTableBegin:
		return &TableBegin{}
	case KindTableFloor:
		return &TableFloor{}
	case KindTableStage:
		return &TableStage{}
	case KindTableChunk:
		return &TableChunk{}
	case KindTableAdopt:
		return &TableAdopt{}
	case KindTableMerge:
		return &TableMerge{}
	case KindTableAbandon:
		return &TableAbandon{}
	}
	return blankNext(k)
}
