package bounded

import (
	"fmt"
	"sync"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor"
	"github.com/watershed-db/watershed/processor/job"
)

// Shard is where a run's Advances go and its rows come from.
type Shard interface {
	// Apply takes an Advance whole or fails. It may be called from several goroutines, for different sources. It keeps
	// nothing of the Advance.
	Apply(*crdt.Advance) error
	// Slots walks over everything that was applied. Nothing is applied afterwards.
	Slots() job.Stream
}

// Memory is a Shard that holds a run's whole state in memory: there is nothing to come back to after a run.
type Memory struct {
	mu struct {
		sync.Mutex
		points crdt.Frontier
		cells  *processor.Batch
	}
}

// NewMemory returns an empty shard for a job's cells, where every source starts at its first point.
func NewMemory(s *crdt.Schema) *Memory {
	m := new(Memory)
	m.mu.points, m.mu.cells = make(crdt.Frontier), processor.NewBatch(s)
	return m
}

// Apply implements Shard. Whatever does not begin at the shard's points is refused.
func (m *Memory) Apply(a *crdt.Advance) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range a.Ranges {
		own, ok := m.mu.points[r.Source]
		if !ok {
			own = crdt.FirstPoint(r.Source, 0)
		}
		if own.Mark() != r.From {
			return fmt.Errorf("advance of %s from offset %d to a shard at %d", r.Source, r.From.Offset, own.Offset)
		}
	}
	for _, r := range a.Ranges {
		m.mu.points[r.Source] = r.To
	}
	for _, d := range a.Deltas {
		if err := m.mu.cells.Merge(d); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
	}
	return nil
}

// Slots implements Shard. It empties the shard.
func (m *Memory) Slots() job.Stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &drained{deltas: m.mu.cells.Drain(), at: -1}
}

// drained walks over deltas that are in slot order.
type drained struct {
	deltas []crdt.Delta
	at     int
}

// Next implements job.Stream.
func (d *drained) Next() bool {
	d.at++
	return d.at < len(d.deltas)
}

// Slot implements job.Stream.
func (d *drained) Slot() crdt.Slot { return d.deltas[d.at].Slot }

// Cell implements job.Stream.
func (d *drained) Cell() []byte { return d.deltas[d.at].Cell }

// Err implements job.Stream.
func (d *drained) Err() error { return nil }
