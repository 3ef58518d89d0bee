package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

// kept is a cut as a sweep sees it.
type kept struct {
	key      string
	modified time.Time // by the store's clock
	parts    []Part
}

// expired lists the checkpoints, given from old to new, that are more than the policy keeps or older than it allows. The
// newest never is.
func (p Policy) expired(now time.Time, cuts []kept) (list []kept) {
	for i, c := range cuts {
		newer := len(cuts) - 1 - i
		if newer > 0 && (newer >= p.Keep || now.Sub(c.modified) > p.MaxAge) {
			list = append(list, c)
		}
	}
	return list
}

// live is what a shard's manifests are needed for.
type live struct {
	named  map[uint64]bool // by a cut
	newest uint64          // in a cut: what is above may be in the next one
}

func (l *live) needs(number uint64) bool { return l.named[number] || number > l.newest }

// liveOf returns what is live of a shard, given the cuts that stay.
func liveOf(shard int, cuts []kept) live {
	l := live{named: map[uint64]bool{}}
	for _, c := range cuts {
		if shard < len(c.parts) {
			l.named[c.parts[shard].Number] = true
			l.newest = max(l.newest, c.parts[shard].Number)
		}
	}
	return l
}

// sweep removes, now and then, what nothing needs: first the cuts that have expired, then manifests that no cut names,
// then tables that no manifest names and that are old. Whatever fails ends it, with nothing removed that is needed.
func (k *Keeper) sweep(ctx context.Context) (err error) {
	if k.o.Now().Sub(k.swept) < k.o.SweepEvery {
		return nil
	}
	defer func() {
		if err != nil {
			k.o.Metrics.failures.WithLabelValues("sweep").Inc()
			k.o.Logger.Warn("what is no longer needed could not be removed", "error", err)
			err = nil // the checkpoint is made
		}
	}()
	k.swept = k.o.Now()
	// The store's own clock says how old things are: the cut of this round has just been written, or read.
	stays, now, err := k.sweepCuts(ctx)
	if err != nil {
		return err
	}
	if k.last == nil || len(stays) == 0 {
		return nil
	}
	used := map[string]bool{}
	for shard := range k.o.Shards {
		if err := k.sweepShard(ctx, shard, liveOf(shard, stays), now, used); err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
	}
	for key := range k.tables {
		if !used[key] {
			delete(k.tables, key)
		}
	}
	n, err := k.o.Store.Abandon(ctx, string(k.place)+"/", now.Add(-k.o.Grace))
	k.o.Metrics.removed.WithLabelValues("unfinished").Add(float64(n))
	return err
}

// sweepCuts removes the cuts that have expired and returns the others, savepoints and those being restored among them,
// and the time by the store's clock.
func (k *Keeper) sweepCuts(ctx context.Context) (stays []kept, now time.Time, err error) {
	if now, err = k.storeTime(ctx); err != nil {
		return nil, now, err
	}
	points, err := k.cutsUnder(ctx, k.place.checkpoints())
	if err != nil {
		return nil, now, err
	}
	pinned, err := k.pinned(ctx, now)
	if err != nil {
		return nil, now, err
	}
	gone := k.o.Policy.expired(now, points)
	gone = slices.DeleteFunc(gone, func(c kept) bool { return pinned[c.key] })
	var keys []string
	for _, c := range gone {
		keys = append(keys, c.key)
	}
	if err := k.remove(ctx, "checkpoint", keys); err != nil {
		return nil, now, err
	}
	named, err := k.cutsUnder(ctx, k.place.savepoints())
	stays = slices.DeleteFunc(points, func(c kept) bool { return slices.Contains(keys, c.key) })
	return append(stays, named...), now, err
}

// storeTime returns the time by the store's clock: that of an object that has just been written.
func (k *Keeper) storeTime(ctx context.Context) (time.Time, error) {
	key := string(k.place) + "/sweep.json"
	body := encode(struct {
		Version int       `json:"version"`
		At      time.Time `json:"at"`
	}{FormatVersion, k.o.Now().UTC()})
	if err := k.o.Store.Upload(ctx, key, strings.NewReader(string(body)), int64(len(body))); err != nil {
		return time.Time{}, err
	}
	info, err := k.o.Store.Stat(ctx, key)
	return info.Modified, err
}

