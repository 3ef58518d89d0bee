package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

// ErrNode says that a node did not answer.
var ErrNode = errors.New("node does not answer")

// Nodes reaches the uploaders of a region's nodes.
type Nodes interface {
	// Upload has a node upload a shard. It fails with ErrNode where the node can't be asked, with ErrBehind and ErrDeposed as
	// Uploader.Upload does.
	Upload(ctx context.Context, node string, o Order) (Part, error)
	// Acknowledged returns an index at or above that of every command of a shard that was acknowledged before the call.
	Acknowledged(ctx context.Context, shard int) (uint64, error)
	// Vouch says whether a node belongs to a lineage; false where it can't be asked.
	Vouch(ctx context.Context, node, lineage string) bool
}

// KeeperOptions says what a Keeper keeps, and how.
type KeeperOptions struct {
	Scope
	Policy
	Store    objects.Store
	Nodes    Nodes
	Lineage  *Lineage
	Metrics  *Metrics
	Logger   hclog.Logger
	Interval time.Duration // between checkpoints
	// Holders lists the nodes that hold a shard, one at least (default: all nodes, any shard).
	Holders func(shard int) []string
	// Present lists the region's nodes of the moment (default: those of the scope).
	Present func() []string
	// HandOver is how long a shard's uploader may be away or behind until another one takes over (default 4 intervals, a
	// minute at least).
	HandOver time.Duration
	// SweepEvery is how often what nothing needs is removed (default 5 min).
	SweepEvery time.Duration
	Now        func() time.Time // default: the system's
}

// Policy says what stays.
type Policy struct {
	Keep   int           // how many checkpoints stay
	MaxAge time.Duration // how old one may get; the newest stays for ever
	Grace  time.Duration // how long a table stays that nothing names
}

// Keeper makes a region's checkpoints. It runs where shard 0 is led; two at once do no harm. Any goroutine may call it.
type Keeper struct {
	o     KeeperOptions
	place place

	mu      sync.Mutex // held during a round
	note    *uploaders // nil when it is to be read
	tag     objects.Tag
	last    *Cut              // the newest; nil when there is none
	away    map[int]time.Time // since when a shard's uploader is away or behind
	deposed map[int]bool      // shards whose manifests are of a later term than the note's
	lineage string
	swept   time.Time
	tables  map[string][]string // of manifests, by key: read once
	logged  time.Time
}

const (
	leastHandOver = time.Minute
	defaultSweep  = 5 * time.Minute
	// uploadsAtOnce is how many shards are uploaded at the same time.
	uploadsAtOnce = 4
)

