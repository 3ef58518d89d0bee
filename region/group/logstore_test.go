package group

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// reopener is a log store under test and how it comes back after a crash.
type reopener struct {
	store  raft.LogStore
	reopen func() raft.LogStore // nil where the store doesn't outlive its process
}

func testEntry(index, term uint64) *raft.Log {
	return &raft.Log{
		Index: index, Term: term, Type: raft.LogType(index % 2), Data: fmt.Appendf(nil, "entry %d of term %d", index, term),
		AppendedAt: time.Unix(int64(index), int64(term)),
	}
}

// logStoreContract checks what Raft expects of a log store: random writes against a slice, with crashes in between.
func logStoreContract(t *rapid.T, r reopener) {
	var model []*raft.Log
	next, term := uint64(1), uint64(1)
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"append", "append", "append", "truncate", "compact", "clear", "crash"}).Draw(t, "step") {
		case "append":
			var batch []*raft.Log
			for range rapid.IntRange(1, 5).Draw(t, "entries") {
				batch = append(batch, testEntry(next, term))
				next++
			}
			if err := r.store.StoreLogs(batch); err != nil {
				t.Fatal(err)
			}
			model = append(model, batch...)
		case "truncate": // a follower's conflicting tail, rewritten at a later term
			if len(model) == 0 {
				continue
			}
			keep := rapid.IntRange(0, len(model)-1).Draw(t, "keep")
			low := model[keep].Index
			if err := r.store.DeleteRange(low, next-1); err != nil {
				t.Fatal(err)
			}
			model, next = model[:keep:keep], low
			term++
		case "compact":
			if len(model) == 0 {
				continue
			}
			drop := rapid.IntRange(1, len(model)).Draw(t, "drop")
			if err := r.store.DeleteRange(model[0].Index, model[drop-1].Index); err != nil {
				t.Fatal(err)
			}
			model = model[drop:]
		case "clear": // a snapshot from far ahead
			if len(model) > 0 {
				if err := r.store.DeleteRange(model[0].Index, next-1); err != nil {
					t.Fatal(err)
				}
			}
			model, next = nil, next+100
		case "crash":
			if r.reopen != nil {
				r.store = r.reopen()
			}
		}
		compareLog(t, r.store, model)
	}
}

func compareLog(t *rapid.T, store raft.LogStore, model []*raft.Log) {
	first, err := store.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if len(model) == 0 {
		if first != 0 || last != 0 {
			t.Fatalf("empty log from %d to %d", first, last)
		}
		return
	}
	if first != model[0].Index || last != model[len(model)-1].Index {
		t.Fatalf("log from %d to %d, want %d to %d", first, last, model[0].Index, model[len(model)-1].Index)
	}
	var got raft.Log
	for _, want := range model {
		if err := store.GetLog(want.Index, &got); err != nil {
			t.Fatal(err)
		}
		if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
			!got.AppendedAt.Equal(want.AppendedAt) {
			t.Fatalf("entry %+v, want %+v", got, *want)
		}
	}
	for _, missing := range []uint64{first - 1, last + 1} {
		if err := store.GetLog(missing, &got); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("entry %d: %v", missing, err)
		}
	}
}

// TestLogStoreContract crashes the store so that exactly what was synced is left.
func TestLogStoreContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewCrashableMem()
		store := openMemLog(t, fs)
		shard := func() raft.LogStore {
			l, err := store.Shard(testShard)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		defer func() { store.Close() }()
		logStoreContract(t, reopener{store: shard(), reopen: func() raft.LogStore {
			crashed := fs.CrashClone(vfs.CrashCloneCfg{})
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			fs, store = crashed, openMemLog(t, crashed)
			return shard()
		}})
	})
}

// The model of the contract is itself tried on the store that comes with the library.
func TestInmemStoreContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { logStoreContract(t, reopener{store: raft.NewInmemStore()}) })
}

