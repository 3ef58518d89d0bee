package demo

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Of the versions of a row the one that ranks highest stands, whatever their order in the topic.
func TestSinkKeepsWhatRanksHighest(t *testing.T) {
	const head = `{"window_start":"2023-11-14T22:13:20Z","window_end":"2023-11-14T22:13:25Z","key":{"cell":"dr5reg"},`
	rec := func(epoch, tail string) *kgo.Record {
		return &kgo.Record{Value: []byte(head + tail), Headers: []kgo.RecordHeader{{Key: "generation", Value: []byte("01")},
			{Key: "epoch", Value: []byte(epoch)}}}
	}
	l := newSinkLog()
	stands := func(want string, records ...*kgo.Record) {
		t.Helper()
		for _, r := range records {
			if err := l.take(r); err != nil {
				t.Fatal(err)
			}
		}
		rows := l.standing()
		for _, got := range rows {
			if got != head+want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		if (len(rows) == 0) != (want == "") {
			t.Errorf("%d rows stand", len(rows))
		}
	}
	full := `"requests":2,"revision":2,"complete":true}`
	stands(full, rec("65537", full), rec("65537", `"requests":2,"revision":2,"complete":false}`),
		rec("65537", `"requests":1,"revision":1,"complete":true}`))
	stands("", rec("65537", `"revision":3,"retracted":true}`))
	later := `"requests":1,"revision":1,"complete":true}`
	stands(later, rec("65538", later))
	if l.records != 5 {
		t.Errorf("%d records", l.records)
	}
	if err := l.take(rec("x", full)); err == nil {
		t.Error("an epoch that is no number")
	}
}

func TestView(t *testing.T) {
	point := func(region string, offset int64, counted uint64) *watershedv1.SourcePoint {
		return &watershedv1.SourcePoint{Region: region, Topic: "t", Offset: offset, Counts: []uint64{counted, 0, 0, 0, 0}}
	}
	v := newView([]*watershedv1.ShardState{
		{WatermarkMs: 9, Points: []*watershedv1.SourcePoint{point("a", 5, 4), point("b", 7, 7)}, Missing: []string{"b"}},
		{WatermarkMs: 8, Points: []*watershedv1.SourcePoint{point("a", 6, 5)}},
	})
	a, b := sourceID{"a", "t", 0}, sourceID{"b", "t", 0}
	if v.watermark != 8 || v.offsets[a] != 5 || v.counts[a][counted] != 5 || !v.missing["b"] {
		t.Errorf("%+v", v)
	}
	if _, ok := v.offsets[b]; ok {
		t.Error("a source counts as taken that one shard lacks")
	}
	if !v.reaches(map[sourceID]int64{a: 5}) || v.reaches(map[sourceID]int64{a: 6}) || v.reaches(map[sourceID]int64{b: 0}) {
		t.Error("reaches")
	}
}
