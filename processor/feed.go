package processor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/keyspace/mutant"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/decode"
	"github.com/watershed-db/watershed/processor/job"
)

var (
	// ErrMismatch stops a source: a shard's point lies on another history of it than the log that was read.
	ErrMismatch = errors.New("the log does not fit the shard's point")
	// ErrNoSource is returned for a source that the feed does not hold.
	ErrNoSource = errors.New("source is not fed")
)

// Feed turns the records of some sources of one group into Advances for all shards. Sources are read one by one from
// the least of the shards' points on; what a shard has already is not folded for it again. It is not safe for
// concurrent use, and pure: what it returns is a function of the calls made.
//
// Of each source and shard it keeps two points. Everything below `from` was sent, and the next Advance begins there.
// Everything below `taken`, or below the source's own point if that is higher, was sent or lies in the shard's batch.
type Feed struct {
	job        *job.Job
	schema     *crdt.Schema
	generation crdt.GenerationID
	group      crdt.RegionID
	batches    []*Batch // by shard
	parked     []bool   // by shard: left behind, nothing is folded for it
	sources    []*fed   // in CompareSources order
	bytes      int      // of all batches, as of the last record
}

type fed struct {
	source crdt.Source
	op     *Operator
	lanes  []lane // by shard
	high   int64  // the greatest offset of a `taken`: from there on no lane needs a look
}

type lane struct{ from, taken crdt.Point }

// to returns the point up to which a shard's batch holds the source, which stands at cur.
func (l *lane) to(cur crdt.Point) crdt.Point {
	if l.taken.Offset > cur.Offset {
		return l.taken
	}
	return cur
}

// Rewind says that a source is to be read again from a lower point.
type Rewind struct {
	Source crdt.Source
	To     crdt.Point
}

// NewFeed returns a feed without sources, of a job's generation and group, for shards of them.
func NewFeed(j *job.Job, generation crdt.GenerationID, group crdt.RegionID, shards int) *Feed {
	f := &Feed{job: j, schema: j.Schema(), generation: generation, group: group}
	for range shards {
		f.batches = append(f.batches, NewBatch(f.schema))
	}
	f.parked = make([]bool, shards)
	return f
}

// Add takes up a source at the points where the shards stand (one each, by shard), and returns the least of them: the
// log is to be read from there. columns are as for NewOperator.
func (f *Feed) Add(source crdt.Source, columns []decode.Column, points []crdt.Point) (crdt.Point, error) {
	if source.Region != f.group {
		return crdt.Point{}, fmt.Errorf("source %s in a feed of group %s", source, f.group)
	}
	if len(points) != len(f.batches) {
		return crdt.Point{}, fmt.Errorf("source %s: %d points for %d shards", source, len(points), len(f.batches))
	}
	i, found := f.find(source)
	if found {
		return crdt.Point{}, fmt.Errorf("source %s is fed already", source)
	}
	s := &fed{source: source}
	for _, p := range points {
		s.lanes = append(s.lanes, lane{p, p})
	}
	least, err := f.least(source, points)
	if err != nil {
		return crdt.Point{}, err
	}
	s.lookUpTo(f.parked)
	if s.op, err = NewOperator(f.job, source, columns, least); err != nil {
		return crdt.Point{}, err
	}
	f.sources = slices.Insert(f.sources, i, s)
	return least, nil
}

// least returns the lowest of the points of the shards that are not parked.
func (f *Feed) least(source crdt.Source, points []crdt.Point) (crdt.Point, error) {
	least := crdt.Point{Offset: -1}
	for i, p := range points {
		if !f.parked[i] && (least.Offset < 0 || p.Offset < least.Offset) {
			least = p
		}
	}
	if least.Offset < 0 {
		return least, fmt.Errorf("source %s: every shard is parked", source)
	}
	for i, p := range points {
		if !f.parked[i] && p.Offset == least.Offset && p != least {
			return least, fmt.Errorf("%w: %s at offset %d: two shards differ", ErrMismatch, source, p.Offset)
		}
		if mutant.On("watermark-of-another-shard") {
			least.Watermark = max(least.Watermark, p.Watermark)
		}
	}
	return least, nil
}

