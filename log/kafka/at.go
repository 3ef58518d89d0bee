package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/mutant"
	"github.com/watershed-db/watershed/log"
)

const (
	// atAttempts bounds how often At asks again while the partition's leader moves or catches up.
	atAttempts = 8
	// atPause is the pause between two of them.
	atPause = 250 * time.Millisecond
	// atBytes is what At asks for of the partition: the broker sends the batch of the offset whole, however large.
	// atFetchBytes bounds the answer as a whole, and is not to cut in before it: kfake then forgets to say which
	// transactions were aborted.
	atBytes, atFetchBytes = 1, 64 << 20
)

// errUncommitted is a log whose committed end does not reach the offset, though the broker does not call it out of
// range. Just after a new leader was elected that passes.
var errUncommitted = errors.New("the log's committed end is below the offset")

// At returns the committed record at exactly offset; it belongs to the caller. Where there is none it says why: the log
// begins above (log.ErrRecordsGone), ends below (log.ErrTruncated), has a gap there (log.ErrNoRecord), or is none
// (log.ErrUnknownTopic). Other errors come from the environment.
func (c *Client) At(ctx context.Context, p log.Partition, offset int64) (log.Record, error) {
	var err error
	for i := range atAttempts {
		if i > 0 {
			select {
			case <-ctx.Done():
				return log.Record{}, fmt.Errorf("read %s at %d: %w", p, offset, errors.Join(ctx.Err(), err))
			case <-time.After(atPause):
			}
		}
		var r log.Record
		if r, err = c.fetchOne(ctx, p, offset); err == nil {
			return r, nil
		}
		if !errors.Is(err, errUncommitted) && !kerr.IsRetriable(err) {
			break
		}
	}
	return log.Record{}, fmt.Errorf("read %s at %d: %w", p, offset, asLogError(err))
}

// fetchOne asks the partition's leader once.
func (c *Client) fetchOne(ctx context.Context, p log.Partition, offset int64) (log.Record, error) {
	topics, err := c.details(ctx, p.Topic)
	if err != nil {
		return log.Record{}, err
	}
	topic, ok := topics[p.Topic]
	if !ok {
		return log.Record{}, log.ErrUnknownTopic
	}
	part, ok := topic.Partitions[p.Index]
	if !ok {
		return log.Record{}, log.ErrUnknownTopic
	}
	if part.Err != nil {
		return log.Record{}, part.Err
	}
	resp, err := c.cl.Broker(int(part.Leader)).RetriableRequest(ctx, oneRecordRequest(p, topic.ID, offset))
	if err != nil {
		return log.Record{}, err
	}
	fetch := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(fetch.ErrorCode); err != nil {
		return log.Record{}, err
	}
	if len(fetch.Topics) != 1 || len(fetch.Topics[0].Partitions) != 1 {
		return log.Record{}, errors.New("the broker's answer does not fit the question")
	}
	rp := &fetch.Topics[0].Partitions[0]
	if rp.ErrorCode == kerr.OffsetOutOfRange.Code {
		return log.Record{}, c.outOfRange(ctx, p, offset)
	}
	fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: p.Topic, Partition: p.Index,
	}, rp, kgo.DefaultDecompressor(), nil)
	switch {
	case fp.Err != nil:
		return log.Record{}, fp.Err
	case len(fp.Records) > 0 && fp.Records[0].Offset == offset:
		r := toRecord(fp.Records[0], nil)
		return r.Clone(), nil
	case fp.LastStableOffset <= offset:
		return log.Record{}, errUncommitted
	}
	return log.Record{}, log.ErrNoRecord
}

func oneRecordRequest(p log.Partition, id [16]byte, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID = -1
	req.MaxWaitMillis = 0
	req.MinBytes = 0
	req.MaxBytes = atFetchBytes
	req.IsolationLevel = 1 // read committed
	req.SessionEpoch = -1  // no fetch session
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = p.Index, offset, atBytes
	part.CurrentLeaderEpoch = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = p.Topic, id
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	return req
}

