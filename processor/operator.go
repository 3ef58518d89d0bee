// Package processor holds the operator: what becomes of one record, decided by the record and the prefix of its own
// source alone, and how what is counted folds into the Advances that shards take. It is pure; processor/bounded and
// processor/worker put logs and shards around it.
package processor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/mutant"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/decode"
	"github.com/watershed-db/watershed/processor/job"
)

// ErrOrder is returned for a record that does not stand after the operator's point: a bug of the log's reader.
var ErrOrder = errors.New("record out of order")

// maxReason bounds the bytes of a Verdict's Reason.
const maxReason = 200

// Verdict is what became of one record.
type Verdict struct {
	Outcome crdt.Outcome
	// Reason says why the record is late, implausible or invalid; empty otherwise. At most 200 bytes.
	Reason string
	// Time is the record's event time in ms, crdt.MinTime if it has none.
	Time int64
}

// Operator judges the records of one source in the order of its log: decode, time, implausible, observe the watermark,
// where, key, arguments, late. It holds no state but its point, so an operator made at any point of a source judges what
// follows as the one that came from the start. It is not safe for concurrent use.
type Operator struct {
	input    *job.Input
	window   keyspace.Window
	lateness int64
	ops      []crdt.Op      // of the input's aggregates
	programs []*job.Program // of their arguments, nil for count()
	source   *crdt.Source
	decoder  decode.Decoder
	time     decode.TimeFormat
	hasher   crdt.Hasher
	point    crdt.Point

	// What the last counted record folds into. The key's bytes are reused for the next one.
	row  *decode.Row
	slot crdt.Slot
	at   int64
	args []crdt.Value
}

// NewOperator returns the operator of a source of j that stands at a point. columns are those of a CSV source (from a
// file's header, or the declared ones); other formats ignore them. It fails with decode.ErrColumns where the job reads a
// column that is not among them.
func NewOperator(j *job.Job, source crdt.Source, columns []decode.Column, at crdt.Point) (*Operator, error) {
	if int(source.Input) >= len(j.Inputs) {
		return nil, fmt.Errorf("source %s of input %d: the job has %d", source, source.Input, len(j.Inputs))
	}
	in := &j.Inputs[source.Input]
	o := &Operator{
		input: in, window: j.Window, lateness: j.Lateness, source: &source, point: at,
		row: decode.NewRow(len(in.Fields)), args: make([]crdt.Value, in.Aggregates),
	}
	for _, a := range j.Aggregates[in.FirstAggregate : in.FirstAggregate+in.Aggregates] {
		o.ops, o.programs = append(o.ops, a.Op), append(o.programs, a.Arg)
	}
	var err error
	if o.time, err = timeFormat(in.Time); err != nil {
		return nil, err
	}
	if o.decoder, err = newDecoder(in, columns); err != nil {
		return nil, fmt.Errorf("topic %s: %w", in.Topic, err)
	}
	return o, nil
}

func newDecoder(in *job.Input, columns []decode.Column) (decode.Decoder, error) {
	if in.Format == job.CSV {
		names := make([]string, len(in.Fields))
		for i, f := range in.Fields {
			names[i] = f.Name
		}
		return decode.NewCSV(columns, names)
	}
	paths := make([][]string, len(in.Fields))
	for i, f := range in.Fields {
		paths[i] = strings.Split(f.Name, ".")
	}
	return decode.NewJSON(paths)
}

var columnTypes = [...]decode.ColumnType{job.Untyped: decode.Untyped, job.Text: decode.TextColumn,
	job.Integer: decode.IntColumn, job.Float: decode.FloatColumn, job.Boolean: decode.BoolColumn}

// DeclaredColumns returns the columns that the job file declares for a CSV input, nil where it declares none.
func DeclaredColumns(in *job.Input) []decode.Column {
	var columns []decode.Column
	for _, c := range in.Columns {
		columns = append(columns, decode.Column{Name: c.Name, Type: columnTypes[c.Type]})
	}
	return columns
}

// Point returns where the operator stands.
func (o *Operator) Point() crdt.Point { return o.point }

// Source returns the operator's source.
func (o *Operator) Source() crdt.Source { return *o.source }

// Judge takes the next record and moves the point over it. It keeps nothing of the record beyond the next call. It fails
// with ErrOrder, and then the point stays.
func (o *Operator) Judge(r *log.Record) (Verdict, error) {
	if r.Offset < o.point.Offset {
		return Verdict{}, fmt.Errorf("%w: %s: offset %d at point %d", ErrOrder, o.source, r.Offset, o.point.Offset)
	}
	before := o.point.Watermark
	v, watermark := o.judge(r, before)
	if len(v.Reason) > maxReason {
		v.Reason = v.Reason[:maxReason]
	}
	o.point.Step(r.Offset, r.Hash(&o.hasher), watermark, v.Outcome)
	return v, nil
}

