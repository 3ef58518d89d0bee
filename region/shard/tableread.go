package shard

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
)

// TableValue returns the value of a key of a table that every region writes at once, for the caller to keep. One that
// nothing was done to is empty. It fails with ErrState where the table holds values of another type.
func (s *Snapshot) TableValue(id TableID, of table.Type, key []byte) (table.Value, error) {
	row := RowName(id, key)
	x := s.tables.besideAt(row)
	var r tableRow
	var err error
	if r.own, r.inOwn, err = s.view.Get(tableName(tableValue, row)); err != nil {
		return nil, err
	}
	if x != nil {
		if r.beside, r.inBeside, err = s.view.Get(tableName(tableBeside, row)); err != nil {
			return nil, err
		}
	}
	return s.decode(of, row, x, r)
}

func (s *Snapshot) decode(of table.Type, row []byte, x *Beside, r tableRow) (table.Value, error) {
	v, ok, err := joinRows(of, s.tables, x, r)
	if err == nil && !ok {
		err = fmt.Errorf("of another type than %s", of)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: value %x: %w", ErrState, row, err)
	}
	return v, nil
}

// TableScan calls each with the keys of a table and their values, in order of the encoded keys, from a key on, until it has
// seen limit of them; next is the key to go on with then, nil after the last. A key that was emptied may be among them.
// What each is given is its own; its error ends the scan and is returned as it is.
func (s *Snapshot) TableScan(id TableID, of table.Type, from []byte, limit int,
	each func(key []byte, v table.Value) error) (next []byte, err error) {
	_, end := prefixRange(id[:])
	rows, err := s.rowsFrom(RowName(id, from), end, limit+1)
	if err != nil {
		return nil, err
	}
	for i, r := range rows {
		key := r.name[len(id):]
		if i == limit {
			return key, nil
		}
		v, err := s.decode(of, r.name, s.tables.besideAt(r.name), r.tableRow)
		if err == nil {
			err = each(key, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// namedRow is what lies under one name.
type namedRow struct {
	name []byte
	tableRow
}

// rowsFrom lists at most limit rows in [from, to), in order, with what both copies hold of them.
func (s *Snapshot) rowsFrom(from, to []byte, limit int) ([]namedRow, error) {
	own, err := s.scanRows(tableValue, from, to, limit)
	if err != nil || s.tables.Beside == nil {
		return own, err
	}
	theirs, err := s.scanRows(tableBeside, from, to, limit)
	if err != nil {
		return nil, err
	}
	var list []namedRow
	for len(list) < limit && len(own)+len(theirs) > 0 {
		c := -1
		if len(own) == 0 {
			c = 1
		} else if len(theirs) > 0 {
			c = bytes.Compare(own[0].name, theirs[0].name)
		}
		var r namedRow
		if c <= 0 {
			r, own = own[0], own[1:]
		}
		if c >= 0 {
			if x := s.tables.besideAt(theirs[0].name); x != nil {
				r.name, r.beside, r.inBeside = theirs[0].name, theirs[0].own, true
			}
			theirs = theirs[1:]
		}
		if r.name != nil {
			list = append(list, r)
		}
	}
	return list, nil
}

func (s *Snapshot) scanRows(kind byte, from, to []byte, limit int) (list []namedRow, err error) {
	prefix := tableName(kind)
	err = s.view.Scan(tableName(kind, from), tableName(kind, to), func(key, value []byte) bool {
		if len(list) < limit {
			list = append(list, namedRow{bytes.Clone(key[len(prefix):]), tableRow{own: bytes.Clone(value), inOwn: true}})
		}
		return len(list) < limit
	})
	return list, err
}

// lastRow is above the names of all rows.
var lastRow = bytes.Repeat([]byte{0xff}, 17)

// NextMerge returns the next command that makes one of an adopted copy and the shard's own, nil where there is none to be
// merged. It looks at about as many bytes of values as it is told.
func (s *Snapshot) NextMerge(size int) (*TableMerge, error) {
	x := s.tables.Beside
	if x == nil || !x.Adopted {
		return nil, nil
	}
	c := &TableMerge{Copy: x.Copy, From: x.Merged, To: x.Merged, End: true}
	const page = 64
	rows, err := s.rowsFrom(x.Merged, lastRow, page)
	if err != nil {
		return nil, err
	}
	for i, r := range rows {
		if size -= len(r.own) + len(r.beside) + len(r.name); size < 0 && i > 0 {
			c.End = false
			return c, nil
		}
		c.Keys, c.To = append(c.Keys, r.name), r.name
	}
	c.End = len(rows) < page
	return c, nil
}

// SessionParts calls each with the encoded Sessions of the snapshot, in parts of about size bytes, each of floor 0. They
// are valid during the call.
func (s *Snapshot) SessionParts(size int, each func(part []byte) error) (err error) {
	part, bytes := new(table.Sessions), 0
	flush := func() error {
		if part.Len() == 0 {
			return nil
		}
		b := part.Append(nil)
		part, bytes = new(table.Sessions), 0
		return each(b)
	}
	var failed error
	from, to := prefixRange(tableName(tableSession))
	err = s.view.Scan(from, to, func(_, value []byte) bool {
		if failed = part.Load(value); failed != nil {
			failed = fmt.Errorf("%w: %w", ErrState, failed)
			return false
		}
		if bytes += len(value); bytes >= size {
			failed = flush()
		}
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	return flush()
}

// TableRows calls each with the values of all tables in parts of about size bytes, as they are stored: the own copy's, and
// joined with one that was adopted. They are valid during the call.
func (s *Snapshot) TableRows(size int, each func(part []TableRow) error) error {
	const page = 64
	for from := []byte{}; from != nil; {
		rows, err := s.rowsFrom(from, lastRow, page)
		if err != nil {
			return err
		}
		from = nil
		if len(rows) == page {
			from = append(bytes.Clone(rows[page-1].name), 0)
		}
		var part []TableRow
		held := 0
		for i, r := range rows {
			value, err := s.whole(r)
			if err != nil {
				return err
			}
			part, held = append(part, TableRow{r.name, value}), held+len(r.name)+len(value)
			if held >= size || i == len(rows)-1 {
				if err := each(part); err != nil {
					return err
				}
				part, held = nil, 0
			}
		}
	}
	return nil
}

// whole returns the encoded value of a row.
func (s *Snapshot) whole(r namedRow) ([]byte, error) {
	x := s.tables.besideAt(r.name)
	if x == nil {
		return r.own, nil
	}
	of, ok := table.TypeOf(r.own)
	if !ok {
		of, _ = table.TypeOf(r.beside)
	}
	v, err := s.decode(of, r.name, x, r.tableRow)
	if err != nil {
		return nil, err
	}
	return v.Append(nil), nil
}

// TableDigest returns a hash of all that the shard holds of tables but for what is this region's own: regions that hold
// the same operations, have raised the same floor and dropped the same tables have the same. It reads everything.
func (s *Snapshot) TableDigest() (crdt.Hash, error) {
	h := xxh3.New()
	sessions := new(table.Sessions)
	sessions.Raise(s.tables.Floor)
	if err := s.SessionParts(chunkOfDigest, func(part []byte) error {
		p, err := table.DecodeSessions(part)
		if err == nil {
			sessions.Join(p)
		}
		return err
	}); err != nil {
		return crdt.Hash{}, err
	}
	_, _ = h.Write(sessions.Append(nil))
	_, _ = h.Write(s.tables.Marks.Append(nil))
	err := s.TableRows(chunkOfDigest, func(part []TableRow) error {
		for _, row := range part {
			of, ok := table.TypeOf(row.Value)
			if !ok {
				return fmt.Errorf("%w: value %x of no type", ErrState, row.Row)
			}
			v, err := table.Decode(of, row.Value)
			if err != nil {
				return fmt.Errorf("%w: value %x: %w", ErrState, row.Row, err)
			}
			if v.Fold(sessions); !v.Empty(sessions.Floor()) {
				_, _ = h.Write(appendBytes(appendBytes(nil, row.Row), v.Append(nil)))
			}
		}
		return nil
	})
	return h.Sum128().Bytes(), err
}

// chunkOfDigest is about how many bytes a digest looks at at once.
const chunkOfDigest = 256 << 10
