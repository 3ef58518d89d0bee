// Package link joins a worker to its region: calls to shards go through the node's router, the session with the
// coordinator over gRPC to whichever node leads shard 0.
package link

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/worker"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// reportEvery is how often a worker tells the coordinator what it does.
	reportEvery = 500 * time.Millisecond
	// Pauses between tries of a session.
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// Link is a worker's Region. It is safe for any goroutine.
type Link struct {
	Deployment string
	Node       string // the worker's name
	Router     *router.Router
	Conns      *router.Conns // not closed here
	Logger     hclog.Logger
}

var _ worker.Region = (*Link)(nil)

// Points returns where a shard stands in a generation.
func (l *Link) Points(ctx context.Context, id int, g crdt.GenerationID) (crdt.Frontier, bool, error) {
	points, _, known, err := l.Router.Points(ctx, keyspace.ShardID(id), g)
	return points, known, err
}

// Advance has a shard apply a.
func (l *Link) Advance(ctx context.Context, id int, a *crdt.Advance) (worker.Reply, []crdt.Source, error) {
	res, err := l.Router.Propose(ctx, keyspace.ShardID(id), &shard.Advance{Advance: *a})
	switch {
	case errors.Is(err, group.ErrTooLarge):
		return 0, nil, fmt.Errorf("%w: %w", worker.ErrTooLarge, err)
	case errors.Is(err, shard.ErrInvalid), errors.Is(err, shard.ErrCommand):
		return 0, nil, fmt.Errorf("%w: %w", worker.ErrInvalid, err)
	case err != nil:
		return 0, nil, err
	}
	switch res.Outcome {
	case shard.Applied, shard.Duplicate:
		return worker.Accepted, nil, nil
	case shard.Mismatch:
		return worker.Misfit, res.Sources, nil
	}
	return worker.Refused, nil, nil
}

// Idle flags sources as idle where the shard stands at their marks.
func (l *Link) Idle(ctx context.Context, id int, g crdt.GenerationID, at map[crdt.Source]crdt.Mark) (bool, error) {
	c := &shard.Idle{Generation: g, Idle: true}
	for s, m := range at {
		c.Sources = append(c.Sources, shard.SourceMark{Source: s, Mark: m})
	}
	slices.SortFunc(c.Sources, func(a, b shard.SourceMark) int { return crdt.CompareSources(a.Source, b.Source) })
	res, err := l.Router.Propose(ctx, keyspace.ShardID(id), c)
	if err != nil {
		return false, err
	}
	return res.Outcome == shard.Applied || res.Outcome == shard.Duplicate, nil
}

// Session keeps the session with the coordinator until ctx ends. While there is none the worker goes on with what it was
// assigned last: no result depends on who works a source.
func (l *Link) Session(ctx context.Context, report func() []worker.Report, take func([]worker.Assigned)) error {
	pause, hint := firstPause, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx, hint, report, take)
		if ctx.Err() != nil {
			break
		}
		l.Logger.Debug("no session with the coordinator", "error", err)
		if hint = ""; err != nil {
			if d := router.Detail(err); d != nil {
				hint = d.GetLeader()
			}
		}
		if time.Since(began) > maxPause {
			pause = firstPause
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		pause = min(2*pause, maxPause)
	}
	return nil
}

func (l *Link) session(ctx context.Context, address string, report func() []worker.Report,
	take func([]worker.Assigned)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if address == "" {
		leader, ok := l.Router.Leader(0)
		if !ok {
			return errors.New("shard 0 has no leader")
		}
		address = leader.GRPC
	}
	conn, err := l.Conns.To(address)
	if err != nil {
		return err
	}
	stream, err := regionv1.NewCoordinatorServiceClient(conn).Work(ctx)
	if err != nil {
		return err
	}
	assignments, failed := make(chan *regionv1.Assignment), make(chan error, 1)
	go receive(ctx, stream, assignments, failed)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var revision uint64
	for {
		if err := stream.Send(l.encode(revision, report())); err != nil {
			return errors.Join(err, ended(assignments, failed))
		}
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case a := <-assignments:
			jobs, err := decode(a)
			if err != nil {
				return fmt.Errorf("assignment %d: %w", a.GetRevision(), err)
			}
			revision = a.GetRevision()
			take(jobs)
		}
	}
}

// ended returns what ended a stream that can't be sent on, which receive finds behind the assignments that it holds.
func ended(assignments <-chan *regionv1.Assignment, failed <-chan error) error {
	for {
		select {
		case <-assignments:
		case err := <-failed:
			return err
		}
	}
}

// receive hands over what the coordinator says; it ends with the stream.
func receive(ctx context.Context, stream grpc.BidiStreamingClient[regionv1.WorkerReport, regionv1.Assignment],
	assignments chan<- *regionv1.Assignment, failed chan<- error) {
	for {
		a, err := stream.Recv()
		if err != nil {
			failed <- err
			return
		}
		select {
		case assignments <- a:
		case <-ctx.Done():
			failed <- ctx.Err()
			return
		}
	}
}

func (l *Link) encode(revision uint64, reports []worker.Report) *regionv1.WorkerReport {
	m := &regionv1.WorkerReport{Deployment: l.Deployment, Worker: l.Node, Revision: revision}
	for _, r := range reports {
		m.Sources = append(m.Sources, &regionv1.SourceReport{Generation: r.Generation[:],
			Source: crdt.AppendSource(nil, r.Source), LogEnd: r.LogEnd, Idle: r.Idle, Offset: r.Offset,
			Stopped: strings.ToValidUTF8(r.Stopped[:min(len(r.Stopped), shard.MaxReason)], "")})
	}
	return m
}

func decode(a *regionv1.Assignment) ([]worker.Assigned, error) {
	var out []worker.Assigned
	for _, j := range a.GetJobs() {
		w := worker.Assigned{File: j.GetFile()}
		if copy(w.Generation[:], j.GetGeneration()) != len(w.Generation) {
			return nil, errors.New("malformed generation")
		}
		for _, s := range j.GetSources() {
			id, rest, err := crdt.CutSource(s.GetSource())
			if err == nil && len(rest) != 0 {
				err = crdt.ErrEncoding
			}
			if err != nil {
				return nil, fmt.Errorf("source: %w", err)
			}
			first, err := crdt.DecodePoint(s.GetFirst())
			if err != nil {
				return nil, fmt.Errorf("first point of %s: %w", id, err)
			}
			var topic log.TopicID
			if raw, err := hex.DecodeString(s.GetTopicId()); err == nil {
				copy(topic[:], raw)
			}
			w.Sources = append(w.Sources, worker.Source{ID: id, First: first, Topic: topic})
		}
		out = append(out, w)
	}
	return out, nil
}
