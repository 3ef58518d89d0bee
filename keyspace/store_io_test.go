package keyspace

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/crdt"
)

// both returns a command that adds 1 to slot number i of every copy, and says so in a small value.
func both(index uint64) *Writes {
	w := &Writes{Index: index}
	d := []crdt.Delta{{Slot: crdt.Slot{Time: int64(index % 3), Key: []byte("k")}, Cell: cellOf(1)}}
	w.Add(testCopies[0], d)
	w.Add(testCopies[1], d)
	w.Put(OutKey(7), binary.BigEndian.AppendUint64(nil, index))
	return w
}

// records returns how many records a copy of a view holds.
func records(v *View, c Copy) (n uint64, err error) {
	it, err := v.Iter(c, crdt.MinTime, crdt.MaxTime)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		cell, err := crdt.DecodeCell(it.Cell())
		if err != nil {
			return 0, err
		}
		n += cell.Records
	}
	return n, it.Err()
}

// While commands are applied, written behind and flushed, every view shows one index: no command in part, none twice.
func TestViewsWhileApplying(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	o.TableBytes, o.MaxAge = 32<<10, 20*time.Millisecond
	s := must[*Store](t)(Open(o))
	const commands = 30_000
	var applied atomic.Uint64
	g, ctx := errgroup.WithContext(t.Context())
	g.Go(func() error {
		for i := uint64(1); i <= commands && ctx.Err() == nil; i++ {
			if err := s.Apply(both(i)); err != nil {
				return err
			}
			applied.Store(i)
		}
		return nil
	})
	for range 2 {
		g.Go(func() error {
			for applied.Load() < commands && ctx.Err() == nil {
				if err := lookAtView(s, applied.Load()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for i := 0; applied.Load() < commands && ctx.Err() == nil; i++ {
			before, dir := applied.Load(), fmt.Sprintf("/checkpoints/%d", i)
			index, _, err := s.Checkpoint(dir)
			if err != nil || index < before {
				return fmt.Errorf("checkpoint at %d, applied before it %d: %w", index, before, err)
			}
			if err := s.opts.FS.RemoveAll(dir); err != nil {
				return err
			}
		}
		return nil
	})
	check(t, g.Wait())
	check(t, lookAtView(s, commands))
	m := must[Metrics](t)(s.Metrics())
	if m.Batches == 0 || m.Database == nil {
		t.Errorf("%d batches were written behind", m.Batches)
	}
	check(t, s.Close())
	check(t, s.Close())
	if _, err := s.View(); !errors.Is(err, ErrClosed) {
		t.Errorf("view of a closed store: %v", err)
	}
}

// A view after every command leaves few tables behind, and each entry is folded few times.
func TestViewsFoldTables(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	o.TableBytes = 8 << 20
	s := must[*Store](t)(Open(o))
	const commands = 1000
	for i := uint64(1); i <= commands; i++ {
		w := both(i)
		w.Put(OutKey(1000+i), make([]byte, 100))
		check(t, s.Apply(w))
		check(t, must[*View](t)(s.View()).Close())
		if m := must[Metrics](t)(s.Metrics()); m.Tables > 20 {
			t.Fatalf("%d tables after %d views", m.Tables, i)
		}
	}
	if m := must[Metrics](t)(s.Metrics()); m.Folds == 0 || m.Folds > 2*commands {
		t.Errorf("%d folds for %d views", m.Folds, commands)
	}
	check(t, lookAtView(s, commands))
	check(t, s.Close())
}

func lookAtView(s *Store, atLeast uint64) (err error) {
	v, err := s.View()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	a, err := records(v, testCopies[0])
	if err != nil {
		return err
	}
	b, err := records(v, testCopies[1])
	if err != nil {
		return err
	}
	mark, _, err := v.Get(OutKey(7))
	if err != nil {
		return err
	}
	told := uint64(0)
	if mark != nil {
		told = binary.BigEndian.Uint64(mark)
	}
	if v.Index() < atLeast || a != v.Index() || b != v.Index() || told != v.Index() {
		return fmt.Errorf("view at %d (at least %d) holds %d and %d records and tells %d", v.Index(), atLeast, a, b, told)
	}
	return nil
}

// gate holds up all writes of tables to disk while it is shut.
type gate struct{ open chan struct{} }

func (g gate) String() string { return "gate" }

func (g gate) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
		<-g.open
	}
	return nil
}

// A view waits for no disk: not for a flush that hangs, and not for an Apply that waits for it.
func TestBackpressure(t *testing.T) {
	g := gate{make(chan struct{})}
	o := testOptions(t, vfs.NewMem())
	check(t, must[*Store](t)(Open(o)).Close()) // the first table is written before the gate shuts
	o.FS = errorfs.Wrap(o.FS, g)
	s := must[*Store](t)(Open(o))
	done := make(chan error, 1)
	var applied atomic.Uint64
	go func() {
		for i := uint64(1); ; i++ {
			w := &Writes{Index: i}
			w.Put(OutKey(i), make([]byte, 1<<10))
			if err := s.Apply(w); err != nil || i == 4000 {
				done <- err
				return
			}
			applied.Store(i)
		}
	}()
	stalled := func() bool { return must[Metrics](t)(s.Metrics()).Stalls > 0 }
	await(t, stalled)
	before := applied.Load()
	v := must[*View](t)(s.View())
	if v.Index() < before {
		t.Errorf("view at %d, applied before it %d", v.Index(), before)
	}
	m := must[Metrics](t)(s.Metrics())
	if limit := 3*s.opts.TableBytes + 2<<10; m.TableBytes > limit {
		t.Errorf("%d bytes in memory, at most %d", m.TableBytes, limit)
	}
	check(t, v.Close())
	close(g.open)
	check(t, <-done)
	check(t, s.Close())
}

// await waits for a condition that other goroutines bring about.
func await(t *testing.T, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatal("condition did not come true in 20 s")
		case <-tick.C:
		}
	}
}

