package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watershed-db/watershed/jepsen/s3"
)

// contract is what every Store must do.
func contract(t *testing.T, s Store) {
	t.Helper()
	ctx := t.Context()
	if _, _, err := s.Get(ctx, "a/none", 10); !errors.Is(err, ErrNotFound) {
		t.Fatalf("read of nothing: %v", err)
	}
	if _, err := s.Stat(ctx, "a/none"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("look at nothing: %v", err)
	}
	tag, err := s.Create(ctx, "a/one", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Create(ctx, "a/one", []byte("1")); err != nil || again != tag {
		t.Fatalf("the same again: %q, %v", again, err)
	}
	if _, err := s.Create(ctx, "a/one", []byte("2")); !errors.Is(err, ErrExists) {
		t.Fatalf("another in its place: %v", err)
	}
	next, err := s.Replace(ctx, "a/one", []byte("3"), tag)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Replace(ctx, "a/one", []byte("4"), tag); !errors.Is(err, ErrExists) {
		t.Fatalf("replaced what is gone: %v", err)
	}
	if body, tag, err := s.Get(ctx, "a/one", 1); err != nil || string(body) != "3" || tag != next {
		t.Fatalf("read %q, %q, %v", body, tag, err)
	}
	if _, _, err := s.Get(ctx, "a/one", 0); !errors.Is(err, ErrTooBig) {
		t.Fatalf("read of too much: %v", err)
	}
	contractBig(t, s)
	if err := s.Delete(ctx, []string{"a/one", "a/none"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(ctx, "a/one", 10); !errors.Is(err, ErrNotFound) {
		t.Fatalf("read of what was removed: %v", err)
	}
}

// contractBig is the part about files and lists.
func contractBig(t *testing.T, s Store) {
	t.Helper()
	ctx := t.Context()
	for _, size := range []int{0, 1, 5 << 20, 11<<20 + 7} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rand.Uint32())
		}
		key := fmt.Sprintf("a/tables/%08d", size)
		if err := s.Upload(ctx, key, bytes.NewReader(body), int64(size)); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		var back bytes.Buffer
		if n, err := s.Download(ctx, key, &back); err != nil || n != int64(size) || !bytes.Equal(back.Bytes(), body) {
			t.Fatalf("%d bytes came back as %d: %v", size, n, err)
		}
		if info, err := s.Stat(ctx, key); err != nil || info.Size != int64(size) || time.Since(info.Modified) > time.Hour {
			t.Fatalf("%d bytes: %+v, %v", size, info, err)
		}
	}
	var keys []string
	if err := s.List(ctx, "a/", func(i Info) bool { keys = append(keys, i.Key); return len(keys) < 4 }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a/one", "a/tables/00000000", "a/tables/00000001", "a/tables/05242880"}; !slices.Equal(keys, want) {
		t.Fatalf("listed %q", keys)
	}
	if err := s.Upload(ctx, "a/tables/broken", failing{}, 11<<20); err == nil {
		t.Fatal("half a file was uploaded")
	}
	if _, err := s.Stat(ctx, "a/tables/broken"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("half an upload is seen: %v", err)
	}
	if _, err := s.Abandon(ctx, "a/", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
}

// failing is a file whose second half can't be read.
type failing struct{}

func (failing) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > 6<<20 {
		return 0, errors.New("bad sector")
	}
	return len(p), nil
}

func TestMemoryKeepsTheContract(t *testing.T) { contract(t, new(Memory)) }

func open(t *testing.T, o Options) *S3 {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARealServerKeepsTheContract(t *testing.T) {
	_, proxy := s3.Serve(t)
	contract(t, open(t, Options{
		Location: Location{Bucket: s3.Bucket, Prefix: "p/q", Endpoint: proxy.URL()}, PartBytes: 5 << 20,
	}))
	passed, _, _ := proxy.Counts()
	t.Logf("%d requests", passed)
}

// TestFaultsOfAServer: busy and broken answers are tried again, a dead server is an error in time, and it is used again
// when it is back; what it held when it was killed is whole.
func TestFaultsOfAServer(t *testing.T) {
	server, proxy := s3.Serve(t)
	s := open(t, Options{
		Location: Location{Bucket: s3.Bucket, Endpoint: proxy.URL()}, PartBytes: 5 << 20, Attempts: 3, Within: 2 * time.Second,
	})
	ctx := t.Context()
	var n atomic.Int64
	proxy.Set(s3.Faults{Busy: func(*http.Request) bool { return n.Add(1)%2 == 1 }})
	if _, err := s.Create(ctx, "one", []byte("1")); err != nil {
		t.Errorf("a busy server: %v", err)
	}
	n.Store(0)
	proxy.Set(s3.Faults{Cut: func(r *http.Request) bool { return r.Method == http.MethodPut && n.Add(1) == 2 }})
	body := bytes.Repeat([]byte("0123456789abcdef"), 6<<20/16)
	if err := s.Upload(ctx, "big", bytes.NewReader(body), int64(len(body))); err != nil {
		t.Errorf("a connection cut in a part: %v", err)
	}
	n.Store(0)
	proxy.Set(s3.Faults{Delay: func(*http.Request) time.Duration {
		if n.Add(1) == 1 {
			return time.Minute
		}
		return 0
	}})
	if _, _, err := s.Get(ctx, "one", 1); err != nil {
		t.Errorf("an answer that does not come: %v", err)
	}
	proxy.Set(s3.Faults{Busy: func(*http.Request) bool { return true }})
	if _, _, err := s.Get(ctx, "one", 1); !errors.Is(err, ErrBusy) {
		t.Errorf("always busy: %v", err)
	}
	proxy.Set(s3.Faults{})
	server.Kill()
	if _, _, err := s.Get(ctx, "one", 1); err == nil || strings.Contains(err.Error(), s3.SecretKey) {
		t.Errorf("a dead server: %v", err)
	}
	if err := server.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Get(ctx, "big", 10<<20); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes after the server's restart: %v", len(got), err)
	}
}

