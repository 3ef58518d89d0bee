// Package parts makes what a node runs beside its replicas: its log, its worker and its emitter.
package parts

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/cmd/watershed/internal/link"
	"github.com/watershed-db/watershed/processor/emit"
	"github.com/watershed-db/watershed/processor/worker"
	"github.com/watershed-db/watershed/region"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/emission"
	"github.com/watershed-db/watershed/region/replica"
)

// Node holds the parts of one node.
type Node struct {
	config  config.Config
	kafka   *cluster
	metrics func(env *region.Env) *emission.Metrics
}

// New returns the parts of a node. Nothing is connected yet.
func New(c config.Config, logger hclog.Logger) *Node {
	n := &Node{config: c}
	n.kafka = &cluster{config: kafkaConfig(c.Kafka), logger: logger.Named("kafka"), up: make(chan struct{})}
	var once sync.Once
	var metrics *emission.Metrics
	n.metrics = func(env *region.Env) *emission.Metrics {
		once.Do(func() { metrics = emission.NewMetrics(env.Registerer) })
		return metrics
	}
	return n
}

// Parts returns them as a node takes them.
func (n *Node) Parts() region.Parts {
	return region.Parts{
		Logs: n.kafka,
		Run:  []func(context.Context, *region.Env) error{n.work},
		Lead: []func(context.Context, *region.Env, *replica.Replica){n.emit},
	}
}

// Close lets go of the cluster's connections, when the node has ended.
func (n *Node) Close() { n.kafka.close() }

// work connects to the cluster and runs the worker.
func (n *Node) work(ctx context.Context, env *region.Env) error {
	if err := n.kafka.connect(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	client, _, _ := n.kafka.await(ctx)
	if client == nil {
		return nil
	}
	w, err := worker.New(worker.Config{
		Region: worker.RegionConfig{ID: n.config.RegionID(), Link: &link.Link{
			Deployment: n.config.Deployment, Node: n.config.Node, Router: env.Router, Conns: env.Conns,
			Logger: env.Logger.Named("link"),
		}},
		Kafka: client, Shards: n.config.Shards, Group: fmt.Sprintf("watershed-%s", n.config.Deployment),
		Memory: int64(n.config.Worker.Memory), FlushInterval: n.config.Worker.FlushInterval.D(),
		EmptyInterval: n.config.Worker.EmptyInterval.D(),
		Logger:        env.Logger, Metrics: worker.NewMetrics(env.Registerer),
	})
	if err != nil {
		return err
	}
	env.Bounds.Show("worker_memory_bytes", w.Memory, w.Used, nil)
	return w.Run(ctx)
}

// emit sends the rows of a shard that this node leads.
func (n *Node) emit(ctx context.Context, env *region.Env, r *replica.Replica) {
	metrics := n.metrics(env)
	_, producer, ok := n.kafka.await(ctx)
	if !ok {
		return
	}
	emission.New(emission.Config{
		Replica: r, Sink: emit.Kafka{Producer: producer}, Logger: env.Logger, Metrics: metrics,
	}).Run(ctx)
}
