package client

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

const (
	// maxSessionJobs bounds the jobs that a session remembers; beyond it, it forgets one of the others.
	maxSessionJobs = 256
	// maxSessionShards bounds the shards it remembers of each.
	maxSessionShards = 1 << 16
	// maxSeen bounds the points that are sent with a read.
	maxSeen = 1 << 12
)

// Session makes reads monotonic: what was read once is in every later answer about the same shard, from whichever node of
// whichever region. It is safe for concurrent use, and may be shared by several clients of one deployment.
type Session struct {
	mu   sync.Mutex
	jobs map[string]*seenJob
}

// seenJob is what a session has seen of one generation of a job.
type seenJob struct {
	generation []byte
	shards     map[uint32]map[sourceID]*watershedv1.SourcePoint // the furthest point of each source
}

type sourceID struct {
	input       uint32
	region      string
	topic       string
	partition   int32
	incarnation uint32
}

// NewSession returns a session that has seen nothing.
func NewSession() *Session { return &Session{jobs: map[string]*seenJob{}} }

func idOf(p *watershedv1.SourcePoint) sourceID {
	return sourceID{p.GetInput(), p.GetRegion(), p.GetTopic(), p.GetPartition(), p.GetIncarnation()}
}

// see remembers what an answer reflects. It fails with ErrBehind, and remembers nothing, where that is less than before.
// A nil Session does nothing.
func (s *Session) see(job string, states ...*watershedv1.ShardState) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range states {
		if j := s.jobs[job]; j != nil && bytes.Equal(j.generation, state.GetGeneration()) {
			if err := j.behind(state); err != nil {
				return err
			}
		}
	}
	for _, state := range states {
		s.jobLocked(job, state.GetGeneration()).note(state)
	}
	return nil
}

// jobLocked returns what was seen of a job's generation; what was seen of another one is forgotten.
func (s *Session) jobLocked(job string, generation []byte) *seenJob {
	if j := s.jobs[job]; j != nil && bytes.Equal(j.generation, generation) {
		return j
	}
	for other := range s.jobs {
		if len(s.jobs) < maxSessionJobs {
			break
		}
		delete(s.jobs, other)
	}
	j := &seenJob{generation: generation, shards: map[uint32]map[sourceID]*watershedv1.SourcePoint{}}
	s.jobs[job] = j
	return j
}

func (j *seenJob) behind(state *watershedv1.ShardState) error {
	has := map[sourceID]int64{}
	for _, p := range state.GetPoints() {
		has[idOf(p)] = p.GetOffset()
	}
	for id, p := range j.shards[state.GetShard()] {
		if at, ok := has[id]; !ok || at < p.GetOffset() {
			return fmt.Errorf("%w: shard %d is at %d of %s %s/%d, and was at %d", ErrBehind, state.GetShard(), at,
				id.region, id.topic, id.partition, p.GetOffset())
		}
	}
	return nil
}

func (j *seenJob) note(state *watershedv1.ShardState) {
	shard := j.shards[state.GetShard()]
	if shard == nil {
		if len(j.shards) >= maxSessionShards {
			return
		}
		shard = map[sourceID]*watershedv1.SourcePoint{}
		j.shards[state.GetShard()] = shard
	}
	for _, p := range state.GetPoints() {
		shard[idOf(p)] = p
	}
}

// least returns the points that every shard was seen to have reached: what can be asked of all shards at once, since a
// request does not say which of them a point is of.
func (s *Session) least(job string) []*watershedv1.SourcePoint {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[job]
	if j == nil {
		return nil
	}
	low := map[sourceID]*watershedv1.SourcePoint{}
	for _, shard := range j.shards {
		for id, p := range shard {
			if q := low[id]; q == nil || p.GetOffset() < q.GetOffset() {
				low[id] = p
			}
		}
	}
	out := make([]*watershedv1.SourcePoint, 0, len(low))
	for _, p := range low {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *watershedv1.SourcePoint) int {
		x, y := idOf(a), idOf(b)
		return cmp.Or(cmp.Compare(x.input, y.input), cmp.Compare(x.region, y.region), cmp.Compare(x.topic, y.topic),
			cmp.Compare(x.partition, y.partition), cmp.Compare(x.incarnation, y.incarnation))
	})
	return out[:min(len(out), maxSeen)]
}