// TestAnUnfinishedUploadIsRemoved: what a killed uploader leaves goes away, what is younger stays.
func TestAnUnfinishedUploadIsRemoved(t *testing.T) {
	_, proxy := s3.Serve(t)
	s := open(t, Options{Location: Location{Bucket: s3.Bucket, Endpoint: proxy.URL()}, PartBytes: 5 << 20, Attempts: 1})
	bucket, key := s.bucketKey("left")
	if _, err := s.beginParts(t.Context(), bucket, key); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Abandon(t.Context(), "", time.Now().Add(-time.Hour)); err != nil || n != 0 {
		t.Fatalf("removed %d: %v", n, err)
	}
	if n, err := s.Abandon(t.Context(), "", time.Now().Add(time.Hour)); err != nil || n != 1 {
		t.Fatalf("removed %d: %v", n, err)
	}
}

func TestABucketThatIsNotThereAndWrongCredentials(t *testing.T) {
	_, proxy := s3.Serve(t)
	other := open(t, Options{Location: Location{Bucket: "nothing-here", Endpoint: proxy.URL()}, Attempts: 2})
	if _, err := other.Create(t.Context(), "a", nil); !errors.Is(err, ErrBucket) {
		t.Errorf("no bucket: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong-one")
	wrong := open(t, Options{Location: Location{Bucket: s3.Bucket, Endpoint: proxy.URL()}, Attempts: 2})
	if _, err := wrong.Create(t.Context(), "a", nil); !errors.Is(err, ErrCredentials) || strings.Contains(err.Error(), "wrong-one") {
		t.Errorf("wrong credentials: %v", err)
	}
}

// TestWhatServersSay: each answer is told in our words.
func TestWhatServersSay(t *testing.T) {
	for name, x := range map[string]struct {
		status int
		code   string
		want   error
	}{
		"clock":     {403, "RequestTimeTooSkewed", ErrClock},
		"bucket":    {404, "NoSuchBucket", ErrBucket},
		"key":       {404, "NoSuchKey", ErrNotFound},
		"denied":    {403, "AccessDenied", ErrDenied},
		"signature": {403, "SignatureDoesNotMatch", ErrCredentials},
		"expired":   {400, "ExpiredToken", ErrCredentials},
		"slow down": {503, "SlowDown", ErrBusy},
		"condition": {412, "PreconditionFailed", ErrExists},
		"conflict":  {409, "ConditionalRequestConflict", ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(x.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", x.code)
			}))
			defer server.Close()
			for _, e := range s3.Environment() {
				name, value, _ := strings.Cut(e, "=")
				t.Setenv(name, value)
			}
			s := open(t, Options{Location: Location{Bucket: "b", Endpoint: server.URL}, Attempts: 1})
			_, _, err := s.Get(t.Context(), "k", 10)
			if !errors.Is(err, x.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestNoCredentials(t *testing.T) {
	for _, e := range s3.Environment() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("HOME", t.TempDir())
	s := open(t, Options{Location: Location{Bucket: "b", Endpoint: "http://127.0.0.1:1"}, Attempts: 1})
	if _, _, err := s.Get(t.Context(), "k", 10); !errors.Is(err, ErrCredentials) {
		t.Error(err)
	}
}

func TestParseLocation(t *testing.T) {
	for text, want := range map[string]Location{
		"s3://b":      {Bucket: "b"},
		"s3://b/p/q/": {Bucket: "b", Prefix: "p/q"},
		"s3://b/p?endpoint=http://127.0.0.1:9000&region=eu-west-1": {Bucket: "b", Prefix: "p", Endpoint: "http://127.0.0.1:9000", Region: "eu-west-1"},
	} {
		if got, err := ParseLocation(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "b/p", "http://b/p", "s3://", "s3:///p", "s3://user:secret@b/p", "s3://b/p?endpoint=x", "s3://b/p?endpoint=",
		"s3://b/p?endpoint=http://user:secret@h", "s3://b//p//q", "s3://b/p?zone=a", "s3://b/p#f", "s3://b/p?region=a&region=b", "s3://b/%zz"} {
		_, err := ParseLocation(text)
		if !errors.Is(err, ErrLocation) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseLocation(f *testing.F) {
	f.Add("s3://b/p?endpoint=http://127.0.0.1:9000&region=eu-west-1")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLocation(text)
		if err == nil && (l.Bucket == "" || strings.HasSuffix(l.Prefix, "/")) {
			t.Fatalf("%q is %+v", text, l)
		}
	})
}

func TestPaceSpreadsBytes(t *testing.T) {
	p := pace{rate: 1000}
	now := time.Unix(1, 0)
	for i, want := range []time.Duration{0, time.Second, 3 * time.Second} {
		if got := p.reserve(now, []int{1000, 2000, 1}[i]); got != want {
			t.Errorf("body %d waits %s, want %s", i, got, want)
		}
	}
	if got := p.reserve(now.Add(time.Minute), 1); got != 0 {
		t.Errorf("after a rest: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	slow := pace{rate: 1}
	if err := slow.wait(ctx, 1000); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := slow.wait(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	cancel()
	waiting.Wait()
}

func TestFilesOfTheServerAreTheBucket(t *testing.T) {
	server, proxy := s3.Serve(t)
	s := open(t, Options{Location: Location{Bucket: s3.Bucket, Prefix: "p", Endpoint: proxy.URL()}})
	if _, err := s.Create(t.Context(), "x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(server.Data(), "p", "x")); err != nil {
		t.Fatal(err)
	}
}
