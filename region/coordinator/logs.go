package coordinator

import "context"

// Topic is what the region's log says of one topic.
type Topic struct {
	ID         string // that the cluster gave it when it was made; "" where unknown
	Partitions int32
	// Compacted topics are no source of aggregates: a prefix of one does not stay what it was.
	Compacted bool
	// LogAppendTime says that the broker stamps records itself; else MaxTimestampAhead is how far ahead of its clock it
	// lets producers stamp them, in ms, crdt.MaxTime for no bound.
	LogAppendTime     bool
	MaxTimestampAhead int64
}

// Partition names one partition of a topic.
type Partition struct {
	Topic string
	Index int32
}

// Logs is the region's log as the coordinator needs it. Its methods are safe for any goroutine.
type Logs interface {
	// Describe returns what is known of topics; one that does not exist is left out.
	Describe(ctx context.Context, topics ...string) (map[string]Topic, error)
	// Starts returns the first offset that each partition of topics holds.
	Starts(ctx context.Context, topics ...string) (map[Partition]int64, error)
}
