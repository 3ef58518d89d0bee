package replica

import (
	"slices"

	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/shard"
)

// growing are the commands that make the state grow. The others make room, or are what it takes to make some: horizons,
// deletions, and what is known of peers and of rows sent.
var growing = []shard.Kind{shard.KindAdvance, shard.KindStageBegin, shard.KindStageChunk, shard.KindJobApply, shard.KindRegisterTable}

// room refuses a command of a kind that makes the state grow, while there is no room for it.
func (r *Replica) room(k shard.Kind) error {
	if r.hasRoom == nil || !slices.Contains(growing, k) || !r.IsLeader() { // who doesn't lead says who does
		return nil
	}
	return r.hasRoom()
}

// UnderWay returns the bound on the bytes of commands that were proposed here and have no outcome yet: none where the
// replica is out.
func (r *Replica) UnderWay() *limit.Limit {
	if g := r.life.Load().group; g != nil {
		return g.UnderWay()
	}
	return new(limit.Limit)
}

// Backlog returns the bound on what is committed here and not yet applied: none where the replica is out.
func (r *Replica) Backlog() *group.Backlog {
	if g := r.life.Load().group; g != nil {
		return g.Backlog()
	}
	return new(group.Backlog)
}

// Held returns the bytes of the tables that wait in memory to be written, and how often a command had to wait for them.
func (r *Replica) Held() (bytes int64, stalls uint64) { return r.life.Load().machine.Held() }
