package service

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/coordinator"
	"github.com/watershed-db/watershed/region/shard"
)

// jobService keeps the registry of jobs.
type jobService struct {
	watershedv1.UnimplementedJobServiceServer
	*Server
}

// forwarded marks a call that a node of this region has sent on to the leader of shard 0: it is answered where it arrives.
const forwarded = "watershed-forwarded"

// check parses a job file and asks the log about its topics.
func (s *Server) check(ctx context.Context, name string, file []byte) (j *job.Job, problems, warnings []string) {
	if name == "" {
		name = "job.yaml"
	}
	j, err := job.Parse(name, file)
	if err == nil {
		err = j.RequireTopics(name)
	}
	if err != nil {
		return nil, strings.Split(err.Error(), "\n"), nil
	}
	warnings, err = s.o.Coordinator.Check(ctx, j)
	if err != nil {
		return nil, []string{name + ": " + err.Error()}, warnings
	}
	return j, nil, warnings
}

// Validate implements the service.
func (s jobService) Validate(ctx context.Context, in *watershedv1.ValidateJobRequest) (*watershedv1.ValidateJobResponse, error) {
	j, problems, warnings := s.check(ctx, in.GetFileName(), in.GetFile())
	out := &watershedv1.ValidateJobResponse{Problems: problems, Warnings: warnings}
	if j != nil {
		out.Name = j.Name
	}
	return out, nil
}

// Apply implements the service.
func (s jobService) Apply(ctx context.Context, in *watershedv1.ApplyJobRequest) (*watershedv1.ApplyJobResponse, error) {
	j, problems, warnings := s.check(ctx, in.GetFileName(), in.GetFile())
	if j == nil {
		return nil, status.Error(codes.InvalidArgument, strings.Join(problems, "\n"))
	}
	if err := s.roomForJob(j.Name); err != nil {
		return nil, err
	}
	result, err := s.submit(ctx, &shard.JobApply{
		Name: j.Name, File: j.File, Meaning: j.Meaning(), Pinned: j.Builtins(),
	})
	if err != nil {
		return nil, err
	}
	switch result.Outcome {
	case shard.Applied, shard.Duplicate:
	case shard.Refused:
		return nil, s.refused(j, result)
	default:
		return nil, status.Errorf(codes.Internal, "the registry says %v: %s", result.Outcome, result.Reason)
	}
	out := &watershedv1.ApplyJobResponse{Changed: result.Outcome == shard.Applied, Warnings: warnings}
	out.Regions, out.Missing = s.spread(ctx, func(r *shard.Registry) uint64 {
		e, ok := r.Job(j.Name)
		if !ok || e.Generation != result.Generation || !slices.Equal(e.File, j.File) {
			return 0
		}
		return e.Position
	})
	out.Job = &watershedv1.Job{
		Name: j.Name, Generation: result.Generation[:], State: "running", File: j.File, Warnings: warnings,
	}
	return out, nil
}

// refused says what has changed in a job that is live.
func (s *Server) refused(j *job.Job, result shard.Result) error {
	live, ok := s.o.Router.Replica(0).State().Registry().Job(j.Name)
	if !ok || live.Generation != result.Generation {
		return status.Errorf(codes.FailedPrecondition, "job %s: %s", j.Name, result.Reason)
	}
	old, err := job.Parse(j.Name, live.File)
	if err != nil {
		return status.Errorf(codes.FailedPrecondition, "job %s: %s", j.Name, result.Reason)
	}
	meaning, _ := old.Diff(j)
	return status.Errorf(codes.FailedPrecondition,
		"job %s runs with another meaning: %s changed; apply it under another name to run both", j.Name, strings.Join(meaning, ", "))
}