// outOfRange says on which side of the log an offset lies that the broker called out of range.
func (c *Client) outOfRange(ctx context.Context, p log.Partition, offset int64) error {
	starts, err := c.adm.ListStartOffsets(ctx, p.Topic)
	if err != nil {
		return fmt.Errorf("list starts: %w", err)
	}
	start, ok := starts.Lookup(p.Topic, p.Index)
	switch {
	case !ok:
		return log.ErrUnknownTopic
	case start.Err != nil:
		return fmt.Errorf("list starts: %w", start.Err)
	case offset < start.Offset:
		return fmt.Errorf("%w: it begins at %d", log.ErrRecordsGone, start.Offset)
	}
	ends, err := c.adm.ListEndOffsets(ctx, p.Topic)
	if err != nil {
		return fmt.Errorf("list ends: %w", err)
	}
	if end, ok := ends.Lookup(p.Topic, p.Index); ok && end.Err == nil {
		return fmt.Errorf("%w: it ends at %d", log.ErrTruncated, end.Offset)
	}
	return log.ErrTruncated
}

// Check says whether the log fits pos, as it must before anything is read from there: the topic is the recorded one,
// the log reaches from below to at least pos.Offset, and the record before it is the one that was read there. Where that
// record is deleted, pos.Offset must be the log's start and the topic's id the recorded one. An error that satisfies
// log.Unfit says that it does not fit; any other that it could not be found out.
//
// It returns the topic's id as it is now.
func (c *Client) Check(ctx context.Context, pos log.Position) (log.TopicID, error) {
	id, err := c.check(ctx, pos)
	if err != nil {
		return log.TopicID{}, fmt.Errorf("check %s at %d: %w", pos.Partition, pos.Offset, err)
	}
	return id, nil
}

func (c *Client) check(ctx context.Context, pos log.Position) (log.TopicID, error) {
	topics, err := c.details(ctx, pos.Topic)
	if err != nil {
		return log.TopicID{}, err
	}
	topic, ok := topics[pos.Topic]
	if !ok || topic.Partitions[pos.Index].Topic == "" {
		return log.TopicID{}, log.ErrUnknownTopic
	}
	id := log.TopicID(topic.ID)
	if pos.TopicID != (log.TopicID{}) && id != pos.TopicID {
		return id, fmt.Errorf("%w: its id is %s, recorded was %s", log.ErrTopicReplaced, id, pos.TopicID)
	}
	if pos.Last == (crdt.Hash{}) {
		return id, c.checkBounds(ctx, pos)
	}
	return id, c.checkLast(ctx, pos)
}

// checkLast compares the record before the position.
func (c *Client) checkLast(ctx context.Context, pos log.Position) error {
	r, err := c.At(ctx, pos.Partition, pos.Offset-1)
	switch {
	case errors.Is(err, log.ErrRecordsGone):
		spans, lookupErr := c.Spans(ctx, pos.Topic)
		if lookupErr != nil {
			return lookupErr
		}
		if start := spans[pos.Partition].Start; pos.TopicID == (log.TopicID{}) || start != pos.Offset {
			return fmt.Errorf("%w: it begins at %d", log.ErrRecordsGone, start)
		}
		return nil
	case errors.Is(err, log.ErrNoRecord):
		return fmt.Errorf("%w: no record stands at %d any more", log.ErrRewritten, pos.Offset-1)
	case err != nil:
		return err
	}
	var h crdt.Hasher
	if r.Hash(&h) != pos.Last && !mutant.On("last-record-not-compared") {
		return fmt.Errorf("%w: another record stands at %d", log.ErrRewritten, pos.Offset-1)
	}
	return nil
}

// checkBounds checks a first point, which has no record before it.
func (c *Client) checkBounds(ctx context.Context, pos log.Position) error {
	spans, err := c.Spans(ctx, pos.Topic)
	if err != nil {
		return err
	}
	span := spans[pos.Partition]
	if span.Start > pos.Offset {
		return fmt.Errorf("%w: it begins at %d", log.ErrRecordsGone, span.Start)
	}
	if span.End >= pos.Offset {
		return nil
	}
	// The committed end may lie below a transaction that is open; the log's own end decides.
	ends, err := c.adm.ListEndOffsets(ctx, pos.Topic)
	if err != nil {
		return fmt.Errorf("list ends: %w", err)
	}
	if end, ok := ends.Lookup(pos.Topic, pos.Index); ok && end.Err == nil && end.Offset < pos.Offset {
		return fmt.Errorf("%w: it ends at %d", log.ErrTruncated, end.Offset)
	}
	return nil
}
