package keyspace

import (
	"fmt"
	"maps"

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

// foldTimes is foldTables for one time of one copy.
func foldTimes(older, newer *timeTable) (*timeTable, error) {
	t := newTimeTable(len(older.entries) + len(newer.entries))
	t.bytes = older.bytes + newer.bytes
	for i := range older.entries {
		t.put(older.entries[i].tail, older.operand(int32(i)))
	}
	for i := range newer.entries {
		tail, o := newer.entries[i].tail, newer.operand(int32(i))
		at, ok := t.index[tail]
		if !ok {
			t.put(tail, o)
			continue
		}
		e := &t.entries[at]
		cell, err := crdt.DecodeCell(e.enc)
		if err != nil {
			return nil, err
		}
		if err := cell.MergeEncoded(o.cell); err != nil {
			return nil, err
		}
		e.hi, e.enc, e.cell = o.hi, nil, cell
	}
	return t, nil
}

func (tt *timeTable) put(tail string, o operand) {
	tt.index[tail] = int32(len(tt.entries))
	tt.entries = append(tt.entries, entry{tail: tail, lo: o.lo, hi: o.hi, enc: o.cell})
}
