package service

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// readWithin bounds the search for a shard's leader.
	readWithin = 4 * time.Second
	// seenWithin bounds the wait for points that a client has seen.
	seenWithin = 5 * time.Second
	// knownWithin bounds the wait for a job that this node has not been told of yet.
	knownWithin = 500 * time.Millisecond
	// batchRows is how many rows travel in one message.
	batchRows = 256
)

// entry is a row on its way to a client, and what it is ordered by.
type entry struct {
	end, start int64
	key        []byte
	row        *watershedv1.Row
}

func (e entry) compare(o entry) int {
	return cmp.Or(cmp.Compare(e.end, o.end), cmp.Compare(e.start, o.start), bytes.Compare(e.key, o.key))
}

func toEntry(r *watershedv1.Row, key []byte) entry {
	e := entry{start: crdt.MinTime, end: crdt.MaxTime, key: key, row: r}
	if r.WindowEndMs != nil {
		e.start, e.end = r.GetWindowStartMs(), r.GetWindowEndMs()
	}
	return e
}

// part is a piece of one shard's answer: first what it reflects, then rows in order.
type part struct {
	state *watershedv1.ShardState
	rows  []entry
}

// generation finds a job by name. One that was applied just now may not have reached this node: it waits a moment.
func (s *Server) generation(ctx context.Context, name string) (*shard.Generation, error) {
	if s.o.Router.Replica(0).Damage() != nil { // what it knows of jobs may be nothing
		return s.generationElsewhere(name)
	}
	var found *shard.Generation
	err := await(ctx, s.o.Router.Replica(0), knownWithin, func(st *shard.State) bool {
		if e, ok := st.Registry().Job(name); ok {
			found = st.Generation(e.Generation)
		}
		return found != nil
	})
	if err != nil {
		return nil, status.Errorf(codes.NotFound, "there is no job %q", name)
	}
	return found, nil
}

// generationElsewhere finds a job by name in what shards other than the first know of it.
func (s *Server) generationElsewhere(name string) (*shard.Generation, error) {
	for i := 1; i < s.o.Router.Shards(); i++ {
		st := s.o.Router.State(keyspace.ShardID(i))
		if st == nil {
			continue // this node holds no replica of it
		}
		for _, g := range st.Generations() {
			if g.Name == name {
				return g, nil
			}
		}
	}
	return nil, fmt.Errorf("shard 0: %w", replica.ErrDamaged)
}

// await waits until a replica's state is as wanted, but no longer than within.
func await(ctx context.Context, r *replica.Replica, within time.Duration, wanted func(*shard.State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		changed := r.Changed()
		if wanted(r.State()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reflects waits until a shard has taken at least what a client has seen elsewhere.
func reflects(ctx context.Context, r *replica.Replica, id crdt.GenerationID, seen []*watershedv1.SourcePoint) error {
	err := await(ctx, r, seenWithin, func(st *shard.State) bool {
		g := st.Generation(id)
		for _, p := range seen {
			if g == nil {
				return false
			}
			if at, ok := g.Standing(fromSource(p)); !ok || at.Point.Offset < p.GetOffset() {
				return false
			}
		}
		return true
	})
	if err != nil {
		return status.Errorf(codes.Unavailable, "shard %d has not reached the points that were seen", r.Shard())
	}
	return nil
}

// readHere hands out a shard's answer from this node's replica. It holds on to a snapshot until the last part is taken.
func (s *Server) readHere(ctx context.Context, r *replica.Replica, q *query, out func(part) error) (err error) {
	if r.Damage() != nil {
		return fmt.Errorf("shard %d: %w", r.Shard(), replica.ErrDamaged)
	}
	if err := await(ctx, r, knownWithin, func(st *shard.State) bool { return st.Generation(q.generation) != nil }); err != nil {
		return status.Errorf(codes.Unavailable, "shard %d has not been told of the job yet", r.Shard())
	}
	if err := reflects(ctx, r, q.generation, q.sel.seen); err != nil {
		return err
	}
	snap, err := r.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	g := snap.Generation(q.generation)
	if g == nil {
		return status.Error(codes.NotFound, "the job was deleted")
	}
	if err := out(part{state: toShardState(r, s.o.Region, snap.State, g)}); err != nil {
		return err
	}
	var rows []entry
	add := func(e entry) error {
		if rows = append(rows, e); len(rows) < batchRows {
			return ctx.Err()
		}
		full := rows
		rows = nil
		return out(part{rows: full})
	}
	each, done := q.rank(add)
	err = q.sel.rows(snap, g, func(row *job.Row) error {
		return each(toEntry(toRow(row, uint32(r.Shard())), bytes.Clone(row.Key)))
	})
	if err == nil {
		err = done()
	}
	if err != nil || len(rows) == 0 {
		return err
	}
	return out(part{rows: rows})
}

// readShard hands out a shard's answer with the consistency that is asked for, from wherever that can be had.
func (s *Server) readShard(ctx context.Context, id keyspace.ShardID, q *query, out func(part) error) error {
	if q.sel.local {
		if here := s.o.Router.Replica(id); here != nil {
			return s.readHere(ctx, here, q, out)
		}
		return s.readElsewhere(ctx, id, q, out)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	remote, first, err := s.reach(ctx, id, q)
	switch {
	case err != nil:
		return s.o.Router.Status(err)
	case remote != nil:
		return relay(remote, first, out)
	}
	if here := s.o.Router.Replica(id); here != nil {
		return s.readHere(ctx, here, q, out)
	}
	return s.o.Router.Status(s.o.Router.Elsewhere(id))
}

// reach makes sure of the shard's leader: this node, whose replica is up to date then, or a stream of the node that leads,
// which lasts as long as ctx, and its first message.
func (s *Server) reach(ctx context.Context, id keyspace.ShardID, q *query) (
	stream grpc.ServerStreamingClient[regionv1.ReadResponse], first *regionv1.ReadResponse, err error,
) {
	search, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	err = s.o.Router.AtLeader(search, id, func(try context.Context, here *replica.Replica, there *grpc.ClientConn) error {
		stream = nil
		if here != nil {
			return here.Linearizable(try)
		}
		reading, stop := context.WithCancel(ctx)
		inTime := context.AfterFunc(try, stop)
		var err error
		stream, err = regionv1.NewShardServiceClient(there).Read(reading, &regionv1.ReadRequest{
			Deployment: s.o.Deployment, Shard: uint32(id), Scan: q.scan,
		})
		if err == nil {
			first, err = stream.Recv()
		}
		if !inTime() && err == nil {
			err = fmt.Errorf("%w: %w", group.ErrUnavailable, try.Err())
		}
		if err != nil {
			stop()
			return err
		}
		context.AfterFunc(ctx, stop)
		return nil
	})
	return stream, first, err
}

// relay hands on what another node reads, whose first message m is.
func relay(from grpc.ServerStreamingClient[regionv1.ReadResponse], m *regionv1.ReadResponse, out func(part) error) error {
	for !m.GetEnd() {
		if len(m.GetKeys()) != len(m.GetRows()) {
			return status.Error(codes.Internal, "a node of this region sent rows without keys")
		}
		p := part{state: m.GetState()}
		for i, r := range m.GetRows() {
			p.rows = append(p.rows, toEntry(r, m.GetKeys()[i]))
		}
		if err := out(p); err != nil {
			return err
		}
		var err error
		if m, err = from.Recv(); errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "the shard's leader broke off")
		} else if err != nil {
			return err
		}
	}
	return nil
}
