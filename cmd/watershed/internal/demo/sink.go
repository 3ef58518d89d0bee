package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// sinkLog is what a topic of results holds: of every row the version that ranks highest.
type sinkLog struct {
	records int
	rows    map[rowID]sinkRow
	next    map[int32]int64 // offsets read up to
}

type sinkRow struct {
	generation string
	epoch      uint64
	revision   uint64
	complete   bool
	retracted  bool
	text       string
}

// rank compares versions of one row (generation, epoch, revision, complete).
func (r sinkRow) rank(o sinkRow) int {
	complete := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(r.generation, o.generation), cmp.Compare(r.epoch, o.epoch), cmp.Compare(r.revision, o.revision),
		cmp.Compare(complete(r.complete), complete(o.complete)))
}

func newSinkLog() *sinkLog { return &sinkLog{rows: map[rowID]sinkRow{}, next: map[int32]int64{}} }

// take adds a record of the topic.
func (l *sinkLog) take(rec *kgo.Record) error {
	l.records++
	id, err := parseRow(rec.Value)
	if err != nil {
		return err
	}
	row := sinkRow{text: string(rec.Value)}
	var tail struct {
		Revision  uint64 `json:"revision"`
		Complete  bool   `json:"complete"`
		Retracted bool   `json:"retracted"`
	}
	if err := json.Unmarshal(rec.Value, &tail); err != nil {
		return fmt.Errorf("row %s: %w", rec.Value, err)
	}
	row.revision, row.complete, row.retracted = tail.Revision, tail.Complete, tail.Retracted
	for _, h := range rec.Headers {
		switch h.Key {
		case "generation":
			row.generation = string(h.Value)
		case "epoch":
			if row.epoch, err = strconv.ParseUint(string(h.Value), 10, 64); err != nil {
				return fmt.Errorf("epoch of row %s: %w", rec.Value, err)
			}
		}
	}
	if old, ok := l.rows[id]; !ok || row.rank(old) >= 0 {
		l.rows[id] = row
	}
	return nil
}

// standing returns the rows that stand.
func (l *sinkLog) standing() map[rowID]string {
	out := make(map[rowID]string, len(l.rows))
	for id, r := range l.rows {
		if !r.retracted {
			out[id] = r.text
		}
	}
	return out
}

// readTopic hands every record of a topic, from the offsets of next up to its present ends, to take, and moves next.
func readTopic(ctx context.Context, brokers []string, topic string, next map[int32]int64, take func(*kgo.Record) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return fmt.Errorf("read %s: %w", topic, err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", topic, err)
	}
	from, behind := map[int32]kgo.Offset{}, 0
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > next[o.Partition] {
			from[o.Partition] = kgo.NewOffset().At(next[o.Partition])
			behind++
		}
	})
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	for behind > 0 {
		fetched := cl.PollFetches(ctx)
		if err := fetched.Err0(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		var first error
		fetched.EachRecord(func(rec *kgo.Record) {
			end, _ := ends.Lookup(topic, rec.Partition)
			if first != nil || rec.Offset >= end.Offset {
				return
			}
			first = take(rec)
			if next[rec.Partition] = rec.Offset + 1; rec.Offset+1 == end.Offset {
				behind--
			}
		})
		if first != nil {
			return fmt.Errorf("read %s: %w", topic, first)
		}
	}
	return nil
}

// sinkWithin bounds how long the sink may take to hold what a query shows.
const sinkWithin = 8 * time.Second

// awaitSink reads the topic of results until its rows are those wanted, or that takes too long.
func awaitSink(ctx context.Context, brokers []string, want map[rowID]string) (*sinkLog, difference, error) {
	ctx, cancel := context.WithTimeout(ctx, sinkWithin)
	defer cancel()
	l := newSinkLog()
	var d difference
	err := await(ctx, "read the sink", func() (bool, error) {
		if err := readTopic(ctx, brokers, sinkTopic, l.next, l.take); err != nil {
			return false, err
		}
		d = compare(want, l.standing())
		return d.none(), nil
	})
	if err != nil && l.records > 0 {
		err = nil // the difference says it
	}
	return l, d, err
}

// asides counts the records of a side output by the source and offset that they came from.
func asides(ctx context.Context, brokers []string, topic string) (distinct int, err error) {
	from := map[string]struct{}{}
	err = readTopic(ctx, brokers, topic, map[int32]int64{}, func(rec *kgo.Record) error {
		var id bytes.Buffer
		for _, h := range rec.Headers {
			if h.Key == "source" || h.Key == "offset" {
				fmt.Fprintf(&id, "%s=%q ", h.Key, h.Value)
			}
		}
		from[id.String()] = struct{}{}
		return nil
	})
	return len(from), err
}
