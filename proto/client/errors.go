package client

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

var (
	// ErrEndpoint refuses a list of endpoints that is empty, or one that is not HOST:PORT.
	ErrEndpoint = errors.New("no usable endpoint")
	// ErrClosed says that the Client was closed.
	ErrClosed = errors.New("the client is closed")
	// ErrNoAnswer says that no node answered, or none could, within the time. It wraps what the last one said.
	ErrNoAnswer = errors.New("no answer in time")
	// ErrCutShort says that a scan broke off after some of its rows: they are not the whole answer.
	ErrCutShort = errors.New("the answer was cut short")
	// ErrBehind says that an answer does not reflect what the session has seen before.
	ErrBehind = errors.New("the answer is older than what was seen before")
)

// Detail returns what stands beside the gRPC status of an error, nil where there is nothing.
func Detail(err error) *watershedv1.ErrorDetail {
	for _, d := range status.Convert(err).Details() {
		if detail, ok := d.(*watershedv1.ErrorDetail); ok {
			return detail
		}
	}
	return nil
}

// maxRetryAfter bounds the time to wait that a node's word is taken for.
const maxRetryAfter = 30 * time.Second

// RetryAfter returns how long a node that refused a call for want of resources asks to wait before another try; not ok for
// any other error. Calls of a Client wait so by themselves, as far as their time lasts.
func RetryAfter(err error) (wait time.Duration, ok bool) {
	s := status.Convert(err)
	if s.Code() != codes.ResourceExhausted {
		return 0, false
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return min(max(info.GetRetryDelay().AsDuration(), 0), maxRetryAfter), true
		}
	}
	return 0, false
}

// said is an error of a node, told in the node's words alone.
type said struct{ error }

func (e said) Error() string { return status.Convert(e.error).Message() }

func (e said) Unwrap() error { return e.error }

// inWords makes an error that is a gRPC status read as its message. It stays that status.
func inWords(err error) error {
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return said{err}
	}
	return err
}