// A disk that is full or broken makes the store unusable, once and loudly: nothing is tried again.
func TestDiskFailure(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		noSpace bool
	}{
		"full":   {syscall.ENOSPC, true},
		"broken": {syscall.EIO, false},
	} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			o := testOptions(t, nil)
			o.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
				if broken.Load() && sync && strings.HasSuffix(op.Path, ".sst") {
					return c.err
				}
				return nil
			}))
			var calls atomic.Int64
			var first atomic.Pointer[error]
			o.Fatal = func(err error) {
				calls.Add(1)
				first.Store(&err)
			}
			s := must[*Store](t)(Open(o))
			broken.Store(true)
			var err error
			for i := uint64(1); err == nil && i < 5000; i++ {
				w := &Writes{Index: i}
				w.Put(OutKey(i), make([]byte, 1<<10))
				err = s.Apply(w)
			}
			await(t, func() bool { return first.Load() != nil })
			if calls.Load() != 1 || !errors.Is(err, *first.Load()) {
				t.Errorf("%d calls of Fatal; with %v; Apply failed with %v", calls.Load(), *first.Load(), err)
			}
			if !errors.Is(err, c.err) || errors.Is(err, ErrNoSpace) != c.noSpace {
				t.Errorf("failed with %v", err)
			}
			if _, err := s.View(); !errors.Is(err, c.err) {
				t.Errorf("view after a failure: %v", err)
			}
			broken.Store(false)
			if err := s.Close(); !errors.Is(err, c.err) {
				t.Errorf("close after a failure: %v", err)
			}
		})
	}
}

