package output

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Frontiers are the offsets after the last records taken: region, then topic/partition.
type Frontiers map[string]map[string]int64

// ShardReflects is what one shard's part of an answer reflects.
type ShardReflects struct {
	Frontiers Frontiers `json:"frontiers"`
	Watermark *string   `json:"watermark"`
	// Staleness is the time since the replica that answered last heard from its leader, in ms.
	Staleness int64 `json:"staleness_ms"`
}

// Reflects is what an answer reflects: by shard, and the least of all of them. A source that some shard has not been told
// of is in no least.
type Reflects struct {
	Shards    map[string]ShardReflects `json:"shards"`
	Frontiers Frontiers                `json:"frontiers"`
	Watermark *string                  `json:"watermark"`
	Missing   []string                 `json:"missing"` // regions that can't be reached, sorted
}

// NewReflects sums up what shards say of themselves.
func NewReflects(shards []*watershedv1.ShardState) Reflects {
	r := Reflects{Shards: map[string]ShardReflects{}, Frontiers: Frontiers{}}
	missing := map[string]bool{}
	for i, s := range shards {
		f := frontiers(s.GetPoints())
		r.Shards[strconv.FormatUint(uint64(s.GetShard()), 10)] = ShardReflects{
			Frontiers: f, Watermark: TimeOrNull(s.GetWatermarkMs()), Staleness: s.GetStalenessMs(),
		}
		if i == 0 {
			r.Frontiers = f.clone()
		} else {
			r.Frontiers.lower(f)
		}
		for _, region := range s.GetMissing() {
			missing[region] = true
		}
	}
	if len(shards) > 0 {
		r.Watermark = TimeOrNull(LeastWatermark(shards))
	}
	r.Missing = append([]string{}, slices.Sorted(maps.Keys(missing))...)
	return r
}

// LeastWatermark returns the least watermark of at least one shard, in ms.
func LeastWatermark(shards []*watershedv1.ShardState) int64 {
	return slices.MinFunc(shards, func(a, b *watershedv1.ShardState) int {
		return cmp.Compare(a.GetWatermarkMs(), b.GetWatermarkMs())
	}).GetWatermarkMs()
}

// frontiers returns the offsets of points: of a log that was begun again its last incarnation, of a topic that stands in
// two sources the lower one.
func frontiers(points []*watershedv1.SourcePoint) Frontiers {
	type log struct{ region, topic string }
	latest := map[log]uint32{}
	out := Frontiers{}
	for _, p := range points {
		name := log{p.GetRegion(), p.GetTopic() + "/" + strconv.Itoa(int(p.GetPartition()))}
		region := out[name.region]
		if region == nil {
			region = map[string]int64{}
			out[name.region] = region
		}
		at, known := region[name.topic]
		switch {
		case !known || p.GetIncarnation() > latest[name]:
			region[name.topic], latest[name] = p.GetOffset(), p.GetIncarnation()
		case p.GetIncarnation() == latest[name]:
			region[name.topic] = min(at, p.GetOffset())
		}
	}
	return out
}

func (f Frontiers) clone() Frontiers {
	out := Frontiers{}
	for region, offsets := range f {
		out[region] = maps.Clone(offsets)
	}
	return out
}

// lower takes from f what g lacks and lowers the rest to what g has.
func (f Frontiers) lower(g Frontiers) {
	for region, offsets := range f {
		for log, at := range offsets {
			other, ok := g[region][log]
			if !ok {
				delete(offsets, log)
				continue
			}
			offsets[log] = min(at, other)
		}
		if len(offsets) == 0 {
			delete(f, region)
		}
	}
}
