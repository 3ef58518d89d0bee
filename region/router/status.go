package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/limit"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

// ErrDeployment refuses a call that is meant for another deployment.
var ErrDeployment = errors.New("another deployment")

// indefinite is the ErrorDetail.reason of a command that may yet apply.
const indefinite = "indefinite"

// Status returns err as a gRPC status. UNAVAILABLE is only what another try can help; where another node leads, the
// detail names the address that address gives for it. A status, and nil, are returned as they are.
func Status(err error, address func(node string) string) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	var elsewhere *group.NotLeaderError
	var exhausted *limit.Exhausted
	switch {
	case errors.As(err, &exhausted):
		return Exhausted(exhausted)
	case errors.As(err, &elsewhere):
		detail := &watershedv1.ErrorDetail{Reason: "not the leader"}
		if elsewhere.Leader.ID != "" {
			detail.Leader = address(elsewhere.Leader.ID)
		}
		return withDetail(codes.Unavailable, err, detail)
	case errors.Is(err, replica.ErrDamaged): // here; another node may have it whole
		return withDetail(codes.Unavailable, err, &watershedv1.ErrorDetail{Reason: "damaged"})
	case errors.Is(err, group.ErrTooLarge):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, group.ErrIndefinite):
		return withDetail(codes.Unavailable, err, &watershedv1.ErrorDetail{Reason: indefinite})
	case errors.Is(err, group.ErrUnavailable), errors.Is(err, group.ErrStopped):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, shard.ErrInvalid), errors.Is(err, shard.ErrCommand):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrDeployment):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	default:
		return status.Error(codes.Internal, err.Error())
	}
}

// Exhausted returns a refusal as a RESOURCE_EXHAUSTED status that says how long to wait.
func Exhausted(e *limit.Exhausted) error {
	s := status.New(codes.ResourceExhausted, e.Error())
	if full, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.Wait)}); err == nil {
		s = full
	}
	return s.Err()
}

// exhausted returns the refusal that a RESOURCE_EXHAUSTED status stands for, nil where it names no time to wait.
func exhausted(err error) *limit.Exhausted {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			e := &limit.Exhausted{Wait: info.GetRetryDelay().AsDuration()}
			e.What = strings.TrimSuffix(status.Convert(err).Message(), e.Error())
			return e
		}
	}
	return nil
}

// RetryAfter returns how long the caller of a RESOURCE_EXHAUSTED status is to wait, 0 where it does not say.
func RetryAfter(err error) time.Duration {
	if status.Code(err) != codes.ResourceExhausted {
		return 0
	}
	if e := exhausted(err); e != nil {
		return max(e.Wait, 0)
	}
	return 0
}

func withDetail(code codes.Code, err error, detail *watershedv1.ErrorDetail) error {
	s := status.New(code, err.Error())
	if full, e := s.WithDetails(detail); e == nil {
		s = full
	}
	return s.Err()
}

// Detail returns what stands beside a gRPC status, nil where there is nothing.
func Detail(err error) *watershedv1.ErrorDetail {
	for _, d := range status.Convert(err).Details() {
		if detail, ok := d.(*watershedv1.ErrorDetail); ok {
			return detail
		}
	}
	return nil
}

// fromStatus returns what a remote leader's status says, as the same errors that a local replica gives. member names the
// node at an address.
func fromStatus(err error, member func(address string) group.Member) error {
	switch code := status.Code(err); code {
	case codes.OK:
		return nil
	case codes.Unavailable:
		detail := Detail(err)
		switch {
		case detail == nil: // the connection broke: what was under way may have arrived
			return fmt.Errorf("%w: %w: %w", group.ErrUnavailable, group.ErrIndefinite, err)
		case detail.Reason == indefinite:
			return fmt.Errorf("%w: %w", group.ErrIndefinite, err)
		default:
			return &group.NotLeaderError{Leader: member(detail.Leader)}
		}
	case codes.DeadlineExceeded, codes.Canceled:
		return fmt.Errorf("%w: %w: %w", group.ErrUnavailable, group.ErrIndefinite, err)
	case codes.InvalidArgument:
		return fmt.Errorf("%w: %w", shard.ErrInvalid, err)
	case codes.ResourceExhausted:
		if e := exhausted(err); e != nil {
			return e
		}
		return fmt.Errorf("%w: %w", group.ErrTooLarge, err)
	default:
		return err
	}
}
