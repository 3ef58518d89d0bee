package group

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestAPipelineEndsWithTheAnswerThatEndsIt: a leader that goes on sending where nobody reads the answers any more is told.
func TestAPipelineEndsWithTheAnswerThatEndsIt(t *testing.T) {
	a, b, address := testTransports(t)
	go func() {
		for {
			select {
			case rpc := <-b.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Term: 2}, nil)
			case <-b.stream.closed:
				return
			}
		}
	}()
	p, err := a.AppendEntriesPipeline("b", address)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	request := func() error {
		_, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, PrevLogTerm: 1}, new(raft.AppendEntriesResponse))
		return err
	}
	go func() { <-p.Consumer() }() // as Raft does, which reads no more of them
	sent := make(chan error, 1)
	go func() {
		for {
			if err := request(); err != nil {
				sent <- err
				return
			}
		}
	}()
	select {
	case <-sent:
	case <-time.After(patience):
		t.Fatal("sending waits for ever")
	}
}
