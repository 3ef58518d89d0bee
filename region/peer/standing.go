package peer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/crdt/table"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// ErrProtocol marks what a peer said that it must not say.
var ErrProtocol = errors.New("peer breaks the protocol")

// Bounds of what a peer may tell.
const (
	maxGenerations = 1 << 12 // in the standings of one stream
	maxRegions     = 1 << 10 // in one standing
	maxSources     = 1 << 16 // in one standing
	maxMillis      = 1<<48 - 1
)

// Standing is how a shard stands in one generation. It is immutable once it was handed out.
type Standing struct {
	Generation         crdt.GenerationID
	Frontier           crdt.Frontier
	Horizon, Watermark int64
	Floor              int64           // the horizon that the region would bear (rules A7)
	Declared           []crdt.RegionID // regions whose sources it knows; sorted
	Idle               []crdt.Source   // sources of its own region that are idle at the point in Frontier; in order
}

// standingOf returns how a shard stands; the floor is for the caller to fill in.
func standingOf(g *shard.Generation, self crdt.RegionID) *Standing {
	s := &Standing{Generation: g.ID, Frontier: g.Points(), Horizon: g.Horizon, Watermark: g.Watermark, Floor: crdt.MinTime}
	for _, region := range g.Groups() {
		if g.Declared(region) {
			s.Declared = append(s.Declared, region)
		}
	}
	for _, st := range g.Standings(self) {
		if st.Idle {
			s.Idle = append(s.Idle, st.Source)
		}
	}
	return s
}

func (s *Standing) sameButFrontier(o *Standing) bool {
	return s.Horizon == o.Horizon && s.Watermark == o.Watermark && s.Floor == o.Floor &&
		slices.Equal(s.Declared, o.Declared) && slices.Equal(s.Idle, o.Idle)
}

// appendChanged appends what has changed from last to next, in next's order; last may lack generations.
func appendChanged(list []*peerv1.Standing, last map[crdt.GenerationID]*Standing, next []*Standing) []*peerv1.Standing {
	for _, s := range next {
		moved := s.Frontier
		if old := last[s.Generation]; old == s {
			continue
		} else if old != nil {
			moved = maps.Clone(s.Frontier)
			maps.DeleteFunc(moved, func(src crdt.Source, p crdt.Point) bool {
				q, ok := old.Frontier[src]
				return ok && p == q
			})
			if len(moved) == 0 && s.sameButFrontier(old) {
				continue
			}
		}
		list = append(list, s.encode(moved))
	}
	return list
}

func (s *Standing) encode(moved crdt.Frontier) *peerv1.Standing {
	m := &peerv1.Standing{Generation: s.Generation[:], Frontier: crdt.AppendFrontier(nil, moved),
		Horizon: s.Horizon, Floor: s.Floor, Watermark: s.Watermark}
	for _, region := range s.Declared {
		m.Declared = append(m.Declared, string(region))
	}
	for _, src := range s.Idle {
		m.Idle = append(m.Idle, crdt.AppendSource(nil, src))
	}
	return m
}

// decodeStanding takes what a peer told of a generation. Frontier holds the sources that have moved. It fails with
// ErrProtocol.
func decodeStanding(m *peerv1.Standing) (*Standing, error) {
	s := &Standing{Horizon: m.GetHorizon(), Floor: m.GetFloor(), Watermark: m.GetWatermark()}
	switch {
	case len(m.GetGeneration()) != len(s.Generation):
		return nil, fmt.Errorf("%w: a generation of %d bytes", ErrProtocol, len(m.GetGeneration()))
	case len(m.Declared) > maxRegions || len(m.Idle) > maxSources:
		return nil, fmt.Errorf("%w: %d regions, %d idle sources", ErrProtocol, len(m.Declared), len(m.Idle))
	}
	s.Generation = crdt.GenerationID(m.Generation)
	var err error
	if s.Frontier, err = crdt.DecodeFrontier(m.Frontier); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	for _, name := range m.Declared {
		region := crdt.RegionID(name)
		if err := region.Validate(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		s.Declared = append(s.Declared, region)
	}
	slices.Sort(s.Declared)
	for _, b := range m.Idle {
		src, rest, err := crdt.CutSource(b)
		if err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("%w: an idle source that is none", ErrProtocol)
		}
		s.Idle = append(s.Idle, src)
	}
	slices.SortFunc(s.Idle, crdt.CompareSources)
	return s, nil
}

