package region

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// table makes a table and returns what a session knows of it.
func (c *cluster) table(i int, file string) *watershedv1.Table {
	c.t.Helper()
	var out *watershedv1.ApplyTableResponse
	until(c.t, "apply", func(ctx context.Context) (err error) {
		out, err = watershedv1.NewTableServiceClient(c.conn(i)).Apply(ctx, &watershedv1.ApplyTableRequest{File: []byte(file)})
		return err
	})
	return out.GetTable()
}

// scribe writes tables by hand: every write under a session of its own, so that each has the number 1.
type scribe struct {
	*cluster
	table string
}

func textOf(s string) *watershedv1.Value {
	return &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: s}}
}

// prepare fills in all that a write must have, on a node.
func (s scribe) prepare(i int, key string, in *watershedv1.WriteRequest) *watershedv1.WriteRequest {
	s.t.Helper()
	state := watershedv1.NewStateServiceClient(s.conn(i))
	session, err := state.OpenSession(s.t.Context(), &watershedv1.OpenSessionRequest{Table: s.table})
	if err != nil {
		s.t.Fatal(err)
	}
	in.Table, in.TableId, in.Key, in.Session, in.Sequence = s.table, session.GetTableId(), textOf(key), session.GetSession(), 1
	var read *watershedv1.GetValueResponse
	until(s.t, "read", func(ctx context.Context) (err error) {
		ask := &watershedv1.GetValueRequest{Table: s.table, Key: in.GetKey()}
		if ask.Element = in.GetAdd(); ask.Element == nil {
			ask.Element = in.GetRemove()
		}
		read, err = state.GetValue(ctx, ask)
		return err
	})
	in.Observed = read.GetObserved()
	if in.Time = uint64(session.GetSession().GetBornMs()) << 16; read.GetTime() >= in.Time {
		in.Time = read.GetTime() + 1
	}
	return in
}

// write carries a write out through a node.
func (s scribe) write(i int, in *watershedv1.WriteRequest) (out *watershedv1.WriteResponse) {
	s.t.Helper()
	until(s.t, "write", func(ctx context.Context) (err error) {
		out, err = watershedv1.NewStateServiceClient(s.conn(i)).Write(ctx, in)
		return err
	})
	return out
}

// get returns a key's value as text, "none" for none.
func (s scribe) get(i int, key string) (text string) {
	s.t.Helper()
	until(s.t, "read", func(ctx context.Context) error {
		out, err := watershedv1.NewStateServiceClient(s.conn(i)).GetValue(ctx, &watershedv1.GetValueRequest{Table: s.table, Key: textOf(key)})
		text = showValue(out.GetValue())
		return err
	})
	return text
}

func showValue(v *watershedv1.TableValue) string {
	switch x := v.GetKind().(type) {
	case *watershedv1.TableValue_Bytes:
		return string(x.Bytes)
	case *watershedv1.TableValue_Count:
		return fmt.Sprint(x.Count.GetInt()) + x.Count.GetBig()
	case *watershedv1.TableValue_Elements:
		var list []string
		for _, e := range x.Elements.GetElements() {
			list = append(list, string(e))
		}
		return strings.Join(list, " ")
	}
	return "none"
}

// scan lists a table as key=value.
func (s scribe) scan(i int, in *watershedv1.ScanTableRequest) (list []string) {
	s.t.Helper()
	in.Table = s.table
	until(s.t, "scan", func(ctx context.Context) error {
		list = nil
		stream, err := watershedv1.NewStateServiceClient(s.conn(i)).ScanTable(ctx, in)
		for err == nil {
			var m *watershedv1.ScanTableResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			for _, v := range m.GetValues() {
				list = append(list, v.GetKey().GetText()+"="+showValue(v))
			}
			if m.GetEnd() {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("the answer has no end")
		}
		return err
	})
	return list
}

func increment(by int64) *watershedv1.WriteRequest {
	return &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Increment{Increment: by}}
}

func put(value string) *watershedv1.WriteRequest {
	return &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Put{Put: []byte(value)}}
}

func add(element string) *watershedv1.WriteRequest {
	return &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Add{Add: []byte(element)}}
}

func remove(element string) *watershedv1.WriteRequest {
	return &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Remove{Remove: []byte(element)}}
}

func erase() *watershedv1.WriteRequest {
	return &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Delete{Delete: &watershedv1.Delete{}}}
}

