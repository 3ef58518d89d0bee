package demo

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// probe times the markers of one region on their way into the answers of all regions.
type probe struct {
	cell  string
	calm  func() bool // whether nothing is broken just now
	paths map[string]*path
}

// path is the way from one region's log into another's (or its own) answers.
type path struct {
	mu      sync.Mutex
	pending []marker // in the order sent
	calm    []time.Duration
	rough   []time.Duration // sent while something was broken
}

// marker is the number'th of a window.
type marker struct {
	end    int64
	number uint64
	sent   time.Time
	calm   bool
}

func newProbe(cell string, regions []string, calm func() bool) *probe {
	p := &probe{cell: cell, calm: calm, paths: map[string]*path{}}
	for _, r := range regions {
		p.paths[r] = &path{}
	}
	return p
}

// sent notes that a marker of a window is on its way. Markers are noted in the order of their log.
func (p *probe) sent(end int64) {
	now, calm := time.Now(), p.calm()
	for _, path := range p.paths {
		path.send(marker{end: end, sent: now, calm: calm})
	}
}

func (p *path) send(m marker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.number = 1
	for i := len(p.pending) - 1; i >= 0; i-- {
		if p.pending[i].end == m.end {
			m.number = p.pending[i].number + 1
			break
		}
	}
	p.pending = append(p.pending, m)
}

// seen notes an answer: the row of a window into which so many markers have been merged. calm says whether nothing is
// broken just now; what was sent before a fault and is seen within it is none of the calm ones.
func (p *path) seen(end int64, revision uint64, now time.Time, calm bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	arrived := func(m *marker) bool { return m.sent.IsZero() }
	for i := range p.pending {
		m := &p.pending[i]
		// A row of a later window shows that the earlier ones are there too: they stand before it in one log.
		if arrived(m) || m.end > end || m.end == end && m.number > revision {
			continue
		}
		if took := now.Sub(m.sent); m.calm && calm {
			p.calm = append(p.calm, took)
		} else {
			p.rough = append(p.rough, took)
		}
		m.sent = time.Time{}
	}
	// Those of the newest window stay, to number what follows.
	newest := int64(0)
	if n := len(p.pending); n > 0 {
		newest = p.pending[n-1].end
	}
	p.pending = slices.DeleteFunc(p.pending, func(m marker) bool { return arrived(&m) && m.end < newest })
}

// watch follows the markers' row in a region's answers until ctx ends.
func (p *probe) watch(ctx context.Context, region string, c *client.Client) {
	path := p.paths[region]
	selection := &watershedv1.Selection{Job: jobName, Key: []*watershedv1.KeyFilter{
		{Name: "cell", Value: &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: p.cell}}},
	}}
	for ctx.Err() == nil {
		w, err := c.Watch(ctx, selection, nil)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(pollEvery):
			}
			continue
		}
		for w.Next() {
			path.seen(w.Row().GetWindowEndMs(), w.Row().GetRevision(), time.Now(), p.calm())
		}
		w.Close()
	}
}

// Latency summarises a sample of times, in milliseconds.
type Latency struct {
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Samples int     `json:"samples"`
}

func summarise(sample []time.Duration) Latency {
	if len(sample) == 0 {
		return Latency{}
	}
	sorted := slices.Sorted(slices.Values(sample))
	rank := func(q float64) float64 {
		return float64(sorted[int(q*float64(len(sorted)-1))].Microseconds()) / 1000
	}
	return Latency{P50: rank(0.5), P99: rank(0.99), Samples: len(sorted)}
}

// take returns what a path has measured.
func (p *path) take() (calm, rough []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calm), slices.Clone(p.rough)
}
