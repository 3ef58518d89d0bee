package kafka_test

import (
	"context"
	"testing"

	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
)

func testAdmin(t *testing.T, c *cluster) {
	topic := c.topic(t, 3)
	compacted := topic + "-compacted"
	if _, err := c.client.CreateTopic(t.Context(), compacted, 1, 0,
		map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	if made, err := c.client.CreateTopic(t.Context(), topic, 3, 1, nil); made || err != nil {
		t.Errorf("an existing topic: made %v, %v", made, err)
	}
	topics, err := c.client.Describe(t.Context(), topic, compacted, topic+"-none")
	if err != nil {
		t.Fatal(err)
	}
	if len(topics) != 2 || topics[topic].Partitions != 3 || topics[topic].Compacted || !topics[compacted].Compacted {
		t.Errorf("topics are %+v", topics)
	}
	c.produce(t, topic, "v", 5)
	c.deleteRecords(t, topic, 2)
	spans, err := c.client.Spans(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	p := log.Partition{Topic: topic}
	if len(spans) != 3 || spans[p] != (log.Span{Start: 2, End: 5}) {
		t.Errorf("spans are %v", spans)
	}
	_, err = c.client.Spans(t.Context(), topic+"-none")
	wantErr(t, err, log.ErrUnknownTopic)

	group := "watershed-test-" + topic
	if err := c.client.CommitLag(t.Context(), group, map[log.Partition]int64{p: 4}); err != nil {
		t.Fatal(err)
	}
	fetched, err := c.adm.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := fetched.Lookup(topic, 0); !ok || o.At != 4 {
		t.Errorf("the group's offset is %+v, want 4", o)
	}
}

func testProduceRefused(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	p := c.producer(t)
	err := p.Produce(t.Context(), []kafka.Message{
		{Topic: topic, Value: []byte("good")}, {Topic: topic, Value: make([]byte, 40<<20)}})
	if err == nil {
		t.Fatal("40 MiB were taken")
	}
	if err := p.Produce(t.Context(), []kafka.Message{{Topic: topic, Partition: 7, Value: []byte("x")}}); err == nil {
		t.Error("a partition that does not exist took a record")
	}
	if err := p.Produce(t.Context(), []kafka.Message{{Topic: topic, Value: []byte("after")}}); err != nil {
		t.Fatal(err)
	}
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	got := readUntil(t, r, 2)
	if string(got[0].Value) != "good" || string(got[1].Value) != "after" {
		t.Errorf("got %q, %q", got[0].Value, got[1].Value)
	}
}

func testProduceCancelled(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	p := c.producer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, p.Produce(ctx, []kafka.Message{{Topic: topic, Value: []byte("never")}}), context.Canceled)
	if err := p.Produce(t.Context(), []kafka.Message{{Topic: topic, Value: []byte("after")}}); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if err := p.Produce(t.Context(), []kafka.Message{{Topic: topic}}); err == nil {
		t.Error("a closed producer took a record")
	}
}