// cutsUnder reads the cuts under a prefix, oldest first. One that can't be read ends the sweep: nobody knows what it needs.
func (k *Keeper) cutsUnder(ctx context.Context, prefix string) (list []kept, err error) {
	err = k.o.Store.List(ctx, prefix, func(i objects.Info) bool {
		list = append(list, kept{key: i.Key, modified: i.Modified})
		return true
	})
	for i := range list {
		if err != nil {
			return nil, err
		}
		var c *Cut
		if c, _, err = readCut(ctx, k.o.Store, list[i].key); err == nil {
			list[i].parts = c.Parts
		} else if errors.Is(err, objects.ErrNotFound) {
			err = nil // removed meanwhile
		}
	}
	return list, err
}

// pinned returns the keys of cuts that a restore of the last days began with.
func (k *Keeper) pinned(ctx context.Context, now time.Time) (map[string]bool, error) {
	const long = 7 * 24 * time.Hour
	keys := map[string]bool{}
	var pins []string
	err := k.o.Store.List(ctx, k.place.restores(), func(i objects.Info) bool {
		if now.Sub(i.Modified) < long {
			pins = append(pins, i.Key)
		}
		return true
	})
	for _, key := range pins {
		if err != nil {
			return nil, err
		}
		var body []byte
		if body, _, err = k.o.Store.Get(ctx, key, maxSmall); err == nil {
			var p pin
			err = decode(body, &p)
			keys[p.Cut] = true
		}
	}
	return keys, err
}

// sweepShard removes the manifests of a shard that are not live, then the tables that no manifest left names.
func (k *Keeper) sweepShard(ctx context.Context, shard int, l live, now time.Time, used map[string]bool) error {
	prefix := k.place.manifests(shard)
	var stays, gone []string
	highest := uint64(0)
	err := k.o.Store.List(ctx, prefix, func(i objects.Info) bool {
		n, ok := numberOf(i.Key, prefix)
		switch {
		case !ok: // not ours
		case l.needs(n):
			stays = append(stays, i.Key)
		default:
			gone = append(gone, i.Key)
		}
		highest = max(highest, n)
		return true
	})
	if err != nil {
		return err
	}
	// Whoever uploads next builds on the newest, whether a cut names it or not.
	gone = slices.DeleteFunc(gone, func(key string) bool {
		n, _ := numberOf(key, prefix)
		if n == highest {
			stays = append(stays, key)
		}
		return n == highest
	})
	if err := k.remove(ctx, "manifest", gone); err != nil {
		return err
	}
	named := map[string]bool{}
	for _, key := range stays {
		sums, err := k.tablesOf(ctx, key)
		if err != nil {
			return err
		}
		used[key] = true
		for _, s := range sums {
			named[s] = true
		}
	}
	var old []string
	tables := k.place.tables(shard)
	err = k.o.Store.List(ctx, tables, func(i objects.Info) bool {
		if sum := strings.TrimPrefix(i.Key, tables); !named[sum] && now.Sub(i.Modified) > k.o.Grace {
			old = append(old, i.Key)
		}
		return true
	})
	if err != nil {
		return err
	}
	return k.remove(ctx, "table", old)
}

// tablesOf returns the checksums of a manifest's files. One that is damaged ends the sweep.
func (k *Keeper) tablesOf(ctx context.Context, key string) ([]string, error) {
	if sums, ok := k.tables[key]; ok {
		return sums, nil
	}
	m, _, err := readManifest(ctx, k.o.Store, key)
	if err != nil {
		return nil, err
	}
	sums := make([]string, len(m.Files))
	for i, f := range m.Files {
		sums[i] = f.SHA256
	}
	k.tables[key] = sums
	return sums, nil
}

func (k *Keeper) remove(ctx context.Context, what string, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	k.o.Metrics.removed.WithLabelValues(what).Add(float64(len(keys)))
	return k.o.Store.Delete(ctx, keys)
}
