package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestKillAndRestart(t *testing.T) {
	if !Asked() {
		t.Skipf("real brokers are not asked for: set %s=1", FlagEnv)
	}
	if ok, reason := Available(); !ok {
		t.Skip(reason)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b, err := Start(ctx, Options{DataDir: t.TempDir(), Properties: map[string]string{"log.cleaner.enable": "false"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { b.Kill() }()
	addr := b.Addr()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		"rides": {0: kgo.NewOffset().At(0)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "rides"); err != nil {
		t.Fatal(err)
	}
	write := func(n int) {
		t.Helper()
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "rides", Value: fmt.Append(nil, n)}).FirstErr(); err != nil {
			t.Fatalf("%v\n%s", err, b.Output())
		}
	}
	write(0)
	if err := b.Restart(ctx); err != nil { // kills it first
		t.Fatal(err)
	}
	write(1)
	b.Stop()
	if err := b.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	write(2)
	if b.Addr() != addr {
		t.Errorf("listens on %s, was %s", b.Addr(), addr)
	}
	for n := 0; n < 3; {
		for _, rec := range cl.PollFetches(ctx).Records() {
			if string(rec.Value) != fmt.Sprint(n) {
				t.Fatalf("%q stands at %d", rec.Value, n)
			}
			n++
		}
		if ctx.Err() != nil {
			t.Fatalf("only %d records are there", n)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var w tail
	for i := range 5000 {
		fmt.Fprintf(&w, "line %d\n", i)
	}
	s := w.String()
	if len(s) > maxTail || s[len(s)-9:] != "line 4999" {
		t.Errorf("kept %d bytes, ending in %q", len(s), s[len(s)-9:])
	}
}