// A crash at any moment of a restore opens to the old state or to the new one, whole.
func TestRestoreCrashes(t *testing.T) {
	for seed := range uint64(40) {
		mem := vfs.NewCrashableMem()
		var s *Store
		rng := rand.New(rand.NewPCG(seed, 0))
		var clone *vfs.MemFS
		left := rng.IntN(90)
		var armed atomic.Bool
		var one sync.Mutex // writer of left, clone and rng
		o := testOptions(t, nil)
		o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			one.Lock()
			defer one.Unlock()
			if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				if left--; left == 0 {
					clone = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				}
			}
			return nil
		}))
		s = must[*Store](t)(Open(o))
		for i := uint64(1); i <= 10; i++ {
			check(t, s.Apply(both(i)))
		}
		_, _, err := s.Checkpoint("/checkpoint")
		check(t, err)
		for i := uint64(11); i <= 15; i++ {
			check(t, s.Apply(both(i)))
		}
		must[uint64](t)(s.writeBehind())
		check(t, s.mu.engine.db.Flush())
		armed.Store(true)
		check(t, s.Restore("/checkpoint"))
		armed.Store(false)
		one.Lock()
		restored := clone == nil // else the crash came before its end
		if restored {
			clone = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
		}
		one.Unlock()
		check(t, s.Close())
		s = must[*Store](t)(Open(testOptions(t, clone)))
		index, _ := s.AppliedIndex()
		if index != 10 && (restored || index != 15) {
			t.Errorf("seed %d: opened at %d, restored %v", seed, index, restored)
		}
		check(t, lookAtView(s, index))
		names := must[[]string](t)(clone.List("/store/0"))
		if data := strings.Count(strings.Join(names, " "), dataPrefix); data != 1 {
			t.Errorf("seed %d: left over after the start: %s", seed, names)
		}
		check(t, s.Close())
	}
}

// A checkpoint that is damaged leaves the store as it was.
func TestRestoreRefusesDamage(t *testing.T) {
	for _, damage := range []string{"cut", "flip", "gone"} {
		t.Run(damage, func(t *testing.T) {
			o := testOptions(t, vfs.NewMem())
			s := must[*Store](t)(Open(o))
			for i := uint64(1); i <= 10; i++ {
				check(t, s.Apply(both(i)))
			}
			_, _, err := s.Checkpoint("/checkpoint")
			check(t, err)
			damageTable(t, o.FS, "/checkpoint", damage)
			check(t, s.Apply(both(11)))
			if err := s.Restore("/checkpoint"); err == nil {
				t.Error("restored a damaged checkpoint")
			}
			if err := s.Restore("/nowhere"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("restored nothing: %v", err)
			}
			check(t, lookAtView(s, 11))
			check(t, s.Apply(both(12)))
			check(t, s.Close())
			s = must[*Store](t)(Open(o))
			check(t, lookAtView(s, 12))
			check(t, s.Close())
		})
	}
}

// damageTable spoils the biggest table file in dir, in a copy of its own.
func damageTable(t *testing.T, fsys vfs.FS, dir, damage string) {
	t.Helper()
	var path string
	var size int64
	for _, n := range must[[]string](t)(fsys.List(dir)) {
		p := fsys.PathJoin(dir, n)
		if info := must[vfs.FileInfo](t)(fsys.Stat(p)); strings.HasSuffix(n, ".sst") && info.Size() > size {
			path, size = p, info.Size()
		}
	}
	b := make([]byte, size)
	f := must[vfs.File](t)(fsys.Open(path))
	must[int](t)(f.ReadAt(b, 0))
	check(t, f.Close())
	check(t, fsys.Remove(path))
	switch damage {
	case "cut":
		b = b[:size/2]
	case "flip":
		b[10] ^= 0x40
	case "gone":
		return
	}
	f = must[vfs.File](t)(fsys.Create(path, fileCategory))
	must[int](t)(f.Write(b))
	check(t, errors.Join(f.Sync(), f.Close()))
}

