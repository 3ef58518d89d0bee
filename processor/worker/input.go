package worker

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
)

// pollLimit bounds the records of one poll, so that a batch stays within its bounds between two looks at them.
const pollLimit = 4096

// fetched is one poll of one input. Its records are valid until ack is closed.
type fetched struct {
	input   int
	batches []log.Batch
	ack     chan struct{}
}

// readInput reads an input's partitions from positions and hands every poll to out, one at a time: the next begins when
// the task has acknowledged the last, so a task that takes nothing fetches nothing. It returns nil when ctx ends;
// refused is told of the positions that can't be read.
func readInput(ctx context.Context, client *kafka.Client, input int, positions []log.Position, out chan<- fetched,
	refused func(log.Partition, error), logger hclog.Logger) error {
	r, err := kafka.NewReader(client, kafka.ReaderConfig{}, logger)
	if err != nil {
		return fmt.Errorf("read input %d: %w", input, err)
	}
	defer r.Close()
	for i, err := range r.Assign(ctx, positions...) {
		if err != nil {
			refused(positions[i].Partition, err)
		}
	}
	for {
		batches, err := r.Poll(ctx, pollLimit)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read input %d: %w", input, err)
		}
		f := fetched{input, batches, make(chan struct{})}
		select {
		case out <- f:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-f.ack:
		case <-ctx.Done():
			return nil
		}
	}
}
