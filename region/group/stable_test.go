package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
)

func testStable(t *testing.T, path string) (*stableStore, error) {
	t.Helper()
	return openStableStore(path, newGuard(patience, patience, func(err error) { t.Errorf("fatal: %v", err) }))
}

// changeStable changes a stable store behind its back.
func changeStable(t *testing.T, path string, change func(*bbolt.Bucket) error) {
	t.Helper()
	db := must(bbolt.Open(path, 0o600, boltOptions()))
	err := db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(stableBucket)
		if err != nil {
			return err
		}
		return change(bucket)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// fillStable makes a store with the terms and votes of a few shards, and returns what it holds.
func fillStable(t *testing.T, path string) map[string][]byte {
	t.Helper()
	store := must(testStable(t, path))
	for shard := range uint32(4) {
		s := &shardStable{store: store, shard: shard}
		for _, err := range []error{s.SetUint64(raftStableTerm, 7), s.SetUint64(raftStableTerm, 8+uint64(shard)),
			s.Set([]byte("LastVoteCand"), []byte("n1")), s.Set([]byte("LastVoteCand"), nil)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := store.close(); err != nil {
		t.Fatal(err)
	}
	return store.records
}

func sameRecords(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || !bytes.Equal(value, other) {
			return false
		}
	}
	return true
}

// TestAFlippedByteInTheStableStoreIsFound: whichever byte is changed, the store says what was stored or refuses.
func TestAFlippedByteInTheStableStoreIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stable.db")
	want := fillStable(t, path)
	if got := must(testStable(t, path)); !sameRecords(got.records, want) {
		t.Fatalf("%q, stored was %q", got.records, want)
	} else if err := got.close(); err != nil {
		t.Fatal(err)
	}
	whole := must(os.ReadFile(path))
	flipped := filepath.Join(t.TempDir(), "stable.db")
	found, step := 0, 1
	if testing.Short() {
		step = 7
	}
	used := len(bytes.TrimRight(whole, "\x00"))
	for at := 0; at < used; at += step {
		if whole[at] == 0 && at%31 != 0 {
			continue // mostly unused
		}
		b := bytes.Clone(whole)
		b[at] ^= 0x03 // which makes version 1 of version 2
		if err := os.WriteFile(flipped, b, 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := testStable(t, flipped)
		switch {
		case err == nil:
			if !sameRecords(store.records, want) {
				t.Fatalf("byte %d: %q, stored was %q", at, store.records, want)
			}
			store.close()
		case errors.Is(err, ErrLogDamaged) && strings.Contains(err.Error(), flipped):
			found++
		case !errors.Is(err, ErrNewer):
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	if found < 100/step {
		t.Errorf("only %d flips were found", found)
	}
}

// TestAForgottenVoteIsFound: a record that is gone is damage.
func TestAForgottenVoteIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stable.db")
	fillStable(t, path)
	key := (&shardStable{shard: 2}).key([]byte("LastVoteCand"))
	changeStable(t, path, func(bucket *bbolt.Bucket) error { return bucket.Delete(key) })
	if _, err := testStable(t, path); !errors.Is(err, ErrLogDamaged) {
		t.Errorf("without a record: %v", err)
	}
}

// TestAStableStoreOfVersion1IsTakenOver, without what was not there: checksums.
func TestAStableStoreOfVersion1IsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stable.db")
	key := (&shardStable{shard: 3}).key(raftStableTerm)
	changeStable(t, path, func(bucket *bbolt.Bucket) error {
		return errors.Join(bucket.Put(key, binary.BigEndian.AppendUint64(nil, 42)),
			bucket.Put(storeVersionKey, binary.BigEndian.AppendUint32(nil, 1)))
	})
	for when := range 2 {
		store := must(testStable(t, path))
		if term := must((&shardStable{store: store, shard: 3}).GetUint64(raftStableTerm)); term != 42 {
			t.Errorf("opened %d times: term %d", when+1, term)
		}
		if err := store.close(); err != nil {
			t.Fatal(err)
		}
	}
	changeStable(t, path, func(bucket *bbolt.Bucket) error { return bucket.Put(key, binary.BigEndian.AppendUint64(nil, 41)) })
	if _, err := testStable(t, path); !errors.Is(err, ErrLogDamaged) {
		t.Errorf("a record without a checksum: %v", err)
	}
}

// TestDamageIsMarked: a node that has found its log damaged does not open again, whatever it reads then.
func TestDamageIsMarked(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.leader()
	c.kill(0)
	path := filepath.Join(c.configs[0].Dir, "stable.db")
	whole := must(os.ReadFile(path))
	b := bytes.ReplaceAll(whole, raftStableTerm, []byte("CurrentTurm"))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() error {
		host, err := Open(c.configs[0])
		if err == nil {
			err = errors.Join(errors.New("opened"), host.Close())
		}
		return err
	}
	if err := open(); !errors.Is(err, ErrLogDamaged) || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(); !errors.Is(err, ErrLogDamaged) || !strings.Contains(err.Error(), "found at") || !strings.Contains(err.Error(), path) {
		t.Fatalf("after the damage was found: %v", err)
	}
}

// TestALogOfALaterTermIsFound: the stable store is gone, and an empty one stands in its place.
func TestALogOfALaterTermIsFound(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.leader()
	toy := c.nodes[0].toy
	c.kill(0)
	if err := os.Remove(filepath.Join(c.configs[0].Dir, "stable.db")); err != nil {
		t.Fatal(err)
	}
	host := must(Open(c.configs[0]))
	defer host.Close()
	if _, err := host.Start(testShard, toy); !errors.Is(err, ErrLogDamaged) {
		t.Errorf("without the stable store: %v", err)
	}
}

// BenchmarkElection stores what a member stores that votes: a term, and for whom, of several groups at a time.
func BenchmarkElection(b *testing.B) {
	for _, groups := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			store, err := openStableStore(filepath.Join(b.TempDir(), "stable.db"), newGuard(patience, patience, func(err error) { b.Error(err) }))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for term := range uint64(b.N) {
				var voting sync.WaitGroup
				for shard := range uint32(groups) {
					voting.Go(func() {
						s := &shardStable{store: store, shard: shard}
						if err := errors.Join(s.SetUint64(raftStableTerm, term), s.SetUint64([]byte("LastVoteTerm"), term),
							s.Set([]byte("LastVoteCand"), []byte("n1"))); err != nil {
							b.Error(err)
						}
					})
				}
				voting.Wait()
			}
			if err := store.close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
