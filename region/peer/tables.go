package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt/table"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// MaxAhead is how far ahead of this region's clock the stamp of an operation from another region may lie. One beyond waits:
// a clock is wrong, and whoever read that stamp would write in the future too.
const MaxAhead = 5 * time.Minute

// tableGoal is what a peer told that it holds of tables, and what stands in the way of taking it.
type tableGoal struct {
	index uint64      // of the peer's log
	marks table.Marks // nil: nothing is missing

	since time.Time   // when it was first seen that no entry will bring what is missing
	at    table.Marks // where the shard stood then
	again time.Time   // not before

	early   uint64    // index of the first entry that waits for its stamp's time; 0: none
	earlyAt time.Time // that time
}

// wantedEntry says whether an entry of a table's history is worth proposing: the next one of its actor.
func (s *session) wantedEntry(a *ahead, c *shard.TableForward, index uint64) bool {
	at, ok := a.marks[c.Actor]
	if !ok {
		at = a.st.Tables().Marks[c.Actor].Position
	}
	switch {
	case c.Mark.Position <= at:
		return false
	case c.Mark.Position != at+1:
		s.gaps.Add(1)
		return false
	}
	if c.Op != nil {
		if due := time.UnixMilli(c.Op.Op.Time.Millis()).Add(-MaxAhead); time.Now().Before(due) {
			s.wait(c, index, due)
			return false
		}
	}
	a.marks[c.Actor] = c.Mark.Position
	return true
}

// wait notes an entry whose stamp lies too far ahead. All of its actor's that come behind it wait with it.
func (s *session) wait(c *shard.TableForward, index uint64, due time.Time) {
	if s.tables.early == 0 {
		s.early.Add(1)
		s.logger.Error("an operation waits, its stamp lies too far ahead: a clock is wrong, here or there", "member", c.Actor,
			"operation", c.Op.Op.ID.String(), "waits", time.Until(due))
		s.tables.early, s.tables.earlyAt = index, due
	}
}

// rewindEarly takes the cursor back to an entry that was passed over for its stamp, when its time has come.
func (s *session) rewindEarly() bool {
	g := &s.tables
	if g.early == 0 || time.Now().Before(g.earlyAt) {
		return false
	}
	s.cursor = min(s.cursor, g.early-1)
	g.early = 0
	return true
}

// lookAtTables compares what the peer holds of tables with what the shard does, and takes as state what no entry will
// bring any more. It reports whether nothing is missing.
func (s *session) lookAtTables(ctx context.Context, st *shard.State, b *book) (level bool, err error) {
	g, own := &s.tables, st.Tables().Marks
	if own.Covers(b.marks) {
		g.marks, g.since = nil, time.Time{}
		return true, nil
	}
	if g.marks == nil || own.Covers(g.marks) {
		// The peer tells of new marks faster than of its log: the goal is what it told first, until that is reached.
		g.index, g.marks, g.since = b.marksAt, b.marks, time.Time{}
	}
	if s.cursor < g.index || g.early > 0 {
		return false, nil
	}
	now := time.Now()
	if g.since.IsZero() || !g.at.Covers(own) {
		g.since, g.at = now, own
	}
	if now.Sub(g.since) < s.tablePatience(own, g.marks) || now.Before(g.again) {
		return false, nil
	}
	g.again = now.Add(s.timing.Again)
	stop := s.keepSaying(ctx)
	err = s.joinTables(ctx, s.conn)
	stop()
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		s.logger.Warn("the tables' state was not taken", "error", err)
	default:
		g.again = time.Time{}
	}
	return false, nil
}

// tablePatience is how long to wait for another peer to bring what is missing: not where it is of this peer's own.
func (s *session) tablePatience(own, told table.Marks) time.Duration {
	a := table.Actor(s.peer.Number)
	if own[a].Position < told[a].Position {
		return 0
	}
	return s.timing.Patience
}

// entriesBehind counts the entries that told marks are ahead of the own.
func entriesBehind(own, told table.Marks) (n uint64) {
	for a, m := range told {
		if at := own[a].Position; m.Position > at {
			n += m.Position - at
		}
	}
	return n
}

// Tables streams the values of all tables as one snapshot has them.
func (s *Server) Tables(req *peerv1.TablesRequest, stream grpc.ServerStreamingServer[peerv1.TablesChunk]) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.streams.Done()
	sh, err := s.admit(req.GetHello())
	if err != nil {
		return err
	}
	return router.Status(s.tables(sh, stream), s.address)
}