// lookUpTo sets s.high.
func (s *fed) lookUpTo(parked []bool) {
	s.high = 0
	for i := range s.lanes {
		if !parked[i] {
			s.high = max(s.high, s.lanes[i].taken.Offset)
		}
	}
}

// Park leaves a shard behind, so that it holds up no source: its batch is dropped, nothing is folded or flushed for it,
// and Add does not look at its point. Reset takes it up again.
func (f *Feed) Park(shard int) {
	f.bytes -= f.batches[shard].bytes
	f.batches[shard].Reset()
	f.parked[shard] = true
	for _, s := range f.sources {
		s.lookUpTo(f.parked)
	}
}

// Parked reports whether a shard is left behind.
func (f *Feed) Parked(shard int) bool { return f.parked[shard] }

func (f *Feed) find(source crdt.Source) (int, bool) {
	return slices.BinarySearchFunc(f.sources, source, func(s *fed, t crdt.Source) int {
		return crdt.CompareSources(s.source, t)
	})
}

// Point returns where a source stands: the next record to be read is the first at or above its offset.
func (f *Feed) Point(source crdt.Source) (crdt.Point, bool) {
	i, ok := f.find(source)
	if !ok {
		return crdt.Point{}, false
	}
	return f.sources[i].op.Point(), true
}

// Size returns about how many bytes of memory the batches take.
func (f *Feed) Size() int { return f.bytes }

// Reader takes the records of one source of a feed. It is valid until the source is removed.
type Reader struct {
	feed *Feed
	fed  *fed
}

// Reader returns the reader of a source. It fails with ErrNoSource.
func (f *Feed) Reader(source crdt.Source) (Reader, error) {
	i, ok := f.find(source)
	if !ok {
		return Reader{}, fmt.Errorf("%w: %s", ErrNoSource, source)
	}
	return Reader{f, f.sources[i]}, nil
}

// Read takes the source's next record: judges it, and folds it for its key's shard unless that has it already. After
// ErrMismatch or ErrOrder the source must be removed: nothing of the record was folded.
func (r Reader) Read(rec *log.Record) (Verdict, error) {
	s, f := r.fed, r.feed
	v, err := r.judge(rec)
	if err != nil {
		return v, err
	}
	if v.Outcome != crdt.Counted {
		return v, nil
	}
	shard := 0
	if len(f.batches) > 1 {
		shard = int(keyspace.ShardOf(s.op.slot.Key, len(f.batches)))
	}
	if rec.Offset < s.lanes[shard].taken.Offset || f.parked[shard] {
		return v, nil
	}
	b := f.batches[shard]
	size := b.bytes
	b.Fold(s.op)
	f.bytes += b.bytes - size
	return v, nil
}

// judge judges a record, and checks the step over it where a shard's point may lie within.
func (r Reader) judge(rec *log.Record) (Verdict, error) {
	s := r.fed
	if s.op.point.Offset >= s.high {
		return s.op.Judge(rec)
	}
	before := s.op.point
	v, err := s.op.Judge(rec)
	if err == nil {
		if err = s.check(before, s.op.point, r.feed.parked); err != nil {
			s.op.point = before
		}
	}
	return v, err
}

// check compares the points that a step passes over or reaches with the one that it reaches.
func (s *fed) check(before, after crdt.Point, parked []bool) error {
	for i := range s.lanes {
		if p := s.lanes[i].taken; !parked[i] && p.Offset > before.Offset && p.Offset <= after.Offset && p != after {
			return fmt.Errorf("%w: %s: shard %d stands at offset %d, the log gives another point at %d", ErrMismatch,
				s.source, i, p.Offset, after.Offset)
		}
	}
	return nil
}

