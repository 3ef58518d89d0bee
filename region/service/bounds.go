package service

import (
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/limit"
)

const (
	// callWait and streamWait are what those are told for whom there is no place.
	callWait   = 50 * time.Millisecond
	streamWait = time.Second
	// maxPeerStreams bounds the streams of workers and of other regions' shards: one for each shard, node and region.
	maxPeerStreams = 1 << 14
	// maxStreams bounds the calls and streams under way on one connection; more wait at the client.
	maxStreams = 1000
)

// bounds are what the gRPC port takes on at a time.
type bounds struct {
	calls, inner              *limit.Limit // unary, from outside and within the region
	scans, reads              *limit.Limit // streams of rows, from outside and within the region
	watchers, peers, remember *limit.Limit

	jobs        int64
	refusedJobs atomic.Uint64
}

func newBounds(c config.Limits, shown *limit.Set) *bounds {
	// Calls within the region have a bound of their own: reads from outside must not keep writes out.
	return &bounds{
		calls:    shown.Add(limit.New("calls", "calls", int64(c.Calls), callWait)),
		inner:    shown.Add(limit.New("region_calls", "calls", int64(c.Calls), callWait)),
		scans:    shown.Add(limit.New("scans", "scans", int64(c.Scans), streamWait)),
		reads:    shown.Add(limit.New("region_reads", "reads", int64(c.Calls+c.Scans), callWait)),
		watchers: shown.Add(limit.New("watchers", "watchers", int64(c.Watchers), streamWait)),
		peers:    shown.Add(limit.New("peer_streams", "streams", maxPeerStreams, streamWait)),
		remember: shown.Add(limit.New("watched_rows", "rows", maxRemembered, streamWait)),
		jobs:     int64(c.Jobs),
	}
}

// show shows what the server bounds without a limit.Limit.
func (s *Server) show(shown *limit.Set) {
	shown.Show("jobs", func() int64 { return s.bounds.jobs }, func() int64 { return int64(s.o.Router.State(0).Registry().Live()) },
		s.bounds.refusedJobs.Load)
	shown.Show("whole_watches", func() int64 { return maxWholes }, func() int64 { return int64(len(s.wholes)) }, nil)
}

// roomForJob refuses a job of a new name where there are as many as there may be, give or take those that come at once. It names
// no time to wait, for only people make room.
func (s *Server) roomForJob(name string) error {
	r := s.o.Router.State(0).Registry()
	if _, there := r.Job(name); there || int64(r.Live()) < s.bounds.jobs {
		return nil
	}
	s.bounds.refusedJobs.Add(1)
	return status.Errorf(codes.ResourceExhausted, "jobs: %d of %d are there; delete one, or raise limits.jobs", r.Live(), s.bounds.jobs)
}

// unary returns the bound on a unary call, nil for those that must always get through.
func (b *bounds) unary(method string) *limit.Limit {
	switch {
	case strings.HasPrefix(method, "/watershed.v1."):
		return b.calls
	case strings.HasPrefix(method, "/watershed."):
		return b.inner
	}
	return nil
}

// stream returns the bound on a stream.
func (b *bounds) stream(method string) *limit.Limit {
	switch {
	case strings.HasSuffix(method, ".StateService/Scan"), strings.HasSuffix(method, ".StateService/ScanTable"):
		return b.scans
	case strings.HasSuffix(method, ".StateService/Watch"):
		return b.watchers
	case strings.HasSuffix(method, ".ShardService/Read"):
		return b.reads
	}
	return b.peers
}
