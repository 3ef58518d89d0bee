package emission

import (
	"context"
	"fmt"

	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/region/shard"
)

// writer gathers rows and writes them to every sink of a job.
type writer struct {
	r   *runner
	ctx context.Context // of one send
	g   *shard.Generation
	// epoch is that of the view: of this region where it owns the shard, else the highest it knows.
	epoch uint64
	rows  []job.Output
	buf   []byte // what rows point into
}

// send writes what the open plan and the dirty marks of one view refer to, and returns the command that says so; nil when
// no plan is open any more.
func (r *runner) send(ctx context.Context, snap *shard.Snapshot) (*shard.Done, error) {
	g := snap.Generation(r.id)
	if g == nil || g.Outbox.Open == nil {
		return nil, nil
	}
	open := g.Outbox.Open
	w := &writer{r: r, ctx: ctx, g: g, epoch: uint64(snap.Epoch())}
	marks, err := snap.DirtyMarks(g, markBatch)
	if err != nil {
		return nil, fmt.Errorf("read dirty marks: %w", err)
	}
	from := g.Outbox.Full
	if open.Partial {
		from = max(from, g.Outbox.Partial)
	}
	if open.To > from {
		if err := snap.Rows(g, job.Span{From: from, To: open.To}, w.add); err != nil {
			return nil, fmt.Errorf("send windows up to %d: %w", open.To, err)
		}
	}
	sent := marks[:0]
	for _, m := range marks {
		if m.End > from && m.End <= open.To {
			sent = append(sent, m) // the scan has just sent it
			continue
		}
		if err := w.mark(snap, m); err != nil {
			return nil, fmt.Errorf("send what changed of the window that ends at %d: %w", m.End, err)
		}
		sent = append(sent, m)
	}
	if err := w.write(); err != nil {
		return nil, err
	}
	return &shard.Done{Generation: g.ID, N: g.Outbox.Last, Index: snap.Index, Marks: sent}, nil
}

// mark sends the row that a mark refers to as it is now, or takes it back if it is gone.
func (w *writer) mark(snap *shard.Snapshot, m shard.DirtyMark) error {
	step := w.g.Job.Window.Step()
	return snap.RowsOf(w.g, m.Key, job.Span{From: m.End - max(step, 1), To: m.End, Hidden: true}, func(row *job.Row) error {
		switch {
		case row.End != m.End:
			return nil
		case row.Hidden:
			return w.put(row, w.g.Job.AppendRetraction)
		}
		return w.add(row)
	})
}

func (w *writer) add(row *job.Row) error {
	return w.put(row, func(b []byte, row *job.Row) []byte { return w.g.Job.AppendRow(b, row, true) })
}

func (w *writer) put(row *job.Row, render func([]byte, *job.Row) []byte) error {
	at := len(w.buf)
	w.buf = w.g.Job.AppendKey(w.buf, row.KeyValues)
	key := len(w.buf)
	w.buf = render(w.buf, row)
	w.rows = append(w.rows, job.Output{Job: w.g.Name, Generation: w.g.ID, Epoch: w.epoch,
		Key: w.buf[at:key:key], Value: w.buf[key:len(w.buf):len(w.buf)]})
	if len(w.rows) >= batchRows {
		return w.write()
	}
	return nil
}

// write sends what was gathered to every sink of the job.
func (w *writer) write() error {
	if len(w.rows) == 0 {
		return nil
	}
	for _, to := range w.g.Job.Emit.Sinks {
		if err := w.r.e.c.Sink.Write(w.ctx, to, w.rows); err != nil {
			return fmt.Errorf("sink: %w", err)
		}
	}
	w.r.e.c.Metrics.rows.WithLabelValues(w.g.Name).Add(float64(len(w.rows)))
	w.rows, w.buf = w.rows[:0], nil
	return nil
}