func TestRefusedCommands(t *testing.T) {
	s := must[*Store](t)(Open(testOptions(t, vfs.NewMem())))
	check(t, s.Apply(both(5)))
	for name, c := range map[string]struct {
		write func(*Writes)
		index uint64
		want  error
	}{
		"stale":                 {func(*Writes) {}, 5, ErrStale},
		"system key":            {func(w *Writes) { w.Put(keyApplied, nil) }, 6, ErrKey},
		"no key":                {func(w *Writes) { w.Delete(nil) }, 6, ErrKey},
		"range over kinds":      {func(w *Writes) { w.DeleteRange(MetaKey(nil), OutKey(1)) }, 6, ErrKey},
		"range of slots":        {func(w *Writes) { w.DeleteRange([]byte{rowData}, []byte{rowData, 1}) }, 6, ErrKey},
		"long user key":         {func(w *Writes) { w.Add(Copy{}, []crdt.Delta{{Slot: crdt.Slot{Key: make([]byte, MaxUserKey+1)}}}) }, 6, ErrKey},
		"long name of a region": {func(w *Writes) { w.Cut(Copy{Group: crdt.RegionID(make([]byte, 64))}, 1) }, 6, ErrKey},
	} {
		w := &Writes{Index: c.index}
		w.Put(MetaKey([]byte("trace")), []byte("1"))
		c.write(w)
		if err := s.Apply(w); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v := must[*View](t)(s.View())
	if _, ok, err := v.Get(MetaKey([]byte("trace"))); ok || err != nil || v.Index() != 5 {
		t.Errorf("a refused command left a trace: %v %v at %d", ok, err, v.Index())
	}
	if _, _, err := v.Get(keyApplied); !errors.Is(err, ErrKey) {
		t.Errorf("read of a system key: %v", err)
	}
	check(t, v.Close())
	check(t, s.Close())
}

func TestOpenRefuses(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	s := must[*Store](t)(Open(o))
	if _, err := Open(o); err == nil {
		t.Error("opened twice at once")
	}
	check(t, s.mu.engine.db.Set(keyFormat, []byte{0, 0, 0, formatVersion + 1}, pebble.NoSync))
	_, _, err := s.Checkpoint("/checkpoint")
	if !errors.Is(err, ErrFormat) {
		t.Errorf("checkpoint of a newer format: %v", err)
	}
	check(t, s.Close())
	if _, err := Open(o); !errors.Is(err, ErrFormat) {
		t.Errorf("newer format: %v", err)
	}
	for _, pointer := range []string{"", "data-1\n", "data-000001", "../data-000001\n", strings.Repeat("x", 99)} {
		f := must[vfs.File](t)(o.FS.Create("/store/0/"+pointerFile, fileCategory))
		must[int](t)(f.Write([]byte(pointer)))
		check(t, f.Close())
		if _, err := Open(o); !errors.Is(err, ErrCorrupt) {
			t.Errorf("pointer %q: %v", pointer, err)
		}
	}
	for _, bad := range []Options{{}, {Dir: "/x"}, {Dir: "/x", Fatal: o.Fatal, TableBytes: -1}, {Dir: "/x", Fatal: o.Fatal, MaxAge: -1}} {
		if _, err := Open(bad); err == nil {
			t.Errorf("opened with %+v", bad)
		}
	}
}

// The bytes of a stored row are a format: another program version reads them.
func TestStoredBytes(t *testing.T) {
	s := must[*Store](t)(Open(testOptions(t, vfs.NewMem())))
	check(t, s.Apply(both(1)))
	must[uint64](t)(s.writeBehind())
	key := AppendDataKey(nil, testCopies[0], crdt.Slot{Time: 1, Key: []byte("k")})
	value := must[[]byte](t)(getCopy(s.mu.engine.db, key))
	wantKey := append(append([]byte{'d', 1}, make([]byte, 15)...), 1, 'a', 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 1, 'k', 0, 0)
	if !bytes.Equal(key, wantKey) || !bytes.Equal(value, append([]byte{1, 1, 0}, cellOf(1)...)) {
		t.Errorf("row %x: %x", key, value)
	}
	check(t, s.Close())
}
