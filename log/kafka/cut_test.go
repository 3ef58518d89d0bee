package kafka_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/jepsen/kafka"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/log/embedded"
	ours "github.com/watershed-db/watershed/log/kafka"
)

// realBroker skips the test unless real brokers are asked for and can be run.
func realBroker(t *testing.T, dir string) *kafka.Broker {
	t.Helper()
	if !kafka.Asked() {
		t.Skipf("real brokers are not asked for: set %s=1", kafka.FlagEnv)
	}
	if ok, reason := kafka.Available(); !ok {
		t.Skip(reason)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b, err := kafka.Start(ctx, kafka.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}

func TestContractReal(t *testing.T) {
	b := realBroker(t, t.TempDir())
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, newCluster(t, []string{b.Addr()}))
		})
	}
}

// restartable is a broker that can be stopped and started on its data.
type restartable struct {
	addr        string
	dir         string
	stop, start func(t *testing.T)
}

func TestCutLogEmbedded(t *testing.T) {
	dir := t.TempDir()
	b, err := embedded.Start(embedded.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(t, b.Addrs()[0])
	t.Cleanup(func() { b.Close() })
	testCutLog(t, restartable{addr: b.Addrs()[0], dir: dir,
		stop: func(*testing.T) { b.Close() },
		start: func(t *testing.T) {
			if b, err = embedded.Start(embedded.Config{DataDir: dir, Ports: []int{port}}); err != nil {
				t.Fatal(err)
			}
		}})
}

func TestCutLogReal(t *testing.T) {
	dir := t.TempDir()
	b := realBroker(t, dir)
	testCutLog(t, restartable{addr: b.Addr(), dir: filepath.Join(dir, "data"),
		stop: func(*testing.T) { b.Stop() },
		start: func(t *testing.T) {
			if err := b.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}})
}

// testCutLog gives a broker an older copy of its data under a reader's eyes, as losing all replicas in sync would.
func testCutLog(t *testing.T, broker restartable) {
	c := newCluster(t, []string{broker.addr})
	topic := c.topic(t, 1)
	c.produce(t, topic, "v", 10)
	broker.stop(t)
	older := t.TempDir()
	if err := os.CopyFS(older, os.DirFS(broker.dir)); err != nil {
		t.Fatal(err)
	}
	broker.start(t)
	c.produce(t, topic, "w", 10)
	pos := c.position(t, topic, 20, true)
	r := c.reader(t, ours.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	readUntil(t, r, 20)

	broker.stop(t)
	if err := os.RemoveAll(broker.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(broker.dir, os.DirFS(older)); err != nil {
		t.Fatal(err)
	}
	broker.start(t)
	n, err := awaitStop(t, r)
	wantErr(t, err, log.ErrTruncated)
	if n != 0 {
		t.Errorf("%d records came after the cut", n)
	}
	wantErr(t, r.Assign(t.Context(), pos)[0], log.ErrTruncated)

	// Written beyond the position again, the log reaches it and still does not fit.
	c.produce(t, topic, "x", 20)
	wantErr(t, r.Assign(t.Context(), pos)[0], log.ErrRewritten)
	before, err := c.client.At(t.Context(), pos.Partition, 9)
	if err != nil {
		t.Fatal(err)
	}
	pos.Offset, pos.Last = 10, before.Hash(new(crdt.Hasher))
	if err := r.Assign(t.Context(), pos)[0]; err != nil {
		t.Errorf("a position below the cut: %v", err)
	}
}