// judge decides about a record whose source's watermark is before, and returns the watermark after it.
func (o *Operator) judge(r *log.Record, before int64) (v Verdict, watermark int64) {
	v = Verdict{Outcome: crdt.Invalid, Time: crdt.MinTime}
	if r.Oversized {
		v.Reason = "the record is too long"
		return v, before
	}
	if err := o.decoder.Decode(r.Value, o.row); err != nil {
		v.Reason = err.Error()
		return v, before
	}
	et, err := o.eventTime()
	if err != nil {
		v.Reason = err.Error()
		return v, before
	}
	v.Time = et
	if o.implausible(et, r.Timestamp) {
		v.Outcome, v.Reason = crdt.Implausible, "the event time is too far after the log's timestamp"
		if mutant.On("future-moves-watermark") {
			return v, max(before, et-o.input.Bound)
		}
		return v, before
	}
	watermark = max(before, et-o.input.Bound)
	if w := o.input.Where; w != nil {
		pass, err := w.Eval(o.row.Values)
		switch {
		case err != nil:
			v.Reason = o.blame(err)
			return v, watermark
		case pass.Kind() != crdt.KindBool && !pass.IsNull():
			v.Reason = "where is neither true nor false"
			return v, watermark
		case !pass.Bool():
			v.Outcome = crdt.Filtered
			if mutant.On("filtered-first") {
				return v, before
			}
			return v, watermark
		}
	}
	if v.Reason = o.key(); v.Reason != "" {
		return v, watermark
	}
	if v.Reason = o.arguments(); v.Reason != "" {
		return v, watermark
	}
	slot, class, ok := o.window.Place(et, before, o.lateness)
	if !ok {
		v.Outcome, v.Reason = crdt.Late, "all its windows are closed"
		return v, watermark
	}
	o.slot.Time, o.slot.Class, o.at = slot, class, et
	v.Outcome = crdt.Counted
	return v, watermark
}

func (o *Operator) eventTime() (int64, error) {
	f := o.input.Time.Field
	if o.row.States[f] == decode.Absent {
		return 0, errNoTime
	}
	return o.time.Parse(o.row.Values[f])
}

var errNoTime = errors.New("the time field is absent")

// implausible reports whether an event time lies more than max_future after the timestamp of the record's log, where
// both are known.
func (o *Operator) implausible(et, timestamp int64) bool {
	m := o.input.MaxFuture
	return m != job.NoMaxFuture && timestamp != log.NoTimestamp && et > timestamp && uint64(et-timestamp) > uint64(m)
}

// key encodes the record's key into the slot. It returns why the record has none, or nothing.
func (o *Operator) key() (reason string) {
	for _, f := range o.input.KeyFields {
		if o.row.States[f] == decode.Absent {
			return "a field of the key is absent"
		}
	}
	key := o.slot.Key[:0]
	for _, p := range o.input.Key {
		v, err := p.Eval(o.row.Values)
		if err != nil {
			return o.blame(err)
		}
		key = v.AppendKey(key)
	}
	o.slot.Key = key
	if len(key) > keyspace.MaxUserKey {
		return fmt.Sprintf("the key takes more than %d bytes", keyspace.MaxUserKey)
	}
	return ""
}

// arguments evaluates what the input's aggregates take. It returns why the record is invalid, or nothing.
func (o *Operator) arguments() (reason string) {
	for i, op := range o.ops {
		p := o.programs[i]
		if p == nil {
			continue // count(), whose argument stays null
		}
		v, err := p.Eval(o.row.Values)
		if err == nil {
			v, err = crdt.Check(op, v)
		}
		if err != nil {
			return o.blame(err)
		}
		o.args[i] = v
	}
	return ""
}

// blame returns why an expression failed: a field that holds no value explains more than what became of it.
func (o *Operator) blame(err error) string {
	for i, s := range o.row.States {
		if s == decode.Unusable {
			return fmt.Sprintf("%v (%s holds no value)", err, o.input.Fields[i].Name)
		}
	}
	return err.Error()
}

// Fold adds the last record that was judged, which must have been counted, to the cell of its slot.
func (o *Operator) Fold(c *crdt.Cell) {
	c.Touch(o.at)
	at := crdt.Order{Time: o.at, Source: o.source, Offset: o.point.Offset - 1}
	for i, v := range o.args {
		c.Add(o.input.FirstAggregate+i, v, at)
	}
}

// Slot returns the slot of the last record that was judged, which must have been counted. Its key is valid until the
// next.
func (o *Operator) Slot() crdt.Slot { return o.slot }

// timeFormat returns how the input's event times are written.
func timeFormat(t job.Time) (decode.TimeFormat, error) {
	switch {
	case t.Unit != "":
		return decode.UnitTime(t.Unit)
	case t.Layout != "":
		return decode.LayoutTime(t.Layout, "UTC")
	}
	return decode.TimeFormat{}, nil
}