// Delete implements the service.
func (s jobService) Delete(ctx context.Context, in *watershedv1.DeleteJobRequest) (*watershedv1.DeleteJobResponse, error) {
	result, err := s.submit(ctx, &shard.JobDelete{Name: in.GetName()})
	if err != nil {
		return nil, err
	}
	switch result.Outcome {
	case shard.Duplicate:
		return &watershedv1.DeleteJobResponse{}, nil
	case shard.Applied:
	default:
		return nil, status.Errorf(codes.Internal, "the registry says %v: %s", result.Outcome, result.Reason)
	}
	out := &watershedv1.DeleteJobResponse{Existed: true}
	_, out.Missing = s.spread(ctx, func(r *shard.Registry) uint64 {
		for _, e := range r.After(0) {
			if e.Op == shard.JobDeleted && e.Generation == result.Generation {
				return e.Position
			}
		}
		return 0
	})
	return out, nil
}

// List implements the service.
func (s jobService) List(ctx context.Context, in *watershedv1.ListJobsRequest) (out *watershedv1.ListJobsResponse, err error) {
	err = s.atCoordinator(ctx, func(ctx context.Context, there watershedv1.JobServiceClient) error {
		if there != nil {
			out, err = there.List(ctx, in)
			return err
		}
		out = &watershedv1.ListJobsResponse{}
		states := s.states()
		for _, e := range states[0].Registry().Jobs() {
			stands, _ := s.elsewhere(ctx, e.Generation)
			out.Jobs = append(out.Jobs, s.describe(e, states, stands))
		}
		return nil
	})
	return out, err
}

// Show implements the service.
func (s jobService) Show(ctx context.Context, in *watershedv1.ShowJobRequest) (out *watershedv1.ShowJobResponse, err error) {
	err = s.atCoordinator(ctx, func(ctx context.Context, there watershedv1.JobServiceClient) error {
		if there != nil {
			out, err = there.Show(ctx, in)
			return err
		}
		states := s.states()
		e, ok := states[0].Registry().Job(in.GetName())
		if !ok {
			return status.Errorf(codes.NotFound, "there is no job %q", in.GetName())
		}
		stands, _ := s.elsewhere(ctx, e.Generation)
		out = &watershedv1.ShowJobResponse{Job: s.describe(e, states, stands)}
		for i, st := range states {
			id := keyspace.ShardID(i)
			if there := stands[id].GetState(); there != nil {
				out.Shards = append(out.Shards, there)
			}
			here := s.o.Router.Replica(id)
			if st == nil || here == nil {
				continue
			}
			if g := st.Generation(e.Generation); g != nil {
				out.Shards = append(out.Shards, toShardState(here, s.o.Region, st, g))
			}
		}
		return nil
	})
	return out, err
}

// atCoordinator calls call with the node that coordinates the region, nil for this one, which knows how the work stands.
// Where no such node answers, this one answers with what it knows.
func (s *Server) atCoordinator(ctx context.Context, call func(ctx context.Context, there watershedv1.JobServiceClient) error) error {
	incoming, _ := metadata.FromIncomingContext(ctx)
	leader, known := s.o.Router.Leader(0)
	if s.o.Coordinator.Leading() || !known || leader.ID == s.o.Node || len(incoming.Get(forwarded)) > 0 {
		return call(ctx, nil)
	}
	conn, err := s.o.Conns.To(leader.GRPC)
	if err != nil {
		return call(ctx, nil)
	}
	try, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, forwarded, s.o.Node), 2*time.Second)
	defer cancel()
	if err := call(try, watershedv1.NewJobServiceClient(conn)); !temporary(err) {
		return err
	}
	return call(ctx, nil)
}

