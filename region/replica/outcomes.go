package replica

import (
	"sync/atomic"

	"github.com/watershed-db/watershed/region/shard"
)

// outcomes counts what the commands that were proposed here came to.
type outcomes struct {
	of [shard.Kinds][shard.Elsewhere + 1]atomic.Uint64
}

func (o *outcomes) count(k shard.Kind, x shard.Outcome) { o.of[k][x].Add(1) }

// Outcomes calls each with the number of commands of a kind that were proposed on this node and met an outcome, where
// there were any.
func (r *Replica) Outcomes(each func(k shard.Kind, o shard.Outcome, n uint64)) {
	for k := range r.outcomes.of {
		for o := range r.outcomes.of[k] {
			if n := r.outcomes.of[k][o].Load(); n > 0 {
				each(shard.Kind(k), shard.Outcome(o), n)
			}
		}
	}
}
