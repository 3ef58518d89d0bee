package client

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func TestEndpointsAreChecked(t *testing.T) {
	for _, endpoints := range [][]string{nil, {"a"}, {":1"}, {"a:"}, {a, "x:y:z"}, slices.Repeat([]string{a}, maxConns)} {
		if _, err := New(endpoints); !errors.Is(err, ErrEndpoint) {
			t.Errorf("%q: %v", endpoints, err)
		}
	}
}

func TestAnotherEndpointAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		down := w.start(t, a)
		down.topology = func(context.Context) (*watershedv1.TopologyResponse, error) { return nil, unavailable("") }
		w.start(t, c)
		cl := w.client(t, []string{a, b, c}) // nobody listens on b
		for range 2 {
			out, err := cl.Topology(t.Context())
			if err != nil || out.GetNode() != c {
				t.Fatalf("%v, %v", out, err)
			}
		}
		if n := down.count(); n != 1 {
			t.Errorf("the first endpoint was asked %d times: the one that answered is not remembered", n)
		}
	})
}

func TestAHintIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		first := w.start(t, a)
		first.topology = func(context.Context) (*watershedv1.TopologyResponse, error) { return nil, unavailable(c) }
		w.start(t, c)
		out, err := w.client(t, []string{a}).Topology(t.Context())
		if err != nil || out.GetNode() != c || first.count() != 1 {
			t.Errorf("%v, %v after %d calls", out, err, first.count())
		}
	})
}

func TestHintsInACircleEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		for from, to := range map[string]string{a: b, b: a} {
			w.start(t, from).topology = func(context.Context) (*watershedv1.TopologyResponse, error) { return nil, unavailable(to) }
		}
		start := time.Now()
		_, err := w.client(t, []string{a, b}, WithPatience(3*time.Second)).Topology(t.Context())
		if !errors.Is(err, ErrNoAnswer) || status.Code(err) != codes.Unavailable || err.Error() != "no answer in time: not now" {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestTriesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		n := w.start(t, a)
		n.topology = func(context.Context) (*watershedv1.TopologyResponse, error) { return nil, unavailable("") }
		cl := w.client(t, []string{a}, WithPatience(time.Minute), WithPauses(100*time.Millisecond, 2*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := cl.Topology(ctx); !errors.Is(err, ErrNoAnswer) || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if c := n.count(); c < 7 || c > 18 {
			t.Errorf("%d tries in 10 s", c)
		}
	})
}

func TestARefusalIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		n := w.start(t, a)
		n.topology = func(context.Context) (*watershedv1.TopologyResponse, error) {
			return nil, status.Error(codes.FailedPrecondition, "no")
		}
		_, err := w.client(t, []string{a, b}).Topology(t.Context())
		if status.Code(err) != codes.FailedPrecondition || err.Error() != "no" || n.count() != 1 {
			t.Errorf("%v after %d calls", err, n.count())
		}
	})
}

func TestANodeThatHangsIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		w.start(t, a).topology = func(ctx context.Context) (*watershedv1.TopologyResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		w.start(t, b)
		out, err := w.client(t, []string{a, b}).Topology(t.Context())
		if err != nil || out.GetNode() != b {
			t.Errorf("%v, %v", out, err)
		}
	})
}

func TestACallEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		ctx, cancel := context.WithCancel(t.Context())
		w.start(t, a).topology = func(context.Context) (*watershedv1.TopologyResponse, error) {
			cancel()
			return nil, unavailable("")
		}
		if _, err := w.client(t, []string{a}).Topology(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoAnswer) {
			t.Errorf("%v", err)
		}
	})
}

func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{}
		w.start(t, a)
		cl, ctx := w.client(t, []string{a}), t.Context()
		v, err := cl.ValidateJob(ctx, "f", []byte("x"))
		if err != nil || v.GetName() != "fx" {
			t.Errorf("%v, %v", v, err)
		}
		p, err := cl.ApplyJob(ctx, "f", []byte("x"))
		if err != nil || p.GetJob().GetName() != "fx" {
			t.Errorf("%v, %v", p, err)
		}
		l, err := cl.ListJobs(ctx)
		if err != nil || len(l) != 1 {
			t.Errorf("%v, %v", l, err)
		}
		s, err := cl.ShowJob(ctx, "a")
		if err != nil || s.GetJob().GetName() != "a" {
			t.Errorf("%v, %v", s, err)
		}
		d, err := cl.DeleteJob(ctx, "a")
		if err != nil || !d.GetExisted() {
			t.Errorf("%v, %v", d, err)
		}
	})
}

func TestAClosedClientSaysSo(t *testing.T) {
	cl, err := New([]string{a})
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Topology(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}