func openMemLog(t interface{ Fatal(...any) }, fs vfs.FS) *LogStore {
	store, err := OpenLogStore("log", LogStoreConfig{FS: fs, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestShardsAreApart(t *testing.T) {
	store := openMemLog(t, vfs.NewMem())
	defer store.Close()
	for _, shard := range []uint32{0, 1, 1<<32 - 1} {
		l, err := store.Shard(shard)
		if err != nil {
			t.Fatal(err)
		}
		for index := uint64(1); index <= 3; index++ {
			entry := &raft.Log{Index: index, Type: raft.LogCommand, Data: fmt.Appendf(nil, "%d/%d", shard, index)}
			if err := l.StoreLog(entry); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, _ := store.Shard(1)
	if err := l.DeleteRange(1, 3); err != nil {
		t.Fatal(err)
	}
	for _, shard := range []uint32{0, 1<<32 - 1} {
		command, ok, err := store.Read(shard, 3)
		if want := fmt.Sprintf("%d/3", shard); err != nil || !ok || string(command) != want {
			t.Fatalf("got %q, %v, %v; want %q", command, ok, err, want)
		}
		if first, err := store.FirstIndex(shard); first != 1 || err != nil {
			t.Fatalf("first is %d, %v", first, err)
		}
	}
	if _, ok, err := store.Read(1, 3); ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
}

func TestLogRefusesGaps(t *testing.T) {
	store := openMemLog(t, vfs.NewMem())
	defer store.Close()
	l, err := store.Shard(1)
	if err != nil {
		t.Fatal(err)
	}
	for index := uint64(5); index <= 9; index++ {
		if err := l.StoreLog(testEntry(index, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StoreLog(testEntry(11, 1)); err == nil {
		t.Error("stored 11 after 9")
	}
	if err := l.StoreLogs([]*raft.Log{testEntry(10, 1), testEntry(12, 1)}); err == nil {
		t.Error("stored 12 after 10")
	}
	if err := l.DeleteRange(6, 8); err == nil {
		t.Error("left a gap")
	}
	if last, _ := l.LastIndex(); last != 9 {
		t.Errorf("last is %d", last)
	}
}

// TestFailedSync sees to it that a failed fsync is fatal once and that nothing is acknowledged afterwards.
func TestFailedSync(t *testing.T) {
	var broken atomic.Bool
	var told atomic.Int32
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && isSync(op.Kind) {
			return errors.New("no more disk")
		}
		return nil
	}))
	store, err := OpenLogStore("log", LogStoreConfig{FS: fs, Fatal: func(error) { told.Add(1) }, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	l, err := store.Shard(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLog(testEntry(1, 1)); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := l.StoreLog(testEntry(2, 1)); err == nil {
		t.Fatal("acknowledged what was not synced")
	}
	broken.Store(false)
	if err := l.StoreLog(testEntry(2, 1)); err == nil {
		t.Fatal("tried again after a failed sync")
	}
	if told.Load() != 1 {
		t.Fatalf("told %d times", told.Load())
	}
	if last, _ := l.LastIndex(); last != 1 {
		t.Fatalf("last is %d", last)
	}
}

func TestStalledDisk(t *testing.T) {
	var stalled atomic.Bool
	release := make(chan struct{})
	fatal := make(chan error, 1)
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if stalled.Load() && isSync(op.Kind) {
			<-release
		}
		return nil
	}))
	store, err := OpenLogStore("log", LogStoreConfig{
		FS: fs, Timeout: 50 * time.Millisecond, Fatal: func(err error) { fatal <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := store.Shard(1)
	if err != nil {
		t.Fatal(err)
	}
	stalled.Store(true)
	if err := l.StoreLog(testEntry(1, 1)); !errors.Is(err, ErrStalled) {
		t.Fatalf("got %v", err)
	}
	if err := <-fatal; !errors.Is(err, ErrStalled) {
		t.Fatalf("got %v", err)
	}
	close(release)
	if err := l.StoreLog(testEntry(1, 1)); !errors.Is(err, ErrStalled) {
		t.Fatalf("a stall was forgotten: %v", err)
	}
}

func isSync(kind errorfs.OpKind) bool {
	return kind == errorfs.OpFileSync || kind == errorfs.OpFileSyncData || kind == errorfs.OpFileSyncTo
}

func FuzzLogValue(f *testing.F) {
	for _, entry := range []*raft.Log{{}, testEntry(1, 2), {Type: raft.LogConfiguration, Extensions: []byte("e"), Data: []byte("d")}} {
		value := make([]byte, logValueSize(entry))
		putLogValue(value, entry)
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		var entry raft.Log
		if decodeLogValue(value, &entry) != nil {
			return
		}
		again := make([]byte, logValueSize(&entry))
		putLogValue(again, &entry)
		if !bytes.Equal(value, again) {
			t.Fatalf("%x became %x", value, again)
		}
	})
}

// BenchmarkLogStore appends as the leaders of several groups do, each one batch at a time.
func BenchmarkLogStore(b *testing.B) {
	for _, shards := range []int{1, 16} {
		for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("shards=%d/bytes=%d", shards, size), func(b *testing.B) {
				store, err := OpenLogStore(b.TempDir(), LogStoreConfig{Fatal: func(err error) { panic(err) }})
				if err != nil {
					b.Fatal(err)
				}
				defer store.Close()
				benchmarkAppend(b, store, shards, size)
			})
		}
	}
}

func benchmarkAppend(b *testing.B, store *LogStore, shards, size int) {
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	b.SetBytes(int64(size))
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, shards)
	for shard := range shards {
		l, err := store.Shard(uint32(shard))
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for index := uint64(1); left.Add(-1) >= 0; index++ {
				if err := l.StoreLog(&raft.Log{Index: index, Data: data}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range shards {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
