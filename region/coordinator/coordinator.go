package coordinator

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/shard"
)

// Shards is how the coordinator reaches the shards of its region. router.Router is one.
type Shards interface {
	Shards() int
	// State returns a shard's state as this node has it, which may lag behind its leader's; nil where it has none.
	State(id keyspace.ShardID) *shard.State
	// Propose has a command applied by a shard, wherever it is led.
	Propose(ctx context.Context, id keyspace.ShardID, c shard.Command) (shard.Result, error)
}

// Options says what a Coordinator runs on. Zero durations take the defaults that their comments name.
type Options struct {
	Deployment string
	Region     crdt.RegionID
	Nodes      func() []string // ids of the region's nodes, each of which is a worker
	Shards     Shards
	Logs       Logs
	Logger     hclog.Logger // default: none
	// Changed returns a channel that is closed at the next command of shard 0, see replica.Replica.Changed.
	Changed func() <-chan struct{}
	// NotLeader returns the status that sends a worker to shard 0's leader.
	NotLeader func() error
	// Dead says whether a node is not heard of any more: the sources of its worker move without a grace once its session is
	// over, and after one where that lasts in silence. Default: all are heard of.
	Dead func(node string) bool

	Tick  time.Duration // between looks at what the shards lack (default 1 s)
	Look  time.Duration // between looks at the log's topics (default 5 s)
	Grace time.Duration // a worker without a session keeps its sources for this long (default 1 s)
	Lease time.Duration // a worker goes on without hearing from the coordinator for this long (default 10 s)
}

// proposeWithin bounds one proposal: a shard without a majority must not hold up the others.
const proposeWithin = 3 * time.Second

// Coordinator is a region's coordinator: idle but on the leader of shard 0. Its methods are safe for any goroutine.
type Coordinator struct {
	o      Options
	topics topics
	notes  notes
	told   []*shard.Registry // by shard: what one that is not on this node was last told all of; Run's alone

	mu struct {
		sync.Mutex
		lead     context.Context // while this node leads shard 0
		settled  bool            // the time that workers had to tell what they work is over
		members  map[string]*worker
		assigned map[Task]string
		revision uint64
		registry *shard.Registry // that the assignment was made of
		reported map[Task]SourceStatus
	}
}

// New returns a Coordinator. Run and Work make it do something.
func New(o Options) *Coordinator {
	for _, d := range [...]struct {
		field    *time.Duration
		fallback time.Duration
	}{{&o.Tick, time.Second}, {&o.Look, 5 * time.Second}, {&o.Grace, time.Second}, {&o.Lease, 10 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Dead == nil {
		o.Dead = func(string) bool { return false }
	}
	c := &Coordinator{o: o}
	c.notes.logger = o.Logger
	c.mu.lead = over
	c.forgetLocked()
	return c
}

// over is the context of no leadership.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (c *Coordinator) forgetLocked() {
	c.mu.settled, c.mu.members, c.mu.assigned = false, map[string]*worker{}, map[Task]string{}
	c.mu.registry, c.mu.reported = nil, map[Task]SourceStatus{}
}

// Run coordinates until ctx ends: it is the task of shard 0's leader.
func (c *Coordinator) Run(ctx context.Context) {
	c.mu.Lock()
	c.forgetLocked()
	c.mu.lead = ctx
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.lead = over
		for _, w := range c.mu.members {
			w.session.wake() // its session sees that the leadership is over
		}
		c.forgetLocked()
	}()
	c.notes.clear()
	c.topics.clear()
	c.told = make([]*shard.Registry, c.o.Shards.Shards())

	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { c.assignLoop(ctx) })
	tick := time.NewTicker(c.o.Tick)
	defer tick.Stop()
	for {
		changed, registry := c.o.Changed(), c.registry()
		c.settle(ctx)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				waiting = false
			case <-changed:
				changed = c.o.Changed()
				waiting = c.registry() == registry
			}
		}
	}
}

func (c *Coordinator) registry() *shard.Registry { return c.o.Shards.State(0).Registry() }

// settle brings the shards up to the registry, and the sources up to the log.
func (c *Coordinator) settle(ctx context.Context) {
	registry := c.registry()
	c.spread(ctx, registry)
	c.decide(ctx, registry)
	c.spread(ctx, c.registry())
}

// spread tells every shard what it lacks, all at once.
func (c *Coordinator) spread(ctx context.Context, registry *shard.Registry) {
	var shards sync.WaitGroup
	defer shards.Wait()
	for i := range c.o.Shards.Shards() {
		id := keyspace.ShardID(i)
		todo, blind := c.todo(id, registry)
		if len(todo) == 0 {
			continue
		}
		shards.Go(func() {
			for _, command := range todo {
				if !c.propose(ctx, id, command) {
					return
				}
			}
			if blind {
				c.told[id] = registry
			}
		})
	}
}

