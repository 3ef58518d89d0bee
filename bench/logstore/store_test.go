package logstore

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"

	"github.com/watershed-db/watershed/region/group"
)

var (
	sizes      = []int{1 << 10, 4 << 10, 16 << 10, 64 << 10} // of an entry, in bytes
	shardCount = []int{1, 4, 16, 32}
)

// node is the logs of one node.
type node struct {
	logs  []raft.LogStore // by shard
	close func() error
}

// kinds are the stores that are compared: each fsyncs before StoreLogs returns.
var kinds = []struct {
	name string
	open func(dir string, shards int) (node, error)
}{
	{"boltdb", openBolt},
	{"pebble", openPebble},
	{"wal", openWAL},
}

// closers closes all, and returns the first error.
func closers(list []func() error) func() error {
	return func() (err error) {
		for _, c := range list {
			if e := c(); err == nil {
				err = e
			}
		}
		return err
	}
}

func openBolt(dir string, shards int) (n node, err error) {
	var closing []func() error
	for i := range shards {
		s, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, fmt.Sprint(i, ".db"))})
		if err != nil {
			return n, err
		}
		n.logs, closing = append(n.logs, s), append(closing, s.Close)
	}
	n.close = closers(closing)
	return n, nil
}

func openWAL(dir string, shards int) (n node, err error) {
	var closing []func() error
	for i := range shards {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(path, 0o755); err != nil {
			return n, err
		}
		s, err := wal.Open(path, wal.WithSegmentSize(16<<20))
		if err != nil {
			return n, err
		}
		n.logs, closing = append(n.logs, s), append(closing, s.Close)
	}
	n.close = closers(closing)
	return n, nil
}

func openPebble(dir string, shards int) (n node, err error) {
	s, err := group.OpenLogStore(filepath.Join(dir, "log"), group.LogStoreConfig{Fatal: func(err error) { panic(err) }})
	if err != nil {
		return n, err
	}
	for i := range shards {
		l, err := s.Shard(uint32(i))
		if err != nil {
			return n, err
		}
		n.logs = append(n.logs, l)
	}
	n.close = s.Close
	return n, nil
}

// each runs a benchmark for every store, size and number of shards.
func each(b *testing.B, run func(b *testing.B, open func(dir string, shards int) (node, error), size, shards int)) {
	for _, size := range sizes {
		for _, shards := range shardCount {
			for _, kind := range kinds {
				b.Run(fmt.Sprintf("size=%dKB/shards=%d/store=%s", size>>10, shards, kind.name), func(b *testing.B) {
					b.SetBytes(int64(size))
					run(b, kind.open, size, shards)
				})
			}
		}
	}
}

// load has one worker a shard call do, over and over, until the benchmark has seen enough of the calls return.
func load(b *testing.B, shards int, do func(shard int, call uint64) error) {
	done, stop := make(chan error), make(chan struct{})
	var working sync.WaitGroup
	for shard := range shards {
		working.Go(func() {
			for call := uint64(1); ; call++ {
				err := do(shard, call)
				select {
				case done <- err:
				case <-stop:
					return
				}
			}
		})
	}
	for b.Loop() {
		if err := <-done; err != nil {
			b.Error(err)
			break
		}
	}
	close(stop)
	working.Wait()
}

// trailing is how many entries a log keeps, and truncateEvery after how many it is cut.
const trailing, truncateEvery = 256, 256

// BenchmarkStore appends to all shards' logs at once, one entry a call, and cuts the logs behind.
func BenchmarkStore(b *testing.B) {
	each(b, func(b *testing.B, open func(string, int) (node, error), size, shards int) {
		n, err := open(b.TempDir(), shards)
		if err != nil {
			b.Fatal(err)
		}
		data := payload(size)
		load(b, shards, func(shard int, call uint64) error {
			if call%truncateEvery == 0 && call > 2*trailing {
				if err := n.logs[shard].DeleteRange(call-trailing-truncateEvery, call-trailing-1); err != nil {
					return err
				}
			}
			return n.logs[shard].StoreLog(&raft.Log{Index: call, Term: 1, Type: raft.LogCommand, Data: data})
		})
		if err := n.close(); err != nil {
			b.Fatal(err)
		}
	})
}

// payload is what does not compress.
func payload(size int) []byte {
	data, x := make([]byte, size), uint64(0x9e3779b97f4a7c15)
	for i := range data {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		data[i] = byte(x)
	}
	return data
}