func (s *Server) tables(sh *Shard, stream grpc.ServerStreamingServer[peerv1.TablesChunk]) (err error) {
	snap, err := sh.o.Replica.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	t := snap.Tables()
	head := &peerv1.TablesHead{Marks: t.Marks.Append(nil), Floor: t.Floor, AppliedIndex: snap.Index}
	if err := stream.Send(&peerv1.TablesChunk{Head: head}); err != nil {
		return err
	}
	send := func(c *shard.TableChunk) error {
		select {
		case <-s.quit:
			return status.Error(codes.Unavailable, "the node is stopping")
		default:
			return stream.Send(&peerv1.TablesChunk{Chunk: shard.Encode(c)})
		}
	}
	if err := snap.TableRows(chunkBytes, func(part []shard.TableRow) error { return send(&shard.TableChunk{Rows: part}) }); err != nil {
		return err
	}
	if err := snap.SessionParts(chunkBytes, func(part []byte) error { return send(&shard.TableChunk{Sessions: part}) }); err != nil {
		return err
	}
	return stream.Send(&peerv1.TablesChunk{End: true})
}

// joinTables takes all tables as a peer has them, through the shard's own log into a copy beside its own, and adopts that.
func (p *puller) joinTables(ctx context.Context, conn *link) (err error) {
	p.shard.joining.Lock()
	defer p.shard.joining.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := peerv1.NewPeerServiceClient(conn).Tables(ctx, &peerv1.TablesRequest{Hello: p.shard.o.Hello(p.replica.Config().Shard)})
	if err != nil {
		return fmt.Errorf("ask for the tables' state: %w", err)
	}
	next := func() (*peerv1.TablesChunk, error) {
		patience := time.AfterFunc(p.timing.Silence, cancel)
		defer patience.Stop()
		return stream.Recv()
	}
	first, err := next()
	if err != nil {
		return fmt.Errorf("ask for the tables' state: %w", err)
	}
	if first.Head == nil || first.Head.Floor < 0 || first.Head.Floor > maxMillis {
		return fmt.Errorf("%w: a state of tables without a head", ErrProtocol)
	}
	adopt := &shard.TableAdopt{Floor: first.Head.Floor}
	if adopt.Marks, err = table.DecodeMarks(first.Head.Marks); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if adopt.Copy, err = p.stageTables(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.abandonTables(context.WithoutCancel(ctx), adopt.Copy)
		}
	}()
	for {
		m, err := next()
		if err != nil {
			return fmt.Errorf("take the tables' state: %w", err)
		}
		if m.End {
			return p.adoptTables(ctx, adopt)
		}
		if err := p.tableChunk(ctx, adopt, m.Chunk); err != nil {
			return err
		}
	}
}

func (p *puller) stageTables(ctx context.Context) (copy uint32, err error) {
	res, err := p.replica.Propose(ctx, &shard.TableStage{})
	if err == nil && res.Outcome != shard.Applied {
		err = fmt.Errorf("begin a copy of tables: %v %s", res.Outcome, res.Reason)
	}
	return res.Copy, err
}

// tableChunk proposes one chunk, and rests about as long as that took.
func (p *puller) tableChunk(ctx context.Context, adopt *shard.TableAdopt, raw []byte) error {
	decoded, err := shard.Decode(raw)
	c, ok := decoded.(*shard.TableChunk)
	if err != nil || !ok {
		return errors.Join(fmt.Errorf("%w: a chunk of tables that is none", ErrProtocol), err)
	}
	c.Copy, c.Number = adopt.Copy, adopt.Chunks
	start := time.Now()
	res, err := p.replica.Propose(ctx, c)
	switch {
	case err != nil:
		return err
	case res.Outcome != shard.Applied && res.Outcome != shard.Duplicate:
		return fmt.Errorf("stage chunk %d of tables: %v %s", c.Number, res.Outcome, res.Reason)
	}
	adopt.Chunks++
	p.joined.Add(uint64(len(raw)))
	return rest(ctx, min(time.Since(start), p.timing.JoinRest))
}

func (p *puller) adoptTables(ctx context.Context, c *shard.TableAdopt) error {
	res, err := p.replica.Propose(ctx, c)
	if err == nil && res.Outcome != shard.Applied && res.Outcome != shard.Duplicate {
		err = fmt.Errorf("adopt tables: %v %s", res.Outcome, res.Reason)
	}
	if err == nil {
		p.logger.Info("took the state of tables", "chunks", c.Chunks)
	}
	return err
}

// abandonTables gives the copy up. Where that fails too, the next one that is begun drops it, or the next leader.
func (p *puller) abandonTables(ctx context.Context, copy uint32) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := p.replica.Propose(ctx, &shard.TableAbandon{Copy: copy}); err != nil {
		p.logger.Debug("a copy of tables was not given up", "error", err)
	}
}