// todo lists what a shard lacks. One that is not on this node is told everything, once.
func (c *Coordinator) todo(id keyspace.ShardID, registry *shard.Registry) (list []shard.Command, blind bool) {
	if state := c.o.Shards.State(id); state != nil {
		return Lacking(registry, state, c.o.Region), false
	}
	if c.told[id] == registry {
		return nil, true
	}
	return Everything(registry, c.o.Region), true
}

// propose reports whether a command has its effect.
func (c *Coordinator) propose(ctx context.Context, id keyspace.ShardID, command shard.Command) bool {
	ctx, cancel := context.WithTimeout(ctx, proposeWithin)
	defer cancel()
	result, err := c.o.Shards.Propose(ctx, id, command)
	switch {
	case err != nil && ctx.Err() == context.Canceled:
		return false
	case err != nil:
		c.notes.warn(crdt.GenerationID{}, "a shard does not take what the registry says; it is told again",
			"shard", id, "error", err)
		return false
	case result.Outcome == shard.Applied || result.Outcome == shard.Duplicate:
		return true
	case result.Outcome == shard.Unknown: // dropped meanwhile, or told again at the next look
		return false
	}
	c.notes.warn(crdt.GenerationID{}, "a shard refuses what the registry says", "shard", id, "outcome", result.Outcome,
		"reason", result.Reason)
	return false
}

// Lacking lists the commands that bring a shard up to the registry: generations to add, to update and to drop, the
// own region's sources that were decided, and which tables are live. Only generations that the registry says are deleted are dropped, so that an
// older copy of it does no harm. It is a pure function.
func Lacking(registry *shard.Registry, state *shard.State, self crdt.RegionID) []shard.Command {
	var todo []shard.Command
	for _, e := range registry.After(0) {
		if e.Op == shard.JobDeleted && state.Generation(e.Generation) != nil {
			todo = append(todo, &shard.DropGeneration{ID: e.Generation})
		}
	}
	for _, e := range registry.Jobs() {
		g := state.Generation(e.Generation)
		decided := registry.Decided(e.Generation)
		switch {
		case g == nil:
			todo = append(todo, &shard.AddGeneration{
				ID: e.Generation, Name: e.Name, File: e.File, Meaning: e.Meaning, Pinned: e.Pinned,
			})
		case !slices.Equal(g.Job.File, e.File):
			todo = append(todo, &shard.UpdateGeneration{ID: e.Generation, File: e.File, Meaning: e.Meaning})
		}
		if lacksSources(g, decided, self) {
			add := &shard.AddSources{Generation: e.Generation, Group: self}
			for _, d := range decided {
				add.Sources = append(add.Sources, d.SourcePoint)
			}
			todo = append(todo, add)
		}
	}
	if state.Told().Behind(registry) {
		todo = append(todo, registry.TellTables())
	}
	return todo
}

// Everything lists the commands that bring a shard up to the registry, whatever it has been told. It is a pure function.
func Everything(registry *shard.Registry, self crdt.RegionID) []shard.Command {
	var todo []shard.Command
	for _, e := range registry.After(0) {
		if e.Op == shard.JobDeleted {
			todo = append(todo, &shard.DropGeneration{ID: e.Generation})
		}
	}
	for _, e := range registry.Jobs() {
		todo = append(todo,
			&shard.AddGeneration{ID: e.Generation, Name: e.Name, File: e.File, Meaning: e.Meaning, Pinned: e.Pinned},
			&shard.UpdateGeneration{ID: e.Generation, File: e.File, Meaning: e.Meaning})
		if decided := registry.Decided(e.Generation); len(decided) > 0 {
			add := &shard.AddSources{Generation: e.Generation, Group: self}
			for _, d := range decided {
				add.Sources = append(add.Sources, d.SourcePoint)
			}
			todo = append(todo, add)
		}
	}
	if tell := registry.TellTables(); tell != nil {
		todo = append(todo, tell)
	}
	return todo
}

func lacksSources(g *shard.Generation, decided []shard.Decided, self crdt.RegionID) bool {
	if len(decided) == 0 {
		return false
	}
	return g == nil || !g.Declared(self) || slices.ContainsFunc(decided, func(d shard.Decided) bool {
		st, ok := g.Standing(d.Source)
		return !ok || st.First == nil
	})
}

// Settled returns the registry's position when every state of the region's shards is up to it, else 0: what a region
// tells another that waits for its jobs. Shards without a state are passed over.
func Settled(registry *shard.Registry, states []*shard.State) uint64 {
	for _, state := range states {
		if state == nil {
			continue
		}
		if state.Told().Behind(registry) {
			return 0
		}
		for _, e := range registry.After(0) {
			g := state.Generation(e.Generation)
			live, ok := registry.Job(e.Name)
			if ok && live.Generation == e.Generation {
				if g == nil || !slices.Equal(g.Job.File, live.File) {
					return 0
				}
			} else if g != nil {
				return 0
			}
		}
	}
	return registry.Position()
}
