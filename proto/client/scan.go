package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Scan is the answer to a scan as it comes. It is used by one goroutine, and is closed when Next has returned false or
// Close was called.
type Scan struct {
	session *Session
	job     string
	stream  watershedv1.StateService_ScanClient
	cancel  context.CancelFunc
	columns *watershedv1.Columns
	rows    []*watershedv1.Row
	row     *watershedv1.Row
	summary *watershedv1.ScanSummary
	err     error
	done    bool
}

// Scan asks for rows in the order (window end, window start, key) over all shards. It returns when the answer has begun,
// until when it tries again where that can help; an answer that breaks off later is not tried again, since what was read
// of it can't be taken back. ctx ends the scan.
func (c *Client) Scan(ctx context.Context, request *watershedv1.ScanRequest) (*Scan, error) {
	in := proto.CloneOf(request)
	in.Selection = c.remembering(request.GetSelection())
	out := &Scan{session: c.o.session, job: request.GetSelection().GetJob()}
	opening, cancel := context.WithTimeout(ctx, c.o.patience)
	defer cancel()
	err := c.each(opening, func(_ context.Context, part time.Duration, cc *grpc.ClientConn) error {
		return out.open(ctx, opening, part, in, cc)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// open starts a stream under ctx and reads its columns, within a part of the time, and the first rows or the summary,
// before opening ends.
func (s *Scan) open(ctx, opening context.Context, part time.Duration, in *watershedv1.ScanRequest, cc *grpc.ClientConn) error {
	ctx, s.cancel = context.WithCancel(ctx)
	late := context.AfterFunc(opening, s.cancel)
	slow := time.AfterFunc(part, s.cancel)
	err := s.begin(ctx, in, cc)
	inTime := slow.Stop()
	if err == nil && inTime {
		err = s.receive()
	}
	if !late() || !inTime {
		err = context.DeadlineExceeded
	}
	if err != nil {
		s.cancel()
	}
	return err
}

func (s *Scan) begin(ctx context.Context, in *watershedv1.ScanRequest, cc *grpc.ClientConn) (err error) {
	if s.stream, err = watershedv1.NewStateServiceClient(cc).Scan(ctx, in); err != nil {
		return err
	}
	first, err := s.stream.Recv()
	if err != nil {
		return brokeOff(err)
	}
	if s.columns = first.GetColumns(); s.columns == nil {
		return status.Error(codes.Internal, "the node's answer does not begin with its columns")
	}
	return nil
}

// brokeOff is the error of a stream that has ended before it should.
func brokeOff(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Unavailable, "the node broke off its answer")
	}
	return err
}

// receive takes one message behind the columns.
func (s *Scan) receive() error {
	m, err := s.stream.Recv()
	if err != nil {
		return brokeOff(err)
	}
	switch part := m.GetPart().(type) {
	case *watershedv1.ScanResponse_Rows:
		s.rows = part.Rows.GetRows()
		return nil
	case *watershedv1.ScanResponse_Summary:
		s.summary = part.Summary
		return s.session.see(s.job, s.summary.GetShards()...)
	}
	return status.Error(codes.Internal, "the node sent neither rows nor a summary")
}

// Columns returns the names of the rows' members.
func (s *Scan) Columns() *watershedv1.Columns { return s.columns }

// Next moves to the next row. It returns false at the end and after an error: Err tells which.
func (s *Scan) Next() bool {
	for len(s.rows) == 0 {
		if s.done || s.summary != nil {
			s.Close()
			return false
		}
		if err := s.receive(); err != nil {
			s.err = fmt.Errorf("%w: %w", ErrCutShort, inWords(err))
			s.Close()
			return false
		}
	}
	s.row, s.rows = s.rows[0], s.rows[1:]
	return true
}

// Row returns the row that Next moved to. It may be kept.
func (s *Scan) Row() *watershedv1.Row { return s.row }

// Err returns nil where Next has come to the end of the answer, and else an error that wraps ErrCutShort.
func (s *Scan) Err() error { return s.err }

// Summary returns what the answer reflects, nil before its end and where it was cut short.
func (s *Scan) Summary() *watershedv1.ScanSummary {
	if s.err != nil || !s.done {
		return nil
	}
	return s.summary
}

// Close ends the scan. It may be called at any time, and more than once.
func (s *Scan) Close() {
	s.done, s.rows = true, nil
	s.cancel()
}
