package objects

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// fail names what went wrong in words for people. What the server said stands behind it, without request identities.
func (s *S3) fail(doing, key string, err error) error {
	hint, kind := kindOf(err)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s %s: %w", doing, key, context.Canceled)
	case kind == nil:
		return fmt.Errorf("%s %s in %s: %s: %w", doing, key, s.o.Location, server(err), cause(err))
	case kind == ErrNotFound || kind == ErrExists:
		return fmt.Errorf("%s %s: %w", doing, key, kind)
	}
	return fmt.Errorf("%s %s in %s: %w: %s", doing, key, s.o.Location, kind, hint)
}

// server returns the server's own words, short.
func server(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode() + ": " + api.ErrorMessage()
	}
	return "no answer"
}

// cause returns what a request failed for, without the library's words around it.
func cause(err error) error {
	var operation *smithy.OperationError
	if errors.As(err, &operation) && operation.Err != nil {
		return operation.Err
	}
	return err
}

// kindOf sorts what the library returns; nil where it is none of ours.
func kindOf(err error) (hint string, kind error) {
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	status := 0
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	switch code {
	case "NoSuchBucket":
		return "make it, or correct the configuration", ErrBucket
	case "RequestTimeTooSkewed", "RequestExpired":
		return "set the clock", ErrClock
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthFailure":
		return "the store answers " + code, ErrCredentials
	case "AccessDenied":
		return "the credentials need to read, write, list and delete there", ErrDenied
	case "PreconditionFailed", "ConditionalRequestConflict":
		return "", ErrExists
	case "NoSuchKey", "NotFound":
		return "", ErrNotFound
	case "SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling", "TooManyRequestsException":
		return "the store answers " + code, ErrBusy
	}
	switch status {
	case http.StatusNotFound:
		return "", ErrNotFound
	case http.StatusPreconditionFailed:
		return "", ErrExists
	case http.StatusForbidden:
		return "the credentials need to read, write, list and delete there", ErrDenied
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return fmt.Sprintf("the store answers %d", status), ErrBusy
	}
	if lacksCredentials(err) {
		return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role", ErrCredentials
	}
	return "", nil
}

// lacksCredentials says whether a request failed before it was signed. The library has no type for that.
func lacksCredentials(err error) bool {
	var operation *smithy.OperationError
	var sent *awshttp.ResponseError
	if !errors.As(err, &operation) || errors.As(err, &sent) {
		return false
	}
	text := operation.Err.Error()
	return strings.Contains(text, "get identity") || strings.Contains(text, "refresh cached credentials")
}
