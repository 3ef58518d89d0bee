package service

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watershed-db/watershed/keyspace"
)

// Shards that all wait for a leader are waited for together, but no more than a few at once, and one that fails takes
// nothing from the others.
func TestShardsAreAskedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const atOnce, each = 4, time.Second
		var ids []keyspace.ShardID
		for i := range 3 * atOnce {
			ids = append(ids, keyspace.ShardID(i))
		}
		under, most := make(chan struct{}, len(ids)), 0
		begun := time.Now()
		out, all := askEach(ids, atOnce, func(id keyspace.ShardID) (int, error) {
			under <- struct{}{}
			<-time.After(each / 2)
			if id == 5 {
				most = len(under) // of its wave
			}
			<-time.After(each / 2)
			<-under
			if id == 7 {
				return 0, errors.New("no leader")
			}
			return 10 * int(id), nil
		})
		if took := time.Since(begun); took != 3*each || most != atOnce {
			t.Errorf("%v, with %d at once; want %v with %d", took, most, 3*each, atOnce)
		}
		if _, ok := out[7]; ok || all || len(out) != len(ids)-1 || out[11] != 110 {
			t.Errorf("%v, all %v", out, all)
		}
	})
	if out, all := askEach(nil, 1, func(keyspace.ShardID) (int, error) { return 0, nil }); !all || len(out) != 0 {
		t.Errorf("of nobody: %v, %v", out, all)
	}
}
