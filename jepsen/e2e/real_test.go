package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/watershed-db/watershed/jepsen/kafka"
)

// The two regions once more on two real brokers: a broker and a node are killed in the middle.
func TestTwoRegionsOnRealKafka(t *testing.T) {
	switch {
	case os.Getenv("CI_SHORT") == "1":
		t.Skip("real Kafka is left out: CI_SHORT=1")
	case !kafka.Asked():
		t.Skipf("real Kafka is left out: it is not asked for by %s=1", kafka.FlagEnv)
	}
	if ok, reason := kafka.Available(); !ok {
		t.Skipf("real Kafka is left out: %s", reason)
	}
	binary(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	brokers := map[string]*kafka.Broker{}
	flags := []string{"--nodes", "3", "--shards", "2"}
	for _, region := range []string{east, west} {
		b, err := kafka.Start(ctx, kafka.Options{DataDir: filepath.Join(t.TempDir(), region)})
		if err != nil {
			t.Fatal(err)
		}
		brokers[region] = b
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the broker of %s said:\n%s", region, b.Output())
			}
			b.Kill()
		})
		flags = append(flags, "--kafka", region+"="+b.Addr())
	}
	var loads []*load
	for _, l := range []struct{ name, prefix, extra string }{
		{"wiki-tumbling", "", sinkPart},
		{"rides-surge", "", ""},
		{"rides-poisoned-sessions", "sessions-", ""},
		{"rides-poisoned", "poisoned-", sidePart},
	} {
		if made := newLoad(t, l.name, l.prefix, l.extra, east, west); made != nil {
			loads = append(loads, made)
		}
	}
	k := deal(t, loads, flags...)
	const steps = 5
	k.beside(0, steps, nil)
	k.beside(1, steps, func() {
		if err := brokers[east].Restart(ctx); err != nil { // kills it first
			t.Fatal(err)
		}
	})
	k.peek("after the broker", east)
	first := k.leader(west, 0)
	k.beside(2, steps, func() { k.kill(west, first) })
	k.peek("a leader killed", west)
	k.beside(3, steps, func() { k.restart(west, first) })
	k.beside(4, steps, func() {
		if err := brokers[west].Restart(ctx); err != nil {
			t.Fatal(err)
		}
	})
	k.check()
	k.checkOutputs()
}
