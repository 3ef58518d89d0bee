package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/watershed-db/watershed/region/router"
)

// Pages serves a node's HTTP port: /metrics, /healthz, /readyz and /debug/pprof.
type Pages struct{ http *http.Server }

// NewPages returns the pages of a node. ready names what the node still waits for, "" for nothing.
func NewPages(metrics prometheus.Gatherer, ready func() string, logger hclog.Logger) *Pages {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := ready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &Pages{&http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute, // a profile takes its time
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       logger.Named("http").StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}),
	}}
}

// Serve answers requests that come in by l, until Stop. It owns l.
func (p *Pages) Serve(l net.Listener) error {
	if err := p.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

// Stop ends all requests, but gives them a moment.
func (p *Pages) Stop(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := p.http.Shutdown(ctx); err != nil {
		return p.http.Close()
	}
	return nil
}

// NotReady names the shards of this node that have no leader, lag behind it or are damaged, "" for none.
func NotReady(r *router.Router) string {
	var waits, damaged []string
	for _, here := range r.Local().All() {
		if here.Damage() != nil {
			damaged = append(damaged, fmt.Sprint(here.Shard()))
		} else if !here.Ready() {
			waits = append(waits, fmt.Sprint(here.Shard()))
		}
	}
	var why []string
	if len(damaged) > 0 {
		why = append(why, "damaged, to be rebuilt: shard "+strings.Join(damaged, ", "))
	}
	if len(waits) > 0 {
		why = append(why, "no leader, or not caught up: shard "+strings.Join(waits, ", "))
	}
	return strings.Join(why, "; ")
}
