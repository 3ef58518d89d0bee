package worker

import (
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor"
	"github.com/watershed-db/watershed/processor/job"
)

// bareFeeder is one of a worker that reaches nothing.
func bareFeeder(t *testing.T) *feeder {
	t.Helper()
	j, err := job.Parse("job", []byte(jobFile))
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{config: Config{Memory: 1 << 40}.withDefaults()}
	w.logger, w.metrics = w.config.Logger, w.config.Metrics
	return newFeeder(w, j, Assigned{Generation: generation})
}

func TestSideOutputsThatFallBehindHoldUpReading(t *testing.T) {
	f := bareFeeder(t)
	task := newTask(f, -1)
	record := log.Record{Value: make([]byte, 1<<20)}
	for range maxBatch >> 20 {
		if task.full() {
			t.Fatalf("full with %d bytes aside", task.side.bytes.Load())
		}
		task.side.add(f.job, crdt.Source{Topic: "events"}, &record, processor.Verdict{Outcome: crdt.Invalid})
	}
	if !task.full() {
		t.Fatalf("not full with %d bytes aside", task.side.bytes.Load())
	}
}

func TestAStoppedSourceKeepsNoShardBehind(t *testing.T) {
	f := bareFeeder(t)
	read, stopped := crdt.Source{Topic: "events"}, crdt.Source{Topic: "events", Partition: 1}
	f.mu.offsets[read], f.mu.offsets[stopped] = 10_000, 10_000
	f.mu.stopped[stopped], f.mu.parked[3] = "its log does not fit", true
	if f.caughtUp(3, map[crdt.Source]int64{read: 100}) {
		t.Fatal("a shard that is far behind is taken back")
	}
	if !f.caughtUp(3, map[crdt.Source]int64{read: 9_999}) || f.isParked(3) {
		t.Fatal("a shard that has caught up stays behind")
	}
}
