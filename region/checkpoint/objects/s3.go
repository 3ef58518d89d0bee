package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Options says how an S3 is used. Zero fields take the defaults that their comments name.
type Options struct {
	Location
	// Rate bounds what is uploaded, in bytes a second (default: no bound).
	Rate int64
	// Attempts bounds the tries of one request (default 3); between them lie pauses that double, with jitter.
	Attempts int
	// Within bounds one try of one request, which moves at most a part (default 30 s).
	Within time.Duration
	// PartBytes is the size of the parts that a bigger object is uploaded in: 5 MiB to 5 GiB (default 8 MiB). One part is
	// held in memory by each call of Upload.
	PartBytes int64
}

func (o Options) withDefaults() Options {
	if o.Attempts == 0 {
		o.Attempts = 3
	}
	if o.Within == 0 {
		o.Within = 30 * time.Second
	}
	if o.PartBytes == 0 {
		o.PartBytes = 8 << 20
	}
	if o.Region == "" && o.Endpoint != "" {
		o.Region = "us-east-1" // what servers of other makes take unless they were told otherwise
	}
	return o
}

// maxBackoff bounds the pause between two tries.
const maxBackoff = 5 * time.Second

// maxParts is what S3 takes of one object.
const maxParts = 10_000

// S3 is a Store in a bucket. Credentials are looked for where the AWS tools look: in the environment, in files, from the
// machine's role; they are looked for again when they end.
type S3 struct {
	o      Options
	client *s3.Client
	// stream is for answers that may take as long as they move.
	stream *s3.Client
	idle   []func() // close idle connections
	pace   pace
}

var _ Store = (*S3)(nil)

// Open returns the store of a location. It reads the environment and files, and asks no server.
func Open(ctx context.Context, o Options) (*S3, error) {
	o = o.withDefaults()
	load := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(r *retry.StandardOptions) {
				r.MaxAttempts, r.MaxBackoff = o.Attempts, maxBackoff
			})
		}),
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	// The library takes a try that ran out of time for one more reason to try again.
	calls := awshttp.NewBuildableClient()
	streams := calls.WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = o.Within })
	callTransport, streamTransport := calls.GetTransport(), streams.GetTransport()
	cfg.HTTPClient = &http.Client{Transport: callTransport, Timeout: o.Within, CheckRedirect: stay}
	client := s3.NewFromConfig(cfg, func(c *s3.Options) {
		if o.Endpoint != "" {
			c.BaseEndpoint, c.UsePathStyle = aws.String(o.Endpoint), true
		}
		// Each body carries its checksum, which the server verifies.
		c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	})
	stream := s3.New(client.Options(), func(c *s3.Options) {
		c.HTTPClient = &http.Client{Transport: streamTransport, CheckRedirect: stay}
	})
	return &S3{
		o: o, client: client, stream: stream, pace: pace{rate: o.Rate},
		idle: []func(){callTransport.CloseIdleConnections, streamTransport.CloseIdleConnections},
	}, nil
}

// stay follows no redirection: what was signed is for one place.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Location returns where the store is.
func (s *S3) Location() Location { return s.o.Location }

// Close implements Store.
func (s *S3) Close() {
	for _, f := range s.idle {
		f()
	}
}

// within bounds a request with all its tries.
func (s *S3) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(s.o.Attempts)*(s.o.Within+maxBackoff))
}

// bucketKey returns bucket and key as requests want them.
func (s *S3) bucketKey(key string) (bucket, whole *string) {
	return aws.String(s.o.Bucket), aws.String(s.o.key(key))
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, key string, max int) ([]byte, Tag, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	bucket, whole := s.bucketKey(key)
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: whole})
	if err != nil {
		return nil, "", s.fail("read", key, err)
	}
	defer out.Body.Close()
	if size := aws.ToInt64(out.ContentLength); size > int64(max) {
		return nil, "", fmt.Errorf("read %s: %w: %d bytes, at most %d are taken", key, ErrTooBig, size, max)
	}
	body, err := io.ReadAll(io.LimitReader(out.Body, int64(max)+1))
	if err != nil {
		return nil, "", s.fail("read", key, err)
	}
	if len(body) > max {
		return nil, "", fmt.Errorf("read %s: %w: at most %d bytes are taken", key, ErrTooBig, max)
	}
	return body, Tag(aws.ToString(out.ETag)), nil
}

