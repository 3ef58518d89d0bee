package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
)

// ReaderConfig bounds what a Reader fetches ahead. Zero fields take the defaults.
type ReaderConfig struct {
	// MaxBytes bounds one fetch from one broker, as the batches are stored, so compressed (default 8 MiB).
	MaxBytes int32
	// MaxPartitionBytes bounds one partition's part of it (default 1 MiB). A batch that is larger comes whole.
	MaxPartitionBytes int32
	// MaxWait is how long a broker may hold a fetch that has nothing to bring (default 500 ms).
	MaxWait time.Duration
	// MissingAfter is how long a topic may be missing from a cluster before its partitions stop: a broker that has just
	// started may not know its topics yet (default 15 s).
	MissingAfter time.Duration
}

const (
	// maxBatchBytes bounds one batch after decompression.
	maxBatchBytes = 256 << 20
	// checkers bounds how many positions are checked at a time.
	checkers = 8
	// maxRetryPause bounds the pause after a fetch that failed; five of them pass before a topic's new id is believed.
	maxRetryPause = time.Second
	// lookupTimeout bounds a question to the cluster that is asked while polling.
	lookupTimeout = 5 * time.Second
)

func (c ReaderConfig) withDefaults() ReaderConfig {
	if c.MaxBytes <= 0 {
		c.MaxBytes = 8 << 20
	}
	if c.MaxPartitionBytes <= 0 {
		c.MaxPartitionBytes = 1 << 20
	}
	if c.MaxWait <= 0 {
		c.MaxWait = 500 * time.Millisecond
	}
	if c.MissingAfter <= 0 {
		c.MissingAfter = 15 * time.Second
	}
	return c
}

// Reader reads partitions from positions that it is given, committed records only, and joins no group. It holds at most
// one fetch per broker ahead of what was polled. It belongs to one goroutine; only Pause, Resume and Buffered may be
// called from others.
type Reader struct {
	client *Client // for questions; not owned
	cl     *kgo.Client
	config ReaderConfig
	logger hclog.Logger
	parts  map[log.Partition]*assigned

	// What the last poll lent out.
	lent    []*kgo.Record
	batches []log.Batch
	records []log.Record
	headers []crdt.Header
}

// assigned is a partition that is being read.
type assigned struct {
	topicID log.TopicID
	next    int64     // no record below it may come any more
	missing time.Time // since when the cluster has not known the topic; zero while it does
}

// NewReader returns a reader without partitions, on connections of its own. It asks client about positions and topics,
// so client is to be closed after it.
func NewReader(client *Client, config ReaderConfig, logger hclog.Logger) (*Reader, error) {
	opts, err := client.config.options()
	if err != nil {
		return nil, fmt.Errorf("kafka %s: %w", client.config, err)
	}
	config = config.withDefaults()
	opts = append(opts,
		kgo.WithLogger(newClientLogger(logger)),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(config.MaxBytes),
		kgo.FetchMaxPartitionBytes(config.MaxPartitionBytes),
		kgo.FetchMaxWait(config.MaxWait),
		kgo.MaxDecompressBatchBytes(maxBatchBytes),
		kgo.RetryBackoffFn(func(fails int) time.Duration {
			return min(firstBackoff<<min(max(fails-1, 0), 8), maxRetryPause)
		}),
		kgo.WithPools(new(pool)),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka %s: %w", client.config, err)
	}
	return &Reader{client: client, cl: cl, config: config, logger: logger,
		parts: make(map[log.Partition]*assigned)}, nil
}

// Assign checks positions (see Client.Check) and begins to read from those that fit. Its result is parallel to
// positions, nil where reading has begun. A partition that is already assigned is an error: Remove it first.
func (r *Reader) Assign(ctx context.Context, positions ...log.Position) []error {
	errs := make([]error, len(positions))
	ids := make([]log.TopicID, len(positions))
	var g errgroup.Group
	g.SetLimit(checkers)
	for i, pos := range positions {
		g.Go(func() error {
			ids[i], errs[i] = r.client.Check(ctx, pos)
			return nil
		})
	}
	_ = g.Wait() // the goroutines return nil
	add := make(map[string]map[int32]kgo.Offset)
	for i, pos := range positions {
		if errs[i] != nil {
			continue
		}
		if _, ok := r.parts[pos.Partition]; ok {
			errs[i] = fmt.Errorf("assign %s: it is being read already", pos.Partition)
			continue
		}
		r.parts[pos.Partition] = &assigned{topicID: ids[i], next: pos.Offset}
		if add[pos.Topic] == nil {
			add[pos.Topic] = make(map[int32]kgo.Offset)
		}
		add[pos.Topic][pos.Index] = kgo.NoResetOffset().At(pos.Offset)
	}
	r.cl.AddConsumePartitions(add)
	return errs
}

