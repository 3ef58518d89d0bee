package owner

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	const bound = 10 * time.Millisecond
	type reading struct {
		now, wall, spread time.Duration
		trusted           bool
	}
	for name, list := range map[string][]reading{
		"clocks that agree": {{0, 5 * time.Second, 0, true}, {time.Second, 6 * time.Second, 0, true}, {time.Hour, time.Hour + 5*time.Second, 0, true}},
		"a slow drift":      {{0, 0, 0, true}, {time.Second, 1009 * time.Millisecond, 0, true}, {2 * time.Second, 2018 * time.Millisecond, 0, true}},
		"a step forward, and trust again": {
			{0, 0, 0, true}, {100 * time.Millisecond, 150 * time.Millisecond, 0, false},
			{5 * time.Second, 5050 * time.Millisecond, 0, false}, {11 * time.Second, 11050 * time.Millisecond, 0, true},
		},
		"a step back":                    {{0, 0, 0, true}, {100 * time.Millisecond, 50 * time.Millisecond, 0, false}},
		"drift within a second":          {{0, 0, 0, true}, {900 * time.Millisecond, 909 * time.Millisecond, 0, true}, {950 * time.Millisecond, 970 * time.Millisecond, 0, false}},
		"held up between two readings":   {{0, 0, 0, true}, {time.Second, 970 * time.Millisecond, 40 * time.Millisecond, true}, {2 * time.Second, 2 * time.Second, 0, true}},
		"held up between the first ones": {{0, -40 * time.Millisecond, 40 * time.Millisecond, true}, {time.Second, time.Second, 0, true}},
	} {
		j := judge{bound: bound}
		for i, r := range list {
			if got := j.look(r.now, int64(r.wall), r.spread); got != r.trusted {
				t.Errorf("%s: reading %d: trusted %v", name, i, got)
			}
		}
	}
}

func TestSystemClock(t *testing.T) {
	c := NewClock(time.Hour)
	last := c.Now()
	for range 1000 {
		now := c.Now()
		if now < last {
			t.Fatalf("%v after %v", now, last)
		}
		last = now
	}
	if !c.Trusted() {
		t.Error("it is not trusted")
	}
}