// Create implements Store.
func (s *S3) Create(ctx context.Context, key string, body []byte) (Tag, error) {
	tag, err := s.put(ctx, key, body, func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
	return s.settle(ctx, key, body, tag, err)
}

// Replace implements Store.
func (s *S3) Replace(ctx context.Context, key string, body []byte, old Tag) (Tag, error) {
	tag, err := s.put(ctx, key, body, func(in *s3.PutObjectInput) { in.IfMatch = aws.String(string(old)) })
	return s.settle(ctx, key, body, tag, err)
}

// settle looks, after a refusal, whether what is there is what an earlier try of the same call has written.
func (s *S3) settle(ctx context.Context, key string, body []byte, tag Tag, err error) (Tag, error) {
	if !errors.Is(err, ErrExists) {
		return tag, err
	}
	if there, tag, e := s.Get(ctx, key, len(body)); e == nil && bytes.Equal(there, body) {
		return tag, nil
	}
	return "", err
}

func (s *S3) put(ctx context.Context, key string, body []byte, condition func(*s3.PutObjectInput)) (Tag, error) {
	if err := s.pace.wait(ctx, len(body)); err != nil {
		return "", err
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	bucket, whole := s.bucketKey(key)
	in := &s3.PutObjectInput{
		Bucket: bucket, Key: whole, Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	}
	condition(in)
	out, err := s.client.PutObject(ctx, in)
	if err != nil {
		return "", s.fail("write", key, err)
	}
	return Tag(aws.ToString(out.ETag)), nil
}

// Upload implements Store.
func (s *S3) Upload(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if size > s.o.PartBytes {
		return s.uploadParts(ctx, key, body, size)
	}
	whole := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(body, 0, size), whole); err != nil {
		return fmt.Errorf("read what is to be %s: %w", key, err)
	}
	_, err := s.put(ctx, key, whole, func(*s3.PutObjectInput) {})
	return err
}

// Download implements Store.
func (s *S3) Download(ctx context.Context, key string, w io.Writer) (int64, error) {
	bucket, whole := s.bucketKey(key)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(time.Duration(s.o.Attempts)*(s.o.Within+maxBackoff), cancel)
	defer stalled.Stop()
	out, err := s.stream.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: whole})
	if err != nil {
		return 0, s.fail("read", key, err)
	}
	defer out.Body.Close()
	n, err := io.Copy(w, progress{out.Body, func() { stalled.Reset(s.o.Within) }})
	if err != nil {
		return n, s.fail("read", key, err)
	}
	if want := aws.ToInt64(out.ContentLength); out.ContentLength != nil && n != want {
		return n, fmt.Errorf("read %s: %w: %d of %d bytes", key, io.ErrUnexpectedEOF, n, want)
	}
	return n, nil
}

// progress calls moved after each read.
type progress struct {
	io.Reader
	moved func()
}

func (p progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.moved()
	return n, err
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, key string) (Info, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	bucket, whole := s.bucketKey(key)
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: whole})
	if err != nil {
		return Info{}, s.fail("look at", key, err)
	}
	return Info{key, aws.ToInt64(out.ContentLength), aws.ToTime(out.LastModified)}, nil
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix string, each func(Info) bool) error {
	bucket, whole := s.bucketKey(prefix)
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: whole})
	for pages.HasMorePages() {
		page, err := s.page(ctx, pages)
		if err != nil {
			return s.fail("list", prefix, err)
		}
		for _, o := range page.Contents {
			key := strings.TrimPrefix(aws.ToString(o.Key), s.o.key(""))
			if !each(Info{key, aws.ToInt64(o.Size), aws.ToTime(o.LastModified)}) {
				return nil
			}
		}
	}
	return nil
}

func (s *S3) page(ctx context.Context, pages *s3.ListObjectsV2Paginator) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	return pages.NextPage(ctx)
}

// maxDeleted is how many objects S3 removes in one request.
const maxDeleted = 1000

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, keys []string) error {
	for len(keys) > 0 {
		n := min(len(keys), maxDeleted)
		if err := s.deleteSome(ctx, keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func (s *S3) deleteSome(ctx context.Context, keys []string) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	which := &types.Delete{Quiet: aws.Bool(true)}
	for _, k := range keys {
		which.Objects = append(which.Objects, types.ObjectIdentifier{Key: aws.String(s.o.key(k))})
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: aws.String(s.o.Bucket), Delete: which})
	if err != nil {
		return s.fail("remove", keys[0], err)
	}
	for _, e := range out.Errors {
		if code := aws.ToString(e.Code); code != "NoSuchKey" {
			return fmt.Errorf("remove %s: %s: %s", aws.ToString(e.Key), code, aws.ToString(e.Message))
		}
	}
	return nil
}
