package client

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Watch is a stream of changed rows. It is used by one goroutine; Close ends it.
type Watch struct {
	client  *Client
	ctx     context.Context // the caller's: it bounds the whole watch
	request *watershedv1.WatchRequest
	stream  watershedv1.StateService_WatchClient
	cancel  context.CancelFunc
	columns *watershedv1.Columns
	rows    []*watershedv1.Row
	row     *watershedv1.Row
	cut     func(error)
	cuts    int
	err     error
}

// Watch asks for a row for each change from now on. It returns when a node has begun to answer. A watch that is cut goes
// on with whichever node answers next, for as long as ctx lasts: changes in between are not told, and cut, where it is
// not nil, is called by Next with the reason before it looks for that node.
func (c *Client) Watch(ctx context.Context, selection *watershedv1.Selection, cut func(error)) (*Watch, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watch{client: c, ctx: ctx, cancel: cancel, cut: cut, request: &watershedv1.WatchRequest{Selection: selection}}
	opening, done := context.WithTimeout(ctx, c.o.patience)
	defer done()
	if err := w.find(opening); err != nil {
		cancel()
		return nil, err
	}
	return w, nil
}

// find makes a node answer, before opening ends.
func (w *Watch) find(opening context.Context) error {
	return w.client.each(opening, func(_ context.Context, part time.Duration, cc *grpc.ClientConn) error {
		streaming, cancel := context.WithCancel(w.ctx)
		slow := time.AfterFunc(part, cancel)
		late := context.AfterFunc(opening, cancel)
		stream, err := watershedv1.NewStateServiceClient(cc).Watch(streaming, w.request)
		if err == nil {
			w.stream = stream
			err = w.receive()
		}
		if err == nil && w.columns == nil {
			err = status.Error(codes.Internal, "the node's answer does not begin with its columns")
		}
		soon := slow.Stop()
		if !late() || !soon {
			err = context.DeadlineExceeded
		}
		if err != nil {
			cancel()
		}
		return err
	})
}

func (w *Watch) receive() error {
	m, err := w.stream.Recv()
	if err != nil {
		return brokeOff(err)
	}
	if m.GetColumns() != nil {
		w.columns = m.GetColumns()
	}
	w.rows = m.GetRows()
	return nil
}

// Columns returns the names of the rows' members.
func (w *Watch) Columns() *watershedv1.Columns { return w.columns }

// Next waits for a change and moves to it. It returns false when the context has ended or asking again is of no use, as
// when the job was deleted: Err tells which.
func (w *Watch) Next() bool {
	for w.err == nil && len(w.rows) == 0 {
		err := w.receive()
		switch {
		case err == nil:
		case w.ctx.Err() != nil:
			w.err = w.ctx.Err()
		case !again(err):
			w.err = inWords(err)
		default:
			w.cuts++
			if w.cut != nil {
				w.cut(inWords(err))
			}
			w.err = w.find(w.ctx)
		}
	}
	if w.err != nil {
		w.cancel()
		return false
	}
	w.row, w.rows = w.rows[0], w.rows[1:]
	return true
}

// More reports whether Next will not wait.
func (w *Watch) More() bool { return len(w.rows) > 0 }

// Row returns the row that Next moved to. It may be kept.
func (w *Watch) Row() *watershedv1.Row { return w.row }

// Cuts returns how often the watch was cut so far.
func (w *Watch) Cuts() int { return w.cuts }

// Err returns why Next has returned false; the context's error where that has ended.
func (w *Watch) Err() error { return w.err }

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() { w.cancel() }
