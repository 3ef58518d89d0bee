package checkpoint

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what a node does for checkpoints. It is a prometheus.Collector, and safe for any goroutine.
type Metrics struct {
	bytes    *prometheus.CounterVec
	failures *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	removed  *prometheus.CounterVec
	age      *prometheus.Desc

	mu   sync.Mutex
	last time.Time // of the newest cut that this node knows to be whole; zero where it keeps none
}

// NewMetrics returns Metrics that say nothing yet.
func NewMetrics() *Metrics {
	return &Metrics{
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watershed_checkpoint_bytes_total", Help: "Bytes of files in shards' checkpoints, by whether they were sent or there already.",
		}, []string{"shard", "how"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watershed_checkpoint_failures_total", Help: "What failed: uploads of a shard, cuts of the region, removals.",
		}, []string{"what"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "watershed_checkpoint_seconds", Help: "Time that an upload of a shard and a cut of the region took.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
		}, []string{"what"}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watershed_checkpoint_removed_total", Help: "Objects that were removed because nothing needs them any more.",
		}, []string{"what"}),
		age: prometheus.NewDesc("watershed_checkpoint_age_seconds",
			"Time since the newest checkpoint was begun; only on the node that keeps the region's.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(out)
	}
	out <- m.age
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(out)
	}
	m.mu.Lock()
	last := m.last
	m.mu.Unlock()
	if !last.IsZero() {
		out <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, time.Since(last).Seconds())
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.bytes, m.failures, m.seconds, m.removed}
}

func (m *Metrics) sent(shard int, n int64) {
	m.bytes.WithLabelValues(strconv.Itoa(shard), "sent").Add(float64(n))
}

func (m *Metrics) reused(shard int, n int64) {
	m.bytes.WithLabelValues(strconv.Itoa(shard), "reused").Add(float64(n))
}

func (m *Metrics) uploaded(_ int, took time.Duration, err error) { m.done("upload", took, err) }

func (m *Metrics) done(what string, took time.Duration, err error) {
	if err != nil {
		m.failures.WithLabelValues(what).Inc()
		return
	}
	m.seconds.WithLabelValues(what).Observe(took.Seconds())
}

// keeps tells when the newest cut was begun; the zero time when this node keeps none any more.
func (m *Metrics) keeps(last time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = last
}
