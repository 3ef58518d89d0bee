package replica

import (
	"fmt"
	"testing"

	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/shard"
)

func TestWhatIsDamage(t *testing.T) {
	for _, c := range []struct {
		err    error
		damage bool
	}{
		{shard.ErrState, true},
		{shard.ErrDiverged, true},
		{group.ErrCorrupt, true},
		{group.ErrStateBehind, true},
		{group.ErrLogDamaged, false},
		// A newer build reads it well: rebuilding it would throw away what is whole.
		{fmt.Errorf("%w: %w", shard.ErrState, shard.ErrNewer), false},
		{fmt.Errorf("%w: %w", group.ErrCorrupt, group.ErrNewer), false},
	} {
		if isDamage(fmt.Errorf("open: %w", c.err)) != c.damage {
			t.Errorf("%v: wanted damage %v", c.err, c.damage)
		}
	}
}
