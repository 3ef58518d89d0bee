package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
)

// Describe returns what the cluster says about topics, by name. A topic that does not exist is left out.
func (c *Client) Describe(ctx context.Context, topics ...string) (map[string]log.Topic, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	details, err := c.details(ctx, topics...)
	if err != nil {
		return nil, err
	}
	found := slices.Sorted(maps.Keys(details))
	if len(found) == 0 {
		return nil, nil
	}
	configs, err := c.adm.DescribeTopicConfigs(ctx, found...)
	if err != nil {
		return nil, fmt.Errorf("describe topics %s: %w", strings.Join(found, ","), err)
	}
	out := make(map[string]log.Topic, len(found))
	for _, name := range found {
		d := details[name]
		t := log.Topic{Name: name, ID: log.TopicID(d.ID), Partitions: int32(len(d.Partitions)),
			MaxTimestampAhead: crdt.MaxTime}
		rc, err := configs.On(name, nil)
		if err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", name, err)
		}
		if rc.Err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", name, rc.Err)
		}
		for _, kv := range rc.Configs {
			applyConfig(&t, kv.Key, kv.MaybeValue())
		}
		out[name] = t
	}
	return out, nil
}

func applyConfig(t *log.Topic, key, value string) {
	switch key {
	case "cleanup.policy":
		t.Compacted = slices.Contains(strings.Split(value, ","), "compact")
	case "message.timestamp.type":
		t.LogAppendTime = value == "LogAppendTime"
	case "message.timestamp.after.max.ms":
		if ms, err := strconv.ParseInt(value, 10, 64); err == nil && ms != math.MaxInt64 {
			t.MaxTimestampAhead = ms
		}
	}
}

// details returns the metadata of those of topics that exist.
func (c *Client) details(ctx context.Context, topics ...string) (kadm.TopicDetails, error) {
	ds, err := c.adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look up topics %s: %w", strings.Join(topics, ","), err)
	}
	for name, d := range ds {
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			delete(ds, name)
		case d.Err != nil:
			return nil, fmt.Errorf("look up topic %s: %w", name, d.Err)
		}
	}
	return ds, nil
}

// Leaders that move, and those of a topic that was just made, answer for a moment that they do not lead: so often, and
// with such pauses, Spans asks again.
const (
	spanTries = 10
	spanPause = 100 * time.Millisecond
)

// Spans returns the bounds of every partition of topics. A topic that does not exist is log.ErrUnknownTopic. While a
// partition's leader moves it asks again, for about a second.
func (c *Client) Spans(ctx context.Context, topics ...string) (map[log.Partition]log.Span, error) {
	for try := 1; ; try++ {
		spans, err := c.spans(ctx, topics...)
		moving := errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.LeaderNotAvailable) ||
			errors.Is(err, kerr.FencedLeaderEpoch) || errors.Is(err, kerr.UnknownLeaderEpoch)
		if !moving || try == spanTries {
			return spans, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(spanPause):
		}
	}
}

func (c *Client) spans(ctx context.Context, topics ...string) (map[log.Partition]log.Span, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	starts, err := c.adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list starts of %s: %w", strings.Join(topics, ","), err)
	}
	ends, err := c.adm.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list ends of %s: %w", strings.Join(topics, ","), err)
	}
	out := make(map[log.Partition]log.Span)
	var first error
	fold := func(o kadm.ListedOffset, set func(*log.Span)) {
		p := log.Partition{Topic: o.Topic, Index: o.Partition}
		if o.Err != nil {
			first = errors.Join(first, fmt.Errorf("list offsets of %s: %w", p, asLogError(o.Err)))
			return
		}
		s := out[p]
		set(&s)
		out[p] = s
	}
	starts.Each(func(o kadm.ListedOffset) { fold(o, func(s *log.Span) { s.Start = o.Offset }) })
	ends.Each(func(o kadm.ListedOffset) { fold(o, func(s *log.Span) { s.End = o.Offset }) })
	if first != nil {
		return nil, first
	}
	return out, nil
}

// asLogError puts package log's name to a broker's error that has one.
func asLogError(err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return fmt.Errorf("%w: %w", log.ErrUnknownTopic, err)
	}
	return err
}

// CreateTopic makes a topic unless it exists, and says whether it did. replicas 0 takes the cluster's default; configs
// are the topic's settings that differ from it. An existing topic is left as it is. When it returns, the topic can be looked
// up: a broker learns of it a moment after the controller has made it.
func (c *Client) CreateTopic(ctx context.Context, name string, partitions int32, replicas int16,
	configs map[string]string) (made bool, err error) {
	if replicas == 0 {
		replicas = -1
	}
	settings := make(map[string]*string, len(configs))
	for k, v := range configs {
		settings[k] = &v
	}
	_, err = c.adm.CreateTopic(ctx, partitions, replicas, settings, name)
	switch {
	case errors.Is(err, kerr.TopicAlreadyExists):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("make topic %s: %w", name, err)
	}
	for {
		ds, err := c.details(ctx, name)
		if len(ds) > 0 {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return true, fmt.Errorf("make topic %s: it does not appear: %w", name, errors.Join(ctx.Err(), err))
		case <-time.After(appearPause):
		}
	}
}

// appearPause is the pause between two looks for a topic that was just made.
const appearPause = 20 * time.Millisecond

// CommitLag commits offsets under a consumer group's name, for stock tools to show how far a job has read. Nothing ever
// reads them back.
func (c *Client) CommitLag(ctx context.Context, group string, offsets map[log.Partition]int64) error {
	if len(offsets) == 0 {
		return nil
	}
	os := make(kadm.Offsets)
	for p, at := range offsets {
		os.AddOffset(p.Topic, p.Index, at, -1)
	}
	if err := c.adm.CommitAllOffsets(ctx, group, os); err != nil {
		return fmt.Errorf("commit offsets of group %s: %w", group, err)
	}
	return nil
}
