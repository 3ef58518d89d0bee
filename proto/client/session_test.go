package client

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func at(shard uint32, generation string, offsets ...int64) *watershedv1.ShardState {
	s := &watershedv1.ShardState{Shard: shard, Generation: []byte(generation)}
	for i, o := range offsets {
		s.Points = append(s.Points, &watershedv1.SourcePoint{Region: "r", Topic: "t", Partition: int32(i), Offset: o})
	}
	return s
}

func TestSessionIsMonotonicByShard(t *testing.T) {
	s := NewSession()
	steps := []struct {
		state  *watershedv1.ShardState
		behind bool
	}{
		{at(0, "g", 5, 5), false},
		{at(1, "g", 3, 9), false}, // another shard
		{at(0, "g", 5, 4), true},
		{at(0, "g", 9), true}, // lacks a source
		{at(0, "g", 6, 5, 1), false},
		{at(0, "g", 5, 5, 1), true},
		{at(0, "h", 1), false}, // the job was made again
	}
	for i, step := range steps {
		if err := s.see("j", step.state); errors.Is(err, ErrBehind) != step.behind {
			t.Errorf("step %d: %v", i, err)
		}
		if i == 4 {
			if low := s.least("j"); len(low) != 3 || low[0].GetOffset() != 3 || low[1].GetOffset() != 5 {
				t.Errorf("least %v", low)
			}
		}
	}
	for i := range 2 * maxSessionJobs {
		if err := s.see(strconv.Itoa(i), at(0, "g", 1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.jobs) > maxSessionJobs {
		t.Errorf("%d jobs are remembered", len(s.jobs))
	}
	if (*Session)(nil).see("j", at(0, "g", 0)) != nil || (*Session)(nil).least("j") != nil {
		t.Error("no session does something")
	}
}

func TestAnOlderAnswerIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		fresh, stale := w.start(t, a), w.start(t, b)
		var asked []*watershedv1.SourcePoint
		serve := func(n *node, offset int64, fails bool) {
			n.change(func(a *answers) {
				a.get = func(in *watershedv1.GetRequest) (*watershedv1.GetResponse, error) {
					asked = in.GetSelection().GetSeen()
					if fails {
						return nil, unavailable("")
					}
					return &watershedv1.GetResponse{Shard: at(0, "g", offset)}, nil
				}
			})
		}
		serve(fresh, 7, false)
		serve(stale, 6, false)
		cl := w.client(t, []string{a, b}, WithSession(NewSession()))
		if _, err := cl.Get(t.Context(), &watershedv1.Selection{Job: "j"}); err != nil || len(asked) != 0 {
			t.Fatalf("%v, asked for %v", err, asked)
		}
		serve(fresh, 0, true)
		if _, err := cl.Get(t.Context(), &watershedv1.Selection{Job: "j"}); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%v", err)
		}
		if len(asked) != 1 || asked[0].GetOffset() != 7 {
			t.Errorf("asked for %v", asked)
		}
		serve(stale, 7, false)
		if _, err := cl.Get(t.Context(), &watershedv1.Selection{Job: "j"}); err != nil {
			t.Error(err)
		}
		stale.scan = answer(nil, columns, rows(1), &watershedv1.ScanSummary{Shards: []*watershedv1.ShardState{at(0, "g", 6)}})
		s, err := cl.Scan(t.Context(), &watershedv1.ScanRequest{Selection: &watershedv1.Selection{Job: "j"}})
		if err != nil {
			t.Fatal(err)
		}
		if collect(s); !errors.Is(s.Err(), ErrBehind) || !errors.Is(s.Err(), ErrCutShort) {
			t.Errorf("%v", s.Err())
		}
	})
}
