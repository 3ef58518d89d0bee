package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// puller takes from one region what one shard lacks.
type puller struct {
	shard   *Shard
	peer    Member
	replica Replica
	timing  Timing
	logger  hclog.Logger

	entries, bytes, joined, gaps, refusals, early atomic.Uint64

	waiting atomic.Int64 // bytes of entries that came and are yet to be proposed

	// Of the goroutine that runs:
	cursor  uint64                       // the peer has told everything up to here of its log
	unknown map[crdt.GenerationID]uint64 // generations that are not known here: the first index passed over
	behind  map[groupKey]*lateGroup
	goals   map[groupKey]*goal
	tables  tableGoal
	warned  time.Time // when a refusal by the peer was last logged

	mu sync.Mutex
	in struct { // by mu
		book      *book
		heard     time.Time
		connected bool
		level     time.Time
		stopped   map[crdt.GenerationID]map[crdt.Source]bool
	}
}

// lateGroup is a group that nothing the peer has told can bring level.
type lateGroup struct {
	since time.Time
	at    crdt.Frontier // where it stood then
	again time.Time     // not before
}

// goal is what a peer has told that it holds of a group. What of it is still lacking here once the peer has told of all its
// log up to then, no delta will bring. It stays until it is reached, however far the peer goes on meanwhile.
type goal struct {
	index    uint64 // of the peer's log
	points   crdt.Frontier
	declared bool
}

// lacks reports whether a generation here is short of the goal for a group.
func (x *goal) lacks(g *shard.Generation, group crdt.RegionID) bool {
	if x.declared && !g.Declared(group) {
		return true
	}
	for src, want := range x.points {
		st, ok := g.Standing(src)
		if !ok || st.Point.Offset < want.Offset || st.Point.Offset == want.Offset && st.Point.Watermark < want.Watermark {
			return true
		}
	}
	return false
}

func newPuller(s *Shard, m Member) *puller {
	p := &puller{shard: s, peer: m, replica: s.o.Replica, timing: s.o.Timing, logger: s.logger.With("peer", m.Region)}
	p.begin(time.Time{})
	return p
}

// begin forgets what an earlier leadership knew.
func (p *puller) begin(now time.Time) {
	p.cursor, p.unknown, p.behind = 0, map[crdt.GenerationID]uint64{}, map[groupKey]*lateGroup{}
	p.goals = map[groupKey]*goal{}
	p.tables = tableGoal{}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in.book, p.in.heard, p.in.connected = newBook(), now, false
	p.in.stopped = map[crdt.GenerationID]map[crdt.Source]bool{}
}

// run keeps a stream to the peer's leader until ctx ends.
func (p *puller) run(ctx context.Context) {
	pause, next, failed := p.timing.FirstPause, 0, 0
	for ctx.Err() == nil {
		addresses := p.addresses()
		if len(addresses) == 0 {
			<-ctx.Done()
			return
		}
		next %= len(addresses)
		address := addresses[next]
		worked, err := p.try(ctx, address)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAgain) {
			continue
		}
		p.note(address, err)
		if worked {
			pause, failed = p.timing.FirstPause, 0
		}
		if wait := router.RetryAfter(err); wait > 0 { // it has said when it has room
			if rest(ctx, min(max(wait, pause), longestRest)) != nil {
				return
			}
			next++ // it may not even lead the shard
			continue
		}
		if i := leaderOf(addresses, err); i >= 0 && i != next {
			next = i
		} else {
			next++
		}
		// A node that does not lead is passed at once; after a round of them there is a pause.
		if failed++; failed%len(addresses) != 0 {
			continue
		}
		if rest(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, p.timing.LastPause)
	}
}

// addresses returns where the peer's nodes are dialed by now.
func (p *puller) addresses() []string {
	if of := p.shard.o.Addresses; of != nil {
		return of(p.peer.Region)
	}
	return p.peer.Addresses
}

// longestRest bounds how long a peer may put a puller off.
const longestRest = 2 * time.Second

