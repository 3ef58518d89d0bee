package demo

import (
	"testing"
	"time"
)

func TestProbe(t *testing.T) {
	calm := true
	p := newProbe("c", []string{"a"}, func() bool { return calm })
	a := p.paths["a"]
	p.sent(5000)
	p.sent(5000)
	a.seen(5000, 1, time.Now(), true)
	if quiet, _ := a.take(); len(quiet) != 1 {
		t.Fatalf("%v", quiet)
	}
	a.seen(5000, 1, time.Now(), true) // again
	p.sent(5000)                      // the third
	a.seen(5000, 2, time.Now(), true)
	if quiet, _ := a.take(); len(quiet) != 2 {
		t.Fatalf("%v", quiet)
	}
	a.seen(5000, 3, time.Now(), false) // a fault began on its way
	p.sent(5000)
	p.sent(10_000)
	calm = false
	p.sent(10_000)
	a.seen(10_000, 2, time.Now(), true) // shows the one of the window before, too
	quiet, rough := a.take()
	if len(quiet) != 4 || len(rough) != 2 || len(a.pending) > 2 {
		t.Errorf("%d calm, %d not, %d pending", len(quiet), len(rough), len(a.pending))
	}
}

func TestSummarise(t *testing.T) {
	var sample []time.Duration
	for i := range 101 {
		sample = append(sample, time.Duration(100-i)*time.Millisecond)
	}
	if l := summarise(sample); l.P50 != 50 || l.P99 != 99 || l.Samples != 101 {
		t.Errorf("%+v", l)
	}
	if l := summarise(nil); l != (Latency{}) {
		t.Errorf("%+v", l)
	}
}
