package peer

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
)

// Hello returns what this node says of itself when it asks a peer about a shard.
func (id *Identity) Hello(shard keyspace.ShardID) *peerv1.Hello {
	self, _ := id.member(id.Self)
	return &peerv1.Hello{Deployment: id.Deployment, Region: string(id.Self), Member: uint32(self.Number),
		Shard: uint32(shard), Shards: uint32(id.Shards), Version: Version}
}

// check says why a caller is refused: a short reason to count by, and a text; both empty where it is welcome.
func (id *Identity) check(h *peerv1.Hello) (reason, text string) {
	switch m, known := id.member(crdt.RegionID(h.GetRegion())); {
	case h == nil:
		return "hello", "the first message has no hello"
	case h.Version != Version:
		return "version", fmt.Sprintf("protocol version %d, this is %d", h.Version, Version)
	case h.Deployment != id.Deployment:
		return "deployment", fmt.Sprintf("deployment %.64q, this is %q", h.Deployment, id.Deployment)
	case !known:
		return "region", fmt.Sprintf("region %.64q is no member", h.Region)
	case m.Region == id.Self:
		return "region", fmt.Sprintf("region %q is this one", id.Self)
	case h.Member != uint32(m.Number):
		return "member", fmt.Sprintf("region %s as member %d, it is %d", m.Region, h.Member, m.Number)
	case h.Shards != uint32(id.Shards):
		return "shards", fmt.Sprintf("%d shards, these are %d", h.Shards, id.Shards)
	case h.Shard >= h.Shards:
		return "shards", fmt.Sprintf("there is no shard %d of %d", h.Shard, h.Shards)
	}
	return "", ""
}

// logEvery is how far apart refusals of one kind are logged.
const logEvery = time.Minute

// refusals counts who was refused, and logs it seldom. It is safe for any goroutine.
type refusals struct {
	logger hclog.Logger

	mu     sync.Mutex
	counts map[string]uint64
	logged map[string]time.Time
}

func newRefusals(logger hclog.Logger) *refusals {
	return &refusals{logger: logger, counts: map[string]uint64{}, logged: map[string]time.Time{}}
}

// note counts a refusal and returns it as a status.
func (r *refusals) note(reason, text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[reason]++
	if now := time.Now(); now.Sub(r.logged[reason]) >= logEvery {
		r.logged[reason] = now
		r.logger.Warn("a region was refused", "reason", text, "refused", r.counts[reason])
	}
	return status.Error(codes.PermissionDenied, text)
}

func (r *refusals) snapshot() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]uint64, len(r.counts))
	for k, v := range r.counts {
		out[k] = v
	}
	return out
}
