package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

var columns = &watershedv1.Columns{Key: []string{"cell"}, Values: []string{"n"}}

func rows(revisions ...uint64) (out []*watershedv1.Row) {
	for _, r := range revisions {
		out = append(out, &watershedv1.Row{Revision: r})
	}
	return out
}

// answer scans with these parts of an answer, and then returns err.
func answer(err error, parts ...any) func(*watershedv1.ScanRequest, watershedv1.StateService_ScanServer) error {
	return func(_ *watershedv1.ScanRequest, out watershedv1.StateService_ScanServer) error {
		for _, p := range parts {
			m := &watershedv1.ScanResponse{}
			switch p := p.(type) {
			case *watershedv1.Columns:
				m.Part = &watershedv1.ScanResponse_Columns{Columns: p}
			case []*watershedv1.Row:
				m.Part = &watershedv1.ScanResponse_Rows{Rows: &watershedv1.Rows{Rows: p}}
			case *watershedv1.ScanSummary:
				m.Part = &watershedv1.ScanResponse_Summary{Summary: p}
			}
			if e := out.Send(m); e != nil {
				return e
			}
		}
		return err
	}
}

func collect(s *Scan) (revisions []uint64) {
	for s.Next() {
		revisions = append(revisions, s.Row().GetRevision())
	}
	return revisions
}

func TestScan(t *testing.T) {
	summary := &watershedv1.ScanSummary{Shards: []*watershedv1.ShardState{{Shard: 1}}}
	tests := []struct {
		name       string
		first      func(*watershedv1.ScanRequest, watershedv1.StateService_ScanServer) error // of a; b answers 9
		rows       int
		last       uint64
		code       codes.Code // of the error when it is opened
		cut, whole bool
	}{
		{"whole", answer(nil, columns, rows(1, 2), rows(), rows(3), summary), 3, 3, codes.OK, false, true},
		{"no rows", answer(nil, columns, summary), 0, 0, codes.OK, false, true},
		{"elsewhere", answer(unavailable("")), 1, 9, codes.OK, false, true},
		{"cut before rows", answer(unavailable(b), columns), 1, 9, codes.OK, false, true},
		{"ends without rows", answer(nil, columns), 1, 9, codes.OK, false, true},
		{"cut after rows", answer(unavailable(b), columns, rows(1, 2)), 2, 2, codes.OK, true, false},
		{"no summary", answer(nil, columns, rows(1, 2)), 2, 2, codes.OK, true, false},
		{"columns again", answer(nil, columns, rows(1), columns, summary), 1, 1, codes.OK, true, false},
		{"no columns", answer(nil, rows(1), summary), 0, 0, codes.Internal, false, false},
		{"refused", answer(status.Error(codes.NotFound, "no job")), 0, 0, codes.NotFound, false, false},
		{"refused late", answer(status.Error(codes.NotFound, "no job"), columns), 0, 0, codes.NotFound, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := world{}
				w.start(t, a).scan = tt.first
				w.start(t, b).scan = answer(nil, columns, rows(9), summary)
				s, err := w.client(t, []string{a, b}).Scan(t.Context(), &watershedv1.ScanRequest{})
				if status.Code(err) != tt.code {
					t.Fatalf("%v, want %v", err, tt.code)
				}
				if err != nil {
					return
				}
				defer s.Close()
				got := collect(s)
				if len(got) != tt.rows || tt.rows > 0 && got[len(got)-1] != tt.last {
					t.Errorf("rows %v, want %d, the last %d", got, tt.rows, tt.last)
				}
				if errors.Is(s.Err(), ErrCutShort) != tt.cut || (s.Err() == nil) != tt.whole || (s.Summary() != nil) != tt.whole {
					t.Errorf("error %v, summary %v", s.Err(), s.Summary())
				}
				if len(s.Columns().GetKey()) != 1 || s.Next() {
					t.Error("no columns, or rows behind the end")
				}
			})
		})
	}
}

