package region

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/watershed-db/watershed/crdt"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
	"github.com/watershed-db/watershed/region/upkeep"
)

// compareWithin bounds the question what another replica holds.
const compareWithin = time.Second

// compare asks the other replicas of a shard for their chains. A leader that differs from a majority takes itself out.
func compare(ctx context.Context, env *Env, r *replica.Replica, index uint64, chain crdt.Hash) upkeep.Verdict {
	var mu sync.Mutex
	var told []crdt.Hash
	var asking sync.WaitGroup
	now, err := r.Membership()
	if err != nil {
		return upkeep.Undecided
	}
	for _, seat := range now.Seats {
		address := env.Router.Address(seat.ID)
		if seat.ID == env.Config.Node || address == "" {
			continue
		}
		asking.Go(func() {
			if other, ok := askChain(ctx, env, r, address, index); ok {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, other)
			}
		})
	}
	asking.Wait()
	verdict := upkeep.Judge(chain, told, len(now.Seats))
	for _, other := range told {
		if other != chain && verdict != upkeep.Wrong {
			env.Logger.Error("replicas differ", "shard", r.Shard(), "index", index, "here", fmt.Sprintf("%x", chain),
				"elsewhere", fmt.Sprintf("%x", other), "known which is right", verdict == upkeep.Right)
		}
	}
	if verdict == upkeep.Wrong {
		r.Out(fmt.Errorf("%w: chain %x at index %d is not that of a majority", shard.ErrDiverged, chain, index))
	}
	return verdict
}

func askChain(ctx context.Context, env *Env, r *replica.Replica, address string, index uint64) (chain crdt.Hash, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, compareWithin)
	defer cancel()
	conn, err := env.Conns.To(address)
	if err != nil {
		return chain, false
	}
	answer, err := regionv1.NewShardServiceClient(conn).Chain(ctx, &regionv1.ChainRequest{
		Deployment: env.Config.Deployment, Shard: uint32(r.Shard()), Index: index,
	})
	if err != nil || !answer.GetKnown() || len(answer.GetChain()) != len(chain) {
		return chain, false
	}
	return crdt.Hash(answer.GetChain()), true
}
