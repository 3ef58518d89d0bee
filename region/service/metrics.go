package service

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// shardMetrics tells how this node's replicas stand, at the moment when it is asked.
type shardMetrics struct {
	router *router.Router

	applied, leader, term, commands, watermark, horizon, expired, pending, records, offset, unreachable, missing, damaged, damages *prometheus.Desc
}

// NewShardMetrics returns a collector of how the node's shards stand.
func NewShardMetrics(r *router.Router) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("watershed_"+name, help, append([]string{"shard"}, labels...), nil)
	}
	return &shardMetrics{
		router:      r,
		applied:     desc("shard_applied_index", "Index of the last command that this replica has applied."),
		leader:      desc("shard_leader", "1 where this node leads the shard."),
		term:        desc("shard_term", "Raft term."),
		missing:     desc("shard_leaderless", "1 where this node knows of no leader."),
		commands:    desc("shard_commands_total", "Commands proposed on this node, by kind and outcome.", "kind", "outcome"),
		watermark:   desc("watermark_seconds", "Watermark of a job on the shard, in event time; absent while infinite.", "job"),
		horizon:     desc("horizon_seconds", "Window end below which the shard holds nothing any more; absent at first.", "job"),
		expired:     desc("expired_records_total", "Records of Advances that came below the horizon.", "job"),
		pending:     desc("outbox_pending", "Rows that changed after they were planned or sent.", "job"),
		records:     desc("source_records_total", "Records of the shard's sources by what became of them.", "job", "region", "outcome"),
		offset:      desc("source_offset", "Sum over a region's sources of the offsets that the shard stands at.", "job", "region"),
		damaged:     desc("replica_damaged", "1 where this node's replica is damaged and out: it is to be rebuilt."),
		damages:     desc("replica_damages_total", "Times that this node's replica was found damaged."),
		unreachable: desc("region_unreachable", "1 for a region that cannot be reached.", "region"),
	}
}

// Describe implements prometheus.Collector.
func (m *shardMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{
		m.applied, m.leader, m.term, m.commands, m.watermark, m.horizon, m.expired, m.pending, m.records, m.offset,
		m.unreachable, m.missing, m.damaged, m.damages,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *shardMetrics) Collect(out chan<- prometheus.Metric) {
	for _, here := range m.router.Local().All() {
		m.collect(out, here)
	}
}

func (m *shardMetrics) collect(out chan<- prometheus.Metric, r *replica.Replica) {
	id := strconv.Itoa(int(r.Shard()))
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{id}, labels...)...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{id}, labels...)...)
	}
	status, state := r.Status(), r.State()
	gauge(m.damaged, truth(r.Damage() != nil))
	counter(m.damages, r.Damages())
	gauge(m.applied, float64(state.Index))
	gauge(m.leader, truth(r.IsLeader()))
	gauge(m.term, float64(status.Term))
	gauge(m.missing, truth(status.Leader.ID == ""))
	r.Outcomes(func(k shard.Kind, o shard.Outcome, n uint64) { counter(m.commands, n, kindName(k), o.String()) })
	for _, region := range state.Unreachable {
		gauge(m.unreachable, 1, string(region))
	}
	for _, g := range state.Generations() {
		if g.Watermark != crdt.MinTime && g.Watermark != crdt.MaxTime {
			gauge(m.watermark, float64(g.Watermark)/1000, g.Name)
		}
		if g.Horizon != crdt.MinTime {
			gauge(m.horizon, float64(g.Horizon)/1000, g.Name)
		}
		counter(m.expired, g.Expired, g.Name)
		gauge(m.pending, float64(g.Outbox.Pending), g.Name)
		for _, region := range g.Groups() {
			var offset int64
			var counts crdt.Counts
			for _, at := range g.Standings(region) {
				offset += at.Point.Offset
				for o, n := range at.Point.Counts {
					counts[o] += n
				}
			}
			gauge(m.offset, float64(offset), g.Name, string(region))
			for o, n := range counts {
				counter(m.records, n, g.Name, string(region), crdt.Outcome(o).String())
			}
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var kindNames = map[shard.Kind]string{
	shard.KindAddGeneration: "add_generation", shard.KindUpdateGeneration: "update_generation",
	shard.KindDropGeneration: "drop_generation", shard.KindAddSources: "add_sources", shard.KindAdvance: "advance",
	shard.KindHorizon: "horizon", shard.KindIdle: "idle", shard.KindReach: "reach", shard.KindStageBegin: "stage_begin",
	shard.KindStageChunk: "stage_chunk", shard.KindStageAbandon: "stage_abandon", shard.KindInstall: "install",
	shard.KindPlan: "plan", shard.KindDone: "done", shard.KindJobApply: "job_apply", shard.KindJobDelete: "job_delete",
	shard.KindRegistryCopy: "registry_copy", shard.KindSourcesDecided: "sources_decided",
	shard.KindSourceStopped: "source_stopped", shard.KindCheck: "check", shard.KindRaise: "raise",
	shard.KindNote: "note", shard.KindRegisterTable: "register_table", shard.KindUnregisterTable: "unregister_table", shard.KindTellTables: "tell_tables",
}

func kindName(k shard.Kind) string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return strconv.Itoa(int(k))
}
