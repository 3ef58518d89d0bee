package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
)

// outcome is what becomes of a record; every record has exactly one.
type outcome int

const (
	counted outcome = iota
	filtered
	late
	implausible
	invalid
	outcomes
)

// tally is what one partition's records amount to, in the order in which they were written. It shares no code with the
// system that it is to check.
type tally struct {
	watermark int64 // greatest plausible event time less the bound
	counts    [outcomes]uint64
	rows      map[rowID]*totals
}

// rowID is a window, by its end, and a cell.
type rowID struct {
	end  int64
	cell string
}

// totals are those of one row.
type totals struct {
	records, requests uint64
	fares             big.Float // exact
	drivers           map[string]struct{}
}

func newTally() *tally {
	return &tally{watermark: math.MinInt64, rows: map[rowID]*totals{}}
}

// take counts a record that reaches the log at the time logged.
func (t *tally) take(e event, logged int64) outcome {
	o := t.judge(e, logged)
	t.counts[o]++
	if o == counted {
		id := rowID{windowEnd(e.time), e.cell}
		if t.rows[id] == nil {
			t.rows[id] = newTotals()
		}
		t.rows[id].add(e)
	}
	return o
}

// judge decides in the order that the job file's documentation gives.
func (t *tally) judge(e event, logged int64) outcome {
	if e.undecodable {
		return invalid
	}
	if e.time > logged+maxFuture {
		return implausible
	}
	before := t.watermark
	t.watermark = max(before, e.time-bound)
	switch {
	case e.filtered:
		return filtered
	case e.invalid:
		return invalid
	case windowEnd(e.time)+lateness <= before:
		return late
	}
	return counted
}

func windowEnd(t int64) int64 { return t - t%windowSize + windowSize }

func newTotals() *totals {
	r := &totals{drivers: map[string]struct{}{}}
	r.fares.SetPrec(1000) // far more than the sums of any demo need
	return r
}

func (r *totals) add(e event) {
	r.records++
	if !e.request {
		r.drivers[e.driver] = struct{}{}
		return
	}
	r.requests++
	r.fares.Add(&r.fares, big.NewFloat(e.fare))
}

// merge adds another partition's tally to this one, whose watermark means nothing any more.
func (t *tally) merge(o *tally) {
	for i, n := range o.counts {
		t.counts[i] += n
	}
	for id, r := range o.rows {
		to := t.rows[id]
		if to == nil {
			to = newTotals()
			t.rows[id] = to
		}
		to.records += r.records
		to.requests += r.requests
		to.fares.Add(&to.fares, &r.fares)
		maps.Copy(to.drivers, r.drivers)
	}
}

func (t *tally) events() (n uint64) {
	for _, c := range t.counts {
		n += c
	}
	return n
}

// expect returns every row that a query of all windows is to print, by identity, once all windows have closed.
func (t *tally) expect() map[rowID]string {
	out := make(map[rowID]string, len(t.rows))
	for id, r := range t.rows {
		if r.requests > 0 { // having
			out[id] = r.json(id)
		}
	}
	return out
}

func (r *totals) json(id rowID) string {
	fares, _ := r.fares.Float64()
	surge := float64(r.requests) / float64(max(len(r.drivers), 1))
	return fmt.Sprintf(`{"window_start":%q,"window_end":%q,"key":{"cell":%q},"requests":%d,"fares":%s,"drivers":%d,"surge":%s,`+
		`"revision":%d,"complete":true}`, instant(id.end-windowSize), instant(id.end), id.cell, r.requests, number(fares),
		len(r.drivers), number(surge), r.records)
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func number(f float64) string {
	text, err := json.Marshal(f)
	if err != nil {
		panic(fmt.Sprintf("demo: %v is no number that JSON has", f)) // sums of fares are finite
	}
	return string(text)
}

// windows counts the windows of rows.
func windows(rows map[rowID]string) int {
	ends := map[int64]struct{}{}
	for id := range rows {
		ends[id.end] = struct{}{}
	}
	return len(ends)
}

// difference says how two sets of rows differ.
type difference struct {
	missing, extra, other int
	first                 []string // a few of them, in words
}

func (d difference) none() bool { return d.missing+d.extra+d.other == 0 }

// String says it in a few words.
func (d difference) String() string {
	if d.none() {
		return "none differ"
	}
	return fmt.Sprintf("%d missing, %d too many, %d different: %s", d.missing, d.extra, d.other, strings.Join(d.first, "; "))
}

// maxShown bounds how many rows that differ are shown.
const maxShown = 3

func compare(want, got map[rowID]string) difference {
	var d difference
	show := func(format string, args ...any) {
		if len(d.first) < maxShown {
			d.first = append(d.first, fmt.Sprintf(format, args...))
		}
	}
	for _, id := range sortedIDs(want) {
		switch g, ok := got[id]; {
		case !ok:
			d.missing++
			show("missing %s", want[id])
		case g != want[id]:
			d.other++
			show("%s, want %s", g, want[id])
		}
	}
	for _, id := range sortedIDs(got) {
		if _, ok := want[id]; !ok {
			d.extra++
			show("too many %s", got[id])
		}
	}
	return d
}

func sortedIDs(rows map[rowID]string) []rowID {
	return slices.SortedFunc(maps.Keys(rows), func(a, b rowID) int {
		if a.end != b.end {
			return int(min(max(a.end-b.end, -1), 1))
		}
		return strings.Compare(a.cell, b.cell)
	})
}

// parseRow takes a printed row's identity from it.
func parseRow(line []byte) (rowID, error) {
	var row struct {
		End time.Time `json:"window_end"`
		Key struct {
			Cell string `json:"cell"`
		} `json:"key"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(line), &row); err != nil {
		return rowID{}, fmt.Errorf("row %s: %w", line, err)
	}
	return rowID{row.End.UnixMilli(), row.Key.Cell}, nil
}
