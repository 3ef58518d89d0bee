package parts

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/coordinator"
)

// errUnconnected says that no broker has answered since the node started.
var errUnconnected = errors.New("no broker of the region's Kafka has answered yet")

// cluster is the region's Kafka, which may not be there when the node starts.
type cluster struct {
	config kafka.Config
	logger hclog.Logger
	up     chan struct{} // closed when client and producer are there

	mu       sync.Mutex
	client   *kafka.Client
	producer *kafka.Producer // of rows
}

func kafkaConfig(c config.Kafka) kafka.Config {
	out := kafka.Config{Brokers: c.Brokers, ClientID: c.ClientID}
	if c.TLS != nil {
		out.TLS = &kafka.TLS{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key, ServerName: c.TLS.ServerName}
	}
	if c.SASL != nil {
		out.SASL = &kafka.SASL{Mechanism: c.SASL.Mechanism, User: c.SASL.User, Password: kafka.Secret(c.SASL.Password)}
	}
	return out
}

// connect waits for the cluster to answer. It is called once.
func (k *cluster) connect(ctx context.Context) error {
	client, err := kafka.Dial(ctx, k.config, k.logger)
	if err != nil {
		return err
	}
	producer, err := kafka.NewProducer(client, kafka.ProducerConfig{}, k.logger)
	if err != nil {
		client.Close()
		return fmt.Errorf("producer of rows: %w", err)
	}
	k.mu.Lock()
	k.client, k.producer = client, producer
	k.mu.Unlock()
	close(k.up)
	return nil
}

// await returns client and producer when there are any; not ok when ctx has ended before.
func (k *cluster) await(ctx context.Context) (*kafka.Client, *kafka.Producer, bool) {
	select {
	case <-k.up:
		return k.client, k.producer, true
	case <-ctx.Done():
		return nil, nil, false
	}
}

func (k *cluster) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil {
		k.producer.Close()
		k.client.Close()
	}
}

func (k *cluster) now() (*kafka.Client, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == nil {
		return nil, errUnconnected
	}
	return k.client, nil
}

// Describe implements coordinator.Logs.
func (k *cluster) Describe(ctx context.Context, topics ...string) (map[string]coordinator.Topic, error) {
	client, err := k.now()
	if err != nil {
		return nil, err
	}
	found, err := client.Describe(ctx, topics...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]coordinator.Topic, len(found))
	for name, t := range found {
		id := ""
		if t.ID != (log.TopicID{}) {
			id = hex.EncodeToString(t.ID[:])
		}
		out[name] = coordinator.Topic{
			ID: id, Partitions: t.Partitions, Compacted: t.Compacted, LogAppendTime: t.LogAppendTime,
			MaxTimestampAhead: t.MaxTimestampAhead,
		}
	}
	return out, nil
}

// Starts implements coordinator.Logs.
func (k *cluster) Starts(ctx context.Context, topics ...string) (map[coordinator.Partition]int64, error) {
	client, err := k.now()
	if err != nil {
		return nil, err
	}
	spans, err := client.Spans(ctx, topics...)
	if err != nil {
		return nil, err
	}
	out := make(map[coordinator.Partition]int64, len(spans))
	for p, s := range spans {
		out[coordinator.Partition{Topic: p.Topic, Index: p.Index}] = s.Start
	}
	return out, nil
}
