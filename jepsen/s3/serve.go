package s3

import (
	"fmt"
	"strings"
	"testing"
)

// Serve starts a server over an empty bucket with a proxy before it, both until the test ends, and puts the server's
// credentials into the test's environment, so the test must not be parallel. It skips the test in short mode and where no
// server can be run.
func Serve(t testing.TB) (*Server, *Proxy) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a server")
	}
	if ok, reason := Available(); !ok {
		t.Skip("NOT TESTED AGAINST A REAL S3 SERVER: " + reason)
	}
	server, err := Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	proxy, err := NewProxy(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	for _, e := range Environment() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	return server, proxy
}

// Place returns what a configuration names the bucket's part below prefix by, as reached through the proxy.
func (p *Proxy) Place(prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s", Bucket, prefix, p.URL())
}
