package owner

import (
	"testing"

	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
)

// TestTail: what waits to be confirmed is counted until it is.
func TestTail(t *testing.T) {
	var x tail
	for p, want := range map[int]uint64{0: 60, 2: 50, 4: 30, 9: 0} {
		x = tail{}
		x.add(2, 10)
		x.add(3, 20)
		x.add(7, 30)
		if x.confirm(0); x.bytes != 60 {
			t.Fatalf("%d bytes", x.bytes)
		}
		if x.confirm(ownership.Position(p)); x.bytes != want {
			t.Errorf("confirmed to %d: %d bytes, not %d", p, x.bytes, want)
		}
	}
}

// TestSpan: so many entries are kept that their payload stays within the bound, about.
func TestSpan(t *testing.T) {
	for _, x := range []struct{ kept, entries, want uint64 }{{0, 0, 100}, {maxLog, 9, 100}, {maxLog + 1, 50, 25}, {3 * maxLog, 400, 100}, {9 * maxLog, 400, 40}} {
		if got := span(owned.Sizes{Kept: x.kept, Entries: x.entries}, 100); got != ownership.Position(x.want) {
			t.Errorf("%d bytes in %d entries: %d are kept, not %d", x.kept, x.entries, got, x.want)
		}
	}
}
