package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// tables is a node's side of the tables: it opens sessions in its region and does with each write what a test says.
type tables struct {
	region string
	kind   string
	shards uint32

	mu     sync.Mutex
	id     byte // of the table
	opened uint64
	writes []*watershedv1.WriteRequest
	answer func(n int, in *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) // n-th write, from 1
}

func (x *tables) openSession() *watershedv1.OpenSessionResponse {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.opened++
	id := make([]byte, 16)
	id[15] = x.id
	return &watershedv1.OpenSessionResponse{
		Session: &watershedv1.WriteSession{BornMs: 1_000_000, Nonce: x.opened}, LifeMs: 3_600_000, Region: x.region, TableId: id,
		Type: x.kind, Shards: x.shards,
	}
}

func (x *tables) write(in *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
	x.mu.Lock()
	x.writes = append(x.writes, in)
	n, answer := len(x.writes), x.answer
	x.mu.Unlock()
	if answer != nil {
		return answer(n, in)
	}
	return &watershedv1.WriteResponse{Region: x.region}, nil
}

// names lists the writes as nonce/sequence.
func (x *tables) names() (list []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.writes {
		list = append(list, fmt.Sprintf("%d/%d", w.GetSession().GetNonce(), w.GetSequence()))
	}
	return list
}

func (n *node) OpenSession(context.Context, *watershedv1.OpenSessionRequest) (*watershedv1.OpenSessionResponse, error) {
	x := n.called()
	if x.gone {
		return nil, unavailable("")
	}
	return x.tables.openSession(), nil
}

func (n *node) Write(_ context.Context, in *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
	x := n.called()
	if x.gone {
		return nil, unavailable("")
	}
	return x.tables.write(in)
}

func (n *node) GetValue(_ context.Context, in *watershedv1.GetValueRequest) (*watershedv1.GetValueResponse, error) {
	return n.called().value(in)
}

func counters(region string) *tables { return &tables{region: region, kind: "counter", shards: 1} }

func (w world) tabled(t *testing.T, address string, x *tables) *node {
	n := w.start(t, address)
	n.change(func(a *answers) { a.tables = x })
	return n
}

func expectNames(t *testing.T, x *tables, want ...string) {
	t.Helper()
	if got := x.names(); !slices.Equal(got, want) {
		t.Errorf("written as %q, want %q", got, want)
	}
}