// BatchLen returns how many slots a shard's batch touches, and BatchSize about how many bytes it takes.
func (f *Feed) BatchLen(shard int) int { return f.batches[shard].Len() }

// BatchSize returns about how many bytes of memory a shard's batch takes.
func (f *Feed) BatchSize(shard int) int { return f.batches[shard].Size() }

// Moved reports whether a shard's next Advance would move any source.
func (f *Feed) Moved(shard int) bool {
	if f.parked[shard] {
		return false
	}
	for _, s := range f.sources {
		if s.lanes[shard].to(s.op.point).Offset > s.lanes[shard].from.Offset {
			return true
		}
	}
	return false
}

// Flush returns what a shard is to be told next: for each source that moved the range from the last Advance's end, and
// the batch, which is empty afterwards. It returns nil where no source moved. The next Flush goes on from where this
// one ends, whatever comes of it: when the shard refuses, Reset.
func (f *Feed) Flush(shard int) *crdt.Advance {
	if f.parked[shard] {
		return nil
	}
	a := &crdt.Advance{Generation: f.generation, Group: f.group}
	for _, s := range f.sources {
		l := &s.lanes[shard]
		to := l.to(s.op.point)
		if to.Offset == l.from.Offset {
			continue
		}
		a.Ranges = append(a.Ranges, crdt.Range{Source: s.source, From: l.from.Mark(), To: to})
		l.from, l.taken = to, to
	}
	if a.Ranges == nil {
		return nil
	}
	f.bytes -= f.batches[shard].bytes
	a.Deltas = f.batches[shard].Drain()
	return a
}

// Reset puts a shard to the points where it stands, which it told when it refused an Advance or when it comes back:
// its batch is dropped, and so must be the Advances that are under way to it; it is no longer parked. The sources that
// Reset returns, in order, are to be read again from a lower point; the other shards' batches stay whole. Sources that points lacks go back to
// where their last sent Advance ended. A misfit is a source of which the shard holds another history (ErrMismatch): it
// must be removed.
func (f *Feed) Reset(shard int, points crdt.Frontier) (back []Rewind, misfits []crdt.Source) {
	f.bytes -= f.batches[shard].bytes
	f.batches[shard].Reset()
	f.parked[shard] = false
	for _, s := range f.sources {
		p, ok := points[s.source]
		if !ok {
			p = s.lanes[shard].from
		}
		cur := s.op.point
		for i := range s.lanes {
			s.lanes[i].taken = s.lanes[i].to(cur)
		}
		s.lanes[shard] = lane{p, p}
		switch {
		case p.Offset < cur.Offset:
			s.op.point = p
			back = append(back, Rewind{s.source, p})
		case p.Offset == cur.Offset && p != cur:
			misfits = append(misfits, s.source)
		}
		s.lookUpTo(f.parked)
	}
	return back, misfits
}

// Remove drops a source. Shards whose batch holds something of it lose that batch whole, so other sources may have to
// be read again: Remove returns them as Reset does. A source that was flushed for all shards costs the others nothing.
func (f *Feed) Remove(source crdt.Source) ([]Rewind, error) {
	i, ok := f.find(source)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoSource, source)
	}
	s := f.sources[i]
	f.sources = slices.Delete(f.sources, i, i+1)
	least := make(crdt.Frontier)
	for shard := range f.batches {
		moved := s.lanes[shard].to(s.op.point).Offset > s.lanes[shard].from.Offset
		if f.parked[shard] || !moved || f.batches[shard].Len() == 0 {
			continue
		}
		rewinds, _ := f.Reset(shard, nil) // back to points that were on this log when they were taken
		for _, r := range rewinds {
			least[r.Source] = r.To
		}
	}
	var back []Rewind
	for _, o := range f.sources {
		if p, ok := least[o.source]; ok {
			back = append(back, Rewind{o.source, p})
		}
	}
	return back, nil
}
