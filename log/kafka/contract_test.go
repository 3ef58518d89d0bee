package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/embedded"
	"github.com/watershed-db/watershed/log/kafka"
)

// cluster is what the contract runs over: a broker, a client of ours, and one of the library's for what ours has no
// function for (transactions, deletions).
type cluster struct {
	addrs  []string
	client *kafka.Client
	raw    *kgo.Client
	adm    *kadm.Client
}

func newCluster(t *testing.T, addrs []string) *cluster {
	t.Helper()
	client, err := kafka.Dial(t.Context(), kafka.Config{Brokers: addrs}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	raw, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(raw.Close)
	return &cluster{addrs: addrs, client: client, raw: raw, adm: kadm.NewClient(raw)}
}

func logger(t *testing.T) hclog.Logger {
	level := hclog.Off
	if os.Getenv("WATERSHED_TEST_LOG") != "" {
		level = hclog.Debug
	}
	return hclog.New(&hclog.LoggerOptions{Name: t.Name(), Level: level})
}

// topic makes a topic of the test's own.
func (c *cluster) topic(t *testing.T, partitions int32) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/,", r) {
			return '-'
		}
		return r
	}, t.Name())
	made, err := c.client.CreateTopic(t.Context(), name, partitions, 1, nil)
	if err != nil || !made {
		t.Fatalf("make topic %s: made %v, %v", name, made, err)
	}
	return name
}

func (c *cluster) producer(t *testing.T) *kafka.Producer {
	t.Helper()
	p, err := kafka.NewProducer(c.client, kafka.ProducerConfig{}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func (c *cluster) reader(t *testing.T, config kafka.ReaderConfig) *kafka.Reader {
	t.Helper()
	r, err := kafka.NewReader(c.client, config, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// produce writes n records with the values prefix0, prefix1, ... to partition 0.
func (c *cluster) produce(t *testing.T, topic, prefix string, n int) {
	t.Helper()
	messages := make([]kafka.Message, n)
	for i := range messages {
		messages[i] = kafka.Message{Topic: topic, Value: fmt.Appendf(nil, "%s%d", prefix, i), Timestamp: 1000 + int64(i)}
	}
	if err := c.producer(t).Produce(t.Context(), messages); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) topicID(t *testing.T, topic string) log.TopicID {
	t.Helper()
	d, err := c.client.Describe(t.Context(), topic)
	if err != nil || d[topic].ID == (log.TopicID{}) {
		t.Fatalf("describe %s: %+v, %v", topic, d, err)
	}
	return d[topic].ID
}

// position is offset in partition 0 of topic, with the hash of the record before it if hashed.
func (c *cluster) position(t *testing.T, topic string, offset int64, hashed bool) log.Position {
	t.Helper()
	p := log.Partition{Topic: topic}
	pos := log.Position{Partition: p, TopicID: c.topicID(t, topic), Offset: offset}
	if hashed {
		r, err := c.client.At(t.Context(), p, offset-1)
		if err != nil {
			t.Fatal(err)
		}
		pos.Last = r.Hash(new(crdt.Hasher))
	}
	return pos
}

// readUntil polls until n records have come, and returns clones of them.
func readUntil(t *testing.T, r *kafka.Reader, n int) []log.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []log.Record
	for len(out) < n {
		batches, err := r.Poll(ctx, 100)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(out), n, err)
		}
		for _, b := range batches {
			if b.Err != nil {
				t.Fatal(b.Err)
			}
			for i := range b.Records {
				out = append(out, b.Records[i].Clone())
			}
		}
	}
	return out
}

// awaitStop polls until a partition stops, and returns how many records came before, and why.
func awaitStop(t *testing.T, r *kafka.Reader) (int, error) {
	t.Helper()
	return awaitStopOr(t, r, math.MaxInt)
}

// awaitStopOr is awaitStop that also ends, without an error, when enough records have come.
func awaitStopOr(t *testing.T, r *kafka.Reader, enough int) (int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	n := 0
	for n < enough {
		batches, err := r.Poll(ctx, 100)
		if err != nil {
			t.Fatalf("no partition stopped: %v", err)
		}
		for _, b := range batches {
			if b.Err != nil {
				return n, b.Err
			}
			n += len(b.Records)
		}
	}
	return n, nil
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// contract is what a cluster must show, whoever made it.
var contract = []struct {
	name string
	test func(*testing.T, *cluster)
}{
	{"records come back as they were written", testRoundTrip},
	{"a position begins at its offset", testStartAtOffset},
	{"transactions leave gaps", testTransactions},
	{"an open transaction is not read", testOpenTransaction},
	{"a single record by its offset", testAt},
	{"records that are gone stop the partition", testRecordsGone},
	{"records that go while reading stop the partition", testRecordsGoWhileReading},
	{"a position above the end is a cut log", testTruncated},
	{"a rewritten log does not fit", testRewritten},
	{"a topic made again stops the partition", testTopicReplaced},
	{"a missing topic stops the partition", testTopicMissing},
	{"paused partitions bring nothing", testPause},
	{"polls and buffers are bounded", testBounds},
	{"partitions can be given up and taken again", testReassign},
	{"spans, topics and lag", testAdmin},
	{"a refused message leaves the producer working", testProduceRefused},
	{"a cancelled call leaves the producer working", testProduceCancelled},
}

func TestContractEmbedded(t *testing.T) {
	b, err := embedded.Start(embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, newCluster(t, b.Addrs()))
		})
	}
}
