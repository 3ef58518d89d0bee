package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/watershed-db/watershed/jepsen/cases"
	"github.com/watershed-db/watershed/jepsen/oracle"
)

// load is a case under way: its job over topics of its own, its inputs as the regions' topics get them.
type load struct {
	cases.Case
	job    string // the job's name
	file   []byte
	logs   []oracle.Partition
	oracle *oracle.Oracle
	topics map[string]string // the topic of a case to the one in Kafka
}

// newLoad splits a case over regions. prefix goes before the name of every topic; loads over the same input may share
// one. extra is added to the job file, and the job is named so that it does not meet the case's plain one.
func newLoad(t testing.TB, name, prefix, extra string, regions ...string) *load {
	t.Helper()
	c, err := cases.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{Case: cases.Split(c, regions...), job: name, file: c.Job(), topics: map[string]string{}}
	if l.logs, err = l.Logs(); errors.Is(err, cases.ErrNoData) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	if l.oracle, err = l.Oracle(); err != nil {
		t.Fatal(err)
	}
	text := string(l.file)
	if extra != "" {
		l.job = name + "-more"
		text = strings.Replace(text, "name: "+name, "name: "+l.job, 1) + extra
	}
	for _, p := range l.logs {
		if l.topics[p.Topic] == "" {
			l.topics[p.Topic] = prefix + p.Topic
			text = strings.ReplaceAll(text, "topic: "+p.Topic+"\n", "topic: "+prefix+p.Topic+"\n")
		}
	}
	l.file = []byte(text)
	return l
}

// regions lists the regions that the load's input is split over, in order.
func (l *load) regions() (names []string) {
	for _, p := range l.logs {
		if !slices.Contains(names, p.Region) {
			names = append(names, p.Region)
		}
	}
	return names
}

// partition is a partition of a region's Kafka and what it is to hold.
type partition struct {
	region, topic string
	number        int32
	logTime       time.Time
	values        [][]byte
}

// partitions lists what the loads' topics are to hold, each once.
func partitions(t testing.TB, loads []*load) []*partition {
	t.Helper()
	var all []*partition
	for _, l := range loads {
		at := l.RecordTime
		if at.IsZero() {
			at = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // any does
		}
		for _, in := range l.logs {
			p := &partition{region: in.Region, topic: l.topics[in.Topic], number: int32(in.Number), logTime: at}
			if slices.ContainsFunc(all, func(o *partition) bool {
				return o.region == p.region && o.topic == p.topic && o.number == p.number
			}) {
				continue // shared with another load
			}
			for _, r := range in.Records {
				p.values = append(p.values, r.Value)
			}
			all = append(all, p)
		}
	}
	return all
}

// traffic writes partitions in steps, each of them in the order of its log.
type traffic struct {
	t       testing.TB
	clients map[string]*kgo.Client // by region
	all     []*partition
}

// newTraffic makes the topics with as many partitions as there are, and extra topics with one.
func newTraffic(t testing.TB, d *deployment, all []*partition, extra ...string) *traffic {
	t.Helper()
	tr := &traffic{t: t, clients: map[string]*kgo.Client{}, all: all}
	for region, r := range d.Regions {
		cl, err := kgo.NewClient(kgo.SeedBrokers(r.Kafka...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.MetadataMinAge(minAge))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		tr.clients[region] = cl
		count := map[string]int32{}
		for _, topic := range extra {
			count[topic] = 1
		}
		for _, p := range all {
			if p.region == region {
				count[p.topic] = max(count[p.topic], p.number+1)
			}
		}
		for topic, n := range count {
			createTopic(t, cl, topic, n)
		}
	}
	return tr
}

func createTopic(t testing.TB, cl *kgo.Client, topic string, partitions int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}

// step writes step i of n of every partition, and returns when all is acknowledged, each record where it belongs. It may
// run beside the test's own goroutine.
func (tr *traffic) step(i, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	failed := make(chan error, 1)
	for _, p := range tr.all {
		from, to := len(p.values)*i/n, len(p.values)*(i+1)/n
		for at := from; at < to; at++ {
			rec := &kgo.Record{Topic: p.topic, Partition: p.number, Timestamp: p.logTime, Value: p.values[at]}
			tr.clients[p.region].Produce(ctx, rec, func(rec *kgo.Record, err error) {
				if err == nil && rec.Offset != int64(at) {
					err = fmt.Errorf("record %d of %s/%d stands at %d", at, p.topic, p.number, rec.Offset)
				}
				if err != nil {
					select {
					case failed <- fmt.Errorf("produce to %s of %s: %w", p.topic, p.region, err):
					default:
					}
				}
			})
		}
	}
	for _, cl := range tr.clients {
		if err := cl.Flush(ctx); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// beside writes step i of n while fault runs, and returns when both are done.
func (tr *traffic) beside(i, n int, fault func()) {
	tr.t.Helper()
	written := make(chan error, 1)
	go func() { written <- tr.step(i, n) }()
	if fault != nil {
		fault()
	}
	if err := <-written; err != nil {
		tr.t.Fatal(err)
	}
}

// consume reads topics of a region from their beginnings, committed records alone, until done says so of all that was
// read so far, or within has passed.
func (tr *traffic) consume(region string, within time.Duration, what string, done func(*kgo.Record) (bool, string), topics ...string) {
	tr.t.Helper()
	seeds := tr.clients[region].OptValue(kgo.SeedBrokers).([]string)
	cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		tr.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	why := "nothing was read"
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			tr.t.Fatalf("waited %s for %s: %s", within, what, why)
		}
		fetches.EachError(func(topic string, p int32, err error) { tr.t.Errorf("read %s/%d: %v", topic, p, err) })
		ok := false
		fetches.EachRecord(func(rec *kgo.Record) { ok, why = done(rec) })
		if ok {
			return
		}
	}
}