// book holds what one peer has told of its standings. It is not safe for concurrent use; the Standings in it are
// immutable.
type book struct {
	told    map[crdt.GenerationID]*Standing
	changed map[groupKey]uint64 // the peer's index at which what it told of a group last changed

	marks   table.Marks // of tables; replaced, never changed
	marksAt uint64      // the peer's index at which they were so
	floor   int64       // of tables, told with them
}

// groupKey names a group of a generation.
type groupKey struct {
	generation crdt.GenerationID
	group      crdt.RegionID
}

func newBook() *book {
	return &book{told: map[crdt.GenerationID]*Standing{}, changed: map[groupKey]uint64{}}
}

// takeMarks takes what a peer told of tables, nil for nothing new. It fails with ErrProtocol.
func (b *book) takeMarks(encoded []byte, index uint64, floor int64) error {
	if len(encoded) == 0 {
		return nil
	}
	m, err := table.DecodeMarks(encoded)
	if err != nil || floor < 0 || floor > maxMillis {
		return errors.Join(fmt.Errorf("%w: marks of tables, floor %d", ErrProtocol, floor), err)
	}
	b.marks, b.marksAt, b.floor = m, index, floor
	return nil
}

// take adds what a peer told, at an index of its log. It fails with ErrProtocol.
func (b *book) take(list []*peerv1.Standing, index uint64) error {
	for _, m := range list {
		s, err := decodeStanding(m)
		if err != nil {
			return err
		}
		for src := range s.Frontier {
			b.changed[groupKey{s.Generation, src.Region}] = index
		}
		for _, region := range s.Declared {
			if old := b.told[s.Generation]; old == nil || !slices.Contains(old.Declared, region) {
				b.changed[groupKey{s.Generation, region}] = index
			}
		}
		if old := b.told[s.Generation]; old != nil {
			moved := s.Frontier
			s.Frontier = maps.Clone(old.Frontier)
			maps.Copy(s.Frontier, moved)
		}
		if b.told[s.Generation] = s; len(b.told) > maxGenerations || len(s.Frontier) > maxSources {
			return fmt.Errorf("%w: %d generations, %d sources in one", ErrProtocol, len(b.told), len(s.Frontier))
		}
	}
	return nil
}

// teller says how the own shard stands, at most every so often anew, for all streams. It is safe for any goroutine.
type teller struct {
	replica Replica
	every   time.Duration

	mu        sync.Mutex
	at        time.Time
	index     uint64
	list      []*Standing
	floors    map[crdt.GenerationID]int64
	floorsAt  time.Time
	floorsFor uint64
}

// floorEvery is how far apart floors are worked out: for sessions they take a look at stored cells.
const floorEvery = 250 * time.Millisecond

// tell returns the standings in order of generation and the index of the log they were taken at. They share what did not
// change with those told before.
func (t *teller) tell() ([]*Standing, uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, st := time.Now(), t.replica.State()
	if now.Sub(t.at) < t.every || st.Index == t.index && t.floorsFor == t.index {
		return t.list, t.index, nil
	}
	if t.floorsFor != st.Index && now.Sub(t.floorsAt) >= floorEvery {
		if err := t.takeFloors(); err != nil {
			return nil, 0, err
		}
		t.floorsAt = now
	}
	last := map[crdt.GenerationID]*Standing{}
	for _, s := range t.list {
		last[s.Generation] = s
	}
	t.list = nil
	for _, g := range st.Generations() {
		s := standingOf(g, t.replica.Config().Self)
		if floor, ok := t.floors[g.ID]; ok {
			s.Floor = floor
		}
		if old := last[g.ID]; old != nil && s.sameButFrontier(old) && maps.Equal(s.Frontier, old.Frontier) {
			s = old
		}
		t.list = append(t.list, s)
	}
	t.at, t.index = now, st.Index
	return t.list, t.index, nil
}

func (t *teller) takeFloors() (err error) {
	snap, err := t.replica.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	t.floors = map[crdt.GenerationID]int64{}
	for _, g := range snap.Generations() {
		if t.floors[g.ID], err = snap.Floor(g); err != nil {
			return fmt.Errorf("floor of %s: %w", g.Name, err)
		}
	}
	t.floorsFor = snap.Index
	return nil
}
