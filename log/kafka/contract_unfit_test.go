package kafka_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/kafka"
)

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
	// A fetch that was under way at the pause may bring the new records before they are deleted: then there is no hole.
	for next := int64(10); ; next += 10 {
		r.Pause(p)
		c.produce(t, topic, "w", 10)
		c.deleteRecords(t, topic, next+5)
		r.Resume(p)
		n, err := awaitStopOr(t, r, 10)
		if n == 10 && err == nil {
			continue
		}
		wantErr(t, err, log.ErrRecordsGone)
		if n != 0 || len(r.Partitions()) != 0 {
			t.Errorf("%d records came over the hole; %v still assigned", n, r.Partitions())
		}
		return
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
	n, err := awaitStop(t, r)
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
	_, err := awaitStop(t, r)
	wantErr(t, err, log.ErrUnknownTopic)
	wantErr(t, r.Assign(t.Context(), pos)[0], log.ErrUnknownTopic)
}
