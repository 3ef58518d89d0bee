// Package bounded runs a job over files: batch is a stream with an end. It runs the service's own operators; only the
// log and the shard are in process. The rows are a function of the job and the files, whatever the goroutines do.
package bounded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/file"
	"github.com/watershed-db/watershed/processor"
	"github.com/watershed-db/watershed/processor/decode"
	"github.com/watershed-db/watershed/processor/job"
)

// Config is what a run needs.
type Config struct {
	Job    *job.Job
	Inputs []Input // partitions, those of one topic in the order of their numbers
	// RecordTime is the log timestamp of every record, in ms; log.NoTimestamp where there is none, and then nothing is
	// implausible.
	RecordTime int64
	// Open opens an input's file; nil is OpenFile.
	Open func(Input, job.Format) (File, error)
	// Shard takes the Advances. nil is a Memory of its own.
	Shard Shard
	// FlushRecords is the number of records after which a partition's batch goes to the shard; 0 is no such bound. The
	// rows do not depend on it.
	FlushRecords int
	// FlushBytes is the size of a partition's batch, in bytes of memory, at which it goes to the shard. 0 is 32 MiB.
	FlushBytes int
}

// File is an opened input.
type File interface {
	log.Reader
	// Header returns the first line of a CSV file.
	Header() []byte
}

// OpenFile opens the file of an input of that format, or standard input.
func OpenFile(in Input, format job.Format) (File, error) {
	options := file.Options{Format: file.JSONL, MaxRecord: decode.MaxRecord}
	if format == job.CSV {
		options.Format = file.CSV
	}
	r, err := file.Open(in.File, options)
	if err != nil {
		return nil, fmt.Errorf("open input: %w", err)
	}
	return r, nil
}

const (
	defaultFlushBytes = 32 << 20
	readRecords       = 512 // that are asked of a reader at once
)

// Stats counts what became of the events of all sources. A record that two sources read is two events.
type Stats struct {
	Events, Filtered, Late, Implausible, Invalid uint64
}

// Run is one run of a job. Its methods are safe for concurrent use.
type Run struct {
	cfg    Config
	parts  []part
	shard  Shard
	events atomic.Uint64
	mu     struct {
		sync.Mutex
		counts crdt.Counts
	}
}

// New checks that the inputs fit the job, and opens nothing. It fails with ErrInputs.
func New(cfg Config) (*Run, error) {
	parts, err := plan(cfg.Job, cfg.Inputs)
	if err != nil {
		return nil, err
	}
	r := &Run{cfg: cfg, parts: parts, shard: cfg.Shard}
	if r.shard == nil {
		r.shard = NewMemory(cfg.Job.Schema())
	}
	if r.cfg.Open == nil {
		r.cfg.Open = OpenFile
	}
	if r.cfg.FlushBytes == 0 {
		r.cfg.FlushBytes = defaultFlushBytes
	}
	return r, nil
}

// Events returns the number of events read so far.
func (r *Run) Events() uint64 { return r.events.Load() }

// Read reads all inputs to their ends, as many at a time as there are processors. If some fail it returns the error of
// the first of them in the order given, with its file; the others are given up.
func (r *Run) Read(ctx context.Context) (Stats, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(r.parts))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(r.parts)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(r.parts); i = int(next.Add(1)) - 1 {
				if errs[i] = r.readPart(ctx, &r.parts[i]); errs[i] != nil {
					stop()
				}
			}
		})
	}
	wg.Wait()
	var first error
	for _, err := range errs {
		if err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	if first != nil {
		return Stats{}, first
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.mu.counts
	s := Stats{Filtered: c[crdt.Filtered], Late: c[crdt.Late], Implausible: c[crdt.Implausible], Invalid: c[crdt.Invalid]}
	for _, n := range c {
		s.Events += n
	}
	return s, nil
}

// Rows makes the rows of everything that Read brought, with the watermark at its end, and calls emit for each in order.
// It is called once. emit must not keep the row; its error is returned as it is.
func (r *Run) Rows(emit func(*job.Row) error) error {
	return r.cfg.Job.Rows(job.Everything(), r.shard.Slots(), emit)
}

// readPart reads one partition to its end.
func (r *Run) readPart(ctx context.Context, p *part) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := r.cfg.Open(p.Input, p.format)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	t := &taker{run: r, feed: processor.NewFeed(r.cfg.Job, crdt.GenerationID{}, p.Region, 1)}
	for _, source := range p.sources {
		if err := t.add(source, f.Header); err != nil {
			return fmt.Errorf("%s: %w", p.File, err)
		}
	}
	records := make([]log.Record, readRecords)
	for {
		n, err := f.Read(records)
		if n > 0 {
			if err := t.take(records[:n]); err != nil {
				return fmt.Errorf("%s: %w", p.File, err)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return t.finish(p.sources)
		case err != nil:
			return err
		}
	}
}

// taker folds the records of one partition for all sources that read it.
type taker struct {
	run     *Run
	feed    *processor.Feed
	readers []processor.Reader
	pending int // records since the last flush
}

func (t *taker) add(source crdt.Source, header func() []byte) error {
	in := &t.run.cfg.Job.Inputs[source.Input]
	var columns []decode.Column
	if in.Format == job.CSV {
		var err error
		if columns, err = decode.Header(header(), processor.DeclaredColumns(in)); err != nil {
			return fmt.Errorf("header: %w", err)
		}
	}
	if _, err := t.feed.Add(source, columns, []crdt.Point{crdt.FirstPoint(source, 0)}); err != nil {
		return err
	}
	reader, err := t.feed.Reader(source)
	t.readers = append(t.readers, reader)
	return err
}

// take folds records and flushes as often as the bounds ask for it.
func (t *taker) take(records []log.Record) error {
	cfg := &t.run.cfg
	for i := range records {
		rec := &records[i]
		rec.Timestamp = cfg.RecordTime
		for _, reader := range t.readers {
			if _, err := reader.Read(rec); err != nil {
				return err
			}
		}
		t.pending++
		if t.feed.Size() >= cfg.FlushBytes || cfg.FlushRecords > 0 && t.pending >= cfg.FlushRecords {
			if err := t.flush(); err != nil {
				return err
			}
		}
	}
	t.run.events.Add(uint64(len(records) * len(t.readers)))
	return nil
}

func (t *taker) flush() error {
	t.pending = 0
	a := t.feed.Flush(0)
	if a == nil {
		return nil
	}
	return t.run.shard.Apply(a)
}

// finish tells the shard the rest, and the run what became of the sources' records.
func (t *taker) finish(sources []crdt.Source) error {
	if err := t.flush(); err != nil {
		return err
	}
	t.run.mu.Lock()
	defer t.run.mu.Unlock()
	for _, s := range sources {
		p, _ := t.feed.Point(s)
		for o, n := range p.Counts {
			t.run.mu.counts[o] += n
		}
	}
	return nil
}
