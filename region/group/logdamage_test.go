package group

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A byte that is flipped below what was acknowledged must not pass for a write that a crash has torn: the log would end
// there, without a word. Only in the last block of 32 KiB the two look alike.
func TestAFlippedByteInTheWALIsFound(t *testing.T) {
	for _, at := range []float64{0.1, 0.3, 0.6, 0.8} {
		dir, crashed := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "log")
		open := func(dir string) (*LogStore, error) {
			return openLogStore(dir, nil, hclog.NewNullLogger(), newGuard(patience, patience, func(error) {}))
		}
		s := must(open(dir))
		l := must(s.Shard(testShard))
		for i := range uint64(200) {
			entry := &raft.Log{Index: i + 1, Term: 1, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i)}, 1024)}
			if err := l.StoreLog(entry); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil { // as a crash leaves it
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		flipLargest(t, crashed, int(at*200*1024))
		s, err := open(crashed)
		if !errors.Is(err, ErrLogDamaged) {
			t.Errorf("a byte flipped at %.0f%% of the WAL gives %v", 100*at, err)
		}
		if err == nil {
			s.Close()
		}
		flipLargest(t, dir, 200*1024) // of no use any more
		s = must(open(dir))
		if last := must(must(s.Shard(testShard)).LastIndex()); last != 200 {
			t.Errorf("after a clean end and damage to the end of the WAL the log ends at %d", last)
		}
		s.Close()
	}
}

// flipLargest changes a bit of the largest WAL in dir.
func flipLargest(t *testing.T, dir string, at int) {
	t.Helper()
	largest, size := "", int64(0)
	for _, name := range must(filepath.Glob(filepath.Join(dir, "*.log"))) {
		if info := must(os.Stat(name)); info.Size() > size {
			largest, size = name, info.Size()
		}
	}
	raw := must(os.ReadFile(largest))
	raw[at] ^= 1
	if err := os.WriteFile(largest, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}
