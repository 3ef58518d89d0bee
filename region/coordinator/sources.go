package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/region/shard"
)

// lookWithin bounds one look at the log.
const lookWithin = 5 * time.Second

// topics is what the log last said.
type topics struct {
	mu     sync.Mutex
	known  map[string]Topic
	looked time.Time
}

func (t *topics) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.looked = nil, time.Time{}
}

// look returns what the log says of the wanted topics, at most every `every`, or at once when one is wanted that it was
// not asked about.
func (t *topics) look(ctx context.Context, logs Logs, wanted []string, every time.Duration) (map[string]Topic, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	asked := !slices.ContainsFunc(wanted, func(name string) bool { _, ok := t.known[name]; return !ok })
	if asked && time.Since(t.looked) < every {
		return t.known, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	found, err := logs.Describe(ctx, wanted...)
	if err != nil {
		return nil, false, err
	}
	t.looked, t.known = time.Now(), map[string]Topic{}
	for _, name := range wanted {
		t.known[name] = found[name]
	}
	return t.known, true, nil
}

// decide records the first points of the own sources that have none yet (rules A2): of new jobs and new partitions.
func (c *Coordinator) decide(ctx context.Context, registry *shard.Registry) {
	jobs, wanted := map[crdt.GenerationID]*job.Job{}, map[string]bool{}
	for _, e := range registry.Jobs() {
		g := c.o.Shards.State(0).Generation(e.Generation)
		if g == nil {
			continue // at the next look
		}
		jobs[e.Generation] = g.Job
		for _, in := range g.Job.Inputs {
			wanted[in.Topic] = true
		}
	}
	if len(wanted) == 0 {
		return
	}
	known, fresh, err := c.topics.look(ctx, c.o.Logs, slices.Sorted(maps.Keys(wanted)), c.o.Look)
	if err != nil {
		if ctx.Err() == nil {
			c.notes.warn(crdt.GenerationID{}, "the log does not tell of its topics; asking again", "error", err)
		}
		return
	}
	for id, j := range jobs {
		if !fresh && len(registry.Decided(id)) > 0 {
			continue // new partitions wait for the next look, a new job does not
		}
		c.notes.judge(id, problems(j, known, registry.Decided(id), c.o.Region))
		if err := c.decideJob(ctx, registry, id, j, known); err != nil && ctx.Err() == nil {
			c.notes.warn(id, "the first points of a job's sources are not decided; trying again", "job", j.Name, "error", err)
			c.topics.clear()
		}
	}
}

// problems names what keeps a job's topics from being read, and what its author should know.
func problems(j *job.Job, known map[string]Topic, decided []shard.Decided, region crdt.RegionID) []string {
	var out []string
	tell := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, in := range j.Inputs {
		t, ok := known[in.Topic]
		switch {
		case !ok || t.Partitions == 0:
			tell("topic %s does not exist in %s: no window closes until it does", in.Topic, region)
		case t.Compacted:
			tell("topic %s is compacted in %s and cannot be a source: no window closes until it is not", in.Topic, region)
		case replaced(in.Topic, t, decided):
			tell("topic %s was deleted and made again in %s: its sources cannot go on", in.Topic, region)
		case in.MaxFuture != job.NoMaxFuture && !t.LogAppendTime && t.MaxTimestampAhead == crdt.MaxTime:
			tell("topic %s has neither LogAppendTime nor a bound on producers' timestamps: max_future trusts its producers",
				in.Topic)
		}
	}
	return out
}

// replaced says whether a topic is not the one in which first points were decided: it was deleted and made again. Its
// sources stop when they are read; new ones must not join them.
func replaced(name string, t Topic, decided []shard.Decided) bool {
	return slices.ContainsFunc(decided, func(d shard.Decided) bool {
		return d.Source.Topic == name && d.TopicID != "" && t.ID != "" && d.TopicID != t.ID
	})
}

// decideJob decides the first points of a job's sources that have none: the start of the log as it is now. As long as one
// of the job's topics can't be read nothing is decided, for the region's group would be declared without it.
func (c *Coordinator) decideJob(ctx context.Context, registry *shard.Registry, id crdt.GenerationID, j *job.Job,
	known map[string]Topic,
) error {
	decided := registry.Decided(id)
	command := &shard.SourcesDecided{Generation: id}
	names := map[string]bool{}
	for _, in := range j.Inputs {
		t := known[in.Topic]
		if t.Partitions == 0 || t.Compacted || replaced(in.Topic, t, decided) {
			return nil
		}
		for p := range t.Partitions {
			s := crdt.Source{Input: uint16(in.Index), Region: c.o.Region, Topic: in.Topic, Partition: p}
			_, done := slices.BinarySearchFunc(decided, s, func(d shard.Decided, s crdt.Source) int {
				return crdt.CompareSources(d.Source, s)
			})
			if !done {
				command.Sources = append(command.Sources, shard.Decided{SourcePoint: shard.SourcePoint{Source: s}, TopicID: t.ID})
				names[in.Topic] = true
			}
		}
	}
	if len(command.Sources) == 0 {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	starts, err := c.o.Logs.Starts(ask, slices.Sorted(maps.Keys(names))...)
	if err != nil {
		return err
	}
	for i := range command.Sources {
		d := &command.Sources[i]
		start, ok := starts[Partition{d.Source.Topic, d.Source.Partition}]
		if !ok {
			return fmt.Errorf("the log does not tell where %s begins", d.Source)
		}
		d.Point = crdt.FirstPoint(d.Source, start)
	}
	slices.SortFunc(command.Sources, func(a, b shard.Decided) int { return crdt.CompareSources(a.Source, b.Source) })
	c.propose(ctx, 0, command)
	return nil
}

// Check says what a job that is about to be applied should have its author know: an error where a topic can never be a
// source, else warnings. It asks the log of this region; where that does not answer, that is a warning.
func (c *Coordinator) Check(ctx context.Context, j *job.Job) (warnings []string, err error) {
	names := map[string]bool{}
	for _, in := range j.Inputs {
		names[in.Topic] = true
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	known, err := c.o.Logs.Describe(ctx, slices.Sorted(maps.Keys(names))...)
	if err != nil {
		return []string{fmt.Sprintf("the log of %s does not answer, so its topics were not checked", c.o.Region)}, nil
	}
	for name, t := range known {
		if t.Compacted {
			return nil, fmt.Errorf("topic %s is compacted in %s and cannot be a source", name, c.o.Region)
		}
	}
	return problems(j, known, nil, c.o.Region), nil
}
