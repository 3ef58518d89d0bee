package emission

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what the emissions of a node have sent.
type Metrics struct {
	rows     *prometheus.CounterVec
	failures *prometheus.CounterVec
}

// NewMetrics returns metrics, registered with r unless it is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watershed_emitted_rows_total",
			Help: "Rows written to every sink of a job; what is sent again is counted again."}, []string{"job"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watershed_emission_failures_total",
			Help: "Batches that a sink or the shard did not take, and that were tried again."}, []string{"job"}),
	}
	if r != nil {
		r.MustRegister(m.rows, m.failures)
	}
	return m
}
