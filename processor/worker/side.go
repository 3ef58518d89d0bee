package worker

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
	"github.com/watershed-db/watershed/processor"
	"github.com/watershed-db/watershed/processor/job"
)

// side gathers records that were not counted for their topics. They are written at least once: before any shard's point
// moves over them, and again when they are read again.
type side struct {
	f       *feeder
	pending []kafka.Message
	bytes   atomic.Int64  // of what is not written yet
	last    chan struct{} // closed when all that was flushed is written
}

func (s *side) start(f *feeder) {
	s.f = f
	s.last = make(chan struct{})
	close(s.last)
}

// add keeps a copy of a record that is late, implausible or invalid, if the job has a topic for it.
func (s *side) add(j *job.Job, src crdt.Source, rec *log.Record, v processor.Verdict) {
	var topic string
	switch v.Outcome {
	case crdt.Late:
		topic = j.SideOutputs.Late
	case crdt.Implausible:
		topic = j.SideOutputs.Implausible
	case crdt.Invalid:
		topic = j.SideOutputs.Invalid
	}
	if topic == "" {
		return
	}
	c := rec.Clone()
	et := ""
	if v.Time != crdt.MinTime {
		et = time.UnixMilli(v.Time).UTC().Format("2006-01-02T15:04:05.999Z07:00")
	}
	headers := append(c.Headers, crdt.Header{Key: "reason", Value: []byte(v.Outcome.String() + ": " + v.Reason)},
		crdt.Header{Key: "source", Value: []byte(src.String())},
		crdt.Header{Key: "offset", Value: strconv.AppendInt(nil, rec.Offset, 10)},
		crdt.Header{Key: "event_time", Value: []byte(et)})
	m := kafka.Message{Topic: topic, Partition: kafka.AnyPartition, Key: c.Key, Value: c.Value, Headers: headers}
	if rec.Timestamp != log.NoTimestamp {
		m.Timestamp = rec.Timestamp
	}
	s.pending = append(s.pending, m)
	s.bytes.Add(sizeOf(&m))
}

// sizeOf estimates the bytes that a message takes in memory.
func sizeOf(m *kafka.Message) int64 {
	const frame = 256 // the message and its headers, but for what they carry
	n := frame + len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// flush begins to write what is pending, after what was flushed before, and returns a channel that is closed when all of
// it is written. A topic that takes nothing holds up the flush: nothing is lost.
func (s *side) flush(ctx context.Context, group *errgroup.Group) <-chan struct{} {
	if len(s.pending) == 0 {
		return s.last
	}
	messages, before, done := s.pending, s.last, make(chan struct{})
	var bytes int64
	for i := range messages {
		bytes += sizeOf(&messages[i])
	}
	s.pending, s.last = nil, done
	group.Go(func() error {
		select {
		case <-before:
		case <-ctx.Done():
			return nil
		}
		for {
			err := s.f.w.producer.Produce(ctx, messages)
			if err == nil {
				s.f.w.metrics.aside.Add(float64(len(messages)))
				s.bytes.Add(-bytes)
				close(done)
				return nil
			}
			if ctx.Err() == nil {
				s.f.logger.Warn("side outputs cannot be written, the job waits for them", "records", len(messages), "error", err)
			}
			if !sleep(ctx, time.Second) {
				return nil
			}
		}
	})
	return done
}
