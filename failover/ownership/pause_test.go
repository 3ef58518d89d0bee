package ownership

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestPauses holds the machine, with its default settings and a tick of 100 ms, to how long a shard may be without an owner:
// two round trips and 200 ms for a planned flip, 3 s for a takeover. Nothing but messages takes time here.
func TestPauses(t *testing.T) {
	for _, shape := range [][]Role{{Data, Data, Data}, {Data, Data, Witness}} {
		for _, trip := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond} {
			var flips, takeovers []time.Duration
			for seed := range uint64(200) {
				flips = append(flips, pause(t, seed, shape, trip, func(w *world, owner *simNode) {
					if out := w.order(owner, Flip{2}); out.Refused != nil {
						t.Fatalf("seed %d: %v", seed, out.Refused)
					}
				}))
				takeovers = append(takeovers, pause(t, seed, shape, trip, func(w *world, owner *simNode) {
					owner.region.leader = nil
				}))
			}
			slices.Sort(flips)
			slices.Sort(takeovers)
			t.Logf("%d regions and %d witnesses, round trip %v: flip p50 %v, p99 %v; takeover p50 %v, p99 %v", count(NewConfig(shape...), 7,
				Member.copies), 3-count(NewConfig(shape...), 7, Member.copies), trip, flips[100], flips[197], takeovers[100], takeovers[197])
			if limit := 2*trip + 200*time.Millisecond; flips[197] > limit {
				t.Errorf("%v: 99 of 100 flips take up to %v, more than %v", trip, flips[197], limit)
			}
			if takeovers[197] > 3*time.Second {
				t.Errorf("%v: 99 of 100 takeovers take up to %v", trip, takeovers[197])
			}
		}
	}
}

// pause returns how long it takes from what is done to the owner, some time after it began, until another region serves.
func pause(t *testing.T, seed uint64, shape []Role, trip time.Duration, do func(*world, *simNode)) time.Duration {
	w := &world{rng: rand.New(rand.NewPCG(seed, 3)), stats: map[string]int{}, set: Default(), tick: 100 * time.Millisecond,
		oneWay: trip / 2, apart: time.Second, calm: true}
	w.found(shape)
	until := func(limit time.Duration, done func() bool) {
		for end := w.now + limit; !done(); {
			if w.event(); w.now > end {
				t.Fatalf("seed %d: nothing serves after %v", seed, limit)
			}
		}
	}
	serves := func(but *simRegion) func() bool {
		return func() bool { return w.serving != nil && w.serving != but }
	}
	until(10*time.Second, serves(nil))
	then := w.now + time.Second + w.within(time.Second)
	until(3*time.Second, func() bool { return w.now > then })
	owner, began := w.serving, w.now
	do(w, owner.leader)
	until(10*time.Second, serves(owner))
	return w.now - began
}
