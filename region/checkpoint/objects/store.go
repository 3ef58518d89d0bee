package objects

import (
	"context"
	"errors"
	"io"
	"time"
)

// What an object store may answer. Every error of a Store that is one of these wraps it; its text names the bucket and
// what to do, and never a secret.
var (
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("no such object")
	// ErrExists says that the condition of a write does not hold: the object is there, or is another one by now.
	ErrExists = errors.New("object is there already")
	// ErrCredentials says that there are no credentials, or wrong ones.
	ErrCredentials = errors.New("no usable credentials for the object store")
	// ErrDenied says that the credentials do not allow it.
	ErrDenied = errors.New("the object store denies access")
	// ErrBucket says that the bucket is not there.
	ErrBucket = errors.New("no such bucket")
	// ErrClock says that this machine's clock is too far from the object store's.
	ErrClock = errors.New("this machine's clock is too far from the object store's")
	// ErrBusy says that the object store asked to be asked less.
	ErrBusy = errors.New("the object store is overloaded")
	// ErrTooBig says that an object has more bytes than its reader takes.
	ErrTooBig = errors.New("object is too big")
)

// Info describes an object.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time // by the store's clock
}

// Tag names one content of an object, for Replace. It is opaque.
type Tag string

// Store holds objects by key: slash-separated, relative to the place that the store was opened at. Any goroutine may
// call it. Calls retry what can be retried, within bounds, and end with their context.
type Store interface {
	// Get returns a small object, with ErrTooBig for one of more than max bytes.
	Get(ctx context.Context, key string, max int) ([]byte, Tag, error)
	// Create writes a small object that is not there, else it fails with ErrExists. To create the same bytes again
	// succeeds: the answer to a first try may have been lost.
	Create(ctx context.Context, key string, body []byte) (Tag, error)
	// Replace writes a small object in the place of the content that tag names, else it fails with ErrExists.
	Replace(ctx context.Context, key string, body []byte, tag Tag) (Tag, error)
	// Upload writes size bytes of body, whatever was there. Half an upload is never seen.
	Upload(ctx context.Context, key string, body io.ReaderAt, size int64) error
	// Download writes an object to w and returns its size. After an error w has seen some part of it.
	Download(ctx context.Context, key string, w io.Writer) (int64, error)
	// Stat describes an object.
	Stat(ctx context.Context, key string) (Info, error)
	// List calls each with the objects whose keys begin with prefix, in the order of their keys, until it returns false.
	List(ctx context.Context, prefix string, each func(Info) bool) error
	// Delete removes objects. One that is not there is no error.
	Delete(ctx context.Context, keys []string) error
	// Abandon removes what uploads under prefix that began before a moment have left unfinished, and returns how many.
	Abandon(ctx context.Context, prefix string, before time.Time) (int, error)
	// Close lets go of connections that are not in use.
	Close()
}
