package region

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watershed-db/watershed/region/group"
)

// registerDisk registers what the node knows of the health of its log's disk.
func registerDisk(r prometheus.Registerer, h *group.Host) {
	r.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "watershed_raft_damaged_frames_total",
			Help: "Frames from other nodes that came in without their checksums: each ended its connection."},
			func() float64 { return float64(h.DamagedFrames()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "watershed_disk_stalled",
			Help: "1 while a call of the Raft log's stores is late: the node leads no shard then."}, func() float64 {
			if h.Stalled() {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "watershed_disk_stalls_total",
			Help: "Calls of the Raft log's stores that were late."}, func() float64 { return float64(h.Stalls()) }),
	)
}
