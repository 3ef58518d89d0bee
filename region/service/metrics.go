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
	open, kept, beyond, floor, taken, followed, merging                                                                            *prometheus.Desc
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
		open:        desc("table_sessions_open", "Sessions of writers that the shard takes operations of."),
		kept:        desc("table_sessions_kept", "Sessions of writers that the shard knows, with those that have ended."),
		beyond:      desc("table_operations_beyond", "Operations held beyond one of their session that is missing."),
		floor:       desc("table_floor_seconds", "Birth of sessions below which all are complete in every region; absent at first."),
		taken:       desc("table_operations_total", "Operations on tables that this region's clients have made, since the replica was opened."),
		followed:    desc("table_operations_followed_total", "The same that came from other regions."),
		merging:     desc("table_copy", "1 while another region's copy of tables is taken, 2 while it is merged."),
		unreachable: desc("region_unreachable", "1 for a region that cannot be reached.", "region"),
	}
}

// Describe implements prometheus.Collector.
func (m *shardMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{
		m.applied, m.leader, m.term, m.commands, m.watermark, m.horizon, m.expired, m.pending, m.records, m.offset,
		m.unreachable, m.missing, m.damaged, m.damages, m.open, m.kept, m.beyond, m.floor, m.taken, m.followed, m.merging,
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
	m.tables(state.Tables(), gauge, counter)
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

func (m *shardMetrics) tables(t *shard.Tables, gauge func(d *prometheus.Desc, v float64, labels ...string),
	counter func(d *prometheus.Desc, v uint64, labels ...string)) {
	gauge(m.open, float64(t.Open))
	gauge(m.kept, float64(t.Kept))
	gauge(m.beyond, float64(t.Beyond))
	if t.Floor > 0 {
		gauge(m.floor, float64(t.Floor)/1000)
	}
	counter(m.taken, t.Taken)
	counter(m.followed, t.Followed)
	copies := 0.0
	if t.Beside != nil {
		copies = 1 + truth(t.Beside.Adopted)
	}
	gauge(m.merging, copies)
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
	shard.KindTableWrite: "table_write", shard.KindTableForward: "table_forward", shard.KindTableClose: "table_close",
	shard.KindTableBegin: "table_begin", shard.KindTableFloor: "table_floor", shard.KindTableStage: "table_stage",
	shard.KindTableChunk: "table_chunk", shard.KindTableAdopt: "table_adopt", shard.KindTableMerge: "table_merge",
	shard.KindTableAbandon: "table_abandon",
}

func kindName(k shard.Kind) string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return strconv.Itoa(int(k))
}
