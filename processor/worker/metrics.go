package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watershed-db/watershed/crdt"
)

// Metrics are a worker's counters.
type Metrics struct {
	records   [crdt.Outcomes]prometheus.Counter
	flushes   prometheus.Counter
	refused   prometheus.Counter
	throttled prometheus.Counter
	resumed   prometheus.Counter
	parked    prometheus.Gauge
	stopped   prometheus.Gauge
	aside     prometheus.Counter
	memory    prometheus.Gauge
}

// NewMetrics returns a worker's metrics, registered with r unless it is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		flushes: prometheus.NewCounter(prometheus.CounterOpts{Name: "watershed_worker_flushes_total",
			Help: "Advances that shards have accepted."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "watershed_worker_refused_total",
			Help: "Advances that shards have refused."}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{Name: "watershed_worker_throttled_total",
			Help: "Advances that a shard put off for want of room."}),
		resumed: prometheus.NewCounter(prometheus.CounterOpts{Name: "watershed_worker_resumed_total",
			Help: "How often a task began at the shards' points."}),
		parked: prometheus.NewGauge(prometheus.GaugeOpts{Name: "watershed_worker_parked_shards",
			Help: "Shards, over all jobs, that take no writes and are left behind."}),
		stopped: prometheus.NewGauge(prometheus.GaugeOpts{Name: "watershed_worker_stopped_sources",
			Help: "Sources whose log does not fit their point, or whose Advances shards will not take."}),
		aside: prometheus.NewCounter(prometheus.CounterOpts{Name: "watershed_worker_side_records_total",
			Help: "Late, implausible and invalid records written to side outputs."}),
		memory: prometheus.NewGauge(prometheus.GaugeOpts{Name: "watershed_worker_memory_bytes",
			Help: "Bytes of batches and of flushes under way."}),
	}
	records := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watershed_worker_records_total",
		Help: "Records judged, by outcome; those read again after a resumption are counted again."}, []string{"outcome"})
	for o := range m.records {
		m.records[o] = records.WithLabelValues(crdt.Outcome(o).String())
	}
	if r != nil {
		r.MustRegister(records, m.flushes, m.refused, m.throttled, m.resumed, m.parked, m.stopped, m.aside, m.memory)
	}
	return m
}
