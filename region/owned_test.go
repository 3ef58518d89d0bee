package region

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func swap(value string, expect any) *watershedv1.WriteRequest {
	set := &watershedv1.CompareAndSet{Put: []byte(value)}
	switch x := expect.(type) {
	case nil:
		set.Expect = &watershedv1.CompareAndSet_Absent{Absent: true}
	case string:
		set.Expect = &watershedv1.CompareAndSet_Value{Value: []byte(x)}
	case *watershedv1.Version:
		set.Expect = &watershedv1.CompareAndSet_Version{Version: x}
	}
	return &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_CompareAndSet{CompareAndSet: set}}
}

// Owned tables are written and read through any node of any region, and each write counts once, with the answer that it had.
func TestOwnedTables(t *testing.T) {
	all := newClusters(t, 2, 3, "a", "b")
	for _, durability := range []string{"quorum", "region"} {
		name := "drivers-" + durability
		all[1].table(0, "name: "+name+"\ntype: owned\ndurability: "+durability+"\n")
		from := []scribe{{all[0], name}, {all[1], name}}
		var last *watershedv1.WriteResponse
		for i, x := range []struct {
			in     *watershedv1.WriteRequest
			failed bool
			value  string
		}{
			{put("one"), false, "one"},
			{put("two"), false, "two"},
			{swap("three", "one"), true, "two"},
			{swap("three", "two"), false, "three"},
			{swap("four", nil), true, "three"},
			{swap("four", "version"), false, "four"},
			{erase(), false, "none"},
			{swap("five", nil), false, "five"},
			{swap("six", "version"), false, "six"},
		} {
			if c := x.in.GetCompareAndSet(); string(c.GetValue()) == "version" {
				c.Expect = &watershedv1.CompareAndSet_Version{Version: last.GetVersion()}
			}
			node, there := i%2, i/2%2
			in := from[there].prepare(node, "k", x.in)
			out := from[there].write(node, in)
			if out.GetRegion() != "a" || out.GetFailed() != x.failed || out.GetAgain() || (out.GetVersion() == nil) != (x.value == "none") {
				t.Errorf("%s, step %d: %v", durability, i, out)
			}
			again := from[1-there].write(1-node, in)
			if out.Again = true; !proto.Equal(again, out) {
				t.Errorf("%s, step %d, tried again: %v, was %v", durability, i, again, out)
			}
			for region := range from {
				if got := from[region].get(node, "k"); got != x.value {
					t.Errorf("%s, step %d in %s: %q, want %q", durability, i, from[region].config.Region, got, x.value)
				}
			}
			last = out
		}
		var want []string
		for i := range 100 {
			key := fmt.Sprintf("k%02d", i)
			from[0].write(0, from[0].prepare(0, key, put(key)))
			want = append(want, key+"="+key)
		}
		for region := range from {
			if got := from[region].scan(0, &watershedv1.ScanTableRequest{From: textOf("k0")}); !slices.Equal(got, want) {
				t.Errorf("%s: %s scans %d keys, %.100q", durability, from[region].config.Region, len(got), got)
			}
		}
	}
}

func TestOwnedWritesAreRefused(t *testing.T) {
	all := newClusters(t, 1, 2, "a", "b")
	all[0].table(0, "name: drivers\ntype: owned\ndurability: region\nvalue: {max_bytes: 10}\n")
	here, there := scribe{all[0], "drivers"}, scribe{all[1], "drivers"}
	here.write(0, here.prepare(0, "k", put("first")))
	elsewhere := there.prepare(0, "k", put("x"))
	elsewhere.Refuse = true
	_, err := watershedv1.NewStateServiceClient(there.conn(0)).Write(t.Context(), elsewhere)
	found := false
	for _, d := range status.Convert(err).Details() {
		x, ok := d.(*watershedv1.ErrorDetail)
		found = found || ok && x.GetOwner() == "a" && x.GetOwnerEpoch() > 0
	}
	if status.Code(err) != codes.FailedPrecondition || !found {
		t.Errorf("refused where it came in: %v", err)
	}
	for name, x := range map[string]struct {
		in   *watershedv1.WriteRequest
		code codes.Code
		says string
	}{
		"an element":       {here.prepare(0, "k", add("x")), codes.InvalidArgument, "takes put, compare-and-set and delete"},
		"too big":          {here.prepare(0, "k", put("12345678901")), codes.FailedPrecondition, "10 are allowed"},
		"too big to be":    {here.prepare(0, "k", swap("1", "12345678901")), codes.FailedPrecondition, "10 are allowed"},
		"expects nothing":  {here.prepare(0, "k", swap("1", 7)), codes.InvalidArgument, "expects nothing"},
		"a future session": {here.prepare(0, "k", put("x")), codes.FailedPrecondition, "too far ahead"},
	} {
		if name == "a future session" {
			x.in.Session.BornMs += 3_600_000
		}
		_, err := watershedv1.NewStateServiceClient(here.conn(0)).Write(t.Context(), x.in)
		if status.Code(err) != x.code || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := there.get(0, "k"); got != "first" {
		t.Errorf("afterwards the value is %q", got)
	}
}

// A value goes when its time is over, and then counts as none for a compare-and-set.
func TestOwnedValuesExpire(t *testing.T) {
	s := scribe{newCluster(t, 1, 1), "seats"}
	s.cluster.table(0, "name: seats\ntype: owned\ndurability: quorum\nttl: 1s\n")
	s.write(0, s.prepare(0, "k", put("taken")))
	out, err := watershedv1.NewStateServiceClient(s.conn(0)).GetValue(t.Context(), &watershedv1.GetValueRequest{Table: s.table, Key: textOf("k")})
	if expires := out.GetValue().GetExpiresMs(); err != nil || expires == 0 {
		t.Fatalf("%v, %v", out, err)
	}
	until(t, "the end of the value", func(context.Context) error {
		if got := s.get(0, "k"); got != "none" {
			return errors.New(got)
		}
		return nil
	})
	if out := s.write(0, s.prepare(0, "k", swap("mine", nil))); out.GetFailed() {
		t.Errorf("a value that is over stands in the way: %v", out)
	}
}
