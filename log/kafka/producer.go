package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/watershed-db/watershed/crdt"
)

// AnyPartition lets the key choose the partition, as Kafka's own clients do it; records without a key are spread.
const AnyPartition = -1

// Message is a record to write.
type Message struct {
	Topic string
	// Partition is where it goes; AnyPartition lets the key decide.
	Partition int32
	// Timestamp is in ms since the epoch; 0 is the time of writing.
	Timestamp int64
	// Key and Value are nil for null. They are not kept after Produce has returned.
	Key, Value []byte
	Headers    []crdt.Header
}

// ProducerConfig tunes a Producer. Zero fields take the defaults.
type ProducerConfig struct {
	// Linger is how long a batch may wait for more records (default none).
	Linger time.Duration
	// MaxBuffered bounds the bytes of all calls under way; a call that would go beyond waits (default 32 MiB).
	MaxBuffered int
	// Timeout bounds a call (default 30 s). The client's own time-out counts from a record's timestamp, so is not used.
	Timeout time.Duration
}

// Producer writes records, idempotently, and acknowledged by all replicas in sync. It is safe for concurrent use.
//
// Within one call the records of a partition keep their order. A failure that leaves the outcome of a record open makes
// every call under way fail, and the producer goes on under a new producer id: a record of a failed call may so appear
// after all, even late, and again if the caller writes it again. A record that is refused for good (too large, no such
// topic) fails its own call alone.
type Producer struct {
	options []kgo.Opt
	timeout time.Duration
	mu      struct {
		sync.Mutex
		cl     *kgo.Client // nil after a failure, until the next call
		closed bool
	}
}

// NewProducer returns a producer for client's cluster, on connections of its own.
func NewProducer(client *Client, config ProducerConfig, logger hclog.Logger) (*Producer, error) {
	opts, err := client.config.options()
	if err != nil {
		return nil, fmt.Errorf("kafka %s: %w", client.config, err)
	}
	if config.MaxBuffered <= 0 {
		config.MaxBuffered = 32 << 20
	}
	if config.Timeout <= 0 {
		config.Timeout = 30 * time.Second
	}
	opts = append(opts,
		kgo.WithLogger(newClientLogger(logger)),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.ProducerLinger(config.Linger),
		kgo.MaxBufferedBytes(config.MaxBuffered),
		kgo.AllowIdempotentProduceCancellation(),
		kgo.RecordPartitioner(partitioner{byKey: kgo.StickyKeyPartitioner(nil)}),
	)
	p := &Producer{options: opts, timeout: config.Timeout}
	if _, err := p.client(); err != nil {
		return nil, fmt.Errorf("kafka %s: %w", client.config, err)
	}
	return p, nil
}

// client returns the connections, made anew if the last ones were given up.
func (p *Producer) client() (*kgo.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, kgo.ErrClientClosed
	}
	if p.mu.cl == nil {
		cl, err := kgo.NewClient(p.options...)
		if err != nil {
			return nil, err
		}
		p.mu.cl = cl
	}
	return p.mu.cl, nil
}

// giveUp closes connections whose state is open after a failure, and with them the producer id. Calls under way on them
// fail.
func (p *Producer) giveUp(cl *kgo.Client) {
	p.mu.Lock()
	if p.mu.cl == cl {
		p.mu.cl = nil
	}
	p.mu.Unlock()
	cl.Close()
}

// Produce writes messages and waits until all are acknowledged, or one has failed, or ctx is done. On an error any of
// them may have been written. Nothing of messages is used after it has returned.
func (p *Producer) Produce(ctx context.Context, messages []Message) error {
	if len(messages) == 0 {
		return nil
	}
	cl, err := p.client()
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("not acknowledged within %s: %w", p.timeout,
		context.DeadlineExceeded))
	defer cancel()
	call := newCall(len(messages))
	records := make([]kgo.Record, len(messages))
	for i := range messages {
		messages[i].into(&records[i])
		cl.Produce(ctx, &records[i], call.promise)
	}
	select {
	case <-call.done:
	case <-call.open:
	case <-ctx.Done():
	}
	select {
	case <-call.done:
		if !call.mu.open {
			return call.mu.err
		}
	default:
	}
	p.giveUp(cl) // fails what is still under way, so that done comes
	<-call.done
	if ctx.Err() != nil {
		return fmt.Errorf("produce: %w", context.Cause(ctx))
	}
	return call.mu.err
}

// call is one Produce under way.
type call struct {
	done chan struct{} // closed when every record has met its end; mu needs no lock then
	open chan struct{} // closed when the outcome of one of them can't be known
	mu   struct {
		sync.Mutex
		left int
		err  error // the first
		open bool
	}
}

func newCall(records int) *call {
	c := &call{done: make(chan struct{}), open: make(chan struct{})}
	c.mu.left = records
	return c
}

// promise is called by the client once for each record.
func (c *call) promise(rec *kgo.Record, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.mu.err == nil {
			c.mu.err = fmt.Errorf("produce to %s: %w", rec.Topic, asLogError(err))
		}
		if !c.mu.open && !definite(err) {
			c.mu.open = true
			close(c.open)
		}
	}
	if c.mu.left--; c.mu.left == 0 {
		close(c.done)
	}
}

// definite says whether err means that the record has not been written and never will be.
func definite(err error) bool {
	for _, e := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.UnknownTopicOrPartition,
		kerr.TopicAuthorizationFailed, kerr.InvalidTopicException, kerr.InvalidTimestamp} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close gives up what is under way and closes the connections. It can be called twice.
func (p *Producer) Close() {
	p.mu.Lock()
	cl := p.mu.cl
	p.mu.cl, p.mu.closed = nil, true
	p.mu.Unlock()
	if cl != nil {
		cl.Close()
	}
}

// into fills the client's record; it shares the bytes.
func (m *Message) into(rec *kgo.Record) {
	rec.Topic, rec.Partition, rec.Key, rec.Value = m.Topic, m.Partition, m.Key, m.Value
	if m.Timestamp != 0 {
		rec.Timestamp = time.UnixMilli(m.Timestamp)
	}
	if len(m.Headers) > 0 {
		rec.Headers = make([]kgo.RecordHeader, len(m.Headers))
		for i, h := range m.Headers {
			rec.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
		}
	}
}

// partitioner sends a record to the partition that it names, or by its key.
type partitioner struct{ byKey kgo.Partitioner }

// ForTopic implements kgo.Partitioner.
func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return topicPartitioner{p.byKey.ForTopic(topic)}
}

type topicPartitioner struct{ kgo.TopicPartitioner }

// RequiresConsistency implements kgo.TopicPartitioner.
func (p topicPartitioner) RequiresConsistency(rec *kgo.Record) bool {
	return rec.Partition >= 0 || p.TopicPartitioner.RequiresConsistency(rec)
}

// Partition implements kgo.TopicPartitioner. A partition that does not exist is refused by the client.
func (p topicPartitioner) Partition(rec *kgo.Record, n int) int {
	if rec.Partition >= 0 {
		return int(rec.Partition)
	}
	return p.TopicPartitioner.Partition(rec, n)
}

// OnNewBatch implements kgo.TopicPartitionerOnNewBatch: records without a key move on to another partition.
func (p topicPartitioner) OnNewBatch() {
	if n, ok := p.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		n.OnNewBatch()
	}
}
