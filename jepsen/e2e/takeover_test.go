package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watershed-db/watershed/proto/client"
)

// tableWriters write to a table, and know what was acknowledged to them.
type tableWriters struct {
	t       testing.TB
	cancel  context.CancelFunc
	writing sync.WaitGroup

	mu      sync.Mutex
	acked   map[string]string
	last    time.Time
	longest time.Duration // without an acknowledgement
}

// writeTo has a few clients put keys of their own into a table, one after the other, each at whatever region answers.
func writeTo(d *deployment, table string) *tableWriters {
	d.t.Helper()
	w := &tableWriters{t: d.t, acked: map[string]string{}, last: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	d.t.Cleanup(w.stop)
	var endpoints []string
	for _, region := range d.regions() {
		endpoints = append(endpoints, d.Regions[region].GRPC...)
	}
	for writer := range 3 {
		turned := append(append([]string{}, endpoints[writer:]...), endpoints[:writer]...)
		w.writing.Go(func() {
			c, err := client.New(turned)
			if err != nil {
				w.t.Error(err)
				return
			}
			defer c.Close()
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("w%d-%d", writer, i), fmt.Sprint(i)
				one, done := context.WithTimeout(ctx, 20*time.Second)
				_, err := c.Table(table).Put(one, key, []byte(value))
				done()
				if err == nil {
					w.took(key, value)
				}
			}
		})
	}
	return w
}

func (w *tableWriters) took(key, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, time.Since(w.last))
	w.acked[key], w.last = value, time.Now()
}

// more waits until n writes more are acknowledged.
func (w *tableWriters) more(n int) {
	w.t.Helper()
	count := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.acked) }
	from := count()
	await(w.t, settleWithin, "writes to be acknowledged", func() (bool, string) {
		return count() >= from+n, fmt.Sprintf("%d of %d", count()-from, n)
	})
}

func (w *tableWriters) stop() {
	w.cancel()
	w.writing.Wait()
}

// TestATakeoverLosesNothing: of three regions the one that owns is killed, twice, while clients write to a table of quorum
// durability. Another one takes over by itself, the lost one comes back, and every acknowledged write is there in all of them.
func TestATakeoverLosesNothing(t *testing.T) {
	const south = "sa-south"
	d := startDev(t, filepath.Join(t.TempDir(), "deployment"), "--regions", strings.Join([]string{east, west, south}, ","), "--nodes", "1", "--shards", "2")
	d.mustTable(west, "apply", writeTable(t, "drivers", "type: owned\ndurability: quorum\n"))
	w := writeTo(d, "drivers")
	w.more(50)
	for _, lost := range []string{east, west} {
		if lost == west { // hand it all shards: it may have taken over none, or one
			await(t, settleWithin, "a flip", func() (bool, string) {
				r := watershed(t, nil, append([]string{"owner", "flip", "--to", west, "--all"}, d.endpoint(south)...)...)
				return r.status == 0 || strings.Contains(string(r.stderr), "owns the shard"), string(r.stderr)
			})
			w.more(20)
		}
		d.killAll(lost)
		w.more(50)
		d.restartAll(lost)
		w.more(20)
	}
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("%d writes were acknowledged; the longest time without one was %v", len(w.acked), w.longest)
	for _, region := range d.regions() {
		await(t, settleWithin, "all of it in "+region, func() (bool, string) {
			r := d.table(region, "scan", "drivers", "--output", "jsonl")
			rows := string(r.stdout)
			for key, value := range w.acked {
				if !strings.Contains(rows, fmt.Sprintf(`"key":%q,"value":%q`, key, value)) {
					return false, fmt.Sprintf("%s lacks %s, of %d rows: %s", region, key, strings.Count(rows, "\n"), r.stderr)
				}
			}
			return true, ""
		})
	}
}
