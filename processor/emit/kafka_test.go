package emit

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log/kafka"
	"github.com/watershed-db/watershed/processor/job"
)

type producer struct {
	got  []kafka.Message
	fail error
}

func (p *producer) Produce(_ context.Context, m []kafka.Message) error {
	p.got = append(p.got, m...)
	return p.fail
}

func TestRowsBecomeRecords(t *testing.T) {
	p := &producer{}
	k := Kafka{p}
	row := job.Output{Job: "surge", Generation: crdt.GenerationID{15: 7}, Epoch: 65537, Key: []byte(`{"k":1}`),
		Value: []byte(`{"n":2}`)}
	if err := k.Write(context.Background(), job.Sink{KafkaTopic: "out"}, []job.Output{row}); err != nil {
		t.Fatal(err)
	}
	m := p.got[0]
	got := fmt.Sprintf("%s %d %s %s", m.Topic, m.Partition, m.Key, m.Value)
	for _, h := range m.Headers {
		got += fmt.Sprintf(" %s=%s", h.Key, h.Value)
	}
	const want = `out -1 {"k":1} {"n":2} job=surge generation=00000000000000000000000000000007 epoch=65537`
	if got != want {
		t.Errorf("the record is\n%s\nwant\n%s", got, want)
	}
	p.fail = errors.New("down")
	if err := k.Write(context.Background(), job.Sink{KafkaTopic: "out"}, []job.Output{row}); !errors.Is(err, p.fail) {
		t.Errorf("a failed write is %v", err)
	}
	if err := k.Write(context.Background(), job.Sink{}, nil); !errors.Is(err, ErrSink) {
		t.Errorf("a sink of another kind is %v", err)
	}
}
