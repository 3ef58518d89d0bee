package objects

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Location is a place in an S3 bucket, written s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=NAME. Both parameters
// may be left out: then they are what the environment says. It holds no secrets.
type Location struct {
	Bucket   string
	Prefix   string // without a slash at either end; may be empty
	Endpoint string // of another server than AWS; buckets are addressed by path there
	Region   string
}

// ErrLocation marks a text that names no place in a bucket.
var ErrLocation = errors.New("not s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=NAME")

const maxPrefix = 512

// ParseLocation reads a Location. It refuses user information: credentials do not belong there.
func ParseLocation(text string) (Location, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Opaque != "" || u.Fragment != "" {
		return Location{}, ErrLocation // the text may hold a secret
	}
	if u.User != nil {
		return Location{}, fmt.Errorf("%w: credentials do not belong into it", ErrLocation)
	}
	l := Location{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if len(l.Prefix) > maxPrefix || strings.Contains(l.Prefix, "//") {
		return Location{}, fmt.Errorf("%w: the prefix is not well formed", ErrLocation)
	}
	parameters, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Location{}, ErrLocation
	}
	for name, values := range parameters {
		if len(values) != 1 || values[0] == "" {
			return Location{}, fmt.Errorf("%w: %q is to be given once", ErrLocation, name)
		}
		switch name {
		case "endpoint":
			e, err := url.Parse(values[0])
			if err != nil || e.Host == "" || e.User != nil || e.Scheme != "http" && e.Scheme != "https" {
				return Location{}, fmt.Errorf("%w: the endpoint is no http://HOST:PORT", ErrLocation)
			}
			l.Endpoint = values[0]
		case "region":
			l.Region = values[0]
		default:
			return Location{}, fmt.Errorf("%w: unknown parameter %q", ErrLocation, name)
		}
	}
	return l, nil
}

// String returns the location without its parameters.
func (l Location) String() string {
	return "s3://" + strings.TrimSuffix(l.Bucket+"/"+l.Prefix, "/")
}

// key returns the bucket's key of a key of this place.
func (l Location) key(key string) string {
	if l.Prefix == "" {
		return key
	}
	return l.Prefix + "/" + key
}
