package owner

import (
	"sync/atomic"

	"github.com/watershed-db/watershed/failover/ownership"
)

// stats counts what a shard's leaders on this node did.
type stats struct {
	dropped, logged, distrusted atomic.Uint64
	notes                       [ownership.NoteLost + 1]atomic.Uint64
}

func (s *stats) note(k ownership.NoteKind) { s.notes[k].Add(1) }

// Counts are what a shard's leaders on this node have done since it started.
type Counts struct {
	Dropped    uint64            // messages
	Logged     uint64            // commands on the owned log
	Distrusted uint64            // leaderships handed on because of the clock
	Notes      map[string]uint64 // what happened, by name
}

// Counts returns what was counted.
func (s *Shard) Counts() Counts {
	c := Counts{s.stats.dropped.Load(), s.stats.logged.Load(), s.stats.distrusted.Load(), map[string]uint64{}}
	for k := range s.stats.notes {
		if k > 0 {
			c.Notes[ownership.NoteKind(k).String()] = s.stats.notes[k].Load()
		}
	}
	return c
}
