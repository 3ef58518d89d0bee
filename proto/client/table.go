package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

var (
	// ErrOutcomeUnknown says that a write may have been taken, and may not. It may be made again, but then counts as another
	// one.
	ErrOutcomeUnknown = errors.New("whether the write was taken is not known")
	// ErrCompare says that a key's value was not as a compare-and-set expected; nothing was changed.
	ErrCompare = errors.New("the value is not as expected")
)

// Table reads and writes a table of the deployment. It is safe for concurrent use, and so are several of one table. Each
// write counts once, however often it takes to reach a node that answers. Writes fail with ErrOutcomeUnknown where the
// time ran out while one was under way; after any other error nothing was written.
type Table struct {
	c    *Client
	name string
}

// Table returns a table by name; whether there is one, its calls tell: NOT_FOUND.
func (c *Client) Table(name string) *Table { return &Table{c, name} }

// Expect says what a compare-and-set expects of a key's value. The zero Expect expects that there is none.
type Expect struct {
	Version *watershedv1.Version // that the value has, as a read or a write gave it
	Value   []byte               // else that it equals, if not nil
}

// Put sets the value of a key of an owned table or a register. The version is nil for a register.
func (t *Table) Put(ctx context.Context, key string, value []byte) (*watershedv1.Version, error) {
	return t.write(ctx, key, nil, &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Put{Put: value}})
}

// CompareAndSet sets the value of a key of an owned table, if what is there is as expected. Else it fails with ErrCompare,
// and version is what is there, nil for nothing.
func (t *Table) CompareAndSet(ctx context.Context, key string, expect Expect, value []byte) (version *watershedv1.Version, err error) {
	set := &watershedv1.CompareAndSet{Put: value}
	switch {
	case expect.Version != nil:
		set.Expect = &watershedv1.CompareAndSet_Version{Version: expect.Version}
	case expect.Value != nil:
		set.Expect = &watershedv1.CompareAndSet_Value{Value: expect.Value}
	default:
		set.Expect = &watershedv1.CompareAndSet_Absent{Absent: true}
	}
	return t.write(ctx, key, nil, &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_CompareAndSet{CompareAndSet: set}})
}

// Delete removes the value of a key of an owned table or a register, if it has one.
func (t *Table) Delete(ctx context.Context, key string) error {
	_, err := t.write(ctx, key, nil, &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Delete{Delete: &watershedv1.Delete{}}})
	return err
}

// Increment adds to a counter; one that only grows takes nothing below 0.
func (t *Table) Increment(ctx context.Context, key string, by int64) error {
	_, err := t.write(ctx, key, nil, &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Increment{Increment: by}})
	return err
}

// Add adds an element to a set.
func (t *Table) Add(ctx context.Context, key string, element []byte) error {
	_, err := t.write(ctx, key, element, &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Add{Add: element}})
	return err
}

// Remove removes an element from a set, as far as the answering region knows of it.
func (t *Table) Remove(ctx context.Context, key string, element []byte) error {
	_, err := t.write(ctx, key, element, &watershedv1.WriteRequest{Operation: &watershedv1.WriteRequest_Remove{Remove: element}})
	return err
}

func textKey(key string) *watershedv1.Value {
	return &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: key}}
}

// Get returns the value of a key, nil where it has none.
func (t *Table) Get(ctx context.Context, key string) (*watershedv1.TableValue, error) {
	out, err := t.c.getValue(ctx, &watershedv1.GetValueRequest{Table: t.name, Key: textKey(key)})
	return out.GetValue(), err
}

func (c *Client) getValue(ctx context.Context, in *watershedv1.GetValueRequest) (out *watershedv1.GetValueResponse, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewStateServiceClient(cc).GetValue(ctx, in)
		return err
	})
	return out, err
}

// Scan calls each with the keys of the table and their values in order of keys, from a key on, at most limit of them or all
// for 0: each as it was at some moment of the call. It fails with ErrCutShort where the answer broke off after some of
// them, and with the error of each as it is. What each is given it may keep.
func (t *Table) Scan(ctx context.Context, from string, limit int, each func(*watershedv1.TableValue) error) error {
	in := &watershedv1.ScanTableRequest{Table: t.name, Limit: uint32(limit)}
	if from != "" {
		in.From = textKey(from)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stream watershedv1.StateService_ScanTableClient
	var first *watershedv1.ScanTableResponse
	err := t.c.call(ctx, true, func(opening context.Context, cc *grpc.ClientConn) (err error) {
		reading, stop := context.WithCancel(ctx)
		inTime := context.AfterFunc(opening, stop)
		if stream, err = watershedv1.NewStateServiceClient(cc).ScanTable(reading, in); err == nil {
			first, err = stream.Recv()
		}
		if !inTime() && err == nil {
			err = opening.Err()
		}
		if err != nil {
			stop()
			return brokeOff(err)
		}
		context.AfterFunc(ctx, stop)
		return nil
	})
	for m := first; err == nil; {
		for _, v := range m.GetValues() {
			if err := each(v); err != nil {
				return err
			}
		}
		if m.GetEnd() {
			return nil
		}
		if m, err = stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				err = status.Error(codes.Unavailable, "the node broke off its answer")
			}
			err = fmt.Errorf("%w: %w", ErrCutShort, inWords(err))
		}
	}
	return err
}
