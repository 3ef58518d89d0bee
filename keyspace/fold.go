package keyspace

import (
	"fmt"
	"maps"
	"strings"

	"github.com/watershed-db/watershed/crdt"
)

// foldTables returns one frozen table that stands for two neighbouring ones, older before newer. It shares what only
// one of them touched, and changes neither. The newer one's spans all lie above the older one's.
func foldTables(older, newer *table) (*table, error) {
	t := &table{
		first: older.first, last: newer.last, chain: newer.chain,
		copies:  make(map[Copy]*copyTable, len(older.copies)),
		dropped: maps.Clone(older.dropped),
		meta:    older.meta.clone(),
		bytes:   older.bytes + newer.bytes,
	}
	for c, ct := range older.copies {
		if _, gone := newer.dropped[c.Generation]; !gone {
			t.copies[c] = ct
		}
	}
	maps.Copy(t.dropped, newer.dropped)
	for c, ct := range newer.copies {
		folded, err := foldCopies(t.copies[c], ct)
		if err != nil {
			return nil, fmt.Errorf("fold %s: %w", c, err)
		}
		t.copies[c] = folded
	}
	t.meta.fold(&newer.meta)
	return t, nil
}

// foldCopies is foldTables for one copy; older may be nil.
func foldCopies(older, newer *copyTable) (*copyTable, error) {
	if older == nil {
		return newer, nil
	}
	c := &copyTable{isCut: older.isCut, cut: older.cut, times: make(map[int64]*timeTable, len(older.times))}
	for time, tt := range older.times {
		if !newer.isCut || time > newer.cut {
			c.times[time] = tt
		}
	}
	if newer.isCut && (!c.isCut || c.cut < newer.cut) {
		c.isCut, c.cut = true, newer.cut
	}
	for time, tt := range newer.times {
		both := tt
		if old := c.times[time]; old != nil {
			var err error
			if both, err = foldTimes(old, tt); err != nil {
				return nil, err
			}
		}
		c.times[time] = both
	}
	return c, nil
}

// foldTimes is foldTables for one time of one copy. Its result is in order and has no index.
func foldTimes(older, newer *timeTable) (*timeTable, error) {
	a, b := older.sorted(), newer.sorted()
	t := &timeTable{entries: make([]entry, 0, len(a)+len(b)), bytes: older.bytes + newer.bytes}
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = strings.Compare(older.entries[a[0]].tail, newer.entries[b[0]].tail)
		}
		switch {
		case order < 0:
			t.put(older, a[0])
		case order > 0:
			t.put(newer, b[0])
		default:
			t.put(older, a[0])
			if err := t.entries[len(t.entries)-1].add(newer.operand(b[0])); err != nil {
				return nil, err
			}
		}
		if order <= 0 {
			a = a[1:]
		}
		if order >= 0 {
			b = b[1:]
		}
	}
	return t, nil
}

// put appends entry i of another frozen table.
func (tt *timeTable) put(from *timeTable, i int32) {
	o := from.operand(i)
	tt.entries = append(tt.entries, entry{tail: from.entries[i].tail, lo: o.lo, hi: o.hi, enc: o.cell})
}

// add merges the sum of later commands.
func (e *entry) add(o operand) error {
	cell, err := crdt.DecodeCell(e.enc)
	if err != nil {
		return err
	}
	e.hi, e.enc, e.cell = o.hi, nil, cell
	return cell.MergeEncoded(o.cell)
}
