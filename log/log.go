// Package log reads replayable logs: what a Record is, where a reader stands in a partition, and in which ways a log can
// turn out not to be the one that was read before. The logs themselves are in log/kafka and log/file; log/embedded is a
// broker for development.
package log

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
)

// The ways in which a log does not fit the position that is to be read from it. Each of them stops its partition, and
// none of them ever moves a position.
var (
	// ErrRecordsGone: the log begins above the position, so records were removed before they were read.
	ErrRecordsGone = errors.New("records are gone")
	// ErrTruncated: the log ends below the position, so it was cut.
	ErrTruncated = errors.New("log was cut")
	// ErrRewritten: the record before the position is not the one that was read there.
	ErrRewritten = errors.New("log was rewritten")
	// ErrTopicReplaced: the topic was deleted and made again.
	ErrTopicReplaced = errors.New("topic was made again")
	// ErrUnknownTopic: the cluster has no such topic or partition.
	ErrUnknownTopic = errors.New("no such topic or partition")
	// ErrNoRecord: the log reaches over the offset, but no committed record stands there.
	ErrNoRecord = errors.New("no record at this offset")
)

// Unfit says whether err means that the log does not fit a position: waiting does not mend it, and the source stops.
// Every other error of a log is its environment's, and worth another try.
func Unfit(err error) bool {
	return errors.Is(err, ErrRecordsGone) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrRewritten) ||
		errors.Is(err, ErrTopicReplaced) || errors.Is(err, ErrUnknownTopic)
}

// TopicID is the id that a cluster gave a topic when it was made; a topic that is made again has another. Zero is
// unknown.
type TopicID [16]byte

// String returns the id in hexadecimal, or "unknown".
func (id TopicID) String() string {
	if id == (TopicID{}) {
		return "unknown"
	}
	return hex.EncodeToString(id[:])
}

// Partition names one partition of a topic of one cluster.
type Partition struct {
	Topic string
	Index int32
}

// String returns topic/partition.
func (p Partition) String() string { return fmt.Sprintf("%s/%d", p.Topic, p.Index) }

// Position is where a reader is to begin: at Offset, in the log that the rest describes.
type Position struct {
	Partition
	// TopicID is the id recorded with the source. Zero is not compared.
	TopicID TopicID
	// Offset is that of the next record; everything below it has been read.
	Offset int64
	// Last is the hash of the record at Offset-1 alone (crdt.Point.Last); zero at a first point, where there is none
	// to compare.
	Last crdt.Hash
}

// Batch is what one poll brought of one partition: records or an error, not both.
type Batch struct {
	Partition
	// Records are in order of offset, and belong to the reader (see Record).
	Records []Record
	// Start and End are the log's bounds when the batch was fetched: the first offset it holds, and the one below which
	// everything is committed.
	Start, End int64
	// Err says why the partition stopped; the reader has dropped it by then. It satisfies Unfit, or else names what
	// the partition's broker refuses for good (authorization, corruption).
	Err error
}

// Span is the bounds of a partition: Start is the first offset it holds, End the one below which everything is
// committed. Start = End is an empty log.
type Span struct{ Start, End int64 }

// Topic is what a cluster says about one topic.
type Topic struct {
	Name       string
	ID         TopicID
	Partitions int32
	// Compacted says that its cleanup.policy has "compact": its records go by key, so a prefix of it does not stay what
	// it was, and it is no source of aggregates.
	Compacted bool
	// LogAppendTime says that the broker stamps records itself.
	LogAppendTime bool
	// MaxTimestampAhead is how far ahead of its clock the broker lets a producer stamp a record, in ms; crdt.MaxTime
	// where there is no bound.
	MaxTimestampAhead int64
}
