// Package oracle computes what Watershed must print for a job and its logs, slowly and obviously.
//
// It is the second opinion of the end-to-end tests, so it shares no code with the product: it imports the standard
// library and a YAML reader and nothing else. Where the product streams, it sorts; where the product accumulates, it
// keeps every value and adds them up as rationals; where the product interprets an expression, it is handed a Go
// function with the same meaning.
package oracle

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sort"
)

// Record is one record of a log. A caller must not change Value afterwards.
type Record struct {
	// Offset is its place in its partition; records of a partition stand in ascending order, gaps are allowed.
	Offset int64
	// Value is the record as it was written: a JSON text or a CSV line, without a line end.
	Value []byte
	// LogTime is the log's timestamp in milliseconds since the epoch; NoLogTime switches the check of max_future off.
	LogTime int64
}

// NoLogTime is the Record.LogTime of a record whose log timestamp is not known.
const NoLogTime = math.MinInt64

// Partition is one partition of a topic in its origin region.
type Partition struct {
	Region, Topic string
	Number        int
	// Columns are the names of a CSV file's header; without them the job's declared columns hold.
	Columns []string
	Records []Record
}

// Source names what has a watermark of its own: one partition as one input of a job.
type Source struct {
	// Input is the position in the job's list of sources, from 0.
	Input         int
	Region, Topic string
	Partition     int
}

// Expr is an expression of a job file written in Go. It asks env for the value of a field, an aggregate or a derived
// member; one that is not there comes as an Absent value. An error means that the expression failed to evaluate.
type Expr func(env func(name string) Value) (Value, error)

// Stats counts what became of the events, as `watershed run --stats` writes it, but for the seconds.
type Stats struct {
	Events      int64 `json:"events"`
	Filtered    int64 `json:"filtered"`
	Late        int64 `json:"late"`
	Implausible int64 `json:"implausible"`
	Invalid     int64 `json:"invalid"`
	Rows        int64 `json:"rows"`
}

// Row is one printed row.
type Row struct {
	// Start and End bound the window in milliseconds since the epoch; they mean nothing where Global is set.
	Start, End int64
	Global     bool
	// Line is the row's JSON object without a line end.
	Line []byte
	// Records is the number of records merged into the row, counted once per source of the job.
	Records int64
}

// Aside is a record that is in no row for a reason worth a side output.
type Aside struct {
	Source Source
	Offset int64
	// Reason is "late", "implausible" or "invalid".
	Reason string
}

// Result is everything a job's output says.
type Result struct {
	// Rows are those that `having` lets through, in the order in which they are printed.
	Rows  []Row
	Stats Stats
	// Aside lists records source by source, in offset order.
	Aside []Aside
}

