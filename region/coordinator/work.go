package coordinator

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// Bounds of what a worker may say.
const (
	maxSources = 1 << 16
	maxWorker  = 128 // bytes of its name
	maxReason  = shard.MaxReason
)

// worker is one that has, or had until just now, a session.
type worker struct {
	session *session  // the last one: a new one replaces the old
	gone    time.Time // when it ended, zero while it lasts
	heard   time.Time // when the worker last said something
}

// session is one stream of a worker.
type session struct{ news chan struct{} } // holds one

func (s *session) wake() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// SourceStatus is what the worker of a source last told of it.
type SourceStatus struct {
	Worker  string
	LogEnd  int64 // -1: unknown
	Offset  int64
	Idle    bool
	Stopped string
}

// Work serves one worker's session, on the leader of shard 0; elsewhere it sends the worker there.
func (c *Coordinator) Work(stream regionv1.CoordinatorService_WorkServer) error {
	report, err := stream.Recv()
	if err != nil {
		return err
	}
	name := report.GetWorker()
	switch {
	case report.GetDeployment() != c.o.Deployment:
		return status.Errorf(codes.PermissionDenied, "this is deployment %s", c.o.Deployment)
	case name == "" || len(name) > maxWorker:
		return status.Error(codes.InvalidArgument, "a worker has a name")
	}
	lead, now := c.join(name)
	if lead == nil {
		return c.o.NotLeader()
	}
	defer c.leave(name, now)
	reports := make(chan error, 1)
	go func() { // ends with the stream
		for {
			err := c.report(lead, name, report)
			if err == nil {
				report, err = stream.Recv()
			}
			if err != nil {
				reports <- err
				return
			}
		}
	}()
	renew := time.NewTicker(c.o.Lease / 3)
	defer renew.Stop()
	var sent uint64
	for {
		assignment, current := c.assignment(name, now)
		if !current {
			return status.Error(codes.Aborted, "the session is over: the worker has another one, or was taken for dead")
		}
		if assignment != nil && assignment.Revision != sent {
			if err := stream.Send(assignment); err != nil {
				return err
			}
			sent = assignment.Revision
		}
		select {
		case <-now.news:
		case <-renew.C:
			sent = 0
		case <-lead.Done():
			return c.o.NotLeader()
		case err := <-reports:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// join begins a session; the returned context is nil where this node does not lead.
func (c *Coordinator) join(name string) (context.Context, *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.lead.Err() != nil {
		return nil, nil
	}
	if w := c.mu.members[name]; w != nil {
		w.session.wake() // it ends
	}
	s := &session{make(chan struct{}, 1)}
	c.mu.members[name] = &worker{session: s, heard: time.Now()}
	return c.mu.lead, s
}

func (c *Coordinator) leave(name string, s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.mu.members[name]; w != nil && w.session == s {
		w.gone = time.Now()
	}
}

// report takes what a worker says. What it works already counts for the assignment.
func (c *Coordinator) report(ctx context.Context, name string, r *regionv1.WorkerReport) error {
	if len(r.GetSources()) > maxSources {
		return status.Errorf(codes.InvalidArgument, "a report of %d sources, at most %d are taken", len(r.GetSources()), maxSources)
	}
	c.mu.Lock()
	if w := c.mu.members[name]; w != nil {
		w.heard = time.Now()
	}
	c.mu.Unlock()
	for _, sr := range r.GetSources() {
		source, rest, err := crdt.CutSource(sr.GetSource())
		if err != nil || len(rest) > 0 || len(sr.GetGeneration()) != len(crdt.GenerationID{}) {
			return status.Error(codes.InvalidArgument, "a malformed source in the report")
		}
		task := Task{crdt.GenerationID(sr.GetGeneration()), source}
		known := c.take(task, SourceStatus{name, sr.GetLogEnd(), sr.GetOffset(), sr.GetIdle(), sr.GetStopped()})
		if known && sr.GetStopped() != "" {
			c.stop(ctx, task, sr.GetStopped())
		}
	}
	return nil
}

// take keeps a report of a source that is known; it reports whether it is.
func (c *Coordinator) take(t Task, s SourceStatus) bool {
	_, known := slices.BinarySearchFunc(c.registry().Decided(t.Generation), t.Source, func(d shard.Decided, s crdt.Source) int {
		return crdt.CompareSources(d.Source, s)
	})
	if !known {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.mu.assigned[t]; !ok && !c.mu.settled {
		c.mu.assigned[t] = s.Worker
	}
	if c.mu.assigned[t] == s.Worker {
		c.mu.reported[t] = s
	}
	return true
}

// stop records that a source's log does not fit its point: loudly, and for good.
func (c *Coordinator) stop(ctx context.Context, t Task, reason string) {
	if slices.ContainsFunc(c.registry().Stopped(t.Generation), func(s shard.Stopped) bool { return s.Source == t.Source }) {
		return
	}
	c.o.Logger.Error("a source is stopped: its log does not fit its point", "source", t.Source, "reason", reason)
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	c.propose(ctx, 0, &shard.SourceStopped{Generation: t.Generation, Source: t.Source, Reason: reason})
}

// assignLoop keeps the assignment up to registry and workers.
func (c *Coordinator) assignLoop(ctx context.Context) {
	began := time.Now()
	pause := time.NewTicker(min(c.o.Grace/4, 100*time.Millisecond))
	defer pause.Stop()
	for {
		c.assign(began)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// assign makes the assignment anew. A new coordinator waits for all workers that may come, but not for longer than the
// grace.
func (c *Coordinator) assign(began time.Time) {
	registry := c.registry()
	dead, nodes := map[string]bool{}, c.o.Nodes()
	for _, node := range nodes {
		dead[node] = c.o.Dead(node)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.settled && time.Since(began) < c.o.Grace && slices.ContainsFunc(nodes, func(node string) bool {
		return c.mu.members[node] == nil && !dead[node]
	}) {
		return
	}
	c.mu.settled = true
	for name, w := range c.mu.members {
		// A node whose probes alone are lost still has a session, in which its worker says something.
		silent := !w.gone.IsZero() || time.Since(w.heard) >= c.o.Grace
		gone := dead[name] || !slices.Contains(nodes, name) // one that was removed from the region does not come back
		if gone && silent || !w.gone.IsZero() && time.Since(w.gone) >= c.o.Grace {
			delete(c.mu.members, name)
			w.session.wake() // where it lasts after all it ends, and the worker begins another
		}
	}
	next := Assign(tasksOf(registry), slices.Collect(maps.Keys(c.mu.members)), c.mu.assigned)
	if registry == c.mu.registry && maps.Equal(next, c.mu.assigned) {
		return
	}
	c.mu.registry, c.mu.assigned = registry, next
	for t, s := range c.mu.reported {
		if next[t] != s.Worker {
			delete(c.mu.reported, t)
		}
	}
	c.mu.revision++
	for _, w := range c.mu.members {
		w.session.wake()
	}
}

// tasksOf lists the own sources of all live jobs but those that are stopped.
func tasksOf(registry *shard.Registry) []Task {
	var out []Task
	for _, e := range registry.Jobs() {
		stopped := registry.Stopped(e.Generation)
		for _, sp := range registry.Decided(e.Generation) {
			if !slices.ContainsFunc(stopped, func(s shard.Stopped) bool { return s.Source == sp.Source }) {
				out = append(out, Task{e.Generation, sp.Source})
			}
		}
	}
	return out
}

// assignment returns a worker's whole assignment, nil before there is any; not current when the session was replaced.
func (c *Coordinator) assignment(name string, s *session) (*regionv1.Assignment, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.mu.members[name]; c.mu.lead.Err() == nil && (w == nil || w.session != s) {
		return nil, false
	}
	if c.mu.registry == nil {
		return nil, true
	}
	out := &regionv1.Assignment{Revision: c.mu.revision, LeaseMs: c.o.Lease.Milliseconds()}
	for _, e := range c.mu.registry.Jobs() {
		part := &regionv1.JobAssignment{Generation: e.Generation[:], File: e.File}
		for _, sp := range c.mu.registry.Decided(e.Generation) {
			if c.mu.assigned[Task{e.Generation, sp.Source}] == name {
				part.Sources = append(part.Sources, &regionv1.AssignedSource{
					Source: crdt.AppendSource(nil, sp.Source), First: crdt.AppendPoint(nil, sp.Point), TopicId: sp.TopicID,
				})
			}
		}
		if len(part.Sources) > 0 {
			out.Jobs = append(out.Jobs, part)
		}
	}
	return out, true
}

// Status returns what is known of the work on a source: on the leader of shard 0, the zero SourceStatus elsewhere.
func (c *Coordinator) Status(t Task) SourceStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.mu.reported[t]
	if !ok {
		return SourceStatus{Worker: c.mu.assigned[t], LogEnd: -1}
	}
	return s
}

// Leading says whether this node coordinates the region.
func (c *Coordinator) Leading() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.lead.Err() == nil
}