// Writes are numbered without gaps, by shard; one that is tried again has the number that it had.
func TestWritesAreNumbered(t *testing.T) {
	w, x := world{}, counters("east")
	w.tabled(t, a, x)
	x.answer = func(n int, _ *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
		if n == 2 || n == 3 {
			return nil, status.Error(codes.Unavailable, "the answer was lost")
		}
		return &watershedv1.WriteResponse{Region: "east"}, nil
	}
	visits := w.client(t, []string{a}, WithPauses(time.Millisecond, time.Millisecond)).Table("visits")
	for range 3 {
		if err := visits.Increment(t.Context(), "home", 1); err != nil {
			t.Fatal(err)
		}
	}
	expectNames(t, x, "1/1", "1/2", "1/2", "1/2", "1/3")

	x.shards = 64
	other := w.client(t, []string{a}).Table("visits")
	for i := range 100 {
		if err := other.Increment(t.Context(), fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	firsts := 0
	for _, name := range x.names()[5:] {
		if name == "2/1" {
			firsts++
		}
	}
	if firsts < 32 || firsts > 64 {
		t.Errorf("100 keys on 64 shards have %d first numbers", firsts)
	}
}

// A write that goes to another region keeps its name there; the next one has a session of that region.
func TestAWriteGoesToAnotherRegion(t *testing.T) {
	w, east, west := world{}, counters("east"), counters("west")
	n := w.tabled(t, a, east)
	w.tabled(t, b, west)
	west.opened = 100
	c := w.client(t, []string{a, b}, WithPauses(time.Millisecond, time.Millisecond))
	visits := c.Table("visits")
	east.answer = func(int, *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
		n.change(func(x *answers) { x.gone = true })
		return nil, status.Error(codes.Unavailable, "stopping")
	}
	for range 2 {
		if err := visits.Increment(t.Context(), "home", 1); err != nil {
			t.Fatal(err)
		}
	}
	expectNames(t, east, "1/1")
	expectNames(t, west, "1/1", "101/1")
}

func TestOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(n int) error
		unknown bool
		code    codes.Code
		want    []string
	}{
		"refused":                {func(int) error { return status.Error(codes.InvalidArgument, "a counter only grows") }, false, codes.InvalidArgument, []string{"1/1", "2/1"}},
		"never answered":         {func(int) error { return status.Error(codes.Unavailable, "lost") }, true, codes.OK, nil},
		"not led, then refused":  {func(n int) error { return thenRefused(n, notLed()) }, false, codes.InvalidArgument, nil},
		"lost, then refused":     {func(n int) error { return thenRefused(n, unavailable("")) }, true, codes.InvalidArgument, nil},
		"expired before a try":   {func(n int) error { return onlyFirst(n, codes.Aborted) }, false, codes.OK, []string{"1/1", "2/1", "2/2"}},
		"expired after a try":    {func(n int) error { return lostThenExpired(n) }, true, codes.Aborted, []string{"1/1", "1/1", "2/1"}},
		"the node has a bug":     {func(n int) error { return onlyFirst(n, codes.Internal) }, true, codes.Internal, []string{"1/1", "2/1"}},
		"the table was replaced": {func(n int) error { return replaced(n) }, false, codes.OK, []string{"1/1", "2/1", "2/2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, x := world{}, counters("east")
			w.tabled(t, a, x)
			x.answer = func(n int, _ *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
				if err := c.answer(n); err != nil {
					return nil, err
				}
				return &watershedv1.WriteResponse{Region: "east"}, nil
			}
			visits := w.client(t, []string{a}, WithPauses(time.Millisecond, time.Millisecond), WithPatience(200*time.Millisecond)).Table("visits")
			err := visits.Increment(t.Context(), "home", 1)
			if errors.Is(err, ErrOutcomeUnknown) != c.unknown || status.Code(err) != c.code && name != "never answered" {
				t.Fatalf("%v: %v", status.Code(err), err)
			}
			if err != nil {
				x.mu.Lock()
				x.answer = nil
				x.mu.Unlock()
			}
			if err := visits.Increment(t.Context(), "home", 1); err != nil {
				t.Fatal(err)
			}
			if c.want != nil {
				expectNames(t, x, c.want...)
			} else if names := x.names(); names[len(names)-1] != "2/1" {
				t.Errorf("a number that was given up is followed by %q", names[len(names)-1])
			}
		})
	}
}

func notLed() error {
	s, _ := status.New(codes.Unavailable, "another leads").WithDetails(&watershedv1.ErrorDetail{Reason: "not the leader"})
	return s.Err()
}

func thenRefused(n int, first error) error {
	if n == 1 {
		return first
	}
	return status.Error(codes.InvalidArgument, "a counter only grows")
}

func onlyFirst(n int, code codes.Code) error {
	if n == 1 {
		return status.Error(code, "no")
	}
	return nil
}

func lostThenExpired(n int) error {
	if n == 1 {
		return status.Error(codes.Unavailable, "lost")
	}
	return status.Error(codes.Aborted, "the session has ended")
}

func replaced(n int) error {
	if n > 1 {
		return nil
	}
	s, _ := status.New(codes.FailedPrecondition, "made again").WithDetails(&watershedv1.ErrorDetail{Reason: "another table"})
	return s.Err()
}