// NewKeeper returns a Keeper that does nothing yet.
func NewKeeper(o KeeperOptions) *Keeper {
	if o.HandOver == 0 {
		o.HandOver = max(4*o.Interval, leastHandOver)
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = defaultSweep
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Present == nil {
		o.Present = func() []string { return o.Scope.Nodes }
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	return &Keeper{o: o, place: place(o.Region)}
}

// Run makes a checkpoint every interval until ctx ends. A failure is counted, logged once a minute, and no more.
func (k *Keeper) Run(ctx context.Context) {
	k.forget()
	defer k.o.Metrics.keeps(time.Time{})
	tick := time.NewTicker(k.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := k.round(ctx, false)
		if ctx.Err() == nil {
			k.tell(err)
		}
	}
}

// forget makes the next round read everything again.
func (k *Keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetLocked()
}

func (k *Keeper) forgetLocked() {
	k.note, k.last, k.lineage = nil, nil, ""
	k.away, k.deposed, k.tables = map[int]time.Time{}, map[int]bool{}, map[string][]string{}
}

// tell logs a failure, unless one was logged within the last minute.
func (k *Keeper) tell(err error) {
	if err == nil {
		return
	}
	k.mu.Lock()
	due := k.o.Now().Sub(k.logged) >= time.Minute
	if due {
		k.logged = k.o.Now()
	}
	k.mu.Unlock()
	if due {
		k.o.Logger.Warn("no checkpoint could be made", "error", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// Checkpoint makes a checkpoint of every shard as it is now. It fails where a shard could not be uploaded, even if a cut
// was made with that shard's last one.
func (k *Keeper) Checkpoint(ctx context.Context) (*Cut, error) { return k.round(ctx, true) }

// Savepoint makes a checkpoint under a name, which is kept until DeleteSavepoint.
func (k *Keeper) Savepoint(ctx context.Context, name string) (*Cut, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("savepoint %.100q: want a letter, then letters, digits, dots, dashes and underscores, 63 at most", name)
	}
	cut, err := k.round(ctx, true)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	named := *cut
	named.Name = name
	if _, err := k.o.Store.Create(ctx, k.place.savepoint(name), encode(&named)); err != nil {
		return nil, fmt.Errorf("savepoint %s: %w", name, err)
	}
	return &named, nil
}

// DeleteSavepoint removes a savepoint. What it alone needed goes some time after it.
func (k *Keeper) DeleteSavepoint(ctx context.Context, name string) error {
	if !ValidName(name) {
		return fmt.Errorf("savepoint %.100q: %w", name, objects.ErrNotFound)
	}
	if _, err := k.o.Store.Stat(ctx, k.place.savepoint(name)); err != nil {
		return fmt.Errorf("savepoint %s: %w", name, err)
	}
	return k.o.Store.Delete(ctx, []string{k.place.savepoint(name)})
}

// round makes a cut. Where all shards are to be in it as they are now, one that is not is an error.
func (k *Keeper) round(ctx context.Context, all bool) (cut *Cut, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	began := k.o.Now()
	defer func() {
		k.o.Metrics.done("cut", k.o.Now().Sub(began), err)
		if err != nil {
			k.note, k.last = nil, nil // read again what another keeper may have changed
			return
		}
		k.o.Metrics.keeps(began)
	}()
	if err := k.prepare(ctx); err != nil {
		return nil, err
	}
	parts, failed := k.upload(ctx, all)
	if cut, err = k.write(ctx, began, parts, failed); err != nil {
		return nil, err
	}
	if err := errors.Join(failed...); err != nil {
		return cut, fmt.Errorf("checkpoint %d holds the last state of some shards that was sent, not the present one: %w", cut.ID, err)
	}
	return cut, k.sweep(ctx)
}

// prepare reads what a keeper must know, and hands shards over from uploaders that are away.
func (k *Keeper) prepare(ctx context.Context) (err error) {
	if k.away == nil {
		k.forgetLocked()
	}
	k.lineage, err = claim(ctx, k.o.Store, &k.o.Scope, k.o.Lineage, func(lineage string) bool {
		return slices.ContainsFunc(k.o.Present(), func(n string) bool {
			return n != k.o.Node && k.o.Nodes.Vouch(ctx, n, lineage)
		})
	})
	if err != nil {
		return err
	}
	id, err := newest(ctx, k.o.Store, k.place.checkpoints())
	if err != nil {
		return err
	}
	if k.note == nil || k.last == nil || k.last.ID != id { // another keeper was here
		if err := k.read(ctx, id); err != nil {
			return err
		}
	}
	next := k.assign(k.o.Now())
	if next == nil {
		return nil
	}
	key := k.place.uploaders()
	if k.tag == "" {
		k.tag, err = k.o.Store.Create(ctx, key, encode(next))
	} else {
		k.tag, err = k.o.Store.Replace(ctx, key, encode(next), k.tag)
	}
	if err != nil {
		return fmt.Errorf("assign uploaders: %w", err)
	}
	k.note = next
	return nil
}

// read takes up what an earlier keeper has left; id is that of the newest cut.
func (k *Keeper) read(ctx context.Context, id uint64) error {
	note := &uploaders{Version: FormatVersion}
	body, tag, err := k.o.Store.Get(ctx, k.place.uploaders(), maxSmall)
	switch {
	case errors.Is(err, objects.ErrNotFound):
	case err != nil:
		return err
	default:
		if err := decode(body, note); err != nil {
			return fmt.Errorf("%s %w", k.place.uploaders(), err)
		}
	}
	var last *Cut
	if id > 0 {
		if last, _, err = readCut(ctx, k.o.Store, k.place.checkpoint(id)); err != nil {
			return err
		}
	}
	k.note, k.tag, k.last = note, tag, last
	return nil
}

// assign returns a note with an uploader for each shard, nil where nothing is to change. A shard stays with its uploader
// until that has been away for long: another replica's tables are others, so all of them would be sent again.
func (k *Keeper) assign(now time.Time) *uploaders {
	next := &uploaders{Version: FormatVersion, Shards: slices.Clone(k.note.Shards)}
	changed := len(next.Shards) != k.o.Shards
	next.Shards = append(next.Shards, make([]uploader, max(k.o.Shards-len(next.Shards), 0))...)[:k.o.Shards]
	for i := range next.Shards {
		nodes := slices.Sorted(slices.Values(k.holders(i)))
		u := &next.Shards[i]
		since, away := k.away[i]
		at := slices.Index(nodes, u.Node)
		switch {
		case at < 0:
			at = i % len(nodes)
		case away && now.Sub(since) >= k.o.HandOver && len(nodes) > 1:
			at = (at + 1) % len(nodes)
		case k.deposed[i]: // the note was lost: its terms began anew
		default:
			continue
		}
		*u = uploader{nodes[at], u.Term + 1}
		delete(k.away, i)
		delete(k.deposed, i)
		changed = true
	}
	if !changed {
		return nil
	}
	return next
}

// holders lists the nodes that hold a shard.
func (k *Keeper) holders(shard int) []string {
	if k.o.Holders == nil {
		return k.o.Scope.Nodes
	}
	return k.o.Holders(shard)
}

// upload has every shard uploaded, shard 0 when all others are done, and returns what came of it, by shard. Where it is to
// be the state as it is now, what is in the store is looked at, and uploaders catch up with what was acknowledged.
func (k *Keeper) upload(ctx context.Context, now bool) (parts []Part, failed []error) {
	parts, errs := make([]Part, k.o.Shards), make([]error, k.o.Shards)
	one := func(i int) {
		u := k.note.Shards[i]
		o := Order{Shard: i, Term: u.Term, Look: now, Lineage: k.lineage}
		if now {
			if o.Least, errs[i] = k.o.Nodes.Acknowledged(ctx, i); errs[i] != nil {
				return
			}
		}
		parts[i], errs[i] = k.o.Nodes.Upload(ctx, u.Node, o)
	}
	var others errgroup.Group
	others.SetLimit(uploadsAtOnce)
	for i := 1; i < k.o.Shards; i++ {
		others.Go(func() error { one(i); return nil })
	}
	_ = others.Wait() // errors stand in errs
	one(0)
	at := k.o.Now()
	for i, err := range errs {
		if err == nil {
			delete(k.away, i)
			continue
		}
		parts[i], k.deposed[i] = Part{}, errors.Is(err, ErrDeposed)
		failed = append(failed, err)
		if _, known := k.away[i]; !known && (errors.Is(err, ErrNode) || errors.Is(err, ErrBehind)) {
			k.away[i] = at
		}
	}
	return parts, failed
}

// write writes the cut of a round, unless it would be the last one again. A shard that failed has the part that it had in
// the last cut; not so shard 0, which must know whatever the others know.
func (k *Keeper) write(ctx context.Context, at time.Time, parts []Part, failed []error) (*Cut, error) {
	for i := range parts {
		if parts[i].Number > 0 {
			continue
		}
		if i == 0 || k.last == nil || k.last.Member != k.o.Member || i >= len(k.last.Parts) {
			return nil, errors.Join(failed...)
		}
		parts[i] = k.last.Parts[i]
		parts[i].Shard = i
	}
	cut := &Cut{
		Version: FormatVersion, ID: 1, Deployment: k.o.Deployment, Region: k.o.Region, Member: k.o.Member, Regions: k.o.Regions,
		At: at.UTC(), Parts: parts,
	}
	if k.last != nil {
		if k.last.Member == k.o.Member && slices.Equal(k.last.Parts, parts) {
			return k.last, nil
		}
		cut.ID = k.last.ID + 1
	}
	key := k.place.checkpoint(cut.ID)
	if _, err := k.o.Store.Create(ctx, key, encode(cut)); err != nil {
		return nil, fmt.Errorf("checkpoint %d: %w", cut.ID, err)
	}
	// Another keeper may have written later ones meanwhile, and removed the one that had this number: then what this one
	// needs may be gone too.
	id, err := newest(ctx, k.o.Store, k.place.checkpoints())
	if err == nil && id != cut.ID {
		err = errors.Join(fmt.Errorf("checkpoint %d: %w: there is %d", cut.ID, ErrDeposed, id), k.o.Store.Delete(ctx, []string{key}))
	}
	if err != nil {
		return nil, err
	}
	k.last = cut
	return cut, nil
}
