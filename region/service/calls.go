package service

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/region/router"
)

// callWithin bounds a unary call whose caller set no deadline.
const callWithin = 30 * time.Second

// callMetrics counts calls and times them.
type callMetrics struct {
	seconds *prometheus.HistogramVec
	panics  prometheus.Counter
}

func newCallMetrics(r prometheus.Registerer) *callMetrics {
	m := &callMetrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "watershed_grpc_call_seconds", Help: "Time of gRPC calls by method and status code.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"method", "code"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watershed_grpc_panics_total", Help: "gRPC calls that ended in a panic.",
		}),
	}
	r.MustRegister(m.seconds, m.panics)
	return m
}

func newRefused(r prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watershed_refused_total", Help: "Calls and streams that were refused because they don't fit the deployment.",
	}, []string{"reason"})
	r.MustRegister(c)
	return c
}

// finish turns a call's error into a status, and a panic into one too; it counts both.
func (s *Server) finish(method string, began time.Time, err *error) {
	if p := recover(); p != nil {
		s.metrics.panics.Inc()
		s.o.Logger.Error("a call panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the node has a bug: see its log")
	}
	*err = s.o.Router.Status(*err)
	s.metrics.seconds.WithLabelValues(method, status.Code(*err).String()).Observe(time.Since(began).Seconds())
}

func (s *Server) unary(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	defer s.finish(info.FullMethod, time.Now(), &err)
	if err := router.CheckVersion(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	bound := s.bounds.unary(info.FullMethod)
	if err := bound.Take(1); err != nil {
		return nil, err
	}
	defer bound.Give(1)
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callWithin)
		defer cancel()
	}
	return next(ctx, in)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.finish(info.FullMethod, time.Now(), &err)
	if err := router.CheckVersion(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	bound := s.bounds.stream(info.FullMethod)
	if err := bound.Take(1); err != nil {
		return err
	}
	defer bound.Give(1)
	return next(srv, stream)
}

// refusals counts what does not fit the deployment, and logs each kind at most once a minute.
type refusals struct {
	logger  hclog.Logger
	counter *prometheus.CounterVec

	mu   sync.Mutex
	last map[string]time.Time
}

func (r *refusals) note(from, reason string) {
	r.counter.WithLabelValues(reason).Inc()
	r.mu.Lock()
	due := time.Since(r.last[reason]) >= time.Minute
	if due {
		if r.last == nil {
			r.last = map[string]time.Time{}
		}
		r.last[reason] = time.Now()
	}
	r.mu.Unlock()
	if due {
		const most = 80
		r.logger.Warn("refused", "reason", reason, "says", from[:min(len(from), most)])
	}
}