// Bytes returns the rows as `watershed run` prints them: one line each.
func (r Result) Bytes() []byte {
	var out bytes.Buffer
	for _, row := range r.Rows {
		out.Write(row.Line)
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// ErrNoExpr says that a job file holds an expression for which no Go function was given.
var ErrNoExpr = errors.New("no function for expression")

// Oracle answers for one job. It is safe for concurrent use: it holds nothing that changes.
type Oracle struct {
	job *job
}

// New reads a job file, loosely: it takes what it needs and does not judge the rest. Every expression that is not a
// plain field must be a key of exprs, spelled exactly as in the file; else the error is ErrNoExpr.
func New(file []byte, exprs map[string]Expr) (*Oracle, error) {
	j, err := parseJob(file, exprs)
	if err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	return &Oracle{job: j}, nil
}

// Run computes the rows and counts of whole logs, in any order of partitions.
func (o *Oracle) Run(logs []Partition) (Result, error) {
	return o.RunTo(logs, nil)
}

// RunTo computes what the prefixes of logs give: of each source the records whose offset is below the one that points
// gives for it; a source that is not in points has given none. With nil points it is Run.
func (o *Oracle) RunTo(logs []Partition, points map[Source]int64) (Result, error) {
	var res Result
	var events []*event
	for input := range o.job.sources {
		for _, part := range logs {
			if part.Topic != o.job.sources[input].topic {
				continue
			}
			src := Source{Input: input, Region: part.Region, Topic: part.Topic, Partition: part.Number}
			counted, err := o.read(src, part, points, &res)
			if err != nil {
				return Result{}, err
			}
			events = append(events, counted...)
		}
	}
	for _, b := range o.job.buckets(events) {
		row, shown, err := o.job.row(b)
		if err != nil {
			return Result{}, err
		}
		if shown {
			res.Rows = append(res.Rows, row)
		}
	}
	res.Stats.Rows = int64(len(res.Rows))
	return res, nil
}

// event is a record that counts for at least one window.
type event struct {
	time   int64
	source Source
	offset int64
	key    []Value
	keyID  string // equal for equal keys
	args   []Value
	spans  []span // the windows it counts for; for a session, its own [t, t+gap)
}

// before is the one order of records, that first and last go by.
func (e *event) before(f *event) bool {
	a, b := e.source, f.source
	switch {
	case e.time != f.time:
		return e.time < f.time
	case a.Topic != b.Topic:
		return a.Topic < b.Topic
	case a.Region != b.Region:
		return a.Region < b.Region
	case a.Partition != b.Partition:
		return a.Partition < b.Partition
	case e.offset != f.offset:
		return e.offset < f.offset
	}
	return a.Input < b.Input
}

// read judges the records of one source in the order of its log.
func (o *Oracle) read(src Source, part Partition, points map[Source]int64, res *Result) ([]*event, error) {
	in := &o.job.sources[src.Input]
	greatest, seen := int64(0), false
	var counted []*event
	for i, rec := range part.Records {
		if i > 0 && rec.Offset <= part.Records[i-1].Offset {
			return nil, fmt.Errorf("%s/%d: offset %d after %d", part.Topic, part.Number, rec.Offset,
				part.Records[i-1].Offset)
		}
		if points != nil && rec.Offset >= points[src] {
			break
		}
		res.Stats.Events++
		aside := func(reason string, n *int64) {
			*n++
			res.Aside = append(res.Aside, Aside{Source: src, Offset: rec.Offset, Reason: reason})
		}
		env, err := decode(in, part.Columns, rec.Value)
		if err != nil {
			aside("invalid", &res.Stats.Invalid)
			continue
		}
		at, ok := in.when(env(in.timeField))
		if !ok {
			aside("invalid", &res.Stats.Invalid)
			continue
		}
		if in.futureKnown && rec.LogTime != NoLogTime && at > rec.LogTime+in.maxFuture {
			aside("implausible", &res.Stats.Implausible)
			continue
		}
		hadSeen, watermark := seen, greatest-in.outOfOrderness
		if !seen || at > greatest {
			greatest, seen = at, true
		}
		e, verdict := in.judge(env)
		if verdict == "filtered" {
			res.Stats.Filtered++
			continue
		}
		if verdict == "invalid" {
			aside("invalid", &res.Stats.Invalid)
			continue
		}
		for _, w := range o.job.window.spans(at) {
			if o.job.window.kind == global || !hadSeen || w.end+o.job.lateness > watermark {
				e.spans = append(e.spans, w)
			}
		}
		if len(e.spans) == 0 {
			aside("late", &res.Stats.Late)
			continue
		}
		e.time, e.source, e.offset = at, src, rec.Offset
		counted = append(counted, e)
	}
	return counted, nil
}

// judge takes a record through where, key and arguments; the verdict is "", "filtered" or "invalid".
func (in *source) judge(env func(string) Value) (*event, string) {
	if in.where != nil {
		v, err := in.where(env)
		switch {
		case err != nil:
			return nil, "invalid"
		case v.Kind == Null || v.Kind == Absent || v.Kind == Bool && !v.Bool:
			return nil, "filtered"
		case v.Kind != Bool:
			return nil, "invalid"
		}
	}
	e := &event{}
	for _, k := range in.key {
		v, err := k.expr(env)
		if err != nil || v.Kind == Absent || v.Kind == Other || !v.usable() {
			return nil, "invalid"
		}
		e.key = append(e.key, v)
		e.keyID += v.identity() + "\x00"
	}
	for _, a := range in.aggregates {
		if a.arg == nil {
			e.args = append(e.args, Value{Kind: Null})
			continue
		}
		v, err := a.arg(env)
		if err != nil {
			return nil, "invalid"
		}
		if v, err = a.accept(v); err != nil {
			return nil, "invalid"
		}
		e.args = append(e.args, v)
	}
	return e, ""
}

// bucket is what one row is made of.
type bucket struct {
	span   span
	key    []Value
	events []*event
}

// buckets puts every event into its windows, and orders the windows as rows are ordered.
func (j *job) buckets(events []*event) []*bucket {
	var all []*bucket
	if j.window.kind == session {
		all = j.sessions(events)
	} else {
		type id struct {
			span span
			key  string
		}
		byID := map[id]*bucket{}
		for _, e := range events {
			for _, w := range e.spans {
				b := byID[id{w, e.keyID}]
				if b == nil {
					b = &bucket{span: w, key: e.key}
					byID[id{w, e.keyID}] = b
					all = append(all, b)
				}
				b.events = append(b.events, e)
			}
		}
	}
	sort.Slice(all, func(a, b int) bool {
		x, y := all[a], all[b]
		if x.span.end != y.span.end {
			return x.span.end < y.span.end
		}
		if x.span.start != y.span.start {
			return x.span.start < y.span.start
		}
		for i := range x.key {
			if c := x.key[i].compare(y.key[i]); c != 0 {
				return c < 0
			}
		}
		return false
	})
	for _, b := range all {
		sort.Slice(b.events, func(x, y int) bool { return b.events[x].before(b.events[y]) })
	}
	return all
}

// sessions sorts the events of every key by time and cuts where two neighbours are a gap or more apart.
func (j *job) sessions(events []*event) []*bucket {
	byKey := map[string][]*event{}
	for _, e := range events {
		byKey[e.keyID] = append(byKey[e.keyID], e)
	}
	var all []*bucket
	for _, of := range byKey {
		sort.Slice(of, func(x, y int) bool { return of[x].before(of[y]) })
		var b *bucket
		for _, e := range of {
			if b == nil || e.time >= b.span.end {
				b = &bucket{span: span{start: e.time}, key: e.key}
				all = append(all, b)
			}
			b.span.end = e.time + j.window.size
			b.events = append(b.events, e)
		}
	}
	return all
}
