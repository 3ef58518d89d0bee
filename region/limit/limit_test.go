package limit

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

func TestALimitHolds(t *testing.T) {
	l := New("scans", "scans", 4, time.Second)
	var let atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if l.Take(1) == nil {
				let.Add(1)
			}
		})
	}
	all.Wait()
	err := l.Take(1)
	var x *Exhausted
	if let.Load() != 4 || !errors.As(err, &x) || !errors.Is(err, ErrExhausted) || x.RetryAfter() != time.Second {
		t.Fatalf("%d were let in, then %v", let.Load(), err)
	}
	if l.Refused() != 17 || l.Used() != 4 || !strings.Contains(err.Error(), "4 of 4 scans") {
		t.Errorf("refused %d, used %d: %v", l.Refused(), l.Used(), err)
	}
	l.Give(4)
	if err := l.Take(9); err != nil {
		t.Errorf("one that is larger than the bound is not let in alone: %v", err)
	}
	if l.Take(1) == nil {
		t.Error("one more beside it was let in")
	}
	var none *Limit
	if none.Take(1<<40) != nil {
		t.Error("no limit refuses")
	}
}

func TestASetShowsLimitAndUse(t *testing.T) {
	s := NewSet()
	if err := s.Add(New("scans", "scans", 4, time.Second)).Take(3); err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(s)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			got[f.GetName()+" "+m.Label[0].GetValue()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	if got["watershed_limit scans"] != 4 || got["watershed_used scans"] != 3 || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

func TestADiskKeepsRoomAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(50)
		stat := func(string) (Space, error) { return Space{1000, free.Load()}, nil }
		d, err := NewDisk("x", 0, stat, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		go d.Run(t.Context())
		err = d.Room()
		if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "50 bytes are free, 100 are kept") {
			t.Fatalf("%v", err)
		}
		for _, step := range []struct {
			free uint64
			room bool
		}{{103, false}, {106, true}, {101, true}, {99, false}, {1000, true}} {
			free.Store(step.free)
			<-time.After(2 * lookEvery)
			if err := d.Room(); (err == nil) != step.room {
				t.Errorf("%d free: %v", step.free, err)
			}
		}
		if d.Floor() != 100 || d.Free() != 1000 || d.Refused() != 3 {
			t.Errorf("floor %d, free %d, refused %d", d.Floor(), d.Free(), d.Refused())
		}
	})
}

func TestStatFS(t *testing.T) {
	s, err := StatFS(t.TempDir())
	if err != nil || s.Total == 0 || s.Free > s.Total {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	most := New("connections", "connections", 1, time.Second)
	l := Listener(inner, most)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-accepted
	second := dial()
	second.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("the second connection was not ended: %v", err)
	}
	first.Close()
	first.Close()
	dial()
	(<-accepted).Close()
	if most.Used() != 0 || most.Refused() != 1 {
		t.Errorf("used %d, refused %d", most.Used(), most.Refused())
	}
}

func TestOnlyAMajorityOfDisksStopsWrites(t *testing.T) {
	d, err := NewDisk("x", 10, func(string) (Space, error) { return Space{1000, 500}, nil }, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	a, b, c, z := Shortage{"a", 1, 9}, Shortage{"b", 2, 9}, Shortage{"c", 3, 9}, Shortage{"z", 0, 9}
	three := []string{"a", "b", "c"}
	for _, x := range []struct {
		voters []string
		short  []Shortage
		want   string
	}{
		{three, nil, ""},
		{three, []Shortage{b}, ""},
		{three, []Shortage{b, z}, ""}, // z has no vote
		{three, []Shortage{c, b}, "2 of 3 nodes: b: 2 bytes are free, 9 are kept (store.min_free); c: 3 bytes"},
		{three, []Shortage{a, b, c}, "3 of 3 nodes"},
		{[]string{"a", "b", "c", "d"}, []Shortage{a, b}, "2 of 4 nodes"}, // two are no majority of four
		{[]string{"a", "b", "c", "d", "e"}, []Shortage{a, b}, ""},
		{[]string{"a"}, []Shortage{a}, "1 of 1 nodes"},
		{nil, []Shortage{a}, ""},
	} {
		err := d.Majority(x.voters, x.short)
		var full *Exhausted
		if (err != nil) != (x.want != "") || err != nil && (!strings.Contains(err.Error(), x.want) || !errors.As(err, &full) || full.Wait <= 0) {
			t.Errorf("%v of %v: %v", x.short, x.voters, err)
		}
	}
	if free, floor, short := d.State(); free != 500 || floor != 10 || short || d.Refused() != 4 {
		t.Errorf("%d %d %v, refused %d", free, floor, short, d.Refused())
	}
}