// Remove stops reading partitions. What was fetched ahead of them is dropped. Unknown partitions are ignored.
func (r *Reader) Remove(partitions ...log.Partition) {
	known := slices.DeleteFunc(slices.Clone(partitions), func(p log.Partition) bool { return r.parts[p] == nil })
	if len(known) == 0 {
		return
	}
	r.cl.RemoveConsumePartitions(byTopic(known))
	r.cl.ResumeFetchPartitions(byTopic(known)) // so that a later Assign does not begin paused
	for _, p := range known {
		delete(r.parts, p)
	}
	// The client holds on to the id of a topic that it knows: forget topics without partitions.
	var idle []string
	for _, p := range known {
		used := false
		for q := range r.parts {
			used = used || q.Topic == p.Topic
		}
		if !used && !slices.Contains(idle, p.Topic) {
			idle = append(idle, p.Topic)
		}
	}
	r.cl.PurgeTopicsFromConsuming(idle...)
}

// Pause stops fetching partitions, and drops what was fetched ahead of them, until Resume. Polls return nothing of them.
func (r *Reader) Pause(partitions ...log.Partition) {
	if len(partitions) > 0 {
		r.cl.PauseFetchPartitions(byTopic(partitions))
	}
}

// Resume fetches paused partitions again, from where the last poll left them.
func (r *Reader) Resume(partitions ...log.Partition) {
	if len(partitions) > 0 {
		r.cl.ResumeFetchPartitions(byTopic(partitions))
	}
}

// Buffered returns the bytes that are fetched and not yet polled.
func (r *Reader) Buffered() int64 { return r.cl.BufferedFetchBytes() }

// Partitions returns what is assigned, in no order.
func (r *Reader) Partitions() []log.Partition {
	out := make([]log.Partition, 0, len(r.parts))
	for p := range r.parts {
		out = append(out, p)
	}
	return out
}

