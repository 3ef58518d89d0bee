package group

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// boltOf returns a file with one bucket of records, and what the database itself reads in it.
func boltOf(t testing.TB, records, size int) (file []byte, stored map[string]string) {
	path := filepath.Join(t.TempDir(), "a.db")
	db := must(bbolt.Open(path, 0o600, boltOptions()))
	err := db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(stableBucket)
		for at := 0; at < records && err == nil; at++ {
			err = bucket.Put(fmt.Appendf(nil, "key %05d", at), bytes.Repeat([]byte{byte(at)}, at%size))
		}
		if err != nil {
			return err
		}
		_, err = tx.CreateBucketIfNotExists([]byte("another"))
		return err
	})
	if err == nil && records > 0 { // which leaves pages that are not in use any more
		err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(stableBucket).Delete([]byte("key 00000")) })
	}
	stored = map[string]string{}
	err = errors.Join(err, db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(stableBucket).ForEach(func(key, value []byte) error {
			stored[string(key)] = string(value)
			return nil
		})
	}), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	return must(os.ReadFile(path)), stored
}

// TestBoltIsReadAsTheDatabaseReadsIt, from one page within another to a tree of pages, some larger than one.
func TestBoltIsReadAsTheDatabaseReadsIt(t *testing.T) {
	for _, shape := range []struct{ records, size int }{{0, 1}, {3, 10}, {200, 50}, {20_000, 20}, {50, 20_000}} {
		file, want := boltOf(t, shape.records, shape.size)
		got := map[string]string{}
		err := readBoltBytes(file, stableBucket, func(key, value []byte) error {
			got[string(key)] = string(value)
			return nil
		})
		if err != nil {
			t.Fatalf("%v: %v", shape, err)
		}
		if len(got) != len(want) {
			t.Errorf("%v: %d records, the database reads %d", shape, len(got), len(want))
		}
		for key, value := range want {
			if got[key] != value {
				t.Fatalf("%v: %q is %d bytes, the database reads %d", shape, key, len(got[key]), len(value))
			}
		}
	}
}

// TestABoltFileThatIsCutIsDamaged, wherever its end is.
func TestABoltFileThatIsCutIsDamaged(t *testing.T) {
	file, _ := boltOf(t, 200, 50)
	for _, size := range []int{0, 1, boltPageHead, headAt + headSize, os.Getpagesize(), 2*os.Getpagesize() + 1} {
		err := readBoltBytes(file[:size], stableBucket, func(_, _ []byte) error { return nil })
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// FuzzBolt changes files, whose heads have a checksum, behind their heads.
func FuzzBolt(f *testing.F) {
	var files [][]byte
	for _, records := range []int{0, 3, 500} {
		file, _ := boltOf(f, records, 40)
		files = append(files, file)
	}
	f.Add(uint8(0), uint32(3*os.Getpagesize()), []byte{0xff, 0xff})
	f.Add(uint8(2), uint32(3*os.Getpagesize()+8), []byte{1, 0, 0xff, 0xff})
	f.Add(uint8(2), uint32(4*os.Getpagesize()+boltPageHead), []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, which uint8, at uint32, change []byte) {
		file := bytes.Clone(files[int(which)%len(files)])
		begin := 2 * os.Getpagesize()
		copy(file[begin+int(at)%(len(file)-begin):], change)
		err := readBoltBytes(file, stableBucket, func(_, _ []byte) error { return nil })
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v", err)
		}
	})
}
