package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// awaitStop polls until a partition stops, and returns why and the records that came before.
func awaitStop(t *testing.T, r *kafka.Reader) (error, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for n := 0; ; {
		batches, err := r.Poll(ctx, 100)
		if err != nil {
			t.Fatalf("no partition stopped: %v", err)
		}
		for _, b := range batches {
			if b.Err != nil {
				return b.Err, n
			}
			n += len(b.Records)
		}
	}
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

func testAt(t *testing.T, c *cluster) {
	topic := c.topic(t, 2)
	c.produce(t, topic, "v", 100)
	p := log.Partition{Topic: topic}
	for _, at := range []int64{0, 50, 99} {
		r, err := c.client.At(t.Context(), p, at)
		if err != nil {
			t.Fatal(err)
		}
		if r.Offset != at || string(r.Value) != fmt.Sprintf("v%d", at) || r.Timestamp != 1000+at {
			t.Errorf("at %d: got %+v", at, r)
		}
	}
	_, err := c.client.At(t.Context(), p, 101)
	wantErr(t, err, log.ErrTruncated)
	_, err = c.client.At(t.Context(), log.Partition{Topic: topic, Index: 2}, 0)
	wantErr(t, err, log.ErrUnknownTopic)
	_, err = c.client.At(t.Context(), log.Partition{Topic: topic + "-none"}, 0)
	wantErr(t, err, log.ErrUnknownTopic)
	c.deleteRecords(t, topic, 50)
	_, err = c.client.At(t.Context(), p, 49)
	wantErr(t, err, log.ErrRecordsGone)
}

func (c *cluster) deleteRecords(t *testing.T, topic string, before int64) {
	t.Helper()
	os := make(kadm.Offsets)
	os.AddOffset(topic, 0, before, -1)
	resp, err := c.adm.DeleteRecords(t.Context(), os)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func testRecordsGone(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 20)
	first, below, at := c.position(t, topic, 0, false), c.position(t, topic, 5, true), c.position(t, topic, 10, true)
	c.deleteRecords(t, topic, 10)
	r := c.reader(t, kafka.ReaderConfig{})
	errs := r.Assign(t.Context(), first)
	wantErr(t, errs[0], log.ErrRecordsGone)
	errs = r.Assign(t.Context(), below)
	wantErr(t, errs[0], log.ErrRecordsGone)
	// The record before is deleted, but the log begins just there, and it is the same log.
	unknown := at
	unknown.TopicID = log.TopicID{}
	errs = r.Assign(t.Context(), unknown)
	wantErr(t, errs[0], log.ErrRecordsGone)
	if errs = r.Assign(t.Context(), at); errs[0] != nil {
		t.Fatal(errs[0])
	}
	if got := readUntil(t, r, 10); got[0].Offset != 10 {
		t.Errorf("began at %d, want 10", got[0].Offset)
	}
}

func testRecordsGoWhileReading(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	p := log.Partition{Topic: topic}
	c.produce(t, topic, "v", 10)
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	readUntil(t, r, 10)
	r.Pause(p)
	c.produce(t, topic, "w", 10)
	c.deleteRecords(t, topic, 15)
	r.Resume(p)
	err, n := awaitStop(t, r)
	wantErr(t, err, log.ErrRecordsGone)
	if n != 0 || len(r.Partitions()) != 0 {
		t.Errorf("%d records came over the hole; %v still assigned", n, r.Partitions())
	}
}

func testTruncated(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 10)
	r := c.reader(t, kafka.ReaderConfig{})
	pos := c.position(t, topic, 10, true)
	pos.Offset = 20
	wantErr(t, r.Assign(t.Context(), pos)[0], log.ErrTruncated)
	pos.Last = crdt.Hash{}
	wantErr(t, r.Assign(t.Context(), pos)[0], log.ErrTruncated)
}

func testRewritten(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 10)
	pos := c.position(t, topic, 10, true)
	pos.Last[0]++
	_, err := c.client.Check(t.Context(), pos)
	wantErr(t, err, log.ErrRewritten)
	if !log.Unfit(err) {
		t.Errorf("%v fits", err)
	}
}

func (c *cluster) deleteTopic(t *testing.T, topic string) {
	t.Helper()
	if _, err := c.adm.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
}

// recreate deletes a topic and makes it again; the cluster may still be busy deleting it.
func (c *cluster) recreate(t *testing.T, topic string) {
	t.Helper()
	c.deleteTopic(t, topic)
	for {
		made, err := c.client.CreateTopic(t.Context(), topic, 1, 1, nil)
		if err == nil && made {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("make %s again: %v", topic, err)
		}
	}
}

func testTopicReplaced(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 10)
	pos := c.position(t, topic, 5, true)
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), pos)[0]; err != nil {
		t.Fatal(err)
	}
	readUntil(t, r, 5)
	c.recreate(t, topic)
	c.produce(t, topic, "w", 20)
	err, n := awaitStop(t, r)
	wantErr(t, err, log.ErrTopicReplaced)
	if n != 0 {
		t.Errorf("%d records of the new topic came", n)
	}
	wantErr(t, r.Assign(t.Context(), pos)[0], log.ErrTopicReplaced)
	// As the source's next incarnation it can be read, by the same reader.
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	if got := readUntil(t, r, 20); string(got[0].Value) != "w0" {
		t.Errorf("got %q, want w0", got[0].Value)
	}
}

func testTopicMissing(t *testing.T, c *cluster) {
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 3)
	r := c.reader(t, kafka.ReaderConfig{MissingAfter: time.Second})
	pos := c.position(t, topic, 0, false)
	if err := r.Assign(t.Context(), pos)[0]; err != nil {
		t.Fatal(err)
	}
	readUntil(t, r, 3)
	c.deleteTopic(t, topic)
	err, _ := awaitStop(t, r)
	wantErr(t, err, log.ErrUnknownTopic)
	wantErr(t, r.Assign(t.Context(), pos)[0], log.ErrUnknownTopic)
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
