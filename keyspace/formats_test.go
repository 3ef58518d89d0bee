package keyspace

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestNewerIsRefused: what a later version has written is refused, and the message says both.
func TestNewerIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{Dir: "store", FS: fs, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s.mu.engine.db.Set(keyFormat, []byte{0, 0, 0, formatVersion + 1}, pebble.NoSync))
	check(t, s.mu.engine.db.Flush())
	check(t, s.Close())
	_, store := Open(o)
	_, operand := decodeOperand([]byte{operandVersion + 1, 1, 0})
	for name, got := range map[string]error{"store": store, "store operand": operand} {
		version := Formats()[name]
		if !errors.Is(got, ErrFormat) || !strings.Contains(got.Error(), fmt.Sprintf("version %d, this program reads up to %d", version+1, version)) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
