package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

// ErrDamaged is what a replica that is out fails with: what it holds is not what was written, or not what the others
// hold. It answers nothing, leads nothing and votes for nobody until it is rebuilt; the others go on.
var ErrDamaged = errors.New("replica is damaged and must be rebuilt")

// Damage says why a replica is out.
type Damage struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	File    string    `json:"file"` // where it was found; the store's directory where no file is known
	What    string    `json:"what"`
}

// damageFile marks the store of a replica that is out: it stays so over restarts, until it is rebuilt.
const (
	damageFile    = "DAMAGED"
	damageVersion = 1
	maxDamage     = 64 << 10 // of the file, in bytes
)

// isDamage says whether an error concerns one replica alone and what it holds.
func isDamage(err error) bool {
	switch {
	case errors.Is(err, group.ErrLogDamaged): // of the whole node
		return false
	case errors.Is(err, shard.ErrNewer), errors.Is(err, group.ErrNewer): // of the build: what is kept is whole
		return false
	}
	return keyspace.IsDamage(err) || errors.Is(err, shard.ErrState) || errors.Is(err, shard.ErrDiverged) ||
		errors.Is(err, group.ErrCorrupt) || errors.Is(err, group.ErrStateBehind)
}

func newDamage(dir string, err error) *Damage {
	d := &Damage{Version: damageVersion, Time: time.Now().UTC(), File: dir, What: err.Error()}
	var at *keyspace.DamageError
	if errors.As(err, &at) {
		d.File = at.File
	}
	return d
}

// readDamage returns what the mark in a store's directory says, nil where there is none. One that can't be read is a mark.
func readDamage(dir string) (*Damage, error) {
	path := filepath.Join(dir, damageFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &Damage{Time: info.ModTime().UTC(), File: path, What: "marked as damaged; the mark itself can't be read"}
	if b, err := os.ReadFile(path); err == nil && len(b) <= maxDamage {
		var read Damage
		if json.Unmarshal(b, &read) == nil && read.Version == damageVersion {
			d = &read
		}
	}
	return d, nil
}

func writeDamage(dir string, d *Damage) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, damageFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Damage says why the replica is out, nil while it is whole.
func (r *Replica) Damage() *Damage { return r.damage.Load() }

// Damages returns how often this replica was found damaged since it was opened.
func (r *Replica) Damages() uint64 { return r.damages.Load() }

// whole fails where the replica is out.
func (r *Replica) whole() error {
	if d := r.damage.Load(); d != nil {
		return fmt.Errorf("shard %d: %w: %s", r.id, ErrDamaged, d.What)
	}
	return nil
}

// Verify reads what the replica has on disk through and compares it with its checksums, at the rate that pace allows, see
// keyspace.Store.Verify. What is damaged takes the replica out, and is returned.
func (r *Replica) Verify(ctx context.Context, pace func(ctx context.Context, bytes int) error) error {
	if err := r.whole(); err != nil {
		return err
	}
	l := r.life.Load()
	if err := l.machine.Verify(ctx, pace); err != nil || l.group == nil {
		return err
	}
	err := verifySnapshot(ctx, l.group, pace)
	if err != nil && isDamage(err) {
		r.fail(l, err)
	}
	return err
}

// verifySnapshot is Verify for the newest snapshot: it is what others are sent, and what the log was cut behind.
func verifySnapshot(ctx context.Context, g *group.Group, pace func(ctx context.Context, bytes int) error) error {
	dir, err := g.NewestSnapshot()
	if err != nil || dir == "" {
		return err
	}
	var tables []string
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".sst" {
			tables = append(tables, strings.TrimPrefix(path, dir))
		}
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist): // there is a newer one
		return nil
	case err != nil:
		return fmt.Errorf("read snapshot: %w", err)
	}
	return keyspace.VerifyTables(ctx, vfs.Default, dir, tables, pace)
}

// ChainAt returns the hash chain of this replica's state at an index, once it is applied; not ok where that was too long ago.
func (r *Replica) ChainAt(ctx context.Context, index uint64) (chain crdt.Hash, ok bool, err error) {
	if err := r.WaitApplied(ctx, index); err != nil {
		return chain, false, err
	}
	chain, ok = r.life.Load().machine.ChainAt(index)
	return chain, ok, nil
}

// Out takes the replica out, for a reason that somebody else has found.
func (r *Replica) Out(reason error) { r.fail(r.life.Load(), reason) }

// fail is told of what a life of the replica can't go on after, by any goroutine and with locks held: damage takes the
// replica out, anything else ends the process.
func (r *Replica) fail(l *life, err error) {
	if !isDamage(err) {
		r.o.Fatal(err)
		return
	}
	if l != nil && l.ended.Load() {
		return // what a closed store finds says nothing of the one after it
	}
	d := newDamage(r.o.Dir, err)
	if !r.damage.CompareAndSwap(nil, d) {
		return
	}
	r.damages.Add(1)
	go r.out(l, d)
}

// tellDamage says, in one line, that the replica is out.
func (r *Replica) tellDamage(d *Damage) {
	if r.damage.CompareAndSwap(nil, d) {
		r.damages.Add(1)
	}
	r.logger.Error("the replica is damaged and out: rebuild it with `watershed shard rebuild`", "file", d.File, "what", d.What,
		"found", d.Time.Format(time.RFC3339))
}

// out ends a life: the group goes on without this replica.
func (r *Replica) out(l *life, d *Damage) {
	if err := writeDamage(r.o.Dir, d); err != nil {
		r.logger.Warn("that the replica is damaged is not recorded", "error", err)
	}
	r.tellDamage(d)
	select {
	case <-l.begun:
	case <-r.quit:
		return
	}
	r.renewing.Lock()
	defer r.renewing.Unlock()
	select {
	case <-r.quit: // Close does it
		return
	default:
	}
	if l.ended.Load() {
		return
	}
	if err := l.stop(); err != nil {
		r.logger.Warn("the damaged replica's group did not stop well", "error", err)
	}
	r.lead(group.Leadership{})
	r.watchers.tell(shard.Change{Whole: true}) // they find out
	l.machine.Wake()
}