// temporary says whether another node may answer.
func temporary(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

// describe tells all that this node knows of a job, from its own replicas and from what the leaders of other shards say.
func (s *Server) describe(e shard.Entry, states []*shard.State, stands map[keyspace.ShardID]*regionv1.StandResponse) *watershedv1.Job {
	out := &watershedv1.Job{
		Name: e.Name, Generation: e.Generation[:], State: "running", File: e.File,
		Warnings: s.o.Coordinator.Warnings(e.Generation),
	}
	stopped := states[0].Registry().Stopped(e.Generation)
	for _, at := range leastPoints(states, e.Generation) {
		src := &watershedv1.JobSource{Point: toPoint(at.Source, at.Point), LogEnd: -1, Idle: at.Idle}
		for _, x := range stands {
			for _, p := range x.GetState().GetPoints() {
				if fromSource(p) == at.Source && p.GetOffset() < src.Point.GetOffset() {
					src.Point, src.Idle = p, false
				}
			}
		}
		if string(at.Source.Region) == s.o.Region {
			work := s.o.Coordinator.Status(coordinator.Task{Generation: e.Generation, Source: at.Source})
			src.Worker, src.LogEnd, src.Stopped = work.Worker, work.LogEnd, work.Stopped
		}
		for _, x := range stopped {
			if x.Source == at.Source {
				src.Worker, src.Stopped = "", x.Reason
			}
		}
		out.Sources = append(out.Sources, src)
	}
	for i, st := range states {
		if st == nil && stands[keyspace.ShardID(i)].GetState() == nil || st != nil && st.Generation(e.Generation) == nil {
			out.Warnings = append(out.Warnings, "not every shard of "+s.o.Region+" has been told of the job yet")
			break
		}
	}
	return out
}

// submit has the region that owns the registry take a command.
func (s *Server) submit(ctx context.Context, command shard.Command) (shard.Result, error) {
	known, _ := s.o.Router.State(0).Owner()
	owner := string(known)
	for turn := 0; ; turn++ {
		result, err := s.submitAt(ctx, owner, command)
		next := ownerOf(err)
		if turn == maxHops || next == "" || next == owner {
			return result, err
		}
		owner = next
	}
}

// submitAt has a region take a registry command, which it does if it owns the registry.
func (s *Server) submitAt(ctx context.Context, owner string, command shard.Command) (result shard.Result, err error) {
	if owner == s.o.Region {
		return s.enter(ctx, command)
	}
	r, ok := s.o.Member(owner)
	if !ok {
		return result, status.Errorf(codes.Unavailable, "no region is known that owns the registry")
	}
	err = s.anyNode(ctx, r, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		result, err = s.submitTo(ctx, conn, command)
		return err
	})
	if temporary(err) {
		return result, status.Errorf(codes.Unavailable, "region %s, which owns the registry, cannot be reached: %s", owner,
			status.Convert(err).Message())
	}
	return result, err
}

// enteredWithin is the part of a call's time that is spent on waiting for the regions.
const enteredWithin = 20 * time.Second

// spread waits until every reachable region is up to the registry entry whose position, once it is here, position
// returns; it names those that are, and the others.
func (s *Server) spread(ctx context.Context, position func(*shard.Registry) uint64) (done, missing []string) {
	ctx, cancel := context.WithTimeout(ctx, enteredWithin)
	defer cancel()
	var at uint64
	own := s.awaitOwn(ctx, func(states []*shard.State) bool {
		if at == 0 {
			at = position(states[0].Registry())
		}
		return at != 0 && coordinator.Settled(states[0].Registry(), states) >= at && s.settledElsewhere(ctx, at) >= at
	})
	answers := make([]bool, len(s.o.Regions))
	s.eachRegion(func(i int) {
		r := s.o.Regions[i]
		answers[i] = own
		if r.Name != s.o.Region {
			answers[i] = at != 0 && s.awaitOther(ctx, r, at)
		}
	})
	for i, r := range s.o.Regions {
		if answers[i] {
			done = append(done, r.Name)
		} else {
			missing = append(missing, r.Name)
		}
	}
	return done, missing
}

// awaitOwn waits until this node's replicas are as wanted.
func (s *Server) awaitOwn(ctx context.Context, wanted func([]*shard.State) bool) bool {
	for !wanted(s.states()) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}
