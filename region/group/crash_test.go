package group

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
)

// TestTornWriteAtCrash crashes a log while it is written to, with any part of what was not yet synced on the disk: the log
// opens, without a gap, and with all that was acknowledged.
func TestTornWriteAtCrash(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		store := openMemLog(t, fs)
		l, err := store.Shard(testShard)
		if err != nil {
			t.Fatal(err)
		}
		var acknowledged atomic.Uint64
		stop, done := make(chan struct{}), make(chan error, 1)
		go func() {
			for index := uint64(1); ; index += 2 {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				big := testEntry(index+1, 1)
				big.Data = make([]byte, 40<<10) // over more than one block of the log's log
				if err := l.StoreLogs([]*raft.Log{testEntry(index, 1), big}); err != nil {
					done <- err
					return
				}
				acknowledged.Store(index + 1)
			}
		}()
		atLeast := 2 + seed
		awaitCondition(t, "entries", func() bool { return acknowledged.Load() >= atLeast })
		had := acknowledged.Load()
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		close(stop)
		if err := errors.Join(<-done, store.Close()); err != nil {
			t.Fatal(err)
		}
		checkAfterCrash(t, seed, crashed, had)
	}
}

func checkAfterCrash(t *testing.T, seed uint64, fs vfs.FS, acknowledged uint64) {
	t.Helper()
	store := openMemLog(t, fs)
	defer store.Close()
	l, err := store.Shard(testShard)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	if first != 1 || last < acknowledged {
		t.Fatalf("seed %d: the log holds %d to %d, %d was acknowledged", seed, first, last, acknowledged)
	}
	for index := first; index <= last; index++ {
		var got raft.Log
		if err := l.GetLog(index, &got); err != nil || got.Index != index {
			t.Fatalf("seed %d: entry %d: %v", seed, index, err)
		}
	}
}

// TestFullDisk: a log that can't be written to for want of space is not written to again.
func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	var told atomic.Pointer[error]
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt || op.Kind == errorfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	}))
	store, err := OpenLogStore("log", LogStoreConfig{FS: fs, Fatal: func(err error) { told.CompareAndSwap(nil, &err) }, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	l, err := store.Shard(testShard)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLog(testEntry(1, 1)); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if err := l.StoreLog(testEntry(2, 1)); err == nil {
		t.Fatal("acknowledged on a full disk")
	}
	full.Store(false)
	if err := l.StoreLog(testEntry(2, 1)); err == nil {
		t.Fatal("tried again after a failed write")
	}
	if err := told.Load(); err == nil || !strings.Contains((*err).Error(), "no space left") {
		t.Fatalf("fatal: %v", err)
	}
}