// A node that can't be reached at all has taken nothing.
func TestNothingIsSentToNobody(t *testing.T) {
	w, x := world{}, counters("east")
	n := w.tabled(t, a, x)
	visits := w.client(t, []string{a}, WithPauses(time.Millisecond, time.Millisecond), WithPatience(300*time.Millisecond)).Table("visits")
	if err := visits.Increment(t.Context(), "home", 1); err != nil {
		t.Fatal(err)
	}
	n.server.Stop()
	err := visits.Increment(t.Context(), "home", 1)
	if err == nil || errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrNoAnswer) {
		t.Errorf("%v", err)
	}
}

// Those under way on one shard are never further apart than a lane is wide, whatever is asked at once.
func TestWritesUnderWayAreBounded(t *testing.T) {
	w, x := world{}, counters("east")
	w.tabled(t, a, x)
	var mu sync.Mutex
	under, answered := map[uint64]bool{}, make(chan struct{})
	x.answer = func(_ int, in *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
		mu.Lock()
		under[in.GetSequence()] = true
		most, least := uint64(0), in.GetSequence()
		for n := range under {
			most, least = max(most, n), min(least, n)
		}
		wide := len(under)
		mu.Unlock()
		if most-least >= laneWidth {
			t.Errorf("%d and %d are under way", least, most)
		}
		if wide == laneWidth {
			close(answered)
		}
		<-answered
		mu.Lock()
		delete(under, in.GetSequence())
		mu.Unlock()
		return &watershedv1.WriteResponse{Region: "east"}, nil
	}
	visits := w.client(t, []string{a}).Table("visits")
	if err := func() error { _, _, err := visits.c.ready(t.Context(), "visits"); return err }(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range laneWidth {
		all.Go(func() {
			if err := visits.Increment(t.Context(), "home", 1); err != nil {
				t.Error(err)
			}
		})
	}
	<-answered
	for range laneWidth {
		all.Go(func() {
			if err := visits.Increment(t.Context(), "home", 1); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if names := x.names(); len(names) != 2*laneWidth {
		t.Errorf("%d writes", len(names))
	}
}

// What replaces something is stamped above what was read, and carries what was observed, the same in every try.
func TestStampsAndObserved(t *testing.T) {
	for _, kind := range []string{"register", "lww-set", "set"} {
		t.Run(kind, func(t *testing.T) {
			w, x := world{}, &tables{region: "east", kind: kind, shards: 1}
			n := w.tabled(t, a, x)
			seen := &watershedv1.OperationID{Session: &watershedv1.WriteSession{BornMs: 7, Nonce: 8}, Sequence: 9}
			read := uint64(1_005_000) << 16
			n.change(func(a *answers) {
				a.value = func(in *watershedv1.GetValueRequest) (*watershedv1.GetValueResponse, error) {
					if kind != "register" && string(in.Element) != "red" {
						return nil, status.Error(codes.InvalidArgument, "no element")
					}
					out := &watershedv1.GetValueResponse{Time: read}
					if kind == "set" {
						out.Observed = append(out.Observed, seen)
					}
					return out, nil
				}
			})
			x.answer = func(n int, _ *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
				if n == 1 {
					return nil, status.Error(codes.Unavailable, "lost")
				}
				return &watershedv1.WriteResponse{Region: "east"}, nil
			}
			table := w.client(t, []string{a}, WithPauses(time.Millisecond, time.Millisecond)).Table("t")
			var err error
			if kind == "register" {
				_, err = table.Put(t.Context(), "home", []byte("red"))
			} else {
				err = table.Remove(t.Context(), "home", []byte("red"))
			}
			if err != nil {
				t.Fatal(err)
			}
			one, two := x.writes[0], x.writes[1]
			if one.GetTime() != two.GetTime() || len(one.GetObserved()) != len(two.GetObserved()) {
				t.Errorf("tried as %v, then %v", one, two)
			}
			if kind == "set" != (len(one.GetObserved()) == 1) || kind != "set" != (one.GetTime() > read) {
				t.Errorf("written %v", one)
			}
		})
	}
}