// A scan that has begun may take longer than the client is patient; one that does not begin ends.
func TestScanPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		n := w.start(t, a)
		slow := make(chan struct{})
		n.scan = func(in *watershedv1.ScanRequest, out watershedv1.StateService_ScanServer) error {
			if err := answer(nil, columns, rows(1))(in, out); err != nil {
				return err
			}
			<-slow
			return answer(nil, rows(2), &watershedv1.ScanSummary{})(in, out)
		}
		cl := w.client(t, []string{a}, WithPatience(2*time.Second))
		s, err := cl.Scan(t.Context(), &watershedv1.ScanRequest{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, func() { close(slow) })
		if got := collect(s); len(got) != 2 || s.Err() != nil {
			t.Errorf("rows %v, %v", got, s.Err())
		}
		n.change(func(a *answers) {
			a.scan = func(_ *watershedv1.ScanRequest, out watershedv1.StateService_ScanServer) error {
				<-out.Context().Done()
				return out.Context().Err()
			}
		})
		start := time.Now()
		if _, err := cl.Scan(t.Context(), &watershedv1.ScanRequest{}); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("gave up after %v", took)
		}
	})
}

// changes watches with messages of one row each, and then does what end does.
func changes(end func(watershedv1.StateService_WatchServer) error, revisions ...uint64) func(*watershedv1.WatchRequest, watershedv1.StateService_WatchServer) error {
	return func(_ *watershedv1.WatchRequest, out watershedv1.StateService_WatchServer) error {
		if err := out.Send(&watershedv1.WatchResponse{Columns: columns}); err != nil {
			return err
		}
		for _, r := range revisions {
			if err := out.Send(&watershedv1.WatchResponse{Rows: rows(r)}); err != nil {
				return err
			}
		}
		return end(out)
	}
}

func hang(out watershedv1.StateService_WatchServer) error {
	<-out.Context().Done()
	return out.Context().Err()
}

func TestWatchGoesOnElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		w.start(t, a).watch = changes(func(watershedv1.StateService_WatchServer) error { return unavailable("") }, 1, 2)
		w.start(t, b).watch = changes(hang, 3)
		var cuts []string
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watched, err := w.client(t, []string{a, b}).Watch(ctx, &watershedv1.Selection{}, func(err error) { cuts = append(cuts, err.Error()) })
		if err != nil {
			t.Fatal(err)
		}
		defer watched.Close()
		var seen []uint64
		for len(seen) < 5 && watched.Next() {
			if seen = append(seen, watched.Row().GetRevision()); watched.Row().GetRevision() == 3 {
				break
			}
		}
		// The one that answered last is tried first, so that rows may come twice.
		if seen[0] != 1 || seen[1] != 2 || len(cuts) == 0 || cuts[0] != "not now" || watched.Cuts() != len(cuts) {
			t.Errorf("rows %v, cuts %q", seen, cuts)
		}
		cancel()
		for watched.Next() {
			continue
		}
		if !errors.Is(watched.Err(), context.Canceled) {
			t.Errorf("%v", watched.Err())
		}
	})
}

func TestWatchOutlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		n := w.start(t, a)
		stop := make(chan struct{})
		n.watch = changes(func(watershedv1.StateService_WatchServer) error { <-stop; return unavailable("") }, 1)
		watched, err := w.client(t, []string{a}, WithPatience(time.Second)).Watch(t.Context(), &watershedv1.Selection{}, nil)
		if err != nil || !watched.Next() {
			t.Fatal(err)
		}
		defer watched.Close()
		n.change(func(a *answers) {
			a.watch = func(*watershedv1.WatchRequest, watershedv1.StateService_WatchServer) error { return unavailable("") }
		})
		time.AfterFunc(time.Minute, func() { n.change(func(a *answers) { a.watch = changes(hang, 2) }) })
		close(stop)
		if !watched.Next() || watched.Row().GetRevision() != 2 {
			t.Errorf("row %v, %v", watched.Row(), watched.Err())
		}
	})
}

func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		n := w.start(t, a)
		n.watch = changes(func(watershedv1.StateService_WatchServer) error { return status.Error(codes.NotFound, "deleted") })
		cl := w.client(t, []string{a}, WithPatience(time.Second))
		watched, err := cl.Watch(t.Context(), &watershedv1.Selection{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if watched.Next() || status.Code(watched.Err()) != codes.NotFound || watched.Err().Error() != "deleted" {
			t.Errorf("%v", watched.Err())
		}
		n.change(func(a *answers) {
			a.watch = func(_ *watershedv1.WatchRequest, out watershedv1.StateService_WatchServer) error { return hang(out) }
		})
		if _, err := cl.Watch(t.Context(), &watershedv1.Selection{}, nil); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("a watch that does not begin: %v", err)
		}
	})
}
