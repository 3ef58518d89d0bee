// Package emit writes rows to the sinks of jobs.
package emit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log/kafka"
	"github.com/watershed-db/watershed/processor/job"
)

// ErrSink is returned for a sink of a kind that this one does not write to.
var ErrSink = errors.New("not a Kafka sink")

// Producer writes records and returns when all of them are acknowledged by every replica in sync.
type Producer interface {
	Produce(ctx context.Context, messages []kafka.Message) error
}

// Kafka writes rows to topics of the region's cluster: the key of a record is the JSON of the row's key, its value the
// row, its headers job, generation (hexadecimal) and epoch. The key chooses the partition, so the rows of one identity
// keep their order. It is safe for concurrent use if its Producer is.
type Kafka struct{ Producer Producer }

// Write writes rows to the topic of a sink. After an error any of them may be there.
func (k Kafka) Write(ctx context.Context, to job.Sink, rows []job.Output) error {
	if to.KafkaTopic == "" {
		return ErrSink
	}
	messages := make([]kafka.Message, len(rows))
	for i, r := range rows {
		messages[i] = kafka.Message{Topic: to.KafkaTopic, Partition: kafka.AnyPartition, Key: r.Key, Value: r.Value,
			Headers: []crdt.Header{
				{Key: "job", Value: []byte(r.Job)},
				{Key: "generation", Value: hex.AppendEncode(nil, r.Generation[:])},
				{Key: "epoch", Value: strconv.AppendUint(nil, r.Epoch, 10)},
			}}
	}
	if err := k.Producer.Produce(ctx, messages); err != nil {
		return fmt.Errorf("topic %s: %w", to.KafkaTopic, err)
	}
	return nil
}