// Poll recycles the last poll's batches, waits for records or for a partition to stop, and returns at most limit
// records (limit > 0). A partition may have several batches in one poll, in order. Its error is ctx's, or says that
// the reader is closed.
func (r *Reader) Poll(ctx context.Context, limit int) ([]log.Batch, error) {
	r.Recycle()
	for {
		fetches := r.cl.PollRecords(ctx, limit)
		if fetches.IsClientClosed() {
			return nil, fmt.Errorf("poll: %w", kgo.ErrClientClosed)
		}
		// A partition that the client has already set to another offset must not bring a record from there.
		fetches.EachError(func(topic string, index int32, err error) {
			if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
				r.stop(log.Partition{Topic: topic, Index: index}, fmt.Errorf("%w: %w", log.ErrTruncated, loss))
			}
		})
		for i := range fetches {
			for j := range fetches[i].Topics {
				t := &fetches[i].Topics[j]
				for k := range t.Partitions {
					r.take(ctx, t, &t.Partitions[k])
				}
			}
		}
		if len(r.batches) > 0 {
			return r.batches, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// take turns what was fetched of one partition into batches.
func (r *Reader) take(ctx context.Context, t *kgo.FetchTopic, fp *kgo.FetchPartition) {
	r.lent = append(r.lent, fp.Records...)
	p := log.Partition{Topic: t.Topic, Index: fp.Partition}
	a := r.parts[p]
	if a == nil {
		return
	}
	if len(fp.Records) > 0 {
		if err := a.accept(t, fp); err != nil {
			r.stop(p, err)
			return
		}
		first := len(r.records)
		for _, rec := range fp.Records {
			r.records = append(r.records, toRecord(rec, &r.headers))
		}
		a.next = fp.Records[len(fp.Records)-1].Offset + 1
		a.missing = time.Time{}
		r.batches = append(r.batches, log.Batch{Partition: p, Start: fp.LogStartOffset, End: fp.LastStableOffset,
			Records: r.records[first:len(r.records):len(r.records)]})
	}
	if fp.Err != nil {
		r.fail(ctx, p, a, fp.Err)
	}
}

// accept says whether records that were fetched go on from where the partition stands.
func (a *assigned) accept(t *kgo.FetchTopic, fp *kgo.FetchPartition) error {
	if id := log.TopicID(t.TopicID); id != (log.TopicID{}) && a.topicID != (log.TopicID{}) && id != a.topicID {
		return fmt.Errorf("%w: its id is %s, it was %s", log.ErrTopicReplaced, id, a.topicID)
	}
	first := fp.Records[0].Offset
	if first < a.next {
		return fmt.Errorf("%w: offset %d came after %d", log.ErrTruncated, first, a.next-1)
	}
	if first > a.next && fp.LogStartOffset > a.next {
		return fmt.Errorf("%w: it begins at %d, %d was next", log.ErrRecordsGone, fp.LogStartOffset, a.next)
	}
	return nil
}

// fail deals with a partition's error: it stops the partition, or leaves it to the client to try again.
func (r *Reader) fail(ctx context.Context, p log.Partition, a *assigned, err error) {
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		r.stop(p, fmt.Errorf("%d was next: %w", a.next, r.client.outOfRange(lookup, p, a.next)))
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition),
		errors.Is(err, kerr.InconsistentTopicID):
		r.lookForTopic(ctx, p, a)
	case kerr.IsRetriable(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r.logger.Debug("fetch failed, trying again", "partition", p, "error", err)
	default:
		r.stop(p, err)
	}
}

// lookForTopic finds out whether a topic that a broker does not know is another one now, or missing for good, or only
// not known there yet.
func (r *Reader) lookForTopic(ctx context.Context, p log.Partition, a *assigned) {
	lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	details, err := r.client.details(lookup, p.Topic)
	if err != nil {
		r.logger.Debug("topic can't be looked up, trying again", "partition", p, "error", err)
		return
	}
	d, ok := details[p.Topic]
	switch id := log.TopicID(d.ID); {
	case ok && a.topicID != (log.TopicID{}) && id != a.topicID:
		r.stop(p, fmt.Errorf("%w: its id is %s, it was %s", log.ErrTopicReplaced, id, a.topicID))
	case ok:
		a.missing = time.Time{}
	case a.missing.IsZero():
		a.missing = time.Now()
		r.logger.Warn("topic is missing", "partition", p)
	case time.Since(a.missing) >= r.config.MissingAfter:
		r.stop(p, log.ErrUnknownTopic)
	}
}

// stop drops a partition and says why in a batch.
func (r *Reader) stop(p log.Partition, err error) {
	if r.parts[p] == nil {
		return
	}
	r.Remove(p)
	err = fmt.Errorf("read %s: %w", p, err)
	r.logger.Error("partition stopped", "partition", p, "error", err)
	r.batches = append(r.batches, log.Batch{Partition: p, Err: err})
}

// Recycle gives the last poll's records back; they must not be used any more. Poll does so by itself.
func (r *Reader) Recycle() {
	for i, rec := range r.lent {
		rec.Recycle()
		r.lent[i] = nil
	}
	r.lent = r.lent[:0]
	clear(r.records)
	clear(r.headers)
	clear(r.batches)
	r.records, r.headers, r.batches = r.records[:0], r.headers[:0], r.batches[:0]
}

// Close stops fetching and closes the connections. A poll that is under way ends with an error.
func (r *Reader) Close() { r.cl.Close() }

// toRecord makes our record of the client's; headers go behind arena, if there is one. It shares the bytes.
func toRecord(rec *kgo.Record, arena *[]crdt.Header) log.Record {
	out := log.Record{Offset: rec.Offset, Timestamp: rec.Timestamp.UnixMilli(), Key: rec.Key, Value: rec.Value}
	if out.Timestamp < 0 || rec.Attrs.TimestampType() < 0 {
		out.Timestamp = log.NoTimestamp
	}
	if len(rec.Headers) == 0 {
		return out
	}
	if arena == nil {
		arena = new([]crdt.Header)
	}
	first := len(*arena)
	for _, h := range rec.Headers {
		*arena = append(*arena, crdt.Header{Key: h.Key, Value: h.Value})
	}
	out.Headers = (*arena)[first:len(*arena):len(*arena)]
	return out
}

func byTopic(partitions []log.Partition) map[string][]int32 {
	out := make(map[string][]int32)
	for _, p := range partitions {
		out[p.Topic] = append(out[p.Topic], p.Index)
	}
	return out
}
