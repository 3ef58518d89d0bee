package demo

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"
)

const (
	drawEvery = time.Second
	lineEvery = 5 * time.Second
)

// screen shows how things go: a table that is drawn over and over on a terminal, else a line now and then.
type screen struct {
	out      io.Writer
	terminal bool
	duration time.Duration
	started  time.Time
	mu       sync.Mutex
	drawn    int // lines of the table that stand above the cursor
}

func newScreen(out io.Writer, terminal bool, duration time.Duration) *screen {
	if out == nil {
		out, terminal = io.Discard, false
	}
	return &screen{out: out, terminal: terminal, duration: duration, started: time.Now()}
}

func (s *screen) clock() string { return fmt.Sprintf("%5.1fs", time.Since(s.started).Seconds()) }

// event tells of something in a line that stays.
func (s *screen) event(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLocked()
	fmt.Fprintf(s.out, "%s  %s\n", s.clock(), text)
}

func (s *screen) eraseLocked() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLocked()
}

// run shows the regions until ctx ends.
func (s *screen) run(ctx context.Context, r *run) {
	every := lineEvery
	if s.terminal {
		every = drawEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, at := map[string]int64{}, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var lines []regionLine
		now := time.Now()
		for _, region := range r.regions {
			l := r.line(ctx, region)
			l.rate = float64(l.written-last[region]) / now.Sub(at).Seconds()
			last[region] = l.written
			lines = append(lines, l)
		}
		at = now
		if ctx.Err() == nil {
			s.draw(lines, r.drill.status())
		}
	}
}

// regionLine is a region as it is shown.
type regionLine struct {
	region    string
	nodes     string // one mark each
	written   int64  // records in its log
	rate      float64
	lag       int64         // records of its own log that it has not taken
	behind    int64         // records of other regions' logs that it has not taken
	watermark time.Duration // behind the clock; negative: unknown
	missing   []string
}

func (r *run) line(ctx context.Context, region string) regionLine {
	l := regionLine{region: region, written: r.traffic.written(region), watermark: -1}
	for _, n := range r.deployment.Nodes(region) {
		if r.deployment.Alive(n) {
			l.nodes += "+"
		} else {
			l.nodes += "x"
		}
	}
	v, err := r.look(ctx, region)
	if err != nil {
		return l
	}
	for _, s := range r.traffic.sources {
		if n := max(s.written.Load()-v.offsets[s.id()], 0); s.region == region {
			l.lag += n
		} else {
			l.behind += n
		}
	}
	if v.watermark > 0 && v.watermark < math.MaxInt64 {
		l.watermark = max(time.Since(time.UnixMilli(v.watermark)), 0)
	}
	for name := range v.missing {
		l.missing = append(l.missing, name)
	}
	return l
}

func (s *screen) draw(lines []regionLine, doing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLocked()
	if !s.terminal {
		var parts []string
		for _, l := range lines {
			parts = append(parts, fmt.Sprintf("%s %s %.0f/s, lag %d, behind others %d, watermark %s", l.region, l.nodes, l.rate, l.lag,
				l.behind, l.mark()))
		}
		fmt.Fprintf(s.out, "%s  %s\n", s.clock(), strings.Join(parts, "; "))
		return
	}
	// Within 80 columns: a line that wraps would not be erased.
	fmt.Fprintf(s.out, "\n  %-10.10s %-5s %8s %8s %7s %7s %9s  %s\n", "REGION", "NODES", "EVENTS", "EVENTS/S", "LAG", "BEHIND",
		"WATERMARK", "WITHOUT")
	for _, l := range lines {
		fmt.Fprintf(s.out, "  %-10.10s %-5s %8d %8.0f %7d %7d %9s  %.12s\n", l.region, l.nodes, l.written, l.rate, l.lag, l.behind,
			l.mark(), strings.Join(l.missing, ","))
	}
	fmt.Fprintf(s.out, "  %.77s\n", fmt.Sprintf("%s of %s: %s", time.Since(s.started).Round(time.Second), s.duration, doing))
	s.drawn = len(lines) + 3
}

// mark says how far the watermark is behind the clock.
func (l regionLine) mark() string {
	if l.watermark < 0 {
		return "-"
	}
	return fmt.Sprintf("-%.1fs", l.watermark.Seconds())
}
