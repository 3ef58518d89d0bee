package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
)

func testRoundTrip(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	want := []kafka.Message{
		{Topic: topic, Key: []byte("k"), Value: []byte("v"), Timestamp: 1447286400123,
			Headers: []crdt.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "null"}}},
		{Topic: topic, Key: nil, Value: []byte{}, Timestamp: 1},
		{Topic: topic, Key: []byte{}, Value: nil, Timestamp: 1447286400000},
		{Topic: topic, Value: bytes.Repeat([]byte("large "), 20000), Timestamp: 1447286400000},
	}
	if err := c.producer(t).Produce(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	var h crdt.Hasher
	for i, rec := range readUntil(t, r, len(want)) {
		w := log.Record{Offset: int64(i), Timestamp: want[i].Timestamp, Key: want[i].Key, Value: want[i].Value,
			Headers: want[i].Headers}
		if rec.Hash(&h) != w.Hash(&h) {
			t.Errorf("record %d: got %+v, want %+v", i, rec, w)
		}
	}
}

func testStartAtOffset(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 10)
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 7, true))[0]; err != nil {
		t.Fatal(err)
	}
	got := readUntil(t, r, 3)
	if got[0].Offset != 7 || string(got[0].Value) != "v7" || len(got) != 3 {
		t.Errorf("got %d records from %d", len(got), got[0].Offset)
	}
	// At the end of the log there is nothing, and then what comes.
	r.Remove(log.Partition{Topic: topic})
	if err := r.Assign(t.Context(), c.position(t, topic, 10, true))[0]; err != nil {
		t.Fatal(err)
	}
	c.produce(t, topic, "w", 1)
	if got := readUntil(t, r, 1); string(got[0].Value) != "w0" || got[0].Offset != 10 {
		t.Errorf("got %q at %d, want w0 at 10", got[0].Value, got[0].Offset)
	}
}

// transact writes values to partition 0 of topic in one transaction.
func (c *cluster) transact(t *testing.T, topic string, end kgo.TransactionEndTry, values ...string) {
	t.Helper()
	cl := c.begin(t, topic, values...)
	if err := cl.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	// The transaction has ended before its marker is in the partition.
	for {
		ends, err := c.adm.ListEndOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		committed, err := c.adm.ListCommittedOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		if committed[topic][0].Offset == ends[topic][0].Offset {
			return
		}
	}
}

// begin writes values in a transaction that stays open.
func (c *cluster) begin(t *testing.T, topic string, values ...string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionalID(fmt.Sprint(t.Name(), values)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return cl
}

func testTransactions(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.transact(t, topic, kgo.TryCommit, "a", "b") // 0, 1, marker 2
	c.transact(t, topic, kgo.TryAbort, "x", "y")  // 3, 4, marker 5
	c.transact(t, topic, kgo.TryCommit, "c")      // 6, marker 7
	c.produce(t, topic, "d", 1)                   // 8
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rec := range readUntil(t, r, 4) {
		got = append(got, fmt.Sprintf("%d:%s", rec.Offset, rec.Value))
	}
	if want := "[0:a 1:b 6:c 8:d0]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	// A point stands behind the last record, before the marker.
	if _, err := c.client.Check(t.Context(), c.position(t, topic, 2, true)); err != nil {
		t.Error(err)
	}
	for _, gap := range []int64{2, 3, 5, 7} {
		if r, err := c.client.At(t.Context(), log.Partition{Topic: topic}, gap); !errors.Is(err, log.ErrNoRecord) {
			t.Errorf("at the gap %d: got %+v, %v", gap, r, err)
		}
	}
}

func testOpenTransaction(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 2)
	open := c.begin(t, topic, "later")
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	readUntil(t, r, 2)
	spans, err := c.client.Spans(t.Context(), topic)
	if err != nil || spans[log.Partition{Topic: topic}] != (log.Span{Start: 0, End: 2}) {
		t.Errorf("spans are %v, %v: want 0 to 2", spans, err)
	}
	if err := open.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if got := readUntil(t, r, 1); string(got[0].Value) != "later" || got[0].Offset != 2 {
		t.Errorf("got %q at %d, want later at 2", got[0].Value, got[0].Offset)
	}
}

func testPause(t *testing.T, c *cluster) {
	topic := c.topic(t, 2)
	p0, p1 := log.Partition{Topic: topic}, log.Partition{Topic: topic, Index: 1}
	r := c.reader(t, kafka.ReaderConfig{})
	id := c.topicID(t, topic)
	for _, err := range r.Assign(t.Context(), log.Position{Partition: p0, TopicID: id},
		log.Position{Partition: p1, TopicID: id}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.Pause(p0)
	messages := make([]kafka.Message, 100)
	for i := range messages {
		messages[i] = kafka.Message{Topic: topic, Partition: int32(i % 2), Value: []byte("v")}
	}
	if err := c.producer(t).Produce(t.Context(), messages); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for n := 0; n < 50; {
		batches, err := r.Poll(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			if b.Err != nil || b.Partition != p1 {
				t.Fatalf("a batch of %s came: %v", b.Partition, b.Err)
			}
			n += len(b.Records)
		}
	}
	r.Resume(p0)
	if got := readUntil(t, r, 50); got[0].Offset != 0 || got[49].Offset != 49 {
		t.Errorf("got %d to %d, want 0 to 49", got[0].Offset, got[49].Offset)
	}
}

func testBounds(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	const n, size = 400, 10_000
	p := c.producer(t)
	for range n / 100 {
		messages := make([]kafka.Message, 100)
		for i := range messages {
			v := make([]byte, size)
			for j := range v { // does not compress
				v[j] = byte((i*size+j)*2654435761>>7) ^ byte(j*j>>3)
			}
			messages[i] = kafka.Message{Topic: topic, Value: v}
		}
		if err := p.Produce(t.Context(), messages); err != nil {
			t.Fatal(err)
		}
	}
	const fetch = 256 << 10
	r := c.reader(t, kafka.ReaderConfig{MaxBytes: fetch, MaxPartitionBytes: fetch})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	for got := 0; got < n; {
		batches, err := r.Poll(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		one := 0
		for _, b := range batches {
			one += len(b.Records)
		}
		if got += one; one > 7 {
			t.Fatalf("a poll brought %d records, want at most 7", one)
		}
		// One fetch of this size, or one batch that is larger, and the key, offset and such of its records.
		if held := r.Buffered(); held > 2<<20 {
			t.Fatalf("%d bytes are held", held)
		}
	}
}

func testReassign(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	p := log.Partition{Topic: topic}
	c.produce(t, topic, "v", 100)
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	if err := r.Assign(t.Context(), c.position(t, topic, 50, true))[0]; err == nil {
		t.Error("a partition was assigned twice")
	}
	if _, err := r.Poll(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	r.Pause(p)
	r.Remove(p, log.Partition{Topic: "unknown"})
	if err := r.Assign(t.Context(), c.position(t, topic, 90, true))[0]; err != nil {
		t.Fatal(err)
	}
	if got := readUntil(t, r, 10); got[0].Offset != 90 {
		t.Errorf("began at %d, want 90", got[0].Offset)
	}
}
