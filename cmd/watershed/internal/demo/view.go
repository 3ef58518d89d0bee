package demo

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

const (
	pollEvery  = 100 * time.Millisecond
	callWithin = 3 * time.Second
)

// sourceID names a source as points do.
type sourceID struct {
	region, topic string
	partition     int32
}

func (s *source) id() sourceID { return sourceID{s.region, s.topic, s.partition} }

// view is where a region stands.
type view struct {
	offsets   map[sourceID]int64            // the least over all shards; a source that a shard lacks is not in it
	counts    map[sourceID][outcomes]uint64 // of the shard that is furthest
	watermark int64                         // the least over all shards
	missing   map[string]bool               // regions that it cannot reach
	shards    int
}

// look asks a region where it stands.
func look(ctx context.Context, c *client.Client) (view, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	never := int64(math.MaxInt32) * 1000 * 60 // a window start beyond all events: no rows are asked for
	scan, err := c.Scan(ctx, &watershedv1.ScanRequest{Selection: &watershedv1.Selection{
		Job: jobName, FromMs: &never, Consistency: watershedv1.Consistency_CONSISTENCY_LINEARIZABLE,
	}})
	if err != nil {
		return view{}, err
	}
	defer scan.Close()
	for scan.Next() { // to the summary
	}
	if err := scan.Err(); err != nil {
		return view{}, err
	}
	return newView(scan.Summary().GetShards()), nil
}

func newView(shards []*watershedv1.ShardState) view {
	v := view{offsets: map[sourceID]int64{}, counts: map[sourceID][outcomes]uint64{}, watermark: math.MaxInt64,
		missing: map[string]bool{}, shards: len(shards)}
	seen := map[sourceID]int{}
	furthest := map[sourceID]int64{}
	for _, sh := range shards {
		v.watermark = min(v.watermark, sh.GetWatermarkMs())
		for _, r := range sh.GetMissing() {
			v.missing[r] = true
		}
		for _, p := range sh.GetPoints() {
			id := sourceID{p.GetRegion(), p.GetTopic(), p.GetPartition()}
			if seen[id]++; seen[id] == 1 || p.GetOffset() < v.offsets[id] {
				v.offsets[id] = p.GetOffset()
			}
			if c := p.GetCounts(); len(c) == int(outcomes) && p.GetOffset() >= furthest[id] {
				furthest[id], v.counts[id] = p.GetOffset(), [outcomes]uint64(c)
			}
		}
	}
	for id, n := range seen {
		if n < len(shards) {
			delete(v.offsets, id)
		}
	}
	return v
}

// reaches says whether v has taken at least what is asked of every source.
func (v view) reaches(offsets map[sourceID]int64) bool {
	for id, want := range offsets {
		if have, ok := v.offsets[id]; !ok || have < want {
			return false
		}
	}
	return true
}

// rows reads every row of a region, printed as `watershed query` prints them.
func rows(ctx context.Context, c *client.Client) (map[rowID]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*callWithin)
	defer cancel()
	scan, err := c.Scan(ctx, &watershedv1.ScanRequest{Selection: &watershedv1.Selection{
		Job: jobName, Consistency: watershedv1.Consistency_CONSISTENCY_LINEARIZABLE,
	}})
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	defer scan.Close()
	printer := output.NewRows(scan.Columns())
	out := map[rowID]string{}
	for scan.Next() {
		line, err := printer.AppendJSON(nil, scan.Row(), false)
		if err != nil {
			return nil, fmt.Errorf("read rows: %w", err)
		}
		id, err := parseRow(line)
		if err != nil {
			return nil, fmt.Errorf("read rows: %w", err)
		}
		if _, twice := out[id]; twice {
			return nil, fmt.Errorf("read rows: %s came twice", line)
		}
		out[id] = string(line)
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return out, nil
}

// await polls until done says so; it fails with the reason that done gave last when ctx ends.
func await(ctx context.Context, what string, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(pollEvery):
		}
	}
}
