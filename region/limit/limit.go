// Package limit bounds what a node takes on: each bound has a name under which limit and present use are shown, and past
// it the caller is told to come back later.
package limit

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrExhausted is what every *Exhausted is.
var ErrExhausted = errors.New("out of resources")

// Exhausted says that something is used up, and when to try again. Nothing was begun. It is ErrExhausted.
type Exhausted struct {
	What string        // what is used up, with the numbers, for people
	Wait time.Duration // after which another try is worth it
}

// Error tells what is used up.
func (e *Exhausted) Error() string { return e.What + ": try again in " + e.Wait.String() }

// Is makes the error match ErrExhausted.
func (e *Exhausted) Is(target error) bool { return target == ErrExhausted }

// RetryAfter returns how long the caller should wait.
func (e *Exhausted) RetryAfter() time.Duration { return e.Wait }

// Limit is one bound. It is safe for any goroutine. The methods of a nil Limit bound nothing.
type Limit struct {
	name, unit string
	most       int64
	wait       time.Duration
	used       atomic.Int64
	refused    atomic.Uint64
}

// New returns a bound of most units (such as "bytes" or "scans") on what name, in snake case, says. wait is what those who
// are refused are told.
func New(name, unit string, most int64, wait time.Duration) *Limit {
	return &Limit{name: name, unit: unit, most: most, wait: wait}
}

// Take takes n units, which Give gives back, or fails with *Exhausted. What is larger than the whole bound is let in
// alone.
func (l *Limit) Take(n int64) error {
	if l == nil {
		return nil
	}
	for {
		used := l.used.Load()
		if used > 0 && used+n > l.most {
			l.refused.Add(1)
			return &Exhausted{fmt.Sprintf("%s: %d of %d %s are in use, %d more are asked for", l.name, used, l.most, l.unit, n), l.wait}
		}
		if l.used.CompareAndSwap(used, used+n) {
			return nil
		}
	}
}

// Give gives back n units that were taken.
func (l *Limit) Give(n int64) {
	if l != nil {
		l.used.Add(-n)
	}
}

// Used returns the units that are taken.
func (l *Limit) Used() int64 { return l.used.Load() }

// Most returns the bound.
func (l *Limit) Most() int64 { return l.most }

// Refused returns how often Take has failed.
func (l *Limit) Refused() uint64 { return l.refused.Load() }

// Set shows bounds: watershed_limit and watershed_used by name, and watershed_limited_total where callers were refused. It
// is a prometheus.Collector, and safe for any goroutine.
type Set struct {
	limit, used, limited *prometheus.Desc

	mu    sync.Mutex
	shown []shown
}

type shown struct {
	name    string
	most    func() int64
	used    func() int64
	refused func() uint64
}

// NewSet returns a Set that shows nothing yet.
func NewSet() *Set {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"name"}, nil)
	}
	return &Set{
		limit:   desc("watershed_limit", "Bound on what the node takes on, by name, in the unit that its name says."),
		used:    desc("watershed_used", "What of a bound is in use."),
		limited: desc("watershed_limited_total", "Callers that were refused, or made to wait, for a bound."),
	}
}

// Add shows a bound.
func (s *Set) Add(l *Limit) *Limit {
	s.Show(l.name, l.Most, l.Used, l.Refused)
	return l
}

// Show shows a bound that is kept elsewhere. refused may be nil.
func (s *Set) Show(name string, most, used func() int64, refused func() uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = append(s.shown, shown{name, most, used, refused})
}

// Describe implements prometheus.Collector.
func (s *Set) Describe(out chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{s.limit, s.used, s.limited} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Set) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	list := s.shown
	s.mu.Unlock()
	for _, x := range list {
		out <- prometheus.MustNewConstMetric(s.limit, prometheus.GaugeValue, float64(x.most()), x.name)
		out <- prometheus.MustNewConstMetric(s.used, prometheus.GaugeValue, float64(x.used()), x.name)
		if x.refused != nil {
			out <- prometheus.MustNewConstMetric(s.limited, prometheus.CounterValue, float64(x.refused()), x.name)
		}
	}
}
