package probe

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type counts struct {
	sent, unsent, heard, broken, versions, strangers, campaigns, late atomic.Uint64
}

var (
	sentDesc = prometheus.NewDesc("watershed_probes_sent_total", "Probes sent to other nodes of the region.", nil, nil)
	lostDesc = prometheus.NewDesc("watershed_probes_unsent_total",
		"Probes that could not be sent: no address, or the system refused.", nil, nil)
	heardDesc   = prometheus.NewDesc("watershed_probes_heard_total", "Probes heard from other nodes of the region.", nil, nil)
	refusedDesc = prometheus.NewDesc("watershed_probes_refused_total",
		"Datagrams that were no probes of this region's nodes, by reason.", []string{"reason"}, nil)
	campaignsDesc = prometheus.NewDesc("watershed_probe_campaigns_total",
		"Elections asked for because a leader was not heard of any more.", nil, nil)
	lateDesc = prometheus.NewDesc("watershed_probe_late_total",
		"Times at which this node's own probe came so late that it took nobody for dead.", nil, nil)
	deadDesc = prometheus.NewDesc("watershed_node_dead",
		"1 for a node of the region that is not heard of any more, -1 for one that never was, else 0.", []string{"node"}, nil)
	freeDesc = prometheus.NewDesc("watershed_node_disk_free_bytes",
		"Free space of the disk of another node of the region, as it told last.", []string{"node"}, nil)
	shortDesc = prometheus.NewDesc("watershed_node_disk_short",
		"1 for another node of the region whose free space is below its floor, else 0.", []string{"node"}, nil)
)

var _ prometheus.Collector = (*Prober)(nil)

// Describe lists the metrics.
func (p *Prober) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sentDesc, lostDesc, heardDesc, refusedDesc, campaignsDesc, lateDesc, deadDesc, freeDesc, shortDesc} {
		ch <- d
	}
}

// Collect reads them.
func (p *Prober) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	count(sentDesc, &p.counts.sent)
	count(lostDesc, &p.counts.unsent)
	count(heardDesc, &p.counts.heard)
	count(refusedDesc, &p.counts.broken, "broken")
	count(refusedDesc, &p.counts.versions, "version")
	count(refusedDesc, &p.counts.strangers, "stranger")
	count(campaignsDesc, &p.counts.campaigns)
	count(lateDesc, &p.counts.late)
	for node, r := range p.rooms.list() {
		ch <- prometheus.MustNewConstMetric(freeDesc, prometheus.GaugeValue, float64(r.Free), node)
		ch <- prometheus.MustNewConstMetric(shortDesc, prometheus.GaugeValue, float64(asByte(r.Short)), node)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for node := range p.o.Peers() {
		state := 0.0
		switch {
		case !p.mu.detector.Known(node):
			state = -1
		case p.mu.detector.Dead(time.Now(), node):
			state = 1
		}
		ch <- prometheus.MustNewConstMetric(deadDesc, prometheus.GaugeValue, state, node)
	}
}
