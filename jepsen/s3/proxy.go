package s3

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy stands before a server and misbehaves as told. Any goroutine may call it.
type Proxy struct {
	target   string
	listener net.Listener
	server   *http.Server
	client   *http.Transport
	faults   atomic.Pointer[Faults]
	counts   [3]atomic.Int64
	serving  sync.WaitGroup
}

// Faults are what a Proxy does.
type Faults struct {
	Busy  func(r *http.Request) bool          // answers 503 SlowDown to what it is true for
	Delay func(r *http.Request) time.Duration // waits before it passes a request on
	Cut   func(r *http.Request) bool          // closes the connection when half the request has been taken
}

// NewProxy serves on a port of its own, without a fault, until Close.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	p := &Proxy{target: target, listener: l, client: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	p.faults.Store(&Faults{})
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve)}
	p.serving.Go(func() { _ = p.server.Serve(l) }) // ends with Close
	return p, nil
}

// URL returns the proxy's address as an endpoint.
func (p *Proxy) URL() string { return "http://" + p.listener.Addr().String() }

// Set replaces what the proxy does.
func (p *Proxy) Set(f Faults) { p.faults.Store(&f) }

// Counts returns how many requests were passed on, how many were answered 503, and how many were cut.
func (p *Proxy) Counts() (passed, busy, cut int64) {
	return p.counts[0].Load(), p.counts[1].Load(), p.counts[2].Load()
}

// Close ends the proxy and what goes through it.
func (p *Proxy) Close() {
	_ = p.server.Close() // nothing to lose
	p.client.CloseIdleConnections()
	p.serving.Wait()
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	f := p.faults.Load()
	if f.Busy != nil && f.Busy(r) {
		p.counts[1].Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
		return
	}
	if f.Delay != nil {
		select {
		case <-time.After(f.Delay(r)):
		case <-r.Context().Done():
			return
		}
	}
	if f.Cut != nil && f.Cut(r) {
		p.counts[2].Add(1)
		_, _ = io.CopyN(io.Discard, r.Body, max(r.ContentLength/2, 0))
		panic(http.ErrAbortHandler)
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", p.target, ""
	answer, err := p.client.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler) // gone, as the server is
	}
	defer answer.Body.Close()
	p.counts[0].Add(1)
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}
