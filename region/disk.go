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
	registerSnapshots(r, h)
}

// registerSnapshots registers what the node's groups do with snapshots.
func registerSnapshots(r prometheus.Registerer, h *group.Host) {
	count := func(name, help string, of func(group.Snapshots) uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "watershed_snapshot_" + name, Help: help},
			func() float64 { return float64(of(h.Snapshots())) }))
	}
	count("made_total", "Snapshots of this node's shards.", func(s group.Snapshots) uint64 { return s.Made })
	count("installed_total", "Snapshots that lagging replicas took from this node.", func(s group.Snapshots) uint64 { return s.Installed })
	count("failed_total", "Snapshots that a lagging replica did not take.", func(s group.Snapshots) uint64 { return s.Failed })
	count("resumed_total", "Snapshots whose sending went on after a cut.", func(s group.Snapshots) uint64 { return s.Resumed })
	count("sent_bytes_total", "Bytes of tables sent to lagging replicas.", func(s group.Snapshots) uint64 { return s.Sent })
	count("reused_bytes_total", "Bytes of tables that lagging replicas had already.", func(s group.Snapshots) uint64 { return s.Reused })
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "watershed_snapshot_sending",
		Help: "Snapshots that are being sent to lagging replicas, or wait for their turn."},
		func() float64 { return float64(h.Snapshots().Waiting) }))
}