// Every type of table is written and read through any node, and each write counts once.
func TestTableValues(t *testing.T) {
	c := newCluster(t, 3, 4)
	for _, x := range []struct {
		kind   string
		steps  []*watershedv1.WriteRequest
		values []string // after each
	}{
		{"counter", []*watershedv1.WriteRequest{increment(3), increment(4)}, []string{"3", "7"}},
		{"updown", []*watershedv1.WriteRequest{increment(3), increment(-4)}, []string{"3", "-1"}},
		{"register", []*watershedv1.WriteRequest{put("a"), put(""), erase(), put("b")}, []string{"a", "", "none", "b"}},
		{"set", []*watershedv1.WriteRequest{add("b"), add("a"), add("b"), remove("b"), remove("c"), remove("a")}, []string{"b", "a b", "a b", "a", "a", "none"}},
		{"lww-set", []*watershedv1.WriteRequest{add("b"), add("a"), remove("b"), add("b")}, []string{"b", "a b", "a", "a b"}},
	} {
		s := scribe{c, "t-" + x.kind}
		c.table(0, "name: "+s.table+"\ntype: "+x.kind+"\n")
		if got := s.get(0, "home"); got != "none" && got != "0" {
			t.Errorf("%s begins as %s", x.kind, got)
		}
		for i, step := range x.steps {
			in := s.prepare(i%3, "home", step)
			if out := s.write(i%3, in); out.GetRegion() != "a" {
				t.Errorf("%s, step %d: %v", x.kind, i, out)
			}
			if out := s.write((i+1)%3, in); !out.GetAgain() {
				t.Errorf("%s, step %d, tried again: %v", x.kind, i, out)
			}
			for node := range 3 {
				if got := s.get(node, "home"); got != x.values[i] {
					t.Errorf("%s, step %d on node %d: %q, want %q", x.kind, i, node, got, x.values[i])
				}
			}
		}
	}
}

func TestTableScans(t *testing.T) {
	c := newCluster(t, 1, 4)
	s := scribe{c, "visits"}
	c.table(0, "{name: visits, type: counter}")
	var want []string
	for i := range 300 {
		key := fmt.Sprintf("k%03d", i)
		s.write(0, s.prepare(0, key, increment(int64(i))))
		want = append(want, fmt.Sprintf("%s=%d", key, i))
	}
	for name, x := range map[string]struct {
		in   *watershedv1.ScanTableRequest
		want []string
	}{
		"all":              {&watershedv1.ScanTableRequest{}, want},
		"from":             {&watershedv1.ScanTableRequest{From: textOf("k2")}, want[200:]},
		"limit":            {&watershedv1.ScanTableRequest{From: textOf("k100x"), Limit: 150}, want[101:251]},
		"beyond the last":  {&watershedv1.ScanTableRequest{From: textOf("l")}, nil},
		"any replica":      {&watershedv1.ScanTableRequest{Consistency: watershedv1.Consistency_CONSISTENCY_LOCAL}, want},
		"exactly to a key": {&watershedv1.ScanTableRequest{From: textOf("k299"), Limit: 1}, want[299:]},
	} {
		if got := s.scan(0, x.in); !slices.Equal(got, x.want) {
			t.Errorf("%s: %d keys, %.200q", name, len(got), got)
		}
	}
	drop, err := watershedv1.NewTableServiceClient(c.conn(0)).Drop(t.Context(), &watershedv1.DropTableRequest{Name: "visits"})
	if err != nil || !drop.GetExisted() {
		t.Fatal(drop, err)
	}
	c.table(0, "{name: visits, type: updown}")
	if got := s.scan(0, &watershedv1.ScanTableRequest{}); len(got) > 0 {
		t.Errorf("a table made again holds %q", got)
	}
}

func TestTableWritesAreRefused(t *testing.T) {
	c := newCluster(t, 1, 2)
	old := c.table(0, "{name: small, type: set, value: {max_bytes: 200}}")
	c.table(0, "{name: grow, type: counter}")
	state := watershedv1.NewStateServiceClient(c.conn(0))
	small, grow := scribe{c, "small"}, scribe{c, "grow"}
	small.write(0, small.prepare(0, "k", add("first")))
	for name, x := range map[string]struct {
		in   *watershedv1.WriteRequest
		code codes.Code
		says string
	}{
		"no table":             {&watershedv1.WriteRequest{Table: "none", Key: textOf("k")}, codes.NotFound, `there is no table "none"`},
		"no operation":         {small.prepare(0, "k", &watershedv1.WriteRequest{}), codes.InvalidArgument, "without an operation"},
		"another type's":       {small.prepare(0, "k", increment(1)), codes.InvalidArgument, "a set takes no increment"},
		"compare-and-set":      {small.prepare(0, "k", &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_CompareAndSet{CompareAndSet: &watershedv1.CompareAndSet{}}}), codes.InvalidArgument, "only an owned table"},
		"a counter that sinks": {grow.prepare(0, "k", increment(-1)), codes.InvalidArgument, "a counter only grows"},
		"too big":              {small.prepare(0, "k", add(strings.Repeat("x", 300))), codes.FailedPrecondition, "200 are allowed"},
		"a long key":           {small.prepare(0, "k", add("x")), codes.InvalidArgument, "at most 4096"},
		"no session":           {small.prepare(0, "k", add("x")), codes.InvalidArgument, "without a session"},
		"of the future":        {small.prepare(0, "k", add("x")), codes.FailedPrecondition, "too far ahead"},
		"another table":        {small.prepare(0, "k", add("x")), codes.FailedPrecondition, "made again"},
	} {
		switch name {
		case "a long key":
			x.in.Key = textOf(strings.Repeat("k", 5000))
		case "no session":
			x.in.Session = nil
		case "of the future":
			x.in.Session.BornMs += 3_600_000
		case "another table":
			x.in.TableId = append([]byte{9}, old.GetId()[1:]...)
		}
		_, err := state.Write(t.Context(), x.in)
		if status.Code(err) != x.code || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := small.get(0, "k"); got != "first" {
		t.Errorf("afterwards the set is %q", got)
	}
}
