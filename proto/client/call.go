package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxHints bounds how often in a row one node's word is taken that another one should be asked.
const maxHints = 3

// leastTry is the time that one endpoint gets at first while there are others: one that hangs, such as a node that was
// paused, costs no more. A call that needs longer gets there by asking all of them again, for twice as long.
const leastTry = time.Second

// call makes a unary call until a node answers it, but no longer than the Client's patience. A node that does not answer
// uses up a part of the time only, unless whole is set: for calls that take their time.
func (c *Client) call(ctx context.Context, whole bool, try func(ctx context.Context, cc *grpc.ClientConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.patience)
	defer cancel()
	return c.each(ctx, func(ctx context.Context, part time.Duration, cc *grpc.ClientConn) error {
		if len(c.endpoints) > 1 && !whole {
			bounded, cancel := context.WithTimeout(ctx, part)
			defer cancel()
			ctx = bounded
		}
		return try(ctx, cc)
	})
}

// part is the time that one endpoint gets of what is left, after so many tries.
func (c *Client) part(ctx context.Context, tries int) time.Duration {
	left := c.o.patience
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	return max(min(left/2, leastTry<<min(tries/len(c.endpoints), 16)), leastTry)
}

// search is the state of a call that has not been answered yet.
type search struct {
	turn     int    // whose turn it is among the endpoints
	tries    int    // so far
	hint     string // address that the last node named, "" if none
	hints    int    // followed in a row
	failures int    // of endpoints, hints not counted
}

// each makes a call of the endpoints in turn until one answers, an error says that asking again is of no use, or ctx
// ends. A try is told which part of the time is its own.
func (c *Client) each(ctx context.Context, try func(ctx context.Context, part time.Duration, cc *grpc.ClientConn) error) error {
	s := search{turn: c.firstTurn()}
	pause := c.o.minPause
	var last error
	for ctx.Err() == nil {
		address := s.hint
		if address == "" {
			address = c.endpoints[s.turn]
		}
		err := inWords(c.at(address, func(cc *grpc.ClientConn) error { return try(ctx, c.part(ctx, s.tries), cc) }))
		s.tries++
		switch {
		case err == nil:
			if s.hint == "" {
				c.answered(s.turn)
			}
			return nil
		case ctx.Err() == nil && !again(err):
			return err
		case ctx.Err() == nil || last == nil:
			last = err
		}
		told, _ := RetryAfter(err)
		if s.failed(err, address, len(c.endpoints)) {
			rest(ctx, max(pause, told))
			pause = min(2*pause, c.o.maxPause)
		}
	}
	if last == nil || errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrNoAnswer, last)
}

func (c *Client) at(address string, try func(*grpc.ClientConn) error) error {
	conn, err := c.conn(address)
	if err != nil {
		return err
	}
	return try(conn)
}

// failed decides who is asked next; true means that all have been asked in vain and a pause is due.
func (s *search) failed(err error, address string, endpoints int) (rest bool) {
	if d := Detail(err); d.GetLeader() != "" && d.GetLeader() != address && s.hints < maxHints {
		s.hint = d.GetLeader()
		s.hints++
		return false
	}
	s.hint, s.hints = "", 0
	s.turn = (s.turn + 1) % endpoints
	s.failures++
	return s.failures%endpoints == 0
}

// again says whether another try can help, where the caller's context has not ended: DEADLINE_EXCEEDED is then one
// endpoint's part of the time, and CANCELLED a node that stops.
func again(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	if _, told := RetryAfter(err); told { // a node that takes no more just now
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrBehind)
}

// rest waits for about d.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