// leaderOf returns which of the addresses an error names as the leader's, -1 for none of them.
func leaderOf(addresses []string, err error) int {
	detail := router.Detail(err)
	if detail == nil || detail.Leader == "" {
		return -1
	}
	return slices.Index(addresses, detail.Leader)
}

// note logs what ended a stream, loudly but seldom where the peer refuses this region.
func (p *puller) note(address string, err error) {
	switch code := status.Code(err); {
	case code == codes.PermissionDenied || errors.Is(err, ErrProtocol):
		if now := time.Now(); now.Sub(p.warned) >= logEvery {
			p.warned = now
			p.logger.Error("peer and this region do not fit", "address", address, "error", err)
		}
	default:
		p.logger.Debug("stream ended", "address", address, "error", err)
	}
}

// errAgain ends a session that is to be begun again at once, from another cursor.
var errAgain = errors.New("to be pulled again")

func (p *puller) try(ctx context.Context, address string) (worked bool, err error) {
	conn, err := p.shard.o.Links.to(address)
	if err != nil {
		return false, err
	}
	s := &session{puller: p, conn: conn}
	worked, err = s.run(ctx)
	p.waiting.Store(0) // what came last is pulled again
	p.mu.Lock()
	p.in.connected = false
	p.mu.Unlock()
	if s.silent.Load() {
		p.shard.o.Links.drop(address, conn, p.timing.Silence)
	}
	return worked, err
}

// stop records that a source's history here is not the peer's. It is done once for each.
func (p *puller) stop(ctx context.Context, id crdt.GenerationID, sources []crdt.Source) {
	for _, src := range sources {
		p.mu.Lock()
		known := p.in.stopped[id][src]
		if !known {
			if p.in.stopped[id] == nil {
				p.in.stopped[id] = map[crdt.Source]bool{}
			}
			p.in.stopped[id][src] = true
		}
		p.mu.Unlock()
		if known {
			continue
		}
		reason := fmt.Sprintf("its history in region %s is another one than here", p.peer.Region)
		p.logger.Error("source stopped", "generation", fmt.Sprintf("%x", id), "source", src.String(), "reason", reason)
		if p.shard.o.Stopped != nil {
			p.shard.o.Stopped(ctx, &shard.SourceStopped{Generation: id, Source: src, Reason: reason})
		}
	}
}

func (p *puller) isStopped(id crdt.GenerationID, src crdt.Source) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in.stopped[id][src]
}

// view says what is known of the peer; st is the own state to compare with.
func (p *puller) view(st *shard.State) View {
	p.mu.Lock()
	v := View{Region: p.peer.Region, Heard: p.in.heard, Connected: p.in.connected, Level: p.in.level,
		Told: maps.Clone(p.in.book.told), Tables: entriesBehind(st.Tables().Marks, p.in.book.marks),
		Standing: shard.TableStanding{Actor: table.Actor(p.peer.Number), Marks: p.in.book.marks, Floor: p.in.book.floor}}
	for _, sources := range p.in.stopped {
		v.Stopped = slices.AppendSeq(v.Stopped, maps.Keys(sources))
	}
	p.mu.Unlock()
	slices.SortFunc(v.Stopped, crdt.CompareSources)
	v.Entries, v.Bytes, v.Joined, v.Gaps = p.entries.Load(), p.bytes.Load(), p.joined.Load(), p.gaps.Load()
	v.Refusals, v.Early = p.refusals.Load(), p.early.Load()
	if v.Behind = -1; len(v.Told) > 0 {
		v.Behind = recordsBehind(st, v.Told)
	}
	return v
}

// recordsBehind counts the records that others' points are ahead of the own.
func recordsBehind(st *shard.State, told map[crdt.GenerationID]*Standing) (n int64) {
	for id, s := range told {
		g := st.Generation(id)
		if g == nil {
			continue
		}
		for src, p := range s.Frontier {
			if own, _ := g.Standing(src); p.Offset > own.Point.Offset {
				n += p.Offset - own.Point.Offset
			}
		}
	}
	return n
}
