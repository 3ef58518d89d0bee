package group

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Answers to heartbeats count from when those were sent, and for their term alone.
func TestAcksCountFromWhenTheyWereSent(t *testing.T) {
	var a acks
	ack := func(id raft.ServerID, term uint64, sent time.Time, resp raft.AppendEntriesResponse) {
		args := &raft.AppendEntriesRequest{Term: term}
		a.note(id, args, &resp, sent)
	}
	read := time.Now()
	ack("late answer", 3, read.Add(-time.Second), raft.AppendEntriesResponse{Term: 3, Success: true})
	ack("refused", 3, read.Add(time.Second), raft.AppendEntriesResponse{Term: 4})
	got, moved := a.since(3, read)
	if got["late answer"] || got["refused"] {
		t.Errorf("%v", got)
	}
	ack("follows", 3, read.Add(time.Second), raft.AppendEntriesResponse{Term: 3, Success: true})
	<-moved
	if got, _ := a.since(3, read); !got["follows"] {
		t.Errorf("%v", got)
	}
	if got, _ := a.since(4, read); got["follows"] {
		t.Error("an answer counts for another term")
	}
	ack("follows", 2, read.Add(time.Minute), raft.AppendEntriesResponse{Term: 2, Success: true})
	if got, _ := a.since(2, read); len(got) > 0 {
		t.Errorf("an answer of an earlier term counts: %v", got)
	}
}

// Reads write nothing to the log, and those that come together share their checks of leadership.
func TestReadsShareRoundsAndWriteNothing(t *testing.T) {
	c := newCluster(t, 3, nil)
	group := c.nodes[c.leader()].group
	c.propose("x")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.await("a first read", func() bool { _, err := group.Linearizable(ctx); return err == nil })
	before := group.raft.LastIndex()
	var reads sync.WaitGroup
	errs := make([]error, 500)
	for i := range errs {
		reads.Go(func() { _, errs[i] = group.Linearizable(ctx) })
	}
	reads.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if after := group.raft.LastIndex(); after != before {
		t.Errorf("reads wrote entries %d to %d", before+1, after)
	}
	if rounds := group.reads.rounds.Load(); rounds > 250 {
		t.Errorf("%d rounds for 500 reads at a time", rounds)
	}
}
